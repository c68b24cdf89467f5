"""How full the cores are, and what two processes of one core cost against one process of two.

    python scripts/benchmarks/full_cores.py car-detection.mp4 bottle-detection.mp4

On two free cores it takes five minutes. Whole commands, in turns: CPU time includes that of all
processes, from start to end. "Frames" leaves out what comes before the first frame and after the
last: see `speed` in report.json. The first clip is repeated for --every 20 and --adaptive, and
enlarged for 1080p and 4K; the second is taken as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from batch_overhead import write_repeated
from bench_e2e import upscaled

REPEATED = 8
BUSY = (["--every", "20"], ["--adaptive"])
LARGE = (("1080p", (1920, 1080), 240), ("4K", (3840, 2160), 120))


@dataclass(frozen=True, slots=True)
class Run:
    """wall and cpu: seconds of the whole command. busy: share of the cores, of its frames."""

    num_frames: int
    wall: float
    cpu: float
    busy: float
    frames_fps: float

    @property
    def cpu_ms(self) -> float:
        """Of a frame."""
        return 1000 * self.cpu / self.num_frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, help="768x432")
    parser.add_argument("other", type=Path, help="for two processes against one")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="in turn")
    parser.add_argument("--only", choices=("busy", "processes"))
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repeated = folder / "repeated.mp4"
        write_repeated(arguments.video, repeated, REPEATED)
        run(arguments.video, ["--frames", "16", *options])  # What the cache lacks.
        if arguments.only != "processes":
            for sampling in BUSY:
                show_busy(repeated, sampling, options, arguments.rounds)
        if arguments.only != "busy":
            show_processes("bottles", arguments.other, "10", options, arguments.rounds)
            for label, size_wh, frames in LARGE:
                clip = upscaled(arguments.video, size_wh, frames, folder / f"{label}.mp4", 25)
                show_processes(label, clip, "4", options, arguments.rounds)


def show_busy(clip: Path, sampling: list[str], options: list[str], rounds: int) -> None:
    """Print the share of the cores with one process and with two, in turns."""
    command = [*sampling, "--segment-seconds", "30", *options]
    for _ in range(rounds):
        for number in ("1", "2"):
            found = run(clip, [*command, "--segments-at-once", number])
            print(
                f"{' '.join(sampling)}, {number} at once: frames {found.busy:.1%} of the cores, "
                f"{found.frames_fps:.0f} fps, whole command "
                f"{found.cpu / found.wall / len(os.sched_getaffinity(0)):.1%}, "
                f"{found.cpu_ms:.2f} ms CPU a frame"
            )


def show_processes(label: str, clip: Path, seconds: str, options: list[str], rounds: int) -> None:
    """Print the frames per CPU second of two processes, over those of one, in turns."""
    pairs = []
    for _ in range(rounds):
        one, two = (
            run(clip, ["--segment-seconds", seconds, "--segments-at-once", number, *options])
            for number in ("1", "2")
        )
        pairs.append((one, two))
    whole = [one.cpu_ms / two.cpu_ms for one, two in pairs]
    frames = [per_core(two) / per_core(one) for one, two in pairs]
    print(f"{label}, two processes of one core over one process of two, per busy core:")
    print(f"    whole commands {listed(whole)}, their frames {listed(frames)}")
    for one, two in pairs:
        print(
            f"    CPU {one.cpu_ms:.1f} and {two.cpu_ms:.1f} ms a frame, "
            f"whole commands {one.wall:.1f} and {two.wall:.1f} s"
        )


def per_core(found: Run) -> float:
    return found.frames_fps / found.busy


def listed(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({', '.join(f'{ratio:.3f}' for ratio in ratios)})"


def run(clip: Path, options: list[str]) -> Run:
    """One command, from start to end."""
    out = Path(tempfile.mkdtemp())
    words = [sys.executable, "-m", "pipeline", "process", str(clip), "--output-dir", str(out)]
    before, started = cpu_seconds(), time.perf_counter()
    subprocess.run(  # noqa: S603
        [*words, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wall, cpu = time.perf_counter() - started, cpu_seconds() - before
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    shutil.rmtree(out)
    speed = report["speed"]
    return Run(report["output"]["num_frames"], wall, cpu, speed["cores_busy"], speed["frames_fps"])


def cpu_seconds() -> float:
    """Of all child processes that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
