"""`export`: existing results in the formats of other tools; also `process --export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.groups import add_debug, add_quiet, add_results
from pipeline.cli.options import add_options, read_path
from pipeline.cli.terminal import show, show_outputs
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import UsageError
from pipeline.run.exports.formats import EXPORT_FOLDER, EXPORT_FORMATS


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="write existing detections in the formats of other tools",
        description="Write the detections of earlier runs in the formats of other tools: coco, "
        "csv (one row per box), cvat (CVAT for video 1.1), labelstudio (tasks with "
        "predictions), megadetector (JSON 1.6), mot (MOTChallenge), yolo (data set of "
        "ultralytics). Several results become one data set, with unique ids.",
        formatter_class=HelpFormatter,
    )
    add_results(command)
    command.add_argument(
        "--to",
        nargs="+",
        required=True,
        choices=EXPORT_FORMATS,
        metavar="FORMAT",
        help=f"one or more of {', '.join(EXPORT_FORMATS)}",
    )
    command.add_argument(
        "--every-nth", type=int, default=1, metavar="N", help="only every Nth frame"
    )
    command.add_argument(
        "--images",
        type=read_path,
        metavar="CLIPS",
        help="write the exported frames as pictures too (coco, mot, yolo); CLIPS is the clip, or "
        "the folder with the clips",
    )
    command.add_argument(
        "--output-dir",
        type=read_path,
        metavar="DIR",
        help=f"output folder (default: {EXPORT_FOLDER}/ beside the detections of one result)",
    )
    add_options(
        command, ProcessConfig, "overwrite", help_text="replace earlier exports in these formats"
    )
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    written = _export(arguments)
    show_outputs(written)
    for path in () if arguments.quiet else written:
        show(str(path))


def _export(arguments: argparse.Namespace) -> list[Path]:
    """Write the exports; returns what was written. Raises UsageError, InputError."""
    from pipeline.run.exports.clip import find_results, read_clips
    from pipeline.run.exports.export import export, require_free
    from pipeline.run.exports.pictures import PICTURE_NAMES, find_sources

    if arguments.every_nth < 1:
        raise UsageError("--every-nth must be 1 or more")
    if arguments.images and not PICTURE_NAMES.keys() & set(arguments.to):
        raise UsageError(f"--images: only {', '.join(PICTURE_NAMES)} have pictures")
    results = find_results(arguments.results)
    folder = arguments.output_dir or _folder_beside(arguments.results, results)
    if not arguments.overwrite:
        require_free(folder, arguments.to)
    clips = read_clips(results, arguments.every_nth)
    sources = find_sources(clips, arguments.images) if arguments.images else None
    return export(clips, arguments.to, folder, sources)


def _folder_beside(given: Sequence[Path], results: Sequence[Path]) -> Path:
    """The folder beside the one result, or in that of the one batch. Raises UsageError."""
    if len(given) > 1:
        raise UsageError("several results: say with --output-dir where their export goes")
    return (given[0] if given[0].is_dir() else results[0].parent) / EXPORT_FOLDER


def require_local_export(formats: Sequence[str], output_url: str | None) -> None:
    """Raise UsageError for an export of results that go to an object store."""
    if formats and output_url is not None:
        raise UsageError(
            "--export writes beside results in a folder: copy the result from the object store, "
            "then use `pipeline export`"
        )


def export_results(folders: Sequence[Path], formats: Sequence[str], output_dir: Path) -> None:
    """Export the results in these folders as one data set, in place of an earlier export.

    Raises InputError.
    """
    if not formats or not folders:
        return
    from pipeline.run.exports.clip import find_results, read_clips
    from pipeline.run.exports.export import export

    show_outputs(export(read_clips(find_results(folders)), formats, output_dir / EXPORT_FOLDER))
