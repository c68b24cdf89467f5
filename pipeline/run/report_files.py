"""report.json and report.html: what they say of the annotated file, and how they are written."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.config import DrawOptions, EncodeOptions
from pipeline.core.errors import InputError
from pipeline.core.files import flush_to_disk
from pipeline.frames.codecs import encoder_settings
from pipeline.frames.report_pictures import Picture, pictures_in
from pipeline.media.frame import VideoInfo
from pipeline.media.still import picture_settings
from pipeline.run.identity import drawn_key
from pipeline.run.outputs import DETECTIONS_VERSION, REPORT_JSON_NAME, REPORT_PAGE_NAME

Report = dict[str, Any]
"""Plain values, as in report.json."""

_DRAWN_LATER = "the annotated file was drawn later, by `pipeline render`"


def annotated_record(
    path: Path, info: VideoInfo, encode: EncodeOptions, threads: int
) -> dict[str, Any]:
    """What the report says of an annotated file. threads: of its encoder."""
    settings = picture_settings(info) if info.is_picture else encoder_settings(encode, threads)
    size_bytes = path.stat().st_size
    return {"file": path.name, "size_bytes": size_bytes, "codec": encode.codec, **settings}


def output_record(
    num_frames: int, annotated: dict[str, Any] | None, notes: list[str]
) -> dict[str, Any]:
    """What the report says of the output. annotated: see `annotated_record`; None without one."""
    none = dict.fromkeys(("file", "size_bytes", "codec", "encoder", "threads"))
    return {
        **(annotated or none),
        "detections_version": DETECTIONS_VERSION,
        "num_frames": num_frames,
        "notes": notes,
    }


def with_annotated(
    report: Report,
    annotated: dict[str, Any],
    encode: EncodeOptions,
    draw: DrawOptions,
    notes: Sequence[str],
) -> Report:
    """The report of a run, with the annotated file that was drawn from its detections later.

    encode: with the threads that the encoder had. notes: on that file.
    """
    before = report["output"]
    all_notes = list(dict.fromkeys([*before["notes"], *notes, _DRAWN_LATER]))
    asked = dataclasses.replace(encode, threads=None)
    return {
        **report,
        "result_key": drawn_key(report["detections_key"], asked, draw),
        "output": output_record(before["num_frames"], annotated, all_notes),
        "configuration": {
            **report["configuration"],
            "encode": dataclasses.asdict(encode),
            "draw": dataclasses.asdict(draw),
        },
        "highlights": _highlights_left(report, drop_audio=encode.drop_audio),
    }


def _highlights_left(report: Report, *, drop_audio: bool) -> Any:
    """What a report says of highlights, if they are no cuts of an earlier annotated file."""
    known = report.get("highlights")
    had_no_sound = report["configuration"]["encode"].get("drop_audio", False)
    is_kept = known and known["from_source"] and (had_no_sound or not drop_audio)
    return known if is_kept else None


def update_report(folder: Path, fields: Report) -> None:
    """Give the report in a folder these fields, and make its page anew with its pictures.

    Raises InputError if it cannot be read or written.
    """
    try:
        report = json.loads((folder / REPORT_JSON_NAME).read_text(encoding="utf-8"))
        page_path = folder / REPORT_PAGE_NAME
        page = page_path.read_text(encoding="utf-8") if page_path.exists() else ""
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as unfinished:
            write_report({**report, **fields}, Path(unfinished), pictures_in(page))
            for name in (REPORT_JSON_NAME, REPORT_PAGE_NAME):
                flush_to_disk(Path(unfinished) / name)
                (Path(unfinished) / name).replace(folder / name)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from error


def write_report(report: Report, folder: Path, pictures: list[Picture]) -> None:
    """Write report.json and report.html beside the annotated clip.

    pictures: frames of the result.
    """
    (folder / REPORT_JSON_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    # Imported here, to keep the time before the first frame short.
    from pipeline.run.page import render_page

    page = render_page("run/report.html.jinja", r=report, pictures=pictures)
    (folder / REPORT_PAGE_NAME).write_text(page, encoding="utf-8")
