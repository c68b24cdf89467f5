"""The whole way of a frame, on clips made here and with faults made on purpose."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.annotate import Annotator
from pipeline.config import InferOptions, ProcessConfig, SyntheticOptions
from pipeline.decode import VideoReader
from pipeline.encode import VideoEncoder
from pipeline.errors import InferenceError, InputError, Interrupted, UsageError
from pipeline.postprocess import detections_from, select_candidates
from pipeline.preprocess import Preprocessor
from pipeline.progress import Progress
from pipeline.run import process_video
from tests.conftest import (
    CHECKPOINT,
    SHARED,
    gray,
    needs_checkpoint,
    needs_shared_media,
    process,
    read_detections,
    video_times,
    with_light,
    write_clip,
)

LOSSLESS = {"qp": "0"}
NUM_BITS = 10
BIT_PX = 8


def numbered(index: int) -> NDArray[np.uint8]:
    """A frame that says its number twice: a light to be detected, and a bar code below it.

    The bars are too dark for the light detector, so no box is drawn over them.
    """
    image = with_light(light_cell(index))
    for bit in range(NUM_BITS):
        if index >> bit & 1:
            image[-2 * BIT_PX :, bit * BIT_PX : (bit + 1) * BIT_PX] = 100
    return image


def light_cell(index: int) -> tuple[int, int]:
    return index % 16, 3 + index // 16 % 6


def number_read_from(image: NDArray[np.uint8]) -> int:
    bars = image[-BIT_PX:, : NUM_BITS * BIT_PX].reshape(BIT_PX, NUM_BITS, BIT_PX, 3)
    return sum(1 << bit for bit, level in enumerate(bars.mean(axis=(0, 2, 3))) if level > 60)


def test_every_frame_comes_out_in_order_though_requests_finish_out_of_order(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(1000)])
    slowness = random.Random(0)

    def slow_at_random(*arguments: Any) -> Any:
        time.sleep(slowness.choice((0, 0, 0.001, 0.004)))
        return select_candidates(*arguments)

    monkeypatch.setattr("pipeline.loop.select_candidates", slow_at_random)
    report = process(
        clip, tmp_path / "out", tiny_weights, infer=InferOptions(num_streams=4, num_requests=4)
    )

    assert report["queues"]["reorder_buffer"]["max"] > 0
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        numbers = [
            number_read_from(image.to_ndarray(format="rgb24"))
            for image in container.decode(video=0)
        ]
    assert numbers == list(range(1000))
    lines = read_detections(tmp_path / "out")
    assert [line["frame_index"] for line in lines] == list(range(1000))
    cells = [
        tuple(round(value / 8) for value in line["detections"][0]["xyxy"][:2]) for line in lines
    ]
    assert cells == [light_cell(i) for i in range(1000)]
    assert video_times(tmp_path / "out" / "annotated.mp4") == video_times(clip)


def test_a_frame_without_detections_has_its_line_too(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20), with_light((3, 4)), gray(20)])
    process(clip, tmp_path / "out", tiny_weights)
    lines = read_detections(tmp_path / "out")
    assert [len(line["detections"]) for line in lines] == [0, 1, 0]
    assert lines[1] == {
        "frame_index": 1,
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


def broken_reader(target: int) -> Callable[[VideoReader], Iterator[Any]]:
    whole = VideoReader.__iter__

    def frames(reader: VideoReader) -> Iterator[Any]:
        for frame in whole(reader):
            if frame.index == target:
                raise BrokenError(f"frame {target}")
            yield frame

    return frames


FAULTS: dict[str, Callable[[pytest.MonkeyPatch, int], None]] = {
    "decode": lambda patch, at: patch.setattr(VideoReader, "__iter__", broken_reader(at)),
    "preprocess": lambda patch, at: patch.setattr(
        Preprocessor, "__call__", failing_at(at, Preprocessor.__call__)
    ),
    "callback": lambda patch, at: patch.setattr(
        "pipeline.loop.select_candidates", failing_at(at, select_candidates)
    ),
    "postprocess": lambda patch, at: patch.setattr(
        "pipeline.loop.detections_from", failing_at(at, detections_from)
    ),
    "annotate": lambda patch, at: patch.setattr(
        Annotator, "__call__", failing_at(at, Annotator.__call__)
    ),
    "encode": lambda patch, at: patch.setattr(
        VideoEncoder, "encode", failing_at(at, VideoEncoder.encode)
    ),
    "write": lambda patch, at: patch.setattr(json, "dumps", failing_at(at, json.dumps)),
}


@pytest.mark.parametrize("frame", [0, 25, 49])
@pytest.mark.parametrize("step", FAULTS)
def test_a_failure_in_any_step_ends_the_run_and_leaves_nothing(
    step: str, frame: int, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((1, 1))] * 50)
    FAULTS[step](monkeypatch, frame)
    started = time.monotonic()
    with pytest.raises(BrokenError):
        process(clip, tmp_path / "out", tiny_weights)
    assert time.monotonic() - started < 10
    assert [thread.name for thread in threading.enumerate() if thread.name == "decode"] == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("num_requests", [1, 4])
def test_a_request_that_never_answers_ends_the_run(
    num_requests: int, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = InferOptions(num_requests=num_requests)
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 50)
    released = threading.Event()
    monkeypatch.setattr("pipeline.loop.select_candidates", lambda *_: released.wait(60) and None)
    monkeypatch.setattr("pipeline.loop.STALL_SECONDS", 1.0)
    started = time.monotonic()
    try:
        with pytest.raises(InferenceError, match="did not answer within 1 s"):
            process(clip, tmp_path / "out", tiny_weights, infer=infer)
        assert time.monotonic() - started < 10
    finally:
        released.set()
    for thread in threading.enumerate():
        if thread.name == "decode":
            thread.join(10)
            assert not thread.is_alive()


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


def test_a_run_stopped_while_its_report_is_written_leaves_nothing(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.run.write_report", stop)
    with pytest.raises(Interrupted):
        process(clip, tmp_path / "out", tiny_weights)
    assert list((tmp_path / "out").iterdir()) == []


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
    with pytest.raises(UsageError, match="both the input and the output"):
        process(clip, tmp_path, tiny_weights, overwrite=True)
    assert clip.read_bytes() == content


def test_an_output_folder_that_cannot_be_written_is_named(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 3)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="file"):
        process(clip, tmp_path / "file" / "out", tiny_weights)


def test_the_times_in_the_report_add_up_to_the_wall_time(
    tmp_path: Path, tiny_weights: Path
) -> None:
    source = SyntheticOptions(num_frames=600, size_wh=(320, 240))
    started = time.perf_counter()
    report = process_video(
        ProcessConfig(source=source, output_dir=tmp_path / "out", weights=tiny_weights)
    )
    elapsed = time.perf_counter() - started
    assert sum(report["phases"].values()) == pytest.approx(report["speed"]["wall_seconds"])
    # What is missing from the outside's view is the writing of the report itself.
    assert 0 < elapsed - report["speed"]["wall_seconds"] < 1
    for parts in report["threads"].values():
        assert sum(parts.values()) == pytest.approx(report["phases"]["frames_seconds"], rel=0.05)
    cpu_ms = sum(step["cpu_ms"] for step in report["steps"])
    cores_used = cpu_ms * report["speed"]["frames_fps"] / 1000
    assert cores_used <= report["configuration"]["cores"] * 1.05


def test_the_speed_over_the_run_counts_every_frame_once(tmp_path: Path, tiny_weights: Path) -> None:
    source = SyntheticOptions(num_frames=600, size_wh=(320, 240))
    report = process_video(
        ProcessConfig(source=source, output_dir=tmp_path / "out", weights=tiny_weights)
    )
    points = report["speed"]["over_time"]
    ends = [0.0, *(point["seconds"] for point in points)]
    frames = sum(
        point["fps"] * (end - start)
        for point, start, end in zip(points, ends[:-1], ends[1:], strict=True)
    )
    assert frames == pytest.approx(600, rel=0.01)


def test_the_report_names_the_slowest_step(tmp_path: Path, tiny_weights: Path) -> None:
    source = SyntheticOptions(num_frames=100, size_wh=(640, 480))
    report = process_video(
        ProcessConfig(source=source, output_dir=tmp_path / "out", weights=tiny_weights)
    )
    slowest = min(report["steps"], key=lambda step: step["alone_fps"] or float("inf"))
    # The tiny model costs next to nothing, so making up or encoding frames must be it.
    assert report["bottleneck"]["step"] == slowest["step"]
    assert slowest["step"] in ("decode", "encode")
    assert report["bottleneck"]["margin"] >= 1.0


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length_of_the_clip(
    tmp_path: Path, tiny_weights: Path
) -> None:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    resident_mb: dict[int, float] = {}

    def watch(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done % 500 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident_mb[progress.done] = pages * page_bytes / 1e6

    picture = tmp_path / "lights.png"
    cv2.imwrite(str(picture), np.maximum(with_light((3, 3)), with_light((9, 6))))
    source = SyntheticOptions(num_frames=20_000, size_wh=(128, 96), image=picture)
    process_video(
        ProcessConfig(source=source, output_dir=tmp_path / "out", weights=tiny_weights), watch
    )
    late = [resident for done, resident in resident_mb.items() if done >= 2000]
    assert len(late) == 37
    assert max(late) - resident_mb[2000] < 10


def pipeline_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "process", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.slow
@needs_checkpoint
@needs_shared_media
def test_a_real_clip_needs_less_than_400_mb(tmp_path: Path) -> None:
    clip = SHARED / "videos" / "car-detection.mp4"
    out = tmp_path / "out"
    options = ("--weights", CHECKPOINT, "--output-dir", out, "--overwrite")
    pipeline_process(clip, *options)  # The first run converts the model, in the same process.
    pipeline_process(clip, *options)
    assert json.loads((out / "report.json").read_text())["peak_memory_mb"] < 400


FIRST_FRAME = """
import sys, time
from pathlib import Path
from pipeline import ProcessConfig, process_video
class FirstFrame(Exception): pass
def stop(progress):
    if progress.stage == "frames":
        raise FirstFrame
clip, weights, out = map(Path, sys.argv[1:])
try:
    process_video(ProcessConfig(source=clip, weights=weights, output_dir=out), stop)
except FirstFrame:
    started = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    import os
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    print(now - started / os.sysconf("SC_CLK_TCK"))
    print(sorted({"torch", "onnx", "ultralytics"} & set(sys.modules)))
"""


@pytest.mark.slow
@needs_checkpoint
@needs_shared_media
def test_with_a_warm_cache_the_first_frame_is_done_within_a_moment(tmp_path: Path) -> None:
    clip = SHARED / "videos" / "car-detection.mp4"
    command = [sys.executable, "-c", FIRST_FRAME, str(clip), str(CHECKPOINT), str(tmp_path / "o")]
    seconds, heavy = [], []
    for _ in range(4):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        seconds.append(float(first))
        heavy.append(second)
    assert min(seconds[1:]) < 0.8
    assert heavy[1:] == ["[]"] * 3
