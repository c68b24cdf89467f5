"""batch.html: the entrance to the results of many clips, each with a picture, counts and links.

What a clip's own report says is read when the page is written. Imports nothing heavy: the parent
process writes it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.core.errors import InputError
from pipeline.core.text import counted
from pipeline.frames.report_pictures import pictures_in
from pipeline.run.outputs import (
    BATCH_JSON_NAME,
    BATCH_PAGE_NAME,
    REPORT_JSON_NAME,
    REPORT_PAGE_NAME,
    VIEWER_PAGE_NAME,
)
from pipeline.run.page import render_page

_MOST_THUMBNAILS = 200
"""They are part of the page: 8 MB."""
_MOST_CLASSES = 4


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """What the page says of a clip, beside its record in batch.json.

    thumbnail: a data: URL; None without one. found: of what there is most. events: a line for
    each line and zone. viewer: its address; None without one.
    """

    thumbnail: str | None = None
    found: str = ""
    events: tuple[str, ...] = ()
    viewer: str | None = None


def write_batch_page(record: dict[str, Any], output_dir: Path) -> None:
    """Write the page, in place of an earlier one. record: as in batch.json. Raises OSError."""
    entries, thumbnails_left = [], _MOST_THUMBNAILS
    for clip in record["clips"]:
        entry = ClipEntry()
        if clip["report"]:
            entry = _entry(output_dir, clip["output_dir"], with_thumbnail=thumbnails_left > 0)
        thumbnails_left -= entry.thumbnail is not None
        entries.append(entry)
    page = render_page("batch/batch.html.jinja", b=record, entries=entries)
    part = output_dir / f".{BATCH_PAGE_NAME}"
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(output_dir / BATCH_PAGE_NAME)
    finally:
        part.unlink(missing_ok=True)


def update_batch_page(output_dir: Path) -> None:
    """Write the page of a batch anew, after the reports of its clips changed.

    Nothing happens in a folder without one. Raises InputError.
    """
    path = output_dir / BATCH_JSON_NAME
    if not path.exists():
        return
    try:
        write_batch_page(json.loads(path.read_text(encoding="utf-8")), output_dir)
    except OSError as error:
        raise InputError(f"{error.filename or output_dir}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is damaged ({error!r})") from error


def _entry(output_dir: Path, place: str, *, with_thumbnail: bool) -> ClipEntry:
    folder = output_dir / place
    try:
        report = json.loads((folder / REPORT_JSON_NAME).read_text(encoding="utf-8"))
        viewer = Path(place, VIEWER_PAGE_NAME)
        return ClipEntry(
            _thumbnail(folder) if with_thumbnail else None,
            _found(report["detections"]),
            tuple(_events(report.get("events"))),
            quote(os.fsencode(viewer)) if (output_dir / viewer).exists() else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ClipEntry()  # A result that was changed since still has its line.


def _thumbnail(folder: Path) -> str | None:
    """The picture of the report that shows most."""
    pictures = pictures_in((folder / REPORT_PAGE_NAME).read_text(encoding="utf-8"))
    best = max(pictures, key=lambda picture: len(picture.sights), default=None)
    return None if best is None else best.url


def _found(detections: dict[str, Any]) -> str:
    classes = sorted(detections["per_class"].items(), key=lambda item: -item[1])
    parts = [f"{name} {number}" for name, number in classes[:_MOST_CLASSES]]
    if len(classes) > _MOST_CLASSES:
        parts.append(counted(len(classes) - _MOST_CLASSES, "more class", "more classes"))
    tracks = f", {counted(detections['tracks'], 'track')}" if detections.get("tracks") else ""
    boxes = counted(detections["total"], "box", "boxes")
    return f"{boxes}{tracks}: {', '.join(parts)}" if parts else "no boxes"


def _events(events: dict[str, Any] | None) -> list[str]:
    if events is None:
        return []
    lines = [
        f"line {line['name']}: {sum(line['crossings']['in'].values())} in, "
        f"{sum(line['crossings']['out'].values())} out"
        for line in events["lines"]
    ]
    zones = [
        f"zone {zone['name']}: "
        + counted(sum(of_class["visits"] for of_class in zone["visits"].values()), "visit")
        for zone in events["zones"]
    ]
    return lines + zones
