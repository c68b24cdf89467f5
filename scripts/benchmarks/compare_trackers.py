#!/usr/bin/env python3
"""Trackers on the synthetic scene: HOTA, MOTA, IDF1 and the CPU time of a frame, as a table.

    .venv/bin/python scripts/benchmarks/compare_trackers.py --scorer PYTHON

PYTHON is the interpreter of an environment with `trackeval` and `numpy`. Each tracker is run as
`process --track` runs it, and the library alone on the same boxes; both on the boxes that the demo
model finds and on those of the ground truth. Scores are the mean of several scenes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import NO_TRACK, Detections
from pipeline.core.config import TRACKERS, DetectOptions, ProcessConfig, SyntheticOptions
from pipeline.run.process import process_video
from pipeline.run.tracks.lines import write_tracked
from pipeline.run.tracks.tracker import library_tracker, open_tracker

SCORER = Path(__file__).with_name("score_tracks.py")
FRAME_RATE = 30


class Alone:
    """The library as its documentation uses it: frame after frame, without times."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def update(self, boxes: Detections, seconds: float) -> NDArray[np.int64]:
        import supervision

        found = self._tracker.update(
            supervision.Detections(
                xyxy=boxes.xyxy,
                confidence=boxes.confidence,
                data={"row": np.arange(len(boxes))},
            )
        )
        ids = np.full(len(boxes), NO_TRACK, np.int64)
        for row, number in zip(found.data.get("row", ()), found.tracker_id, strict=True):
            ids[row] = number if number >= 0 else NO_TRACK
        return ids


def scene(folder: Path, seed: int, num_frames: int, least: float) -> None:
    """The detections of a scene, weak ones beside them, and its ground truth."""
    process_video(
        ProcessConfig(
            source=SyntheticOptions(num_frames=num_frames, seed=seed),
            output_dir=folder,
            video=False,
            track=TRACKERS[0],
            detect=DetectOptions(confidence_threshold=least),
        )
    )


def untracked(path: Path, target: Path) -> Path:
    """The lines without ids, as trackers get them."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        for box in line["detections"]:
            box.pop("track_id", None)
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return target


def scores(python: str, truth: Path, found: list[Path]) -> list[dict[str, float]]:
    command = [python, str(SCORER), str(truth), *map(str, found)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return list(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scorer", required=True, metavar="PYTHON")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--conf", type=float, default=0.25)
    options = parser.parse_args()
    rows: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            folder = Path(scratch) / str(seed)
            scene(folder, seed, options.frames, options.conf)
            tracked = _tracked(folder, options.conf)
            found = scores(
                options.scorer, folder / "truth.jsonl", [path for path, _ in tracked.values()]
            )
            for (key, (_, cpu_ms)), values in zip(tracked.items(), found, strict=True):
                rows.setdefault(key, []).append({**values, "cpu_ms": cpu_ms})
    _print(rows)


def _tracked(folder: Path, least: float) -> dict[tuple[str, str, str], tuple[Path, float]]:
    """Files with ids, and the CPU time of a frame in ms; by boxes, tracker and how it was run."""
    inputs = {
        "found": (
            untracked(folder / "detections.jsonl", folder / "a.jsonl"),
            folder / "weak.jsonl",
        ),
        "true": (untracked(folder / "truth.jsonl", folder / "b.jsonl"), None),
    }
    ways: dict[str, Callable[[str], Any]] = {
        "pipeline": lambda name: open_tracker(name, FRAME_RATE, least),
        "library": lambda name: Alone(library_tracker(name, FRAME_RATE, least)),
    }
    results = {}
    for kind, (lines, weak) in inputs.items():
        for name in TRACKERS:
            for way, opened in ways.items():
                target = folder / f"{kind}-{name}-{way}.jsonl"
                began = time.process_time()
                write_tracked(lines, weak, target, opened(name))
                num_frames = target.read_bytes().count(b"\n")
                cpu_ms = 1000 * (time.process_time() - began) / num_frames
                results[kind, name, way] = target, cpu_ms
    return results


def _print(rows: dict[tuple[str, str, str], list[dict[str, float]]]) -> None:
    names = ("HOTA", "MOTA", "IDF1", "switches", "tracks", "things", "cpu_ms")
    print("| boxes | tracker | run by | " + " | ".join(names) + " |")
    print("| --- " * (3 + len(names)) + "|")
    for (kind, name, way), values in rows.items():
        means = [f"{fmean(value[column] for value in values):.2f}" for column in names]
        print(f"| {kind} | {name} | {way} | " + " | ".join(means) + " |")


if __name__ == "__main__":
    main()
