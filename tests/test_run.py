"""The whole way of a frame, on clips made here and with faults made on purpose."""

from __future__ import annotations

import base64
import functools
import json
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import (
    AutoOptions,
    DetectOptions,
    EncodeOptions,
    InferOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.errors import InferenceError, InputError, Interrupted, PipelineError, UsageError
from pipeline.core.machine import available_cores
from pipeline.frames.annotate import Annotator
from pipeline.frames.decode import VideoReader
from pipeline.frames.detect import ModelDetections
from pipeline.frames.encode import VideoEncoder
from pipeline.frames.views import Part
from pipeline.inference.configurations import BASELINE, configurations
from pipeline.measure.own_process import in_own_process
from pipeline.media.frame import Frame, Segment
from pipeline.model.preprocess import Preprocessor
from pipeline.model.yolov5 import YOLOv5Head
from pipeline.run.process import process_video
from pipeline.run.report_files import Report
from tests.checkpoints import save, three_convolutions
from tests.conftest import (
    CHECKPOINT,
    SHARED,
    gray,
    light_detector,
    needs_checkpoint,
    needs_shared_media,
    process,
    read_detections,
    video_times,
    with_light,
    write_clip,
)
from tests.recordings import (
    assert_numbered,
    light_cell,
    number_read_from,
    numbered,
)
from tests.toy_work import resident_mb_while_processing

LOSSLESS = {"qp": "0"}

NumberedClip = Callable[[int], Path]


@pytest.fixture(scope="module")
def numbered_clip(tmp_path_factory: pytest.TempPathFactory) -> NumberedClip:
    """Gives a clip of so many numbered frames; never changed."""
    folder = tmp_path_factory.mktemp("numbered")

    @functools.cache
    def clip_of(num_frames: int) -> Path:
        images = [numbered(i) for i in range(num_frames)]
        return write_clip(folder / f"{num_frames}.mp4", images)

    return clip_of


@pytest.fixture(scope="module")
def still_scene(tmp_path_factory: pytest.TempPathFactory) -> NumberedClip:
    """Gives a clip of so many numbered frames, and a hundred that show the same; never changed."""
    folder = tmp_path_factory.mktemp("still")

    @functools.cache
    def clip_of(first: int) -> Path:
        images = [numbered(i) for i in (*range(first), *[900] * 100)]
        return write_clip(folder / f"{first}.mp4", images, options=LOSSLESS)

    return clip_of


def test_every_frame_comes_out_in_order_though_requests_finish_out_of_order(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(400)])
    order, deliver = random.Random(0), ModelDetections.on_inferred
    turn = threading.Lock()
    finished: list[tuple[Part, list[NDArray[Any]], float]] = []

    def four_out_of_order(
        frames: ModelDetections, part: Part, heads: Sequence[NDArray[Any]], latency: float
    ) -> None:
        # Streams of OpenVINO overtake each other by chance, on a busy machine not at all.
        with turn:
            finished.append((part, [head.copy() for head in heads], latency))
            if len(finished) == 4:
                order.shuffle(finished)
                for each in finished:
                    deliver(frames, *each)
                finished.clear()

    monkeypatch.setattr(ModelDetections, "on_inferred", four_out_of_order)
    infer = InferOptions(num_streams=min(4, available_cores()), num_requests=4)
    report = process(clip, tmp_path / "out", tiny_weights, infer=infer)

    assert report["queues"]["reorder_buffer"]["max"] > 0
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        numbers = [
            number_read_from(image.to_ndarray(format="rgb24"))
            for image in container.decode(video=0)
        ]
    assert numbers == list(range(400))
    lines = read_detections(tmp_path / "out")
    assert [line["frame_index"] for line in lines] == list(range(400))
    cells = [
        tuple(round(value / 8) for value in line["detections"][0]["xyxy"][:2]) for line in lines
    ]
    assert cells == [light_cell(i) for i in range(400)]
    assert video_times(tmp_path / "out" / "annotated.mp4") == video_times(clip)


