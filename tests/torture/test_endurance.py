"""Many frames, many clips, many starts: nothing grows, nothing hangs, nothing differs."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.core.config import InferOptions, ProcessConfig, SyntheticOptions
from pipeline.core.machine import available_cores
from pipeline.core.progress import Progress
from pipeline.measure.own_process import in_own_process
from pipeline.run.process import process_video
from tests.conftest import DEMO, needs_demo, with_light, write_clip
from tests.recordings import numbered

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

NUM_FRAMES, NUM_CLIPS = 100_000, 1_000


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def num_open() -> tuple[int, int]:
    """Files and threads of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), threading.active_count()


def many_frames(config: ProcessConfig) -> list[tuple[int, float, tuple[int, int]]]:
    seen = []

    def look(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done % 1000 == 0:
            seen.append((progress.done, resident_mb(), num_open()))

    process_video(config, look)
    return seen


def many_clips(config: ProcessConfig) -> list[tuple[int, float, tuple[int, int]]]:
    seen = []
    for done in range(1, NUM_CLIPS + 1):
        process_video(config)
        shutil.rmtree(config.output_dir)
        if done % 10 == 0:
            seen.append((done, resident_mb(), num_open()))
    return seen


def slope(seen: list[tuple[int, float, tuple[int, int]]]) -> float:
    """Megabytes per unit, fitted over the second half, when everything has been seen once."""
    late = seen[len(seen) // 2 :]
    return float(np.polyfit([done for done, _, _ in late], [mb for _, mb, _ in late], 1)[0])


def test_endurance(tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]) -> None:
    picture = tmp_path / "lights.png"
    cv2.imwrite(str(picture), np.maximum(with_light((3, 3)), with_light((9, 6))))
    long = ProcessConfig(
        source=SyntheticOptions(num_frames=NUM_FRAMES, size_wh=(128, 96), image=picture),
        output_dir=tmp_path / "long",
        weights=tiny_weights,
        reuse_duplicates=False,
    )
    with (
        fault(
            f"{NUM_FRAMES:,} frames",
            "synthetic, 56 segments",
            "memory grows by less than 1 MB per 10,000 frames; files and threads do not",
        ) as row,
        row.attempt("long"),
    ):
        seen = in_own_process(many_frames, long)
        grows = 10_000 * slope(seen)
        row.measured = f"{grows:.2f} MB per 10,000 frames"
        assert grows < 1
        assert len({opened for done, _, opened in seen if done > 5000}) <= 2
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(10)])
    short = ProcessConfig(source=clip, output_dir=tmp_path / "short", weights=tiny_weights)
    with (
        fault(
            f"{NUM_CLIPS:,} short clips",
            "one after the other in one process",
            "the same",
        ) as row,
        row.attempt("short"),
    ):
        seen = in_own_process(many_clips, short)
        grows = slope(seen)
        row.measured = f"{1000 * grows:.0f} kB per clip"
        assert grows < 0.02
        assert len({opened for _, _, opened in seen}) == 1


START = """
import json, sys
from pathlib import Path
from pipeline import InferOptions, ProcessConfig, process_video
from pipeline.core.machine import available_cores
clip, weights, out, requests = sys.argv[1:]
process_video(ProcessConfig(source=Path(clip), weights=Path(weights), output_dir=Path(out),
    infer=InferOptions(precision="f32", num_requests=int(requests),
        num_streams=min(int(requests), available_cores()))))
"""


def test_cold_starts(tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [numbered(i) for i in range(30)])
    expected: set[str] = set()
    with fault(
        "200 cold starts",
        "a new process each, 1 to 4 requests",
        "none hangs; the same detections, bit for bit",
    ) as row:

        def one(number: int) -> None:
            out = tmp_path / f"out-{number}"
            with row.attempt(number):
                command = [sys.executable, "-c", START, clip, tiny_weights, out, 1 + number % 4]
                subprocess.run([*map(str, command)], check=True, timeout=60, capture_output=True)
                expected.add(sha256(out / "detections.jsonl"))
                assert len(expected) == 1
            shutil.rmtree(out, ignore_errors=True)

        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(one, range(200)))


@needs_demo
def test_the_same_run_again_and_again(tmp_path: Path, fault: Callable[..., Any]) -> None:
    expected: set[str] = set()
    with fault(
        "the same run 15 times",
        "5 times each at 1, 2 and 4 requests, the demo model on 200 frames of the scene",
        "detections.jsonl is identical",
    ) as row:
        for number in range(15):
            requests, out = (1, 2, 4)[number % 3], tmp_path / "out"
            with row.attempt(f"{number}, {requests} requests"):
                process_video(
                    ProcessConfig(
                        source=SyntheticOptions(num_frames=200),
                        output_dir=out,
                        weights=DEMO,
                        infer=InferOptions(precision="f32", num_requests=requests),
                        overwrite=True,
                    )
                )
                expected.add(sha256(out / "detections.jsonl"))
                assert len(expected) == 1
                boxes = json.loads((out / "report.json").read_text())["detections"]["total"]
                assert boxes > 200


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
