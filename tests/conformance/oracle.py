"""What FFmpeg's own programs show of a clip: its frames, their times, and its sounds."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conformance.clips import PICTURE_RATE

THUMBNAIL_WH = (24, 16)
"""So small that fewer samples of colour than of brightness make no difference."""
_SECONDS = 120
_VIDEO = ("-map", "0:V:0")
"""The first one that is no cover."""


@dataclass(frozen=True, slots=True)
class Track:
    """When each piece of a stream is shown or heard, in seconds; the last one with its end."""

    starts: tuple[Fraction, ...]
    end: Fraction

    @property
    def longest_step(self) -> Fraction:
        """From one piece to the next."""
        return max((b - a for a, b in itertools.pairwise(self.starts)), default=Fraction(0))


@dataclass(frozen=True, slots=True)
class Shown:
    """A clip as a player shows it.

    thumbnails: uint8 (frames, height, width, 3), RGB.
    """

    video: Track
    sounds: tuple[Track, ...]
    thumbnails: NDArray[np.uint8]


def look(path: Path) -> Shown | None:
    """None where FFmpeg itself shows no frame of a video that is no cover."""
    tracks, thumbnails = _decoded(path)
    if 0 not in tracks:
        return None
    heard = tuple(track for number, track in sorted(tracks.items()) if number)
    video = tracks[0]
    if path.suffix == ".mp4":
        # FFmpeg's program guesses how long the last frame lasts; the file says it.
        video = dataclasses.replace(video, end=video.starts[0] + _stated_seconds(path))
    return Shown(video, heard, thumbnails)


def evenly_spaced(track: Track) -> Track:
    """As many frames, at the rate of the test pictures."""
    first, count = track.starts[0], len(track.starts)
    step = Fraction(1, PICTURE_RATE)
    return Track(tuple(first + n * step for n in range(count)), first + count * step)


def _stated_seconds(path: Path) -> Fraction:
    """How long the video of an MP4 file lasts, by its own account."""
    show = ("-show_entries", "stream=duration_ts,time_base", "-of", "json")
    command = ("ffprobe", "-v", "quiet", "-select_streams", "V:0", *show, f"file:{path}")
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=True)
    [stream] = json.loads(done.stdout)["streams"]
    return int(stream["duration_ts"]) * Fraction(stream["time_base"])


def _decoded(path: Path) -> tuple[dict[int, Track], NDArray[np.uint8]]:
    """The first video and all sounds as ffmpeg times them, on one timeline, and the pictures."""
    width, height = THUMBNAIL_WH
    scale = f"format=rgb24,scale={width}:{height}:flags=area+accurate_rnd"
    # Times on the clip's own clock: by default they are rounded to whole frames.
    all_frames = ("-fps_mode", "passthrough")
    with tempfile.NamedTemporaryFile(suffix=".framehash") as hashes:
        command = (
            *("ffmpeg", "-v", "quiet", "-nostdin", "-y", "-i", f"file:{path}"),
            *(*_VIDEO, "-map", "0:a?", *all_frames, "-enc_time_base:v", "-1", "-f", "framehash"),
            *("-hash", "adler32", hashes.name),
            *(*_VIDEO, *all_frames, "-vf", scale, "-f", "rawvideo", "-"),
        )
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        lines = hashes.read().decode().splitlines()
    thumbnails = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return _tracks(lines), thumbnails


def _tracks(lines: Iterable[str]) -> dict[int, Track]:
    ticks, starts, ends = dict[int, Fraction](), dict[int, list[Fraction]](), dict[int, Fraction]()
    for line in lines:
        if line.startswith("#tb "):
            number, base = line[4:].split(":")
            ticks[int(number)] = Fraction(base.strip())
        elif line and not line.startswith("#"):
            number, _, pts, duration, _, _ = line.split(",")
            tick, start = ticks[int(number)], int(pts) * ticks[int(number)]
            starts.setdefault(int(number), []).append(start)
            ends[int(number)] = start + int(duration) * tick
    return {number: Track(tuple(times), ends[number]) for number, times in starts.items()}
