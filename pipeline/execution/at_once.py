"""How many segments of a clip are processed side by side on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.core.config import ProcessConfig
from pipeline.core.machine import available_cores
from pipeline.core.notes import note
from pipeline.core.text import counted

if TYPE_CHECKING:
    from pipeline.media.frame import VideoInfo

CORES_INFERRING_ALL = 4
"""Cores that one process keeps busy if every frame is inferred: see docs/performance.md."""
CORES_INFERRING_SOME = 2
"""The same where few frames or none are inferred, so that decoder and encoder have most to do."""
_FRAMES_WORTH_A_PROCESS = 1000
"""A process takes a second of CPU time to start: it needs so many frames to make up for that."""


def num_at_once(
    config: ProcessConfig,
    info: VideoInfo,
    num_segments: int,
    cores_each: int,
    frames_in_flight: Callable[[int], int],
) -> int:
    """The number of segments at once that is asked for, or that pays; 1 is this process alone.

    cores_each: how many cores one process keeps busy. frames_in_flight: called with a number of
    processes; how many decoded frames there are in each of them at the most. All of them together
    keep to `--max-memory`.
    """
    cores, asked = available_cores(), config.segments_at_once
    if config.num_frames is not None and config.synthetic is None:
        # How many frames of a segment to take, only those before it can tell.
        if asked and asked > 1:
            note("with --frames, segments are processed one after the other")
        return 1
    wanted = asked or min(-(-cores // cores_each), _worth(info, cores))
    possible = max(1, min(wanted, num_segments, cores))
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


def _worth(info: VideoInfo, cores: int) -> int:
    """How many processes a clip has enough frames for."""
    num_frames = info.num_frames_expected
    return cores if num_frames is None else num_frames // _FRAMES_WORTH_A_PROCESS
