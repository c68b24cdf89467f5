"""The packets of a clip -> those of a slice of it, on a timeline that begins with the slice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from pipeline.core.errors import InputError, UsageError
from pipeline.core.slices import Slice
from pipeline.media.cut import is_seekable, key_pts, seek_before
from pipeline.media.scan import ClipScan
from pipeline.media.timeline import Clock, FrameTimes, Stretch, Timeline


def sliced(
    scan: ClipScan, asked: Slice, path: Path, decoded_places: Callable[[], Sequence[int]]
) -> ClipScan:
    """What is left of a scan of a whole clip; the first frame of the slice is shown at 0.

    decoded_places: where each frame is shown, in ticks of the result, by decoding all; called for a
        clip whose time stamps are missing or repeat. Raises InputError if no frame lies there,
        UsageError for a clip of one frame.
    """
    timeline = scan.timeline
    if len(scan.packets) == 1:
        raise UsageError(f"{path} has one frame: --start and --end are for clips; leave them out")
    pts = sorted(packet.pts for packet in scan.packets if packet.pts is not None)
    # Where times are missing or repeat, those of the frames are made up while reading.
    is_known = not timeline.has_times or len(set(pts)) == len(scan.packets)
    places = _places(timeline, pts) if is_known else decoded_places()
    taken = _taken(asked, places, timeline.time_base, path)
    first = places[taken.start]
    moved = beginning_at(timeline, first)
    places = _places(moved, pts) if is_known else [place - first for place in places]
    start, reaches_end = places[taken.start], taken.stop == len(places)
    end = moved.end if reaches_end else places[taken.stop]
    begins, ends = moved.closed(start), moved.closed(places[taken.stop - 1])
    packets = [p for p in scan.packets if p.pts is not None and begins <= p.pts <= ends]
    if not timeline.has_times:
        packets = scan.packets[: len(taken)]
    moved = dataclasses.replace(
        moved,
        num_frames=len(taken),
        num_key_frames=sum(packet.is_keyframe for packet in packets),
        start=start,
        end=end,
        last_pts=timeline.last_pts if reaches_end else None,
        stretch=Stretch(
            start,
            None if reaches_end else end,
            _seek_pts(scan, begins),
            taken.start,
            first * timeline.time_base,
            is_seekable(scan),
        ),
    )
    return ClipScan(moved, packets)


def _taken(asked: Slice, places: Sequence[int], time_base: Fraction, path: Path) -> range:
    """The frames of the slice. Raises InputError if there are none."""
    taken = asked.frames(len(places), lambda index: places[index] * time_base)
    if not taken:
        last_seconds = float(places[-1] * time_base) if places else 0.0
        raise InputError(
            f"{path}: no frame lies in {asked}: the last one is frame {len(places) - 1}, at "
            f"{last_seconds:.3f} s"
        )
    return taken


def _places(timeline: Timeline, pts: Sequence[int]) -> Sequence[int]:
    """Where the frames of a clip are shown, in ticks of the result.

    pts: in ticks of the file, in the order in which they are shown; empty where there are none.
    """
    times = FrameTimes(timeline)
    found = pts if timeline.has_times else [None] * timeline.num_frames
    return [times.place(time)[0] for time in found]


def beginning_at(timeline: Timeline, place: int) -> Timeline:
    """The same with 0 at a place of the result, in its ticks."""
    seconds = place * timeline.time_base
    return dataclasses.replace(
        timeline,
        video=_later(timeline.video, seconds),
        others={index: _later(clock, seconds) for index, clock in timeline.others.items()},
        first_place=timeline.first_place - place,
        end=None if timeline.end is None else timeline.end - place,
    )


def _later(clock: Clock, seconds: Fraction) -> Clock:
    return dataclasses.replace(clock, origin=clock.origin + round(seconds / clock.time_base))


def _seek_pts(scan: ClipScan, first: int) -> int | None:
    """Where to seek for a frame; None for the beginning."""
    return seek_before(key_pts(scan.packets), first) if is_seekable(scan) else None
