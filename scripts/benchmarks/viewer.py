#!/usr/bin/env python3
"""How the viewer bears a long clip: two hours, two million boxes, made up, in chromium.

Prints the time to write the data, and in the page: to the first paint, of scripts until it is
usable, and of scripts for a seek, the timeline and a filter. Needs chromium and playwright.
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

from pipeline.core.detection_lines import DetectedBox, DetectedFrame
from pipeline.run.viewer.viewer import write_viewer

_NAMES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")

_MEASURE = """async () => {
  const timed = (work) => {
    const began = performance.now();
    work();
    return performance.now() - began;
  };
  const rest = () => new Promise((done) => setTimeout(done, 400));
  const boxes = index.classes.reduce((sum, entry) => sum + entry.boxes, 0);
  const result = { boxes, chunks: index.chunks.length, seeks: [] };
  const [paint] = performance.getEntriesByName("first-contentful-paint");
  result.first_paint = paint ? paint.startTime : null;
  result.loaded = performance.timing.loadEventEnd - performance.timing.navigationStart;
  const whole = window.viewerChunk;
  let chunks = 0;
  window.viewerChunk = (...given) => { chunks += timed(() => whole(...given)); };
  for (let i = 1; i <= 8; i++) {
    chunks = 0;
    const frame = Math.floor((index.seconds.length * ((i * 0.37) % 1)));
    let spent = timed(() => seek(frame));
    await rest();
    spent += chunks + timed(drawBoxes) + timed(drawRows);
    result.seeks.push(spent);
  }
  result.timeline_all = timed(() => { showAll(); drawRows(); });
  result.timeline_minute = timed(() => { setView(3600, 3660); drawRows(); });
  result.filter = timed(() => { filters.least = 0.5; onFilter(); drawRows(); });
  return result;
}"""


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
            page.goto((folder / "viewer.html").as_uri())
            page.wait_for_timeout(1500)
            print(json.dumps(page.evaluate(_MEASURE), indent=2))
            browser.close()


if __name__ == "__main__":
    main()
