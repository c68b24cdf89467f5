"""`events`: crossings of lines and visits to zones in existing results; also `process --events`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.groups import add_debug, add_quiet, add_results
from pipeline.cli.options import add_options, read_path
from pipeline.cli.summary import events_summary
from pipeline.cli.terminal import show, show_note, show_outputs
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, UsageError
from pipeline.core.notes import collected_notes
from pipeline.core.text import counted
from pipeline.run.events.shapes import Shapes, read_shapes
from pipeline.run.outputs import EVENTS_CSV_NAME, EVENTS_JSON_NAME

if TYPE_CHECKING:
    from pipeline.run.events.files import ClipEvents  # At run time it would load NumPy.


_MOST_CLIPS = 20
"""How many clips the summary names."""


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "events",
        help="count crossings of lines and visits to zones in existing results",
        description="Follow the tracks of earlier runs over named lines and zones: writes "
        "events.csv (a row per event) and events.json (events, and counts over time) for one or "
        "many results, and updates their reports. The boxes need a track_id.",
        formatter_class=HelpFormatter,
    )
    add_results(command)
    command.add_argument(
        "--lines",
        required=True,
        type=read_path,
        metavar="FILE",
        help="YAML or JSON file with lines and zones",
    )
    command.add_argument(
        "--output-dir",
        type=read_path,
        metavar="DIR",
        help="output folder; reports are then not updated (default: the folder of the result)",
    )
    add_options(command, ProcessConfig, "overwrite", help_text="replace existing events")
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.batch.page import update_batch_page
    from pipeline.run.events.events import find_events, report_events, write_events
    from pipeline.run.exports.clip import find_results, read_clips

    shapes = read_shapes(arguments.lines)
    results = find_results(arguments.results)
    folder = arguments.output_dir or _folder_of(arguments.results, results)
    if not arguments.overwrite:
        for name in (EVENTS_CSV_NAME, EVENTS_JSON_NAME):
            if (folder / name).exists():
                raise InputError(f"{folder / name} exists already: --overwrite replaces it")
    found = find_events(read_clips(results), shapes)
    written = write_events(found, folder)
    show_outputs(written)
    if arguments.output_dir is None:
        report_events(found)
        update_batch_page(folder)
    if not arguments.quiet:
        for line in (*_summary(found), *map(str, written)):
            show(line)


def requested_shapes(path: Path | None, config: ProcessConfig) -> Shapes | None:
    """The lines and zones of `process --events`. Raises UsageError if they cannot be used."""
    if path is None:
        return None
    if config.track is None:
        raise UsageError("--events needs --track: it counts tracks")
    if config.remote.output_url is not None:
        raise UsageError(
            "--events writes beside results in a folder: copy the result from the object store, "
            "then use `pipeline events`"
        )
    return read_shapes(path)


def count_events(folders: Sequence[Path], shapes: Shapes | None, output_dir: Path) -> list[str]:
    """Write the events of the results in these folders, in place of earlier ones.

    Returns their summary. Raises InputError.
    """
    if shapes is None or not folders:
        return []
    from pipeline.batch.page import update_batch_page
    from pipeline.run.events.events import find_events, report_events, write_events
    from pipeline.run.exports.clip import find_results, read_clips

    with collected_notes() as notes:
        found = find_events(read_clips(find_results(folders)), shapes)
    for line in notes:
        show_note(line)
    written = write_events(found, output_dir)
    report_events(found)
    update_batch_page(output_dir)
    show_outputs(written)
    return [*_summary(found), *map(str, written)]


def _summary(found: Sequence[ClipEvents]) -> list[str]:
    several, more = len(found) > 1, len(found) - _MOST_CLIPS
    lines = [
        line
        for clip in found[:_MOST_CLIPS]
        for line in events_summary(clip.counts(), clip.clip.name if several else None)
    ]
    return [*lines, f"and {counted(more, 'clip')} more"] if more > 0 else lines


def _folder_of(given: Sequence[Path], results: Sequence[Path]) -> Path:
    """The folder of the one result or batch. Raises UsageError."""
    if len(given) > 1:
        raise UsageError("several results: say with --output-dir where their events go")
    return given[0] if given[0].is_dir() else results[0].parent
