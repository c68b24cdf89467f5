"""Events of one or many clips -> events.csv and events.json."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.run.events.follow import IN, OUT, Crossing, Events, Moment, Visit
from pipeline.run.events.shapes import Shape, Shapes
from pipeline.run.exports.clip import ExportedClip

EVENTS_VERSION = 1
"""Format version of events.json, its `schema_version`: see docs/schemas/."""

COLUMNS = (
    "clip",
    "event",
    "where",
    "direction",
    "track_id",
    "class_name",
    "frame_index",
    "pts_seconds",
    "time",
    "dwell_seconds",
)


@dataclass(frozen=True, slots=True)
class ClipEvents:
    """The events of a clip. shapes: in its pixels."""

    clip: ExportedClip
    shapes: Shapes
    events: Events

    def time_of(self, moment: Moment) -> str | None:
        """The wall clock; None for a clip that does not say when it was recorded."""
        if self.clip.starts_at is None:
            return None
        time = datetime.fromisoformat(self.clip.starts_at) + timedelta(seconds=moment.seconds)
        return time.isoformat(timespec="milliseconds")

    def counts(self) -> dict[str, Any]:
        """The counts per class, in all and over time, as in the report of the clip."""
        return {"num_tracks": self.events.num_tracks, **_counts(self.shapes, self.events)}


def write_events_csv(clips: Sequence[ClipEvents], target: Path) -> None:
    """Write a table with these columns, a row per event, in order of time within each clip.

    event: "cross" a line, in a direction; "enter" and "leave" a zone; "first_seen" and "last_seen"
    there where a track begins or ends in it. Its end has `dwell_seconds`. What does not apply is an
    empty cell.
    """
    with target.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(COLUMNS)
        for clip in clips:
            rows = [row for crossing in clip.events.crossings for row in _of_crossing(crossing)]
            rows += [row for visit in clip.events.visits for row in _of_visit(visit)]
            for moment, row in sorted(rows, key=lambda entry: entry[0]):
                event, where, direction, track_id, class_name, dwell_seconds = row
                table.writerow(
                    (
                        *(clip.clip.name, event, where, direction, track_id, class_name),
                        *(moment.frame_index, moment.seconds, clip.time_of(moment), dwell_seconds),
                    )
                )


_Row = tuple[Moment, tuple[str, str, str | None, int, str, float | None]]


def _of_crossing(crossing: Crossing) -> Iterator[_Row]:
    who = (crossing.track_id, crossing.class_name)
    yield crossing.at, ("cross", crossing.line, crossing.direction, *who, None)


def _of_visit(visit: Visit) -> Iterator[_Row]:
    who = (visit.track_id, visit.class_name)
    yield visit.begin, ("enter" if visit.entered else "first_seen", visit.zone, None, *who, None)
    end = "leave" if visit.left else "last_seen"
    yield visit.end, (end, visit.zone, None, *who, visit.dwell_seconds)


def write_events_json(clips: Sequence[ClipEvents], target: Path) -> None:
    """Write all events and counts, see docs/formats.md."""
    record = {"schema_version": EVENTS_VERSION, "clips": [_clip_record(clip) for clip in clips]}
    target.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _clip_record(clip: ClipEvents) -> dict[str, Any]:
    events, source = clip.events, clip.clip
    return {
        "clip": source.name,
        "size_wh": list(source.size_wh),
        "starts_at": source.starts_at,
        **clip.counts(),
        "crossings": [
            {
                "line": crossing.line,
                "direction": crossing.direction,
                "track_id": crossing.track_id,
                "class_name": crossing.class_name,
                **_moment(clip, crossing.at),
            }
            for crossing in events.crossings
        ],
        "visits": [
            {
                "zone": visit.zone,
                "track_id": visit.track_id,
                "class_name": visit.class_name,
                "begin": {"entered": visit.entered, **_moment(clip, visit.begin)},
                "end": {"left": visit.left, **_moment(clip, visit.end)},
                "dwell_seconds": visit.dwell_seconds,
            }
            for visit in events.visits
        ],
    }


def _moment(clip: ClipEvents, moment: Moment) -> dict[str, Any]:
    return {
        "frame_index": moment.frame_index,
        "pts_seconds": moment.seconds,
        "time": clip.time_of(moment),
    }


def _counts(shapes: Shapes, events: Events) -> dict[str, Any]:
    num_bins = events.boxes.num_bins
    return {
        **events.boxes.as_record(),
        "lines": [
            {
                **_shape_record(line),
                "crossings": {
                    direction: _crossings_of(events, line.name, direction)
                    for direction in (IN, OUT)
                },
                "over_time": {
                    direction: events.crossings_over_time(line.name, direction).per_class(num_bins)
                    for direction in (IN, OUT)
                },
            }
            for line in shapes.lines
        ],
        "zones": [
            {
                **_shape_record(zone),
                "visits": _visits_of(events, zone.name),
                "boxes": events.zone_boxes[zone.name].per_class(num_bins),
            }
            for zone in shapes.zones
        ],
    }


def _shape_record(shape: Shape) -> dict[str, Any]:
    points = [[round(edge, 2) for edge in point] for point in shape.points]
    return {"name": shape.name, "anchor": shape.anchor, "points": points}


def _crossings_of(events: Events, line: str, direction: str) -> dict[str, int]:
    found = Counter(
        crossing.class_name
        for crossing in events.crossings
        if (crossing.line, crossing.direction) == (line, direction)
    )
    return dict(found.most_common())


def _visits_of(events: Events, zone: str) -> dict[str, Any]:
    by_class: dict[str, list[Visit]] = defaultdict(list)
    for visit in events.visits:
        if visit.zone == zone:
            by_class[visit.class_name].append(visit)
    return {
        class_name: {
            "visits": len(visits),
            "tracks": len({visit.track_id for visit in visits}),
            "dwell_seconds": round(sum(visit.dwell_seconds for visit in visits), 6),
        }
        for class_name, visits in sorted(by_class.items(), key=lambda entry: -len(entry[1]))
    }
