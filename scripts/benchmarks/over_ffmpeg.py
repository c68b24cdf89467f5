"""This program over FFmpeg's alone, on large frames: 3840x2160, HEVC in 10 bit without wavefronts.

    scripts/benchmarks/over_ffmpeg.py car-detection.mp4 --rounds 2

FFmpeg decodes the clip and encodes it again as this program does, and detects nothing. Both are
timed as whole processes, in turns, in INT8 with --adaptive, at full size and at 1280x720. The clip
is made of the one given, repeated and enlarged: 1,000 frames take two minutes to make, and a round
over them five minutes on two cores.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import encode

from pipeline.core.machine import available_cores, processor_name, versions

_SIZES: dict[str, tuple[list[str], list[str]]] = {
    "3840x2160": ([], []),
    "1280x720": (["--output-size", "1280x720"], ["-vf", "scale=1280:720"]),
}
_X265 = {"preset": "ultrafast", "x265-params": "log-level=error:wpp=0"}


def commands(clip: Path, folder: Path, size: str) -> dict[str, list[str]]:
    """By program: the whole command."""
    ours, theirs = _SIZES[size]
    x264 = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "23", "-pix_fmt", "yuv420p"]
    encoded, out = str(folder / "ffmpeg.mp4"), str(folder / "out")
    pipeline = [sys.executable, "-m", "pipeline", "process", str(clip), "--output-dir", out]
    return {
        "ffmpeg": ["ffmpeg", "-v", "error", "-y", "-i", str(clip), *theirs, *x264, encoded],
        "pipeline": [*pipeline, "--overwrite", "--precision", "int8", "--adaptive", *ours],
    }


def seconds_of(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{processor_name()}, {available_cores()} cores, {platform.platform()}; {versions()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "large.mp4"
        frames, size_wh = range(arguments.frames), (3840, 2160)
        encode(arguments.clip, clip, "libx265", "yuv420p10le", size_wh, frames, _X265)
        quantise = commands(clip, folder, "1280x720")["pipeline"]
        seconds_of([*quantise, "--frames", "12"])
        seconds: dict[tuple[str, str], list[float]] = {}
        for _ in range(arguments.rounds):
            for size in _SIZES:
                for program, command in commands(clip, folder, size).items():
                    seconds.setdefault((size, program), []).append(seconds_of(command))
        for size in _SIZES:
            ours, theirs = seconds[size, "pipeline"], seconds[size, "ffmpeg"]
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            print(
                f"{size}: {statistics.median(ours):.1f} s over {statistics.median(theirs):.1f} s "
                f"of ffmpeg: {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
