"""What a clip costs beyond its frames: many short clips against one long one of the same frames.

    python scripts/benchmarks/batch_overhead.py clip.mp4 --clips 40 --seconds 2 --rounds 3

The short clips are copies of the beginning of the clip, the long one repeats its packets. Both are
processed by the command, in turn, everything included: starting, loading the model, looking at the
clips, reports.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--clips", type=int, default=40, metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="of a short clip")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="in turn")
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = make_clips(arguments.video, folder, arguments.clips, arguments.seconds)
        seconds: dict[str, list[float]] = {"short": [], "long": []}
        measure(folder / "long", folder / "out", options)  # What the cache lacks.
        for _ in range(arguments.rounds):
            for kind, of_kind in seconds.items():
                of_kind.append(measure(folder / kind, folder / "out", options))
    short, long = (statistics.median(of_kind) for of_kind in seconds.values())
    total = frames * arguments.clips
    print(f"{arguments.clips} clips of {frames} frames: {short:.2f} s, {total / short:.1f} fps")
    print(f"1 clip of {total} frames: {long:.2f} s, {total / long:.1f} fps")
    print(f"{short / long:.3f} times; {1000 * (short - long) / arguments.clips:.0f} ms a clip")


def make_clips(video: Path, folder: Path, number: int, seconds: float) -> int:
    """Write the short clips and the long one; returns the frames of a short one."""
    for kind in ("short", "long"):
        (folder / kind).mkdir()
    first = folder / "short" / "000.mp4"
    frames = write_beginning(video, first, seconds)
    write_repeated(first, folder / "long" / "long.mp4", number)
    for i in range(1, number):
        shutil.copy(first, first.with_name(f"{i:03d}.mp4"))
    return frames


def write_beginning(video: Path, target: Path, seconds: float) -> int:
    with av.open(str(video)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        assert stream.average_rate
        copy: Any = out.add_stream("libx264", rate=stream.average_rate, options={"crf": "20"})
        copy.width, copy.height, copy.pix_fmt = stream.width, stream.height, "yuv420p"
        number = int(seconds * stream.average_rate)
        for index, frame in zip(range(number), source.decode(stream), strict=False):
            frame.pts, frame.time_base, frame.pict_type = index, 1 / stream.average_rate, 0
            out.mux(copy.encode(frame))
        out.mux(copy.encode(None))
    return number


def write_repeated(clip: Path, target: Path, number: int) -> None:
    """A clip so many times in a row, by copying its packets."""
    with av.open(str(target), "w") as out:
        copy: Any = None
        offset = 0
        for _ in range(number):
            with av.open(str(clip)) as container:
                stream = container.streams.video[0]
                copy = copy or out.add_stream_from_template(stream)
                for packet in container.demux(stream):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = copy
                    out.mux(packet)
                offset += stream.duration or 0


def measure(footage: Path, out: Path, options: list[str]) -> float:
    """Seconds that the command takes for a folder."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "pipeline", "process", str(footage), "--output-dir", str(out)]
    started = time.perf_counter()
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
