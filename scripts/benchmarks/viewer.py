#!/usr/bin/env python3
"""How the viewer bears a long clip: two hours, two million boxes, made up, in chromium.

Prints the CPU time to make up and write the data, and in the page the time to the first paint, and
the CPU time of scripts: until it is usable, for the timeline, a filter, and seeks. Needs chromium
and playwright.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.core.detection_lines import DetectedBox, DetectedFrame
from pipeline.run.viewer.viewer import write_viewer

_NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")

_FACTS = """() => {
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  const boxes = index.classes.reduce((sum, entry) => sum + entry.boxes, 0);
  return { boxes, chunks: index.chunks.length, first_paint_ms: paint ? paint.startTime : null };
}"""
_ACTIONS = {
    "whole timeline": "showAll()",
    "a minute of the timeline": "setView(3600, 3660)",
    "filter by confidence": "filters.least = 0.5; onFilter()",
    **{f"seek to {share:.0%}": f"goTo(index.end * {share})" for share in (0.2, 0.7, 0.4, 0.9)},
}
"""The seeks are with the filter, in a timeline that shows a minute."""


def frames(hours: float, boxes_per_frame: float) -> Iterator[DetectedFrame]:
    """Boxes that move, each with a track of some seconds, at 30 frames per second."""
    count = round(hours * 3600 * 30)
    for index in range(count):
        number = int(boxes_per_frame + 0.8 * math.sin(index / 3000) * boxes_per_frame)
        boxes = []
        for slot in range(number):
            track = (index + 31 * slot) // 300 * 40 + slot + 1
            left = (index * (slot % 7 + 1) + 97 * slot) % 1700
            confidence = round(0.25 + (slot * 37 + index // 11) % 70 / 100, 4)
            name = slot % len(_NAMES)
            xyxy = (float(left), 40.0 * slot, left + 120.0, 40.0 * slot + 90.5)
            boxes.append(DetectedBox(name, _NAMES[name], confidence, xyxy, track))
        boxes.sort(key=lambda box: -box.confidence)
        yield DetectedFrame(index, index, round(index / 30, 6), tuple(boxes))


def _script_ms(devtools: Any) -> float:
    """The CPU time of all scripts of the page so far."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return 1000 * float(next(m["value"] for m in metrics if m["name"] == "ScriptDuration"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--boxes-per-frame", type=float, default=9.7)
    parser.add_argument("--keep", type=Path, help="write the page into this folder")
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        clip = {"name": "made up", "is_picture": False, "size_wh": [1920, 1080]}
        report = {
            "source": {**clip, "container": "mp4", "codec": "h264"},
            "output": {"file": None, "num_frames": round(arguments.hours * 108_000)},
            "detections": {"total": 0},
        }
        began = time.process_time()
        write_viewer(report, frames(arguments.hours, arguments.boxes_per_frame), None, folder)
        files = [path.stat().st_size for path in (folder / "viewer_data").iterdir()]
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"written in {time.process_time() - began:.1f} s of CPU time, {peak_mb:.0f} MB peak")
        print(f"{len(files)} files, {sum(files) / 1e6:.1f} MB, at most {max(files) / 1e6:.2f} MB")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto((folder / "viewer.html").as_uri())
            page.wait_for_timeout(2000)
            print(json.dumps(page.evaluate(_FACTS)))
            print(f"until it is usable: {_script_ms(devtools):.0f} ms of scripts")
            for name, action in _ACTIONS.items():
                before_ms = _script_ms(devtools)
                page.evaluate(action)
                page.wait_for_timeout(1000)
                print(f"{name}: {_script_ms(devtools) - before_ms:.0f} ms of scripts")
            browser.close()


if __name__ == "__main__":
    main()
