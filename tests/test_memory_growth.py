"""The memory of a run does not depend on the length of its clip."""

from __future__ import annotations

import platform
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
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


JOIN = """
import sys
from pathlib import Path
from pipeline.core.memory import release_memory
from pipeline.media.mux import SourceStreams, mux, verify

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def join(clip, num_frames):
    joined = clip.with_name("joined.mp4")
    mux([clip], joined, SourceStreams(clip))
    verify(joined, num_frames, num_frames / 25)
    release_memory()

short, long, num_frames = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
join(short, 25)
before = resident_bytes()
join(long, num_frames)
status = Path("/proc/self/status").read_text()
peak = 1024 * int(status.partition("VmHWM:")[2].split()[0])
print((peak - before) / num_frames, (resident_bytes() - before) / num_frames)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process in /proc")
def test_joining_takes_an_index_of_the_packets_and_gives_it_back(tmp_path: Path) -> None:
    """The muxer and the demuxers keep an entry for each packet until the file is closed."""
    num_frames = 120_000
    images = [np.zeros((64, 64, 3), np.uint8)] * 25
    short = write_clip(tmp_path / "short.mp4", images, options={"g": "25", "bf": "0"})
    long = repeated(short, tmp_path / "long.mp4", num_frames // 25)
    words = [sys.executable, "-c", JOIN, str(short), str(long), str(num_frames)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=220)
    peak_per_frame, left_per_frame = map(float, done.stdout.split())
    assert 50 < peak_per_frame < 400  # 240 bytes; objects of Python would be more.
    assert left_per_frame < 40


def repeated(clip: Path, target: Path, times: int) -> Path:
    """Its packets so many times in a row."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [p for p in source.demux(stream) if p.size]
        ticks = round(1 / (Fraction(25) * stream.time_base))
        for number, packet in enumerate(packets * times):
            packet.pts = packet.dts = number * ticks
            packet.stream = copy
            out.mux(packet)
    return target


KEEP = """
import resource
from pipeline.core.memory import keep_memory

def faults_of_a_clip():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    frames = [bytearray(b"1" * (4 << 20)) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults_of_a_clip()
returned = faults_of_a_clip()
keep_memory()
faults_of_a_clip()
print(returned, faults_of_a_clip())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of its malloc")
def test_what_a_clip_frees_is_kept_for_the_next_one() -> None:
    done = subprocess.run([sys.executable, "-c", KEEP], check=True, capture_output=True, text=True)
    returned, kept = map(int, done.stdout.split())
    assert kept < returned / 10
