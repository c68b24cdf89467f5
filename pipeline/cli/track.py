"""`track`: ids for the boxes of an existing result, without its pixels."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.groups import add_debug, add_quiet
from pipeline.cli.options import add_options, read_path
from pipeline.cli.terminal import progress_shown, show, show_outputs
from pipeline.core.config import TRACKERS, ProcessConfig
from pipeline.core.text import counted


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "track",
        help="give the boxes of an existing result the ids of their tracks",
        description="Find the tracks of an earlier result, without its clip and without a model: "
        "the boxes in its detections.jsonl get a track_id, in place. Nothing else in it changes. "
        "`pipeline render` then draws the ids. Needs the extra 'track'.",
        formatter_class=HelpFormatter,
    )
    command.add_argument(
        "result",
        type=read_path,
        help="output folder of a run, or a file in the format of its detections.jsonl",
    )
    command.add_argument(
        "--tracker",
        choices=TRACKERS,
        default=TRACKERS[0],
        help="the tracker; none of them needs the clip",
    )
    add_options(command, ProcessConfig, "overwrite", help_text="replace ids that are there already")
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.run.tracks.result import track_result

    with progress_shown(arguments, str(arguments.result)) as progress:
        tracked = track_result(
            arguments.result,
            arguments.tracker,
            overwrite=arguments.overwrite,
            on_progress=progress,
        )
    show_outputs([tracked.detections])
    if not arguments.quiet:
        frames = counted(tracked.num_frames, "frame")
        show(f"{counted(tracked.num_tracks, 'track')} in {frames}")
        show(str(tracked.detections))