def test_a_frame_without_detections_has_its_line_too(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20), with_light((3, 4)), gray(20)])
    process(clip, tmp_path / "out", tiny_weights)
    lines = read_detections(tmp_path / "out")
    assert [len(line["detections"]) for line in lines] == [0, 1, 0]
    assert lines[1] == {
        "frame_index": 1,
        "pts": 512,
        "pts_seconds": 0.04,
        "detections": [
            {
                "class_id": 0,
                "class_name": "light",
                "confidence": pytest.approx(1.0, abs=0.01),
                "xyxy": pytest.approx([24.0, 32.0, 32.0, 40.0], abs=0.01),
            }
        ],
    }


FLOAT32 = InferOptions(precision="f32")


def results_of(source: Path, out: Path, weights: Path, **options: Any) -> tuple[Report, bytes]:
    """The report of a run, and detections.jsonl to the byte."""
    report = process(source, out, weights, overwrite=True, **options)
    return report, (out / "detections.jsonl").read_bytes()


@pytest.mark.parametrize("batch", [2, 4, 8])
@pytest.mark.parametrize("num_frames", [1, 16, 51])
def test_batches_give_every_frame_its_own_detections(
    tmp_path: Path,
    tiny_weights: Path,
    numbered_clip: NumberedClip,
    batch: int,
    num_frames: int,
) -> None:
    clip = numbered_clip(num_frames)
    for num_requests in (1, 3):
        options = InferOptions(precision="f32", batch=batch, num_requests=num_requests)
        report, _ = results_of(clip, tmp_path / "out", tiny_weights, infer=options)
        assert report["configuration"]["batch"] == batch
        assert report["configuration"]["input_shape"] == [batch, 96, 128, 3]
        assert report["detections"]["inferred_frames"] == num_frames
        assert_numbered(tmp_path / "out", num_frames)


@pytest.mark.parametrize(
    "name", [name for name in configurations(2) if name not in (BASELINE, "int8")]
)
def test_every_configuration_that_runs_here_gives_the_same_detections(
    name: str, tmp_path: Path, tiny_weights: Path, numbered_clip: NumberedClip
) -> None:
    configuration = configurations(2)[name]
    if why := configuration.why_unavailable(ov.Core().available_devices):
        pytest.skip(why)
    clip = numbered_clip(30)
    for variant in configuration.variants:
        report, _ = results_of(clip, tmp_path / "out", tiny_weights, infer=variant.options)
        assert report["configuration"]["device"] == variant.options.device
        assert report["configuration"]["batch"] == variant.options.batch
        assert_numbered(tmp_path / "out", 30)


def noise(seed: int, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)


def assert_same_detections(found: Path, expected: Path, *, at_least: int) -> None:
    total = 0
    for a, b in zip(read_detections(found), read_detections(expected), strict=True):
        assert a["frame_index"] == b["frame_index"]
        total += len(b["detections"])
        for box, right in zip(a["detections"], b["detections"], strict=True):
            assert box["class_id"] == right["class_id"]
            assert box["confidence"] == pytest.approx(right["confidence"], abs=1e-3)
            assert box["xyxy"] == pytest.approx(right["xyxy"], abs=0.2)
    assert total >= at_least


def test_pytorch_gives_the_detections_of_openvino_in_float32(tmp_path: Path) -> None:
    weights = save(tmp_path / "model.pt", three_convolutions(3))
    clip = write_clip(tmp_path / "clip.mp4", [noise(i, (96, 64)) for i in range(9)])
    detect = DetectOptions(confidence_threshold=0.3, max_detections=20)
    reports = {
        name: process(clip, tmp_path / name, weights, imgsz=96, detect=detect, infer=infer)
        for name, infer in (
            ("pytorch", InferOptions(engine="pytorch")),
            ("openvino", FLOAT32),
            ("batches", InferOptions(precision="f32", batch=4)),
        )
    }
    assert_same_detections(tmp_path / "pytorch", tmp_path / "openvino", at_least=50)
    assert_same_detections(tmp_path / "batches", tmp_path / "openvino", at_least=50)
    used = reports["pytorch"]["configuration"]
    assert (used["engine"], used["precision"], used["num_requests"]) == ("pytorch", "f32", 1)
    assert [thread.name for thread in threading.enumerate() if thread.name == "pytorch"] == []


