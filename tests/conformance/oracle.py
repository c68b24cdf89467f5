"""What FFmpeg's own programs show of a clip: its frames, their times, and its sounds."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.conformance.clips import PICTURE_RATE

THUMBNAIL_WH = (24, 16)
"""So small that fewer samples of colour than of brightness make no difference."""
_SECONDS = 120


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
    sounds: tuple[Track | None, ...]
    thumbnails: NDArray[np.uint8]
    streams: tuple[dict[str, Any], ...]


def look(path: Path) -> Shown | None:
    """None where FFmpeg itself shows no frame."""
    streams = _streams(path)
    videos = [s for s in streams if s["codec_type"] == "video" and not _is_picture(s)]
    sounds = [s for s in streams if s["codec_type"] == "audio"]
    if not videos:
        return None
    index = str(videos[0]["index"])
    maps = [word for s in (videos[0], *sounds) for word in ("-map", f"0:{s['index']}")]
    tracks, thumbnails = _decoded(path, maps, index)
    if 0 not in tracks:
        return None
    heard = tuple(tracks.get(number) for number in range(1, len(sounds) + 1))
    return Shown(tracks[0], heard, thumbnails, tuple(streams))


def evenly_spaced(track: Track) -> Track:
    """As many frames, at the rate of the test pictures."""
    first, count = track.starts[0], len(track.starts)
    step = Fraction(1, PICTURE_RATE)
    return Track(tuple(first + n * step for n in range(count)), first + count * step)


def _is_picture(stream: dict[str, Any]) -> bool:
    return bool(stream["disposition"]["attached_pic"])


def _streams(path: Path) -> list[dict[str, Any]]:
    command = ("ffprobe", "-v", "quiet", "-of", "json", "-show_streams", f"file:{path}")
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout or b"{}").get("streams", [])
    except json.JSONDecodeError:
        return []  # It stopped in the middle: ffprobe cannot read the clip either.
    return found


def _decoded(
    path: Path, maps: Sequence[str], index: str
) -> tuple[dict[int, Track], NDArray[np.uint8]]:
    """Every track as ffmpeg times it, on one timeline for all, and the pictures of one stream."""
    width, height = THUMBNAIL_WH
    scale = f"format=rgb24,scale={width}:{height}:flags=area+accurate_rnd"
    # Times on the clip's own clock: by default they are rounded to whole frames.
    all_frames = ("-fps_mode", "passthrough")
    with tempfile.NamedTemporaryFile(suffix=".framehash") as hashes:
        command = (
            *("ffmpeg", "-v", "quiet", "-nostdin", "-y", "-i", f"file:{path}"),
            *(*maps, *all_frames, "-enc_time_base:v", "-1", "-f", "framehash"),
            *("-hash", "adler32", hashes.name),
            *("-map", f"0:{index}", *all_frames, "-vf", scale, "-f", "rawvideo", "-"),
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
