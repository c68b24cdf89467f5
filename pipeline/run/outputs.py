"""The output files of a run: their names, free space, and moving them into place.

Imports nothing heavy: an existing output is reported before libraries are loaded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, UsageError
from pipeline.core.files import flush_to_disk, real_path
from pipeline.execution.journal import is_publishing
from pipeline.run.identity import drawn_key

if TYPE_CHECKING:
    from pipeline.media.frame import VideoInfo  # At run time it would load FFmpeg.

ANNOTATED_NAMES = ("annotated.mp4", "annotated.jpg", "annotated.png")
"""The annotated file of a clip, or of a picture; a result has one of them, or none."""
DETECTIONS_NAME = "detections.jsonl"
WEAK_NAME = "weak.jsonl"
"""The boxes that only a tracker or redaction needs, beside the others."""
COVERS_NAME = "covers.jsonl"
"""What is covered in each frame, for whoever draws the detections again."""
TRUTH_NAME = "truth.jsonl"
EVENTS_CSV_NAME = "events.csv"
EVENTS_JSON_NAME = "events.json"
REPORT_JSON_NAME = "report.json"
REPORT_PAGE_NAME = "report.html"
VIEWER_PAGE_NAME = "viewer.html"
VIEWER_DATA_NAME = "viewer_data"
"""A folder of scripts that the viewer loads."""
HIGHLIGHTS_NAME, CROPS_NAME = "highlights", "crops"
"""Folders of clips and of pictures that were cut out of the result."""
EDL_NAME, OTIO_NAME = "highlights.edl", "highlights.otio"
CROPS_JSON_NAME = "crops.json"
BATCH_JSON_NAME = "batch.json"
BATCH_PAGE_NAME = "batch.html"
OUTPUT_NAMES = (
    VIEWER_DATA_NAME,
    VIEWER_PAGE_NAME,
    EVENTS_CSV_NAME,
    EVENTS_JSON_NAME,
    HIGHLIGHTS_NAME,
    CROPS_NAME,
    TRUTH_NAME,
    WEAK_NAME,
    COVERS_NAME,
    DETECTIONS_NAME,
    REPORT_JSON_NAME,
    REPORT_PAGE_NAME,
    *ANNOTATED_NAMES,
)

_ALWAYS_IN = {HIGHLIGHTS_NAME: OTIO_NAME, CROPS_NAME: CROPS_JSON_NAME}
"""What a folder of these names contains if it was written here."""

_FOLDERS = (VIEWER_DATA_NAME, *_ALWAYS_IN)

REPORT_VERSION = 2
"""Format version of report.json, its `schema_version`: see docs/schemas/. Version 1, without
`output.detections_version`, is read too."""
DETECTIONS_VERSION = 2
BATCH_VERSION = 1

LEAST_BITS_PER_PIXEL = 0.005
"""The bit rate of still scenes at the default quality; most footage needs ten times as much."""


def annotated_name(info: VideoInfo) -> str:
    """The name of the annotated file of a source."""
    return f"annotated{info.annotated_suffix}"


def require_free_output(config: ProcessConfig, names: Sequence[str] = OUTPUT_NAMES) -> None:
    """Raise InputError if an output may not be replaced, UsageError if it is the input.

    names: of the outputs, the one to be named first at the end.
    """
    if not config.overwrite and (version := _newer_version(config.output_dir)):
        raise InputError(
            f"{config.output_dir / REPORT_JSON_NAME} has format version {version}, this program "
            f"reads up to {REPORT_VERSION}: update this program, or replace the result with "
            "--overwrite"
        )
    source = config.clip and real_path(config.clip)
    for name in reversed(names):
        target = config.output_dir / name
        if not os.path.lexists(target) or _stays(target, config):
            continue
        if source is not None and source == real_path(target):
            raise UsageError(
                f"{config.clip} is both input and output: choose another output folder"
            )
        if target.exists() and not config.overwrite:
            raise InputError(
                f"{target} exists already{_of_another(config)}: --overwrite replaces it"
            )
        if target.is_dir() and not _is_ours(target):
            raise InputError(f"{target} is a folder: it cannot be replaced")


def _stays(target: Path, config: ProcessConfig) -> bool:
    """Whether a path is a folder of the user's own, which no run writes to or removes.

    Beside a redacted result nothing stays of which it is not known what it shows.
    """
    if target.name not in _ALWAYS_IN or target.is_symlink() or not target.is_dir():
        return False
    return not _is_ours(target) and config.redact.covered is None


def _of_another(config: ProcessConfig) -> str:
    """A text that names the source of a finished result, if it has another name than this one."""
    report = finished_report(config.output_dir)
    name = None if report is None else report["source"]["name"]
    if name is None or Path(str(name)).name == Path(config.source_name).name:
        return ""
    return f", the result of {name}"


def _newer_version(output_dir: Path) -> int | None:
    """The format version of a report by a later version of this program; else None."""
    try:
        version = json.loads((output_dir / REPORT_JSON_NAME).read_text(encoding="utf-8"))[
            "schema_version"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) and version > REPORT_VERSION else None


def finished_report(output_dir: Path, key: str | None = None) -> dict[str, Any] | None:
    """The report of a complete result with this key; else None.

    key: a result key; None accepts all.
    """
    if is_publishing(output_dir):
        return None
    try:
        report = json.loads((output_dir / REPORT_JSON_NAME).read_text(encoding="utf-8"))
        if key is None:
            key = report["result_key"]
        complete = is_complete(report, key, lambda name: (output_dir / name).stat().st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(report) if complete else None


def is_complete(
    report: dict[str, Any], key: str | None, size_bytes: Callable[[str], int | None]
) -> bool:
    """Whether the files of a report, of no later format, are there and have what this key asks for.

    key: a result key. size_bytes: of the file of a name beside the report; None for one that is not
    there. Raises KeyError or TypeError for what is not a report.
    """
    name = report["output"]["file"]
    found_key = report.get("detections_key")
    # Without an annotated file, the result is part of one with it.
    keys = [report["result_key"], found_key and drawn_key(found_key, None)]
    return (
        report["schema_version"] <= REPORT_VERSION
        and key in keys
        and (name is None or name in ANNOTATED_NAMES)
        and (name is None or report["output"]["size_bytes"] == size_bytes(name))
        and None not in (size_bytes(DETECTIONS_NAME), size_bytes(REPORT_PAGE_NAME))
    )


def require_space(
    config: ProcessConfig, info: VideoInfo, kept_bytes: int = 0, share_kept: float = 0.0
) -> None:
    """Raise InputError if the result certainly does not fit on the disk.

    The segments and the result are on the disk at the same time. Segments of an interrupted run
    (kept_bytes, which are share_kept of the clip) need space for their copy in the result only.
    """
    if not config.video:
        return
    counts = [n for n in (config.num_frames, info.num_frames_expected) if n is not None]
    pixels = info.size_wh[0] * info.size_wh[1] * min(counts, default=0) * (1 - share_kept)
    least = int(2 * pixels * LEAST_BITS_PER_PIXEL / 8) + kept_bytes
    free = shutil.disk_usage(config.output_dir).free
    if free < least:
        raise InputError(
            f"{config.output_dir}: {free / 1e6:.0f} MB are free, but the result needs "
            f"at least {least / 1e6:.0f} MB: make room, or choose another folder"
        )


def move_into_place(finished: Path, output_dir: Path, names: Sequence[str] = OUTPUT_NAMES) -> None:
    """Move the finished files of these names to their place, the annotated one, if any, last.

    That of an earlier run goes first: beside the new report, it would be taken for what this
    describes, such as a redacted one.
    """
    for name in ANNOTATED_NAMES:
        if name in names and not (output_dir / name).is_dir():
            (output_dir / name).unlink(missing_ok=True)
    for name in names:
        made, target = finished / name, output_dir / name
        if _is_ours(target):
            _remove_folder(target)
        if name in _FOLDERS:  # What a killed command has left.
            for path in (unfinished_folder(target), _removed_folder(target)):
                shutil.rmtree(path, ignore_errors=True)
        if made.exists():
            for path in made.iterdir() if made.is_dir() else [made]:
                flush_to_disk(path)
            made.replace(target)
        elif not target.is_dir() or target.is_symlink():
            target.unlink(missing_ok=True)  # Of another run.
    flush_to_disk(output_dir)


def replace_folder(target: Path, made: Path) -> None:
    """Move a finished folder to its place, where an earlier one of its kind may be.

    Raises InputError for one that was not written here, OSError.
    """
    if os.path.lexists(target):
        if not _is_ours(target):
            raise InputError(f"{target} was not written by this program: move it away")
        _remove_folder(target)
    for path in made.iterdir():
        flush_to_disk(path)
    made.replace(target)


def unfinished_folder(target: Path) -> Path:
    """Where a folder of a result is made."""
    return target.with_name(f".{target.name}.unfinished")


def remove_cut_out(output_dir: Path, names: Sequence[str]) -> list[str]:
    """Remove folders of these names that were cut out of a result; returns those of them."""
    ours = [name for name in names if _is_ours(output_dir / name)]
    for name in ours:
        _remove_folder(output_dir / name)
    return ours


def remove_unfinished(output_dir: Path) -> None:
    """Remove what a process that was killed had cut out so far."""
    for name in _ALWAYS_IN:
        shutil.rmtree(unfinished_folder(output_dir / name), ignore_errors=True)


def _removed_folder(target: Path) -> Path:
    """Where a folder of a result is moved to before its files are removed."""
    return target.with_name(f".{target.name}.removed")


def _remove_folder(folder: Path) -> None:
    """Remove a folder of a result: if that is cut short, no part of it is left under its name.

    Without the file by which it is known, a part would be taken for the user's own.
    """
    doomed = _removed_folder(folder)
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def _is_ours(folder: Path) -> bool:
    """Whether a path is a folder of a result."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    name = _ALWAYS_IN.get(folder.name)
    return folder.name == VIEWER_DATA_NAME or (name is not None and (folder / name).is_file())
