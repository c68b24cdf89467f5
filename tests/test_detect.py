"""`pipeline.detect`: the detections of a clip while they are found."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline import InputError, UsageError
from tests.conftest import process, with_light, write_clip
from tests.resuming import KEYS

NUM_FRAMES = 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light that moves down; key frames at every tenth frame."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [with_light((3, i // 4)) for i in range(NUM_FRAMES)], options=KEYS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"every": 3},
        {"adaptive": True},
        {"frames": 13, "segment_seconds": 0.4},
        {"every": 4, "segment_seconds": 0.4},
    ],
    ids=str,
)
def test_frames_are_those_that_a_run_writes(
    options: dict[str, Any], clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    of_run = {"num_frames" if name == "frames" else name: v for name, v in options.items()}
    process(clip, tmp_path, tiny_weights, video=False, **of_run)
    written = list(pipeline.read_detections(tmp_path / "detections.jsonl"))
    assert list(pipeline.detect(clip, weights=tiny_weights, **options)) == written
    assert sum(len(frame.boxes) for frame in written) == len(written)


def test_nothing_is_written(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(list(pipeline.detect(str(clip), weights=str(tiny_weights)))) == NUM_FRAMES
    assert not list(tmp_path.iterdir())


def test_nothing_runs_before_the_first_frame_is_asked_for_and_after_close(
    clip: Path, tiny_weights: Path
) -> None:
    before = set(threading.enumerate())
    frames = pipeline.detect(clip, weights=tiny_weights)
    assert set(threading.enumerate()) <= before
    assert [next(frames).frame_index, next(frames).frame_index] == [0, 1]
    assert set(threading.enumerate()) - before
    frames.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)  # It has done its work, and may still be listed.
        assert not thread.is_alive()
    assert list(frames) == []


def in_use() -> tuple[int, int]:
    """The threads and open files of this process."""
    gc.collect()
    return len(list(Path("/proc/self/task").iterdir())), len(list(Path("/proc/self/fd").iterdir()))


def stop_early(clip: Path, weights: Path, rounds: int) -> None:
    for number in range(rounds):
        for frame in pipeline.detect(clip, weights=weights):
            if frame.frame_index == number % 7:
                break


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize(
    "rounds",
    [
        8,
        pytest.param(100, marks=pytest.mark.slow),
        pytest.param(1000, marks=[pytest.mark.torture, pytest.mark.timeout(1800)]),
    ],
)
def test_a_consumer_that_stops_early_leaves_no_thread_and_no_file(
    rounds: int, clip: Path, tiny_weights: Path
) -> None:
    stop_early(clip, tiny_weights, 3)
    before = in_use()
    stop_early(clip, tiny_weights, rounds)
    # What a round leaves is there once a round; libraries start a thread of theirs when they like.
    assert all(now < then + rounds / 2 for now, then in zip(in_use(), before, strict=True))


def test_a_program_ends_with_frames_left(clip: Path, tiny_weights: Path) -> None:
    code = (
        "import sys, pipeline\n"
        "frames = pipeline.detect(sys.argv[1], weights=sys.argv[2])\n"
        "print(next(frames).frame_index)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(clip), str(tiny_weights)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_an_invalid_option_is_refused_at_once(clip: Path) -> None:
    with pytest.raises(UsageError, match="--conf must be more than 0"):
        pipeline.detect(clip, conf=2.0)
    with pytest.raises(UsageError, match="--adaptive and --every"):
        pipeline.detect(clip, adaptive=True, every=2)


def test_a_missing_clip_is_an_input_error(tmp_path: Path, tiny_weights: Path) -> None:
    frames = pipeline.detect(tmp_path / "missing.mp4", weights=tiny_weights)
    with pytest.raises(InputError, match=r"missing\.mp4: no such file"):
        next(frames)


def test_the_bridge_to_supervision_is_three_lines(clip: Path, tiny_weights: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    for frame in pipeline.detect(clip, weights=tiny_weights, frames=3):
        boxes, ids, confidences = frame.arrays()
        found = supervision.Detections(xyxy=boxes, class_id=ids, confidence=confidences)
        found["class_name"] = np.array([box.class_name for box in frame.boxes])
        assert len(found) == len(frame.boxes) == 1
        (box,) = frame.boxes
        assert found.xyxy[0].tolist() == pytest.approx(box.xyxy)
        assert found.class_id.tolist() == [box.class_id]
        assert found["class_name"].tolist() == ["light"]
    empty = pipeline.DetectedFrame(0, 0, 0.0, ()).arrays()
    assert len(supervision.Detections(xyxy=empty[0], class_id=empty[1], confidence=empty[2])) == 0
