"""How many segments of a clip are processed side by side on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.core.config import ProcessConfig
from pipeline.core.machine import available_cores
from pipeline.core.notes import note
from pipeline.core.text import counted

if TYPE_CHECKING:
    from pipeline.media.frame import VideoInfo


@dataclass(frozen=True, slots=True)
class Pays:
    """From when on processes side by side are faster than one: see docs/performance.md.

    cores_each: that one keeps busy. frames_each: that make up for its start, which takes a second
    of CPU time. segments_each: at the end, some have no segment while others still work.
    """

    cores_each: int
    frames_each: int
    segments_each: int


INFERRING_ALL = Pays(cores_each=4, frames_each=1000, segments_each=1)
INFERRING_SOME = Pays(cores_each=1, frames_each=5000, segments_each=8)
"""Where few frames or none are inferred: decoder, encoder and the threads around them have most to
do, and wait for each other."""
SHORT_CLIPS = Pays(cores_each=4, frames_each=1000, segments_each=1)
"""Of a batch, each of them a single segment: they are given to the processes whole."""


def most_processes(config: ProcessConfig) -> int:
    """How many are ever asked for, or pay where most frames are inferred."""
    cores = available_cores()
    return min(cores, config.segments_at_once or -(-cores // SHORT_CLIPS.cores_each))


def num_at_once(
    config: ProcessConfig,
    info: VideoInfo,
    num_segments: int,
    pays: Pays,
    frames_in_flight: Callable[[int], int],
    num_clips: int = 1,
) -> int:
    """The number of segments at once that is asked for, or that pays; 1 is this process alone.

    num_clips: of a batch, which are as one where each of them is a single segment.

    frames_in_flight: called with a number of processes; how many decoded frames there are in each
    of them at the most. All of them together keep to `--max-memory`.
    """
    if num_segments > 1:
        num_clips = 1
    if num_segments * num_clips == 1:
        return 1
    cores, asked = available_cores(), config.segments_at_once
    if num_segments > 1 and config.ends_early:
        if asked and asked > 1:
            note("with --frames, segments are processed one after the other")
        return 1
    if num_clips > 1:
        pays = SHORT_CLIPS
    wanted = asked or min(-(-cores // pays.cores_each), _worth(info, num_segments, pays, num_clips))
    possible = max(1, min(wanted, num_segments * num_clips, cores))
    most_frames = config.limits.max_memory_mb * 1_000_000 // info.frame_bytes
    fits = possible
    while fits > 1 and fits * frames_in_flight(fits) > most_frames:
        fits -= 1
    if asked and fits < possible:
        note(
            f"{counted(fits, 'segment')} instead of {possible} at once: more frames would be in "
            f"flight than --max-memory {config.limits.max_memory_mb} allows"
        )
    return fits


def _worth(info: VideoInfo, num_segments: int, pays: Pays, num_clips: int) -> int:
    """How many processes a clip, or so many as long as this one, are long enough for."""
    by_segments, num_frames = (
        num_segments * num_clips // pays.segments_each,
        info.num_frames_expected,
    )
    if num_frames is None:
        return by_segments
    return min(by_segments, num_frames * num_clips // pays.frames_each)
