"""Events of a clip -> viewer_data/events.js, which the page loads once it is usable."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.run.events.files import ClipEvents
from pipeline.run.events.follow import IN, Moment
from pipeline.run.events.shapes import Shape
from pipeline.run.viewer.data import quoted

EVENTS_NAME = "events.js"
_MOST_EVENTS = 100_000
"""Which the page lists: two megabytes. events.csv has all."""
_IN, _OUT, _VISIT = 0, 1, 2


class _Entry(NamedTuple):
    """A crossing, or a visit from its begin to its end; in order of time."""

    first: int
    last: int
    shape: int
    kind: int
    track: int
    class_name: str


def write_events(clip: ClipEvents | None, data_folder: Path) -> None:
    """Write the events of a clip, in place of earlier ones, for the page beside the folder.

    clip: None for a result without events.
    """
    part = data_folder / f".{EVENTS_NAME}"
    try:
        value = None if clip is None else _columns(clip)
        part.write_text(f"viewerEvents(JSON.parse('{quoted(value)}'))\n", encoding="ascii")
        part.replace(data_folder / EVENTS_NAME)
    finally:
        part.unlink(missing_ok=True)


def keep_events(earlier_folder: Path, data_folder: Path) -> None:
    """Take the events over from an earlier page, where there are any."""
    if (earlier_folder / EVENTS_NAME).is_file():
        shutil.copyfile(earlier_folder / EVENTS_NAME, data_folder / EVENTS_NAME)


def _columns(clip: ClipEvents) -> dict[str, Any]:
    """The first events as one list of numbers per field, and the lines and zones in pixels."""
    shapes = [*clip.shapes.lines, *clip.shapes.zones]
    places = {shape.name: place for place, shape in enumerate(shapes)}
    entries = sorted(_entries(clip, places))
    shown = entries[:_MOST_EVENTS]
    names = sorted({entry.class_name for entry in shown})
    by_name = {name: place for place, name in enumerate(names)}
    return {
        "shapes": [_record(shape, is_zone=shape in clip.shapes.zones) for shape in shapes],
        "total": len(entries),
        "class_names": names,
        "first": [entry.first for entry in shown],
        "last": [entry.last for entry in shown],
        "shape": [entry.shape for entry in shown],
        "kind": [entry.kind for entry in shown],
        "track": [entry.track for entry in shown],
        "class": [by_name[entry.class_name] for entry in shown],
    }


def _entries(clip: ClipEvents, places: dict[str, int]) -> Iterator[_Entry]:
    def entry(shape: str, kind: int, track: int, class_name: str, *when: Moment) -> _Entry:
        first, last = when[0].frame_index, when[-1].frame_index
        return _Entry(first, last, places[shape], kind, track, class_name)

    for c in clip.events.crossings:
        kind = _IN if c.direction == IN else _OUT
        yield entry(c.line, kind, c.track_id, c.class_name, c.at)
    for v in clip.events.visits:
        yield entry(v.zone, _VISIT, v.track_id, v.class_name, v.begin, v.end)


def _record(shape: Shape, *, is_zone: bool) -> dict[str, Any]:
    points = [[round(edge, 1) for edge in point] for point in shape.points]
    return {"name": shape.name, "is_zone": is_zone, "points": points}
