#!/usr/bin/env python3
"""HOTA, MOTA and IDF1 of tracks, by the package `trackeval`, in whose environment this runs.

Usage: score_tracks.py TRUTH FOUND... where each is a file of detection lines. Prints a JSON list.
All classes count as one, as trackers take them. Imports nothing of this project.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import trackeval


def read(path: Path) -> list[tuple[list[int], np.ndarray[Any, Any]]]:
    """Ids and boxes (left, top, right, bottom) of each frame; those without a track left out."""
    frames = []
    for line in path.read_text(encoding="utf-8").splitlines():
        boxes = [box for box in json.loads(line)["detections"] if box.get("track_id") is not None]
        xyxy = np.array([box["xyxy"] for box in boxes], float).reshape(-1, 4)
        frames.append(([box["track_id"] for box in boxes], xyxy))
    return frames


def numbered(frames: list[tuple[list[int], Any]]) -> tuple[list[Any], int]:
    """The ids of each frame as trackeval wants them, from 0 without gaps, and their number."""
    numbers: dict[int, int] = {}
    ids = [np.array([numbers.setdefault(i, len(numbers)) for i in of], int) for of, _ in frames]
    return ids, len(numbers)


def iou(a: Any, b: Any) -> Any:
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (bottom_right - top_left).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def score(truth: Path, found: Path) -> dict[str, float]:
    expected, tracked = read(truth), read(found)
    if len(expected) != len(tracked):
        raise SystemExit(f"{found}: has {len(tracked)} frames, {truth} has {len(expected)}")
    gt_ids, num_gt_ids = numbered(expected)
    tracker_ids, num_tracker_ids = numbered(tracked)
    data = {
        "num_timesteps": len(expected),
        "gt_ids": gt_ids,
        "tracker_ids": tracker_ids,
        "num_gt_ids": num_gt_ids,
        "num_tracker_ids": num_tracker_ids,
        "num_gt_dets": sum(map(len, gt_ids)),
        "num_tracker_dets": sum(map(len, tracker_ids)),
        "similarity_scores": [iou(a, b) for (_, a), (_, b) in zip(expected, tracked, strict=True)],
    }
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        hota = trackeval.metrics.HOTA().eval_sequence(data)
        clear = trackeval.metrics.CLEAR().eval_sequence(data)
        identity = trackeval.metrics.Identity().eval_sequence(data)
    return {
        "HOTA": 100 * float(np.mean(hota["HOTA"])),
        "MOTA": 100 * float(clear["MOTA"]),
        "IDF1": 100 * float(identity["IDF1"]),
        "switches": int(clear["IDSW"]),
        "tracks": num_tracker_ids,
        "things": num_gt_ids,
    }


if __name__ == "__main__":
    truth, *found = map(Path, sys.argv[1:])
    print(json.dumps([score(truth, path) for path in found]))
