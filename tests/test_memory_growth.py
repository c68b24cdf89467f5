"""The memory of a run does not depend on the length of its clip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_clip

RUN = """
import sys
from pathlib import Path
from pipeline import ProcessConfig, process_video

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def look(progress):
    if progress.stage == "frames" and progress.done in (1000, 3000):
        print(resident_mb())

clip, out, weights = map(Path, sys.argv[1:])
process_video(ProcessConfig(
    source=clip, output_dir=out, weights=weights, every=50, segment_seconds=8, segments_at_once=1
), look)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process in /proc")
def test_memory_does_not_grow_with_the_segments_of_a_clip(
    tmp_path: Path, tiny_weights: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 90, (10, 64, 64, 3), np.uint8)
    images = [noise[number % 10] for number in range(3001)]
    clip = write_clip(tmp_path / "clip.mp4", images, options={"g": "25", "preset": "ultrafast"})
    words = [sys.executable, "-c", RUN, str(clip), str(tmp_path / "out"), str(tiny_weights)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=220)
    before, after = map(float, done.stdout.split())
    assert after < before + 2.5  # Without giving memory back 5 MB more.
