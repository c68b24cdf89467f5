"""Segments side by side in processes of this machine: the same result, whatever happens to them."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.batch.work import ProcessClips
from pipeline.cli.commands import main
from pipeline.core.config import InferOptions, LimitOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import InputError, Interrupted, ModelError, WorkerDied
from pipeline.core.file_part import FilePart
from pipeline.core.machine import available_cores
from pipeline.core.notes import collected_notes
from pipeline.core.position import Position, no_beat
from pipeline.core.progress import Progress, no_progress
from pipeline.execution.at_once import INFERRING_ALL, INFERRING_SOME, Pays, num_at_once
from pipeline.execution.latest_source import LatestSource
from pipeline.execution.orders import Order
from pipeline.execution.processes import SideBySide
from pipeline.execution.segment_processes import SegmentProcesses
from pipeline.frames.decode import VideoReader
from pipeline.frames.decoder import ClipDecoder
from pipeline.inference.models import Models
from pipeline.media.cut import cut_clip
from pipeline.media.frame import Segment, VideoInfo
from pipeline.media.scan import scan_clip
from tests import side_work
from tests.commands import Command, wait_until, worker_pid
from tests.conftest import process, write_clip
from tests.faulty import pause_after_segments
from tests.recordings import numbered

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "clip.mp4"
NUM_FRAMES = 120
NUM_SEGMENTS = 6
OPTIONS: dict[str, Any] = {"segment_seconds": 0.8, "infer": InferOptions(precision="f32")}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs cores by their ids")


def side_by_side(number: int) -> SideBySide[str, side_work.Answer]:
    share = [*os.sched_getaffinity(0)][:1]
    return SideBySide(side_work.work, [share] * number)


CONFIG = ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out"))


def results(
    group: SideBySide[str, side_work.Answer], *orders: str, **config: Any
) -> dict[int, side_work.Answer]:
    run = dataclasses.replace(CONFIG, **config)
    return dict(group.results(orders, lambda _: None, run, no_beat))


def test_each_process_finds_the_cores_of_its_share_only() -> None:
    with side_by_side(1) as group:
        [answer] = results(group, "hello").values()
    assert answer.cores == 1
    assert answer.process_id != os.getpid()


def test_progress_counts_every_frame_once() -> None:
    counted: list[int] = []
    with side_by_side(1) as group:
        list(group.results(["frames 7", "frames 5"], counted.append, CONFIG, no_beat))
    assert sum(counted) == 12


def test_the_work_of_a_process_that_dies_goes_to_the_others(tmp_path: Path) -> None:
    with collected_notes() as notes, side_by_side(2) as group:
        answers = results(group, f"die-once {tmp_path / 'mark'}", "hello")
        # Nothing is started for it: memory may be short.
        assert len({answer.process_id for answer in answers.values()}) == 1
    assert set(answers) == {0, 1}
    [note] = notes
    assert "SIGKILL" in note
    assert "clip.mp4" not in note  # A batch shows it with the name of the clip.
    assert "1 process" in note


def test_if_none_is_left_the_run_fails() -> None:
    with side_by_side(2) as group, pytest.raises(WorkerDied, match="SIGKILL"):
        results(group, "die")


def test_a_process_that_hangs_is_killed_and_its_step_named() -> None:
    with side_by_side(1) as group, pytest.raises(WorkerDied, match="progress"):
        results(group, "hang", stall_seconds=1.0)


def test_an_error_of_the_work_ends_what_else_was_asked_for_with_it() -> None:
    with side_by_side(2) as group:
        with pytest.raises(ModelError, match="no such layer"):
            results(group, "hang", "fail no such layer")
        assert workers() == set()
        assert set(results(group, "hello", "hello")) == {0, 1}


def test_what_one_asks_for_does_not_touch_what_others_ask_for(tmp_path: Path) -> None:
    with side_by_side(2) as group, ThreadPoolExecutor(3) as callers:
        waits = callers.submit(results, group, f"wait {tmp_path / 'go'}")
        fails = callers.submit(results, group, "fail no such layer")
        with pytest.raises(ModelError, match="no such layer"):
            fails.result()
        kills = callers.submit(results, group, "die")
        (tmp_path / "go").touch()  # Until then, one process is left that may do it again.
        with pytest.raises(WorkerDied, match="SIGKILL"):
            kills.result()
        assert set(waits.result()) == {0}
        assert len({answer.process_id for answer in results(group, *["hello"] * 9).values()}) <= 2


def test_who_asks_when_the_processes_are_over_does_not_wait_for_them() -> None:
    with side_by_side(1) as group:
        results(group, "hello")
    with pytest.raises(Interrupted):
        results(group, "hello")


def test_who_asks_beats_only_while_the_work_is_handed_out() -> None:
    """Else nobody would see that the thread that hands it out is blocked."""
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    with side_by_side(1) as group:
        process_id = results(group, "tell")[0].process_id
        os.kill(process_id, signal.SIGSTOP)
        continued = threading.Timer(2.5, os.kill, (process_id, signal.SIGKILL))
        continued.start()
        order = "tell " + 10_000_000 * "x"  # More than fits into the pipe of who does not read.
        with pytest.raises(WorkerDied):
            list(group.results([order], lambda _: None, CONFIG, beat))
        continued.join()
    assert beats <= 5


def test_a_process_that_cannot_be_started_fails_who_asked_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with side_by_side(1) as group:
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.execution.processes.start_on_cores", fails)
            with pytest.raises(WorkerDied, match="cannot be started"):
                results(group, "hello")
        assert set(results(group, "hello")) == {0}


def test_a_file_that_is_gone_when_it_is_to_be_sent_is_named(tmp_path: Path) -> None:
    gone: Any = FilePart(tmp_path / "gone", 0, 1)
    with side_by_side(1) as group:
        with pytest.raises(InputError, match="gone: No such file"):
            list(group.results([gone], lambda _: None, CONFIG, no_beat))
        assert set(results(group, "hello")) == {0}


def test_no_process_waits_for_who_takes_the_results(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with side_by_side(1) as group:
        taken = group.results(["hello", f"mark {mark}"], lambda _: None, CONFIG, no_beat)
        next(taken)
        wait_until(mark.exists)  # Though its caller is busy with the first one.
        assert next(taken)[0] == 1


def test_a_process_goes_on_with_what_follows() -> None:
    """So a clip is read on, where another piece would have to be looked for."""
    order = Order[str, None]([str(number) for number in range(12)], CONFIG)
    first, second = order.take(None), order.take(None)
    assert (first.number, second.number) == (0, 6)
    assert [order.take(after).number for after in (0, 6, 1, 7, 2, 8, 3, 9)] == [
        *(1, 7, 2, 8, 3, 9, 4, 10)
    ]
    order.take_back(first)
    assert [order.take(after).number for after in (10, 4, None)] == [11, 5, 0]
    assert not order.is_waiting


def workers() -> set[int]:
    """The ids of the processes side by side."""
    return {child.pid for child in psutil.Process().children() if is_worker(child)}


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "spawn_main" in " ".join(process.cmdline())
    return False


# With a model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six segments of 20 frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    keys = {"g": "10", "sc_threshold": "0"}
    return write_clip(path, [numbered(i) for i in range(NUM_FRAMES)], options=keys)


@pytest.fixture(scope="module")
def clean(
    clip: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    out = tmp_path_factory.mktemp("clean")
    process(clip, out, tiny_weights, segments_at_once=1, **OPTIONS)
    return files(out)


def files(out: Path) -> tuple[bytes, bytes]:
    return (out / "annotated.mp4").read_bytes(), (out / "detections.jsonl").read_bytes()


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_the_result_is_that_of_one_process(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    seen: list[Progress] = []
    config = ProcessConfig(
        source=clip, output_dir=tmp_path, weights=tiny_weights, segments_at_once=2, **OPTIONS
    )
    work = ProcessClips()
    report = work(config, seen.append, Position())
    assert files(tmp_path) == clean
    assert report["configuration"]["segments_at_once"] == 2
    assert report["configuration"]["cores"] == available_cores()
    frames = [progress.done for progress in seen if progress.stage == "frames"]
    assert frames == sorted(frames)
    assert frames[-1] == NUM_FRAMES

    before = workers()
    work(dataclasses.replace(config, output_dir=tmp_path / "next"), no_progress, Position())
    assert files(tmp_path / "next") == clean
    assert workers() == before  # The next clip of a batch takes the processes of the last.
    assert len(before) == 2
    work.end()
    assert not any(psutil.pid_exists(pid) for pid in before)


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_short_clips_and_segments_of_long_ones_share_the_processes(
    clip: Path,
    tmp_path: Path,
    tiny_weights: Path,
    clean: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = [
        write_clip(tmp_path / f"{n}.mp4", [numbered(i) for i in range(10 + n)]) for n in range(3)
    ]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(short[0].read_bytes()[:500])
    for path in short:
        process(path, tmp_path / "alone" / path.name, tiny_weights, **OPTIONS)

    def run(path: Path) -> dict[str, Any]:
        config = ProcessConfig(
            source=path,
            output_dir=tmp_path / "out" / path.name,
            weights=tiny_weights,
            segments_at_once=2,
            **OPTIONS,
        )
        return work(config, no_progress, Position())

    work, decoded_here = ProcessClips(num_clips=5), []
    monkeypatch.setattr(VideoReader, "frames", lambda *_: decoded_here.append(1))
    with ThreadPoolExecutor(5) as threads:
        reports = [threads.submit(run, path) for path in (*short[:2], clip, broken, short[2])]
    assert isinstance(reports[3].exception(), InputError)
    at_once = [reports[n].result()["configuration"]["segments_at_once"] for n in (0, 2)]
    assert at_once == [1, 2]
    assert files(tmp_path / "out" / clip.name) == clean
    for path in short:
        assert files(tmp_path / "out" / path.name) == files(tmp_path / "alone" / path.name)
    assert not decoded_here
    assert len(workers()) == 2
    work.end()


def test_clips_of_several_sizes_share_a_model_of_one_input(
    tiny_weights: Path, tmp_path: Path
) -> None:
    """A folder of pictures of many sizes has few sizes of the input."""
    with Models() as models, SegmentProcesses(num_clips=3, scratch=tmp_path) as processes:
        square, high, wide = [
            processes.shared_model(models.prepare(tiny_weights, size_wh, 640, no_progress), 640)
            for size_wh in ((640, 480), (640, 475), (640, 360))
        ]
        assert square is not None
        assert square.ir.is_relative_to(tmp_path)  # Of the parent, which removes it.
        assert square is high
        assert square is not wide


SCENE = SyntheticOptions(num_frames=NUM_FRAMES, size_wh=(128, 96), frame_rate=Fraction(25))


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
@pytest.mark.parametrize(
    "options",
    [
        {"source": SCENE, "adaptive": True, "video": False},
        {"every": 3, "infer": InferOptions(precision="int8"), "imgsz": 96},
    ],
    ids=["the scene, adaptive, without video", "every third in INT8"],
)
def test_other_ways_to_infer_and_to_write_give_the_files_of_one_process(
    options: dict[str, Any], clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    run = {"source": clip, "weights": tiny_weights, **OPTIONS, "segment_seconds": 2.4, **options}
    for number in (1, 2):
        report = process(output_dir=tmp_path / str(number), segments_at_once=number, **run)
        assert report["configuration"]["segments_at_once"] == number
    one, two = (
        {
            path.name: path.read_bytes()
            for path in (tmp_path / number).iterdir()
            if path.suffix in (".mp4", ".jsonl")
        }
        for number in ("1", "2")
    )
    assert {"detections.jsonl"} <= one.keys()
    assert one == two


@contextlib.contextmanager
def command(clip: Path, out: Path, weights: Path) -> Iterator[Command]:
    """One that does not go on when two segments are kept."""
    words = ["process", str(clip), "--output-dir", str(out), "--weights", str(weights)]
    words += ["--segment-seconds", "0.8", "--segments-at-once", "2", "--precision", "f32"]
    paused = functools.partial(pause_after_segments, 2)
    with Command(*words, before=paused) as run:
        try:
            yield run
        finally:
            run.kill()


def workers_of(run: Command) -> list[psutil.Process]:
    return [p for p in psutil.Process(run.pid).children(recursive=True) if is_worker(p)]


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_nothing_runs_on_after_the_command_and_a_second_one_resumes(
    stop: signal.Signals,
    clip: Path,
    tmp_path: Path,
    tiny_weights: Path,
    clean: tuple[bytes, bytes],
) -> None:
    out = tmp_path / "out"
    with command(clip, out, tiny_weights) as run:
        worker_pid(run)
        family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        assert len(workers_of(run)) == 2
        os.kill(run.pid, stop)
        psutil.wait_procs(family)
    report = process(clip, out, tiny_weights, segments_at_once=1, **OPTIONS)
    assert report["segments"]["done_before"] == 2
    assert files(out) == clean


def test_who_reads_on_decodes_each_frame_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = scan_clip(clip)
    segments = cut_clip(scan, OPTIONS["segment_seconds"])
    decoded, next_image = [0], ClipDecoder.next_image

    def counted(decoder: ClipDecoder) -> Any:
        image = next_image(decoder)
        decoded[0] += image is not None
        return image

    def frames(source: LatestSource, segment: Segment) -> list[bytes]:
        with source.opened("run", segment, lambda: VideoReader(clip, timeline=scan.timeline)) as it:
            return [bytes(frame.image.planes[0]) for frame in it.frames(segment)]

    monkeypatch.setattr(ClipDecoder, "next_image", counted)
    with LatestSource() as source:
        read_on = [frames(source, segment) for segment in segments]
    assert decoded == [NUM_FRAMES]
    assert [frames(LatestSource(), segment) for segment in segments] == read_on
    assert decoded[0] > NUM_FRAMES * 2.2  # Those of the key frame before each, too.


# How many


def info(num_frames: int | None, size_wh: tuple[int, int] = (768, 432)) -> VideoInfo:
    with contextlib.closing(VideoReader(SAMPLE)) as reader:
        return dataclasses.replace(
            reader.info,
            size_wh=size_wh,
            num_frames_header=num_frames,
            num_frames_scanned=num_frames,
        )


def chosen(cores: int, of_clip: int | None, pays: Pays = INFERRING_ALL, **options: Any) -> int:
    """The number for a clip of so many frames in 100 segments, on a machine with so many cores."""
    size_wh, num_segments = options.pop("size_wh", (768, 432)), options.pop("num_segments", 100)
    num_clips = options.pop("num_clips", 1)
    source = options.pop("source", SAMPLE)
    config = ProcessConfig(source=source, output_dir=Path("out"), **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.execution.at_once.available_cores", lambda: cores)
        found = info(of_clip, size_wh)
        return num_at_once(
            config, found, num_segments, pays, lambda n: 4 + 2 * cores // n, num_clips
        )


def test_auto_takes_as_many_processes_as_pay() -> None:
    assert [chosen(cores, 100_000) for cores in (1, 2, 4, 8, 16)] == [1, 1, 1, 2, 4]
    # Where few frames are inferred, a process keeps one core busy.
    assert [chosen(cores, 100_000, INFERRING_SOME) for cores in (1, 2, 4, 16)] == [1, 2, 4, 12]


def test_auto_starts_no_process_for_a_short_clip() -> None:
    assert [chosen(16, number) for number in (900, 2_500, 100_000, None)] == [1, 2, 4, 4]
    assert chosen(16, 100_000, num_segments=3) == 3
    some = INFERRING_SOME
    assert [chosen(2, number, some) for number in (9_000, 10_000, 100_000)] == [1, 2, 2]
    assert [chosen(2, 100_000, some, num_segments=number) for number in (15, 16)] == [1, 2]


def test_a_batch_of_short_clips_is_given_to_as_many_processes_as_pay() -> None:
    batch: dict[str, Any] = {"num_segments": 1, "num_clips": 1_000}
    assert [chosen(cores, 30, **batch) for cores in (1, 2, 4, 8, 16)] == [1, 1, 1, 2, 4]
    assert [chosen(cores, 30, INFERRING_SOME, **batch) for cores in (2, 16)] == [1, 4]
    batch["num_clips"] = 100  # 3,000 frames.
    assert [chosen(16, 30, **batch), chosen(16, 9, **batch)] == [3, 1]
    assert chosen(2, 30, segments_at_once=2, **batch) == 2
    assert chosen(2, 30, segments_at_once=2, num_frames=5, **batch) == 2
    assert chosen(2, 30, segments_at_once=2, num_segments=1) == 1  # It is alone.


def test_no_more_processes_than_cores_or_segments() -> None:
    assert chosen(2, 100, segments_at_once=16) == 2
    assert chosen(16, 100, segments_at_once=16, num_segments=3) == 3
    with collected_notes() as notes:
        assert chosen(16, 100, segments_at_once=4, num_frames=90) == 1
    assert "--frames" in notes[0]


@pytest.mark.parametrize(("num_frames", "number"), [(90, 1), (300, 4), (301, 4)])
def test_a_scene_that_is_to_end_early_is_processed_one_segment_after_the_other(
    num_frames: int, number: int
) -> None:
    """Each of two side by side would take as many frames as are asked for in all."""
    scene = SyntheticOptions(num_frames=300)
    with collected_notes():
        assert chosen(16, 300, source=scene, segments_at_once=4, num_frames=num_frames) == number


def test_processes_share_the_memory_for_frames() -> None:
    limits = LimitOptions(max_memory_mb=500)
    with collected_notes() as notes:
        number = chosen(8, 9_000, segments_at_once=8, limits=limits, size_wh=(3840, 2160))
    assert 1 < number < 8
    assert "--max-memory" in notes[0]


# Drawing


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_recorded_detections_are_drawn_side_by_side(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    recorded = tmp_path / "recorded"
    process(clip, recorded, tiny_weights, video=False, segments_at_once=1, **OPTIONS)
    words = ["render", str(clip), str(recorded / "detections.jsonl"), "--segments-at-once", "2"]
    assert main([*words, "--output-dir", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "annotated.mp4").read_bytes() == clean[0]