def test_int8_runs_and_says_that_its_accuracy_is_not_known(tmp_path: Path) -> None:
    weights = save(tmp_path / "model.pt", three_convolutions(3))
    clip = write_clip(tmp_path / "clip.mp4", [noise(i, (96, 64)) for i in range(9)])
    report = process(
        clip, tmp_path / "out", weights, imgsz=96, infer=AutoOptions(precision="int8", batch=2)
    )
    assert report["configuration"]["precision"] == "int8"
    assert report["model"]["precision_note"] == "INT8, accuracy not evaluated"
    assert report["model"]["calibrated_on"] == "60 crops of 5 photographs"
    assert "INT8, accuracy not evaluated" in (tmp_path / "out" / "report.html").read_text()
    assert len(read_detections(tmp_path / "out")) == 9


def test_a_model_in_float_has_no_remark_on_its_accuracy(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)
    report = process(clip, tmp_path / "out", tiny_weights)
    assert report["model"]["precision_note"] is None
    assert report["model"]["calibrated_on"] is None


REPEATS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 2, 2, 0, 5, 5]


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_frame_that_repeats_the_one_before_is_not_inferred_again(
    tmp_path: Path, tiny_weights: Path, batch: int
) -> None:
    images = [numbered(i) for i in REPEATS]
    clip = write_clip(tmp_path / "clip.mp4", images, options=LOSSLESS)
    options = InferOptions(precision="f32", batch=batch)
    reused, with_reuse = results_of(clip, tmp_path / "out", tiny_weights, infer=options)
    inferred, without = results_of(
        clip, tmp_path / "out", tiny_weights, infer=options, reuse_duplicates=False
    )
    assert with_reuse == without
    assert reused["detections"]["inferred_frames"] == 7
    assert reused["detections"]["reused_frames"] == 8
    assert inferred["detections"]["inferred_frames"] == 15
    assert inferred["detections"]["reused_frames"] == 0
    assert reused["output"]["num_frames"] == 15
    cells = [
        [round(value / 8) for value in line["detections"][0]["xyxy"][:2]]
        for line in read_detections(tmp_path / "out")
    ]
    assert cells == [list(light_cell(i)) for i in REPEATS]


@pytest.mark.parametrize("place", [(0, 0), (127, 95), (64, 48)])
def test_a_frame_that_differs_in_one_pixel_is_inferred(
    tmp_path: Path, tiny_weights: Path, place: tuple[int, int]
) -> None:
    images = [with_light((3, 3)) for _ in range(6)]
    for image in images[::2]:
        image[place[1], place[0]] = 60
    clip = write_clip(
        tmp_path / "clip.mp4", images, codec="libx264rgb", pix_fmt="rgb24", options=LOSSLESS
    )
    report, _ = results_of(clip, tmp_path / "out", tiny_weights)
    assert report["detections"]["inferred_frames"] == 6
    assert report["detections"]["reused_frames"] == 0


def test_what_the_model_cannot_see_does_not_count(tmp_path: Path, tiny_weights: Path) -> None:
    large = (1280, 960)
    images = [gray(20, large) for _ in range(4)]
    images[1][481, 641] = 21
    images[3][100, 100] = 21
    clip = write_clip(
        tmp_path / "clip.mp4", images, codec="libx264rgb", pix_fmt="rgb24", options=LOSSLESS
    )
    report, with_reuse = results_of(clip, tmp_path / "out", tiny_weights, infer=FLOAT32)
    _, without = results_of(
        clip, tmp_path / "out", tiny_weights, infer=FLOAT32, reuse_duplicates=False
    )
    assert report["detections"]["reused_frames"] >= 2
    assert with_reuse == without


