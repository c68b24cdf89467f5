"""viewer.html and viewer_data/: a page on which a clip is played with its detections."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from pipeline.core.config import ProcessConfig
from pipeline.core.detection_lines import DetectedFrame
from pipeline.core.files import real_path
from pipeline.core.work_folder import SPOOL_NAME
from pipeline.media.frame import FrameSource
from pipeline.run.outputs import VIEWER_DATA_NAME, VIEWER_PAGE_NAME
from pipeline.run.page import render_page
from pipeline.run.viewer.data import ViewerData, read_index
from pipeline.run.viewer.events import keep_events, write_events

_PARTS = Path(__file__).parent / "page"
_SCRIPTS = ("data", "filters", "player", "timeline", "appearances", "events", "list", "main")


@dataclass(frozen=True, slots=True)
class PlayedSource:
    """The source of a clip, for a page that plays it.

    addresses: of the file, relative to the page and absolute. seconds_before: from its beginning
    to the first frame of the result.
    """

    addresses: tuple[str, ...]
    seconds_before: float


def played_source(config: ProcessConfig, source: FrameSource) -> PlayedSource | None:
    """The file of a run as the page plays it; None where it is no clip that stays where it is.

    And where the annotated file covers what is to be seen in it.
    """
    clip, timeline = config.clip, source.timeline
    if clip is None or config.remote.source_url is not None or clip.name == SPOOL_NAME:
        return None
    if config.remote.output_url is not None or config.redact.covered is not None:
        return None
    path, page_folder = real_path(clip), real_path(config.output_dir)
    relative = quote(os.fsencode(os.path.relpath(path, page_folder)))
    stretch = timeline.stretch if timeline else None
    before = float(stretch.seconds_before) if stretch else 0.0
    return PlayedSource((relative, "file://" + quote(os.fsencode(path))), before)


def earlier_source(folder: Path) -> PlayedSource | None:
    """The source that an earlier page in a folder plays; None without one."""
    try:
        record = read_index(folder / VIEWER_DATA_NAME)["source"]
        addresses = tuple(str(address) for address in record["addresses"])
        return PlayedSource(addresses, float(record["seconds_before"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_viewer(
    report: dict[str, Any],
    frames: Iterable[DetectedFrame],
    source: PlayedSource | None,
    folder: Path,
    earlier: Path | None = None,
) -> None:
    """Write the page and its data into a folder of finished files.

    report: of the clip. source: None if only the annotated file may be played, as always of a
    redacted result. earlier: the folder of an earlier page, which has the events that the report
    counts. Nothing is written for a still picture.
    """
    if report["source"].get("is_picture"):
        return
    data_folder = folder / VIEWER_DATA_NAME
    shutil.rmtree(data_folder, ignore_errors=True)
    data_folder.mkdir()
    data = ViewerData(data_folder)
    for frame in frames:
        data.add(frame)
    redacted = (report["configuration"].get("redact") or {}).get("covered") is not None
    data.finish(_facts(report, None if redacted else source))
    write_events(None, data_folder)
    if earlier is not None and report.get("events"):
        keep_events(earlier / VIEWER_DATA_NAME, data_folder)
    page = render_page(
        "run/viewer/page/viewer.html.jinja",
        r=report,
        data=VIEWER_DATA_NAME,
        style=_part("viewer.css"),
        script=Markup("\n").join(_part(f"{name}.js") for name in _SCRIPTS),
    )
    (folder / VIEWER_PAGE_NAME).write_text(page, encoding="utf-8")


def _facts(report: dict[str, Any], source: PlayedSource | None) -> dict[str, Any]:
    of_clip, annotated = report["source"], report["output"]["file"]
    facts: dict[str, Any] = {
        "name": of_clip["name"],
        "size_wh": of_clip["size_wh"],
        "video": annotated and quote(annotated),
        "source": None,
    }
    if source is not None:
        facts["source"] = {
            "addresses": source.addresses,
            "seconds_before": source.seconds_before,
            "format": f"{of_clip['container']}, {of_clip['codec']}",
        }
    return facts


def _part(name: str) -> Markup:
    """A file of the page as it stands."""
    return Markup((_PARTS / name).read_text(encoding="utf-8"))  # noqa: S704
