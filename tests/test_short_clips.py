"""Many short clips: what they share, and what they do not pay for."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.batch.progress import BatchProgress
from pipeline.batch.work import ProcessClips
from pipeline.core.config import AutoOptions, ProcessConfig
from pipeline.core.errors import WorkerDied
from pipeline.core.position import Position, Step
from pipeline.core.progress import Progress, no_progress
from pipeline.core.turns import Turns
from pipeline.execution.watchdog import Watchdog
from pipeline.run.precision_audit import FRAMES_EACH, NUM_FRAMES, Int8Audits
from tests.conftest import process, with_light, write_clip

FRAMES = 12


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_clip(folder / f"{n}.mp4", [with_light((i, n)) for i in range(FRAMES)])
        for n in range(5)
    ]


def configs_of(clips: list[Path], out: Path, weights: Path, **options: Any) -> list[ProcessConfig]:
    return [
        ProcessConfig(source=clip, output_dir=out / clip.name, weights=weights, **options)
        for clip in clips
    ]


def side_by_side(configs: list[ProcessConfig]) -> list[dict[str, Any]]:
    """The reports of clips that are worked on at once, as in the child process of a batch."""
    work = ProcessClips()
    reports: list[dict[str, Any]] = [{} for _ in configs]

    def run(number: int) -> None:
        reports[number] = work(configs[number], no_progress, Position())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(configs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reports


def test_clips_that_are_worked_on_at_once_have_the_results_of_each_alone(
    clips: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    reports = side_by_side(configs_of(clips, tmp_path / "batch", tiny_weights))
    for clip, report in zip(clips, reports, strict=True):
        process(clip, tmp_path / "alone" / clip.name, tiny_weights)
        for name in ("annotated.mp4", "detections.jsonl"):
            alone = (tmp_path / "alone" / clip.name / name).read_bytes()
            assert (tmp_path / "batch" / clip.name / name).read_bytes() == alone
        assert report["output"]["num_frames"] == FRAMES
        assert report["output"]["notes"] == []


def test_the_frames_of_one_clip_follow_those_of_another(
    clips: list[Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.frames.decode import VideoReader

    decoding, most, frames = [0], [0], VideoReader.frames

    def counted(reader: VideoReader, *arguments: Any) -> Any:
        decoding[0] += 1
        most[0] = max(most[0], decoding[0])
        yield from frames(reader, *arguments)
        decoding[0] -= 1

    monkeypatch.setattr(VideoReader, "frames", counted)
    side_by_side(configs_of(clips, tmp_path, tiny_weights))
    assert most == [1]


def test_in_a_batch_int8_is_compared_on_few_frames_of_all_clips(
    clips: list[Path], tiny_weights: Path, tmp_path: Path
) -> None:
    int8 = AutoOptions(precision="int8")
    reports = side_by_side(configs_of(clips, tmp_path, tiny_weights, imgsz=96, infer=int8))
    audits = [r["precision_audit"] for r in reports if r["precision_audit"] is not None]
    assert sum(audit["num_frames"] for audit in audits) == 1 + 5 * FRAMES // FRAMES_EACH


@pytest.mark.parametrize(("number", "frames"), [(20, 30), (1000, 10), (3, 5000)])
def test_the_frames_that_are_compared_are_spread_over_a_batch(number: int, frames: int) -> None:
    audits = Int8Audits(of_batch=True)
    compared = [audits.num_compared(frames) for _ in range(number)]
    assert compared[0] >= 1
    assert max(compared) <= min(NUM_FRAMES, -(-frames // 8))
    assert sum(compared) <= 1 + number * frames // FRAMES_EACH
    first, last = sum(compared[: number // 2]), sum(compared[-(number // 2) :])
    assert abs(first - last) <= 1
    alone = [Int8Audits().num_compared(frames) for _ in range(2)]
    assert alone == [min(NUM_FRAMES, -(-frames // 8))] * 2


def test_a_turn_ends_once_and_only_for_its_holder() -> None:
    turns = Turns()
    order: list[str] = []
    with turns.taken() as end:
        waiting = threading.Thread(target=lambda: _take(turns, order))
        waiting.start()
        assert order == []
        end()
        waiting.join()
        with turns.taken():
            end()
            other = threading.Thread(target=lambda: _take(turns, order))
            other.start()
            order.append("held")
        other.join()
    assert order == ["taken", "held", "taken"]


def _take(turns: Turns, order: list[str]) -> None:
    with turns.taken():
        order.append("taken")


def test_what_a_clip_does_before_its_frames_is_not_shown_while_frames_of_others_run(
    clips: list[Path],
) -> None:
    seen: list[Progress] = []
    progress = BatchProgress(clips, seen.append)
    progress.tell(0, Progress("convert", 1, 2))
    progress.tell(0, Progress("frames", 1, FRAMES))
    progress.tell(1, Progress("convert", 1, 2))
    progress.finished(0)
    progress.tell(1, Progress("convert", 2, 2))
    assert [p.stage for p in seen] == ["convert", "frames", "frames", "convert"]


def test_a_run_that_waits_for_its_turn_is_not_judged_by_the_work_of_others(
    tmp_path: Path,
) -> None:
    config = ProcessConfig(source=tmp_path, output_dir=tmp_path, stall_seconds=1)
    position = Position()
    watchdog = Watchdog(os.getpid(), position, config)
    position.encoding.enter(Step.WAIT_TURN)
    look_often(watchdog)
    position.encoding.enter(Step.ENCODE)
    with pytest.raises(WorkerDied, match="encode"):
        look_often(watchdog)


def look_often(watchdog: Watchdog) -> None:
    for _ in range(50):
        watchdog.look()


def test_a_clip_is_opened_with_decoders_to_be_scanned_only(
    clips: list[Path], tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look into a file, FFmpeg decodes its first frames: that costs more than all else of it."""
    opened: list[str] = []
    av_open: Any = av.open

    def counting(file: Any, mode: str = "r", **options: Any) -> Any:
        is_file = isinstance(file, str)
        if is_file and mode == "r" and "codec_whitelist" not in options.get("options", {}):
            opened.append(str(file))
        return av_open(file, mode, **options)

    monkeypatch.setattr(av, "open", counting)
    process(clips[0], tmp_path / "out", tiny_weights)
    assert opened == [f"file:{clips[0]}"]