@pytest.mark.parametrize("batch", [2, 8])
@pytest.mark.parametrize("first", [1, 3])
def test_a_long_still_scene_does_not_wait_for_a_batch_to_fill(
    tmp_path: Path, tiny_weights: Path, still_scene: NumberedClip, batch: int, first: int
) -> None:
    clip = still_scene(first)
    options = InferOptions(precision="f32", batch=batch, num_requests=1)
    report, _ = results_of(clip, tmp_path / "out", tiny_weights, infer=options)
    assert report["detections"]["inferred_frames"] == first + 1
    assert report["detections"]["reused_frames"] == 99


def test_a_still_scene_goes_on_though_the_last_request_was_seen_running_before_it_filled_up(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The results of a batch are all taken while its callback, held up here, has not returned.
    numbers = [0, 1, *[2] * 60]
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in numbers], options=LOSSLESS)
    whole, never = ModelDetections.on_inferred, threading.Event()

    def held_up(loop: ModelDetections, part: Part, *arguments: Any) -> None:
        whole(loop, part, *arguments)
        if part.index == 1:
            never.wait(1.0)

    monkeypatch.setattr(ModelDetections, "on_inferred", held_up)
    options = InferOptions(precision="f32", batch=2, num_requests=2)
    report, _ = results_of(clip, tmp_path / "out", tiny_weights, infer=options)
    assert report["output"]["num_frames"] == 62
    assert report["detections"]["inferred_frames"] == 3


@pytest.fixture(scope="session")
def wide_box_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wide") / "wide.xml"
    ov.save_model(light_detector(wide_boxes=True), path, compress_to_fp16=False)
    return path


def moving_light(num_frames: int, every: int) -> list[NDArray[np.uint8]]:
    """A light that goes one cell to the right for each frame that is inferred, else darkness."""
    return [
        with_light((3 + -(-i // every) % 9, 5))
        if i % every == 0 or i == num_frames - 1
        else gray(20)
        for i in range(num_frames)
    ]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("every", [2, 3, 7, 60])
def test_between_two_inferred_frames_the_boxes_move_in_a_straight_line(
    tmp_path: Path, wide_box_weights: Path, every: int, batch: int
) -> None:
    num_frames = 25
    clip = write_clip(tmp_path / "clip.mp4", moving_light(num_frames, every), options=LOSSLESS)
    report, _ = results_of(
        clip,
        tmp_path / "out",
        wide_box_weights,
        every=every,
        infer=InferOptions(precision="f32", batch=batch),
    )
    last = num_frames - 1
    inferred = sorted({*range(0, num_frames, every), last})
    assert report["configuration"]["every"] == every
    assert report["detections"]["inferred_frames"] == len(inferred)
    assert report["detections"]["interpolated_frames"] == num_frames - len(inferred)
    assert report["detections"]["reused_frames"] == 0
    assert video_times(tmp_path / "out" / "annotated.mp4") == video_times(clip)
    lines = read_detections(tmp_path / "out")
    assert [line["frame_index"] for line in lines] == list(range(num_frames))
    assert [i for i, line in enumerate(lines) if not line["interpolated"]] == inferred
    for i, line in enumerate(lines):
        before = i // every * every
        cells_gone = i // every % 9 + (i - before) / (min(before + every, last) - before or 1)
        if i < last and i // every % 9 == 8:
            continue  # Here it jumps back to where it began.
        (box,) = line["detections"]
        left = (3 + cells_gone) * 8 - 12
        assert box["xyxy"] == pytest.approx([left, 28, left + 32, 60], abs=0.05)


def test_when_every_frame_is_inferred_the_lines_say_nothing_of_it(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(20)])
    _, plain = results_of(clip, tmp_path / "out", tiny_weights)
    report, every_one = results_of(clip, tmp_path / "out", tiny_weights, every=1)
    assert plain == every_one
    assert b"interpolated" not in plain
    assert report["detections"]["interpolated_frames"] == 0


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("every", [1, 3])
def test_a_clip_of_one_frame_comes_out(
    tmp_path: Path, tiny_weights: Path, every: int, batch: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [numbered(5)])
    report, _ = results_of(
        clip,
        tmp_path / "out",
        tiny_weights,
        every=every,
        infer=InferOptions(precision="f32", batch=batch),
    )
    assert report["detections"]["inferred_frames"] == 1
    assert len(read_detections(tmp_path / "out")[0]["detections"]) == 1


@pytest.mark.parametrize("every", [2, 60])
def test_a_still_scene_can_be_sampled_in_batches(
    tmp_path: Path, tiny_weights: Path, every: int
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((4, 4))] * 100, options=LOSSLESS)
    report, _ = results_of(
        clip,
        tmp_path / "out",
        tiny_weights,
        every=every,
        infer=InferOptions(precision="f32", batch=8, num_requests=1),
    )
    found = report["detections"]
    assert found["inferred_frames"] == 1
    assert found["reused_frames"] == -(-99 // every)  # The last frame is one of them.
    assert found["inferred_frames"] + found["reused_frames"] + found["interpolated_frames"] == 100
    assert found["frames_with_any"] == 100


class BrokenError(Exception):
    """What the tests make fail."""


def failing_at(target: int, step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, but raising when it is called for the target-th time."""
    calls = iter(range(1_000_000))

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == target:
            raise BrokenError(f"call {target}")
        return step(*arguments, **options)

    return wrapped


def failing_on_frame(
    target: int, step: Callable[[ModelDetections, Frame, Any], Detections]
) -> Callable[[ModelDetections, Frame, Any], Detections]:
    """The step, but raising for the frame of that index: frames come in any order."""

    def wrapped(source: ModelDetections, frame: Frame, candidates: Any) -> Detections:
        if frame.index == target:
            raise BrokenError(f"frame {target}")
        return step(source, frame, candidates)

    return wrapped


def broken_reader(target: int) -> Callable[[VideoReader, Segment], Iterator[Any]]:
    whole = VideoReader.frames

    def frames(reader: VideoReader, segment: Segment) -> Iterator[Any]:
        for frame in whole(reader, segment):
            if frame.index == target:
                raise BrokenError(f"frame {target}")
            yield frame

    return frames


FAULTS: dict[str, Callable[[pytest.MonkeyPatch, int], None]] = {
    "decode": lambda patch, at: patch.setattr(VideoReader, "frames", broken_reader(at)),
    "preprocess": lambda patch, at: patch.setattr(
        Preprocessor, "__call__", failing_at(at, Preprocessor.__call__)
    ),
    "callback": lambda patch, at: patch.setattr(
        YOLOv5Head, "select", failing_at(at, YOLOv5Head.select)
    ),
    "postprocess": lambda patch, at: patch.setattr(
        ModelDetections, "detections_of", failing_on_frame(at, ModelDetections.detections_of)
    ),
    "annotate": lambda patch, at: patch.setattr(
        Annotator, "__call__", failing_at(at, Annotator.__call__)
    ),
    "encode": lambda patch, at: patch.setattr(
        VideoEncoder, "encode", failing_at(at, VideoEncoder.encode)
    ),
    "write": lambda patch, at: patch.setattr(
        Detections, "as_records", failing_at(at, Detections.as_records)
    ),
}


@pytest.mark.parametrize("frame", [0, 25, 49])
@pytest.mark.parametrize("step", FAULTS)
def test_a_failure_in_any_step_ends_the_run_and_leaves_nothing(
    step: str,
    frame: int,
    tmp_path: Path,
    tiny_weights: Path,
    numbered_clip: NumberedClip,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = numbered_clip(50)
    FAULTS[step](monkeypatch, frame)
    with pytest.raises(PipelineError) as caught:
        process(clip, tmp_path / "out", tiny_weights)
    assert isinstance(caught.value.__cause__, BrokenError)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert error.file == str(clip)
        assert error.step == step
        # Requests call back in any order.
        assert error.frame_index == frame or step == "callback"
        assert re.fullmatch(
            rf"{re.escape(str(clip))}: {step} of frame {error.frame_index} failed: "
            r"unexpected BrokenError: \w+ \d+ \(--debug shows where\)",
            str(error),
        )
    assert [thread.name for thread in threading.enumerate() if thread.name == "decode"] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("num_requests", [1, 4])
def test_a_request_that_never_answers_ends_the_run(
    num_requests: int, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = InferOptions(num_requests=num_requests)
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 50)
    released = threading.Event()
    monkeypatch.setattr(YOLOv5Head, "select", lambda *_: released.wait(60) and None)

    def host() -> None:
        while not released.wait(0.01):
            sum(range(10_000))

    # What the program around this library does is no progress of ours.
    threading.Thread(target=host).start()
    try:
        with pytest.raises(
            InferenceError, match=r"infer of frame 0 failed: .*did not answer within 1 s"
        ):
            process(clip, tmp_path / "out", tiny_weights, infer=infer, stall_seconds=1.0)
        assert not released.is_set()
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name == "decode":
            thread.join(10)
            assert not thread.is_alive()


def test_a_request_that_works_longer_than_the_limit_is_no_stall(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)])

    def work(*_: object) -> None:
        end = time.thread_time() + 2.5
        while time.thread_time() < end:
            pass

    monkeypatch.setattr(YOLOv5Head, "select", work)
    infer = InferOptions(num_requests=8)
    process(clip, tmp_path / "out", tiny_weights, infer=infer, stall_seconds=1.0)
    assert (tmp_path / "out" / "annotated.mp4").is_file()


HELD_UP = """
import sys, time
from pathlib import Path
from pipeline.model.yolov5 import YOLOv5Head
from pipeline import ProcessConfig, process_video
whole = YOLOv5Head.select
def slow(*arguments):
    end = time.thread_time() + 0.1  # Work, which is not done while the process is stopped.
    while time.thread_time() < end:
        pass
    return whole(*arguments)
YOLOv5Head.select = slow
def tell(progress):
    if progress.stage == "frames" and progress.done == 3:
        print("under way", flush=True)
clip, weights, out = map(Path, sys.argv[1:])
process_video(
    ProcessConfig(source=clip, weights=weights, output_dir=out, stall_seconds=1.0), tell
)
"""


@pytest.mark.slow
def test_a_run_that_was_stopped_by_the_shell_goes_on_when_it_is_continued(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(10)])
    command = [sys.executable, "-c", HELD_UP, str(clip), str(tiny_weights), str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "under way\n"
        running.send_signal(signal.SIGSTOP)
        time.sleep(2.5)  # This long it is stopped: longer than a model may take.
        running.send_signal(signal.SIGCONT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert_numbered(tmp_path / "out", 10)


def test_nothing_is_overwritten_unless_asked_for(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)
    process(clip, tmp_path / "out", tiny_weights)
    before = (tmp_path / "out" / "annotated.mp4").stat()
    with pytest.raises(InputError, match="--overwrite"):
        process(clip, tmp_path / "out", tiny_weights)
    assert (tmp_path / "out" / "annotated.mp4").stat() == before
    process(clip, tmp_path / "out", tiny_weights, overwrite=True)
    assert (tmp_path / "out" / "annotated.mp4").stat().st_ino != before.st_ino


@pytest.mark.parametrize("name", ["detections.jsonl", "report.json", "report.html"])
def test_no_file_of_the_output_is_overwritten_unasked(
    name: str, tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("of somebody else")
    with pytest.raises(InputError, match="--overwrite"):
        process(clip, tmp_path / "out", tiny_weights)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "of somebody else"


def test_a_run_stopped_while_its_report_is_written_leaves_nothing_under_a_final_name(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.run.process.write_report", stop)
        with pytest.raises(Interrupted, match="1 of 1 segment is kept"):
            process(clip, tmp_path / "out", tiny_weights)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".partial"]
    assert process(clip, tmp_path / "out", tiny_weights)["segments"]["done_before"] == 1
    assert ".partial" not in [path.name for path in (tmp_path / "out").iterdir()]


def test_a_clip_that_was_cut_off_is_noted(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4",
        [numbered(i) for i in range(60)],
        options={"g": "10", "bf": "0", "tune": "zerolatency"},
        container_options={"movflags": "faststart"},
    )
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    report = process(clip, tmp_path / "out", tiny_weights)
    assert 0 < report["output"]["num_frames"] < 60
    assert any("claims 60 frames" in note for note in report["output"]["notes"])


@pytest.mark.parametrize(
    "name", ["annotated.mp4", "detections.jsonl", "report.json", "report.html"]
)
def test_the_input_is_never_the_output(name: str, tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3).rename(tmp_path / name)
    content = clip.read_bytes()
    with pytest.raises(UsageError, match="both input and output"):
        process(clip, tmp_path, tiny_weights, overwrite=True)
    assert clip.read_bytes() == content


def test_an_output_folder_that_cannot_be_written_is_named(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="file"):
        process(clip, tmp_path / "file" / "out", tiny_weights)


@pytest.fixture(scope="module")
def timed(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, float]:
    """The report of a run over 400 frames, and the seconds that it took as seen from outside."""
    folder = tmp_path_factory.mktemp("timed")
    source = SyntheticOptions(num_frames=400, size_wh=(320, 240))
    config = ProcessConfig(source=source, output_dir=folder / "out", weights=tiny_weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        started = time.perf_counter()
        report = process_video(config)
        return report, time.perf_counter() - started


@pytest.mark.alone
def test_the_times_in_the_report_add_up_to_the_wall_time(timed: tuple[Report, float]) -> None:
    report, elapsed = timed
    assert sum(report["phases"].values()) == pytest.approx(report["speed"]["wall_seconds"])
    # What is missing from the outside's view is the writing of the report itself.
    assert report["speed"]["wall_seconds"] < elapsed
    frames_seconds = report["phases"]["frames_seconds"]
    for parts in report["threads"].values():
        # Opening and closing the segment belong to no thread: of a second's run, tenths of it.
        assert 0.95 * frames_seconds - 0.3 < sum(parts.values()) <= 1.001 * frames_seconds
    cpu_ms = sum(step["cpu_ms"] for step in report["steps"])
    cores_used = cpu_ms * report["speed"]["frames_fps"] / 1000
    assert cores_used <= report["configuration"]["cores"] * 1.05


@pytest.mark.alone
def test_the_speed_over_the_run_counts_every_frame_once(timed: tuple[Report, float]) -> None:
    report, _ = timed
    points = report["speed"]["over_time"]
    ends = [0.0, *(point["seconds"] for point in points)]
    frames = sum(
        point["fps"] * (end - start)
        for point, start, end in zip(points, ends[:-1], ends[1:], strict=True)
    )
    assert frames == pytest.approx(400, rel=0.01)


@pytest.mark.alone
def test_the_report_names_the_slowest_step(tmp_path: Path, tiny_weights: Path) -> None:
    report = process_video(
        ProcessConfig(
            source=SyntheticOptions(num_frames=30, size_wh=(640, 480)),
            output_dir=tmp_path / "out",
            weights=tiny_weights,
            encode=EncodeOptions(preset="veryslow"),
        )
    )
    slowest = min(report["steps"], key=lambda step: step["alone_fps"] or float("inf"))
    assert report["bottleneck"]["step"] == slowest["step"] == "encode"
    assert report["bottleneck"]["margin"] >= 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reuse_duplicates", "every", "batch"), [(False, 1, 1), (True, 1, 8), (False, 30, 4)]
)
def test_memory_does_not_depend_on_the_length_of_the_clip(
    tmp_path: Path, tiny_weights: Path, reuse_duplicates: bool, every: int, batch: int
) -> None:
    picture = tmp_path / "lights.png"
    cv2.imwrite(str(picture), np.maximum(with_light((3, 3)), with_light((9, 6))))
    config = ProcessConfig(
        source=SyntheticOptions(num_frames=4000, size_wh=(128, 96), image=picture),
        output_dir=tmp_path / "out",
        weights=tiny_weights,
        reuse_duplicates=reuse_duplicates,
        every=every,
        infer=AutoOptions(batch=batch),
        encode=EncodeOptions(preset="ultrafast"),
    )
    # Not in this process, whose memory also moves with what other tests have left.
    resident_mb = in_own_process(resident_mb_while_processing, config)
    late = [resident for done, resident in resident_mb.items() if done >= 2000]
    assert len(late) == 5
    # 550 bytes a frame; measured are 0.2 to 0.5 MB in all.
    assert max(late) - resident_mb[2000] < 1.1


def pipeline_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "process", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=90,
    )


@pytest.mark.slow
@needs_checkpoint
@needs_shared_media
def test_a_real_clip_needs_less_than_400_mb(tmp_path: Path) -> None:
    clip = SHARED / "videos" / "car-detection.mp4"
    out = tmp_path / "out"
    options = ("--weights", CHECKPOINT, "--output-dir", out, "--overwrite")
    # The first run converts the model, in the same process.
    for num_frames in (1, 100):
        pipeline_process(clip, *options, "--frames", num_frames)
    assert json.loads((out / "report.json").read_text())["peak_memory_mb"] < 400


SINCE_START = """
import os, time
from pathlib import Path
def seconds_since_start():
    started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
"""
IMPORTS = SINCE_START + "import av, cv2, numpy, openvino; print(seconds_since_start())"
FIRST_FRAME = (
    SINCE_START
    + """
import sys, time
from pathlib import Path
from pipeline import ProcessConfig, process_video
class FirstFrame(BaseException): pass
def stop(progress):
    if progress.stage == "frames":
        raise FirstFrame
clip, weights, out = map(Path, sys.argv[1:])
try:
    process_video(ProcessConfig(source=clip, weights=weights, output_dir=out), stop)
except FirstFrame:
    print(seconds_since_start())
    print(sorted({"torch", "onnx", "ultralytics", "nncf", "matplotlib"} & set(sys.modules)))
"""
)


def output_of(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.alone
@pytest.mark.slow
@needs_checkpoint
@needs_shared_media
def test_with_a_warm_cache_the_first_frame_is_done_within_a_moment(tmp_path: Path) -> None:
    clip = SHARED / "videos" / "car-detection.mp4"
    command = [sys.executable, "-c", FIRST_FRAME, str(clip), str(CHECKPOINT), str(tmp_path / "o")]
    imports, first_frame = [], []
    output_of(command)  # It converts the model.
    for _ in range(8):
        imports.append(float(output_of([sys.executable, "-c", IMPORTS])))
        seconds, heavy = output_of(command).splitlines()
        assert heavy == "[]"
        first_frame.append(float(seconds))
        # 0.8 s where loading the libraries alone takes 0.25; on a slower machine that much more.
        if min(first_frame) < max(0.8, 3.2 * min(imports)):
            return
    pytest.fail(f"{first_frame} s, where loading the libraries takes {imports}")


@pytest.mark.parametrize("limit", [None, 1000])
@pytest.mark.parametrize("num_frames", [1, 40])
def test_the_page_shows_the_first_frame_where_nothing_was_found(
    tmp_path: Path, tiny_weights: Path, num_frames: int, limit: int | None
) -> None:
    images = [gray(10 + 2 * i) for i in range(num_frames)]
    clip = write_clip(tmp_path / "clip.mp4", images, rate=10)
    process(clip, tmp_path / "out", tiny_weights, num_frames=limit)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    (encoded,) = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert np.mean(shown) == pytest.approx(10, abs=4)
