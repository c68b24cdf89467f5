"""`highlights`: clips of what an earlier run found; also `process --highlights`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.cutting import cut_each
from pipeline.cli.groups import add_debug, add_quiet, add_results
from pipeline.cli.options import add_options, given, read_path
from pipeline.core.config import STANDARD_INPUT, ProcessConfig
from pipeline.core.errors import UsageError
from pipeline.core.highlight_options import HIGHLIGHT_FORMS, PADDING_SECONDS, HighlightOptions
from pipeline.core.options import declared, require
from pipeline.core.picture_paths import is_surely_picture
from pipeline.run.events.shapes import Shapes, read_shapes
from pipeline.run.outputs import DETECTIONS_NAME


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "highlights",
        help="cut clips of what was found out of existing results",
        description="Cut clips of the frames with boxes, or with events, out of the annotated "
        "clips of earlier runs, with some seconds before and after: writes highlights/ beside "
        "each result, with an edit decision list (.edl) and an OpenTimelineIO timeline (.otio). "
        "Replaces earlier highlights.",
        formatter_class=HelpFormatter,
    )
    add_results(command)
    command.add_argument(
        "--padding",
        dest="padding_seconds",
        type=float,
        default=PADDING_SECONDS,
        metavar="SECONDS",
        help="how much is shown before and after the frames with boxes, or the events",
    )
    command.add_argument(
        "--as",
        dest="form",
        choices=HIGHLIGHT_FORMS,
        default=HIGHLIGHT_FORMS[0],
        help="each: a clip for each stretch; one: one clip of all stretches",
    )
    command.add_argument(
        "--lines",
        type=read_path,
        metavar="FILE",
        help="instead of all frames with boxes, cut out crossings of the lines and visits to the "
        "zones of this YAML or JSON file; the boxes need a track_id",
    )
    command.add_argument(
        "--from-source",
        dest="clips",
        type=read_path,
        metavar="CLIPS",
        help="copy highlights from the source, without boxes; each then begins at the key frame "
        "before its stretch. CLIPS is the clip, or the folder with the clips",
    )
    add_options(command, ProcessConfig, "stall_seconds")
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.run.exports.clip import find_results

    options = _options(arguments)
    shapes = None if arguments.lines is None else read_shapes(arguments.lines)
    config_of = functools.partial(
        _config_of, clips=arguments.clips, stall_seconds=arguments.stall_seconds
    )
    cut_each(arguments, find_results(arguments.results), config_of, options, shapes)


def _options(arguments: argparse.Namespace) -> HighlightOptions:
    """Those of `highlights`, which have other names than in `process`. Raises UsageError."""
    option, padding = declared(HighlightOptions)["padding_seconds"], arguments.padding_seconds
    require(math.isfinite(padding), f"--padding must be a finite number, not {padding}")
    dataclasses.replace(option, flag="--padding").require_valid("padding_seconds", padding)
    from_source = arguments.clips is not None
    require(
        not from_source or arguments.form == HIGHLIGHT_FORMS[0],
        "--from-source makes a clip for each stretch: leave --as out",
    )
    return HighlightOptions(padding_seconds=padding, form=arguments.form, from_source=from_source)


def _config_of(detections: Path, clips: Path | None, stall_seconds: float) -> ProcessConfig:
    """Of a result, to cut its annotated clip, or its source, if that is somewhere in clips."""
    from pipeline.run.exports.clip import source_file
    from pipeline.run.recorded import from_report

    def config(_: Path, report: dict[str, Any]) -> ProcessConfig:
        name = str(report["source"]["name"])
        source = Path(name)
        if clips is not None:
            source = source_file(name, report["source"]["fingerprint"], clips)
        return ProcessConfig(
            source=source, output_dir=detections.parent, stall_seconds=stall_seconds
        )

    return from_report(detections, config)


def requested_highlights(
    arguments: argparse.Namespace, config: ProcessConfig, paths: Sequence[Path]
) -> HighlightOptions:
    """What `process` is to cut out. Raises UsageError for what cannot be cut out.

    paths: of all clips. Of several, some may be pictures, which have no highlights.
    """
    options = HighlightOptions(**given(HighlightOptions, arguments))
    if options.padding_seconds is None and not options.crops:
        return options
    name = "--crops" if options.padding_seconds is None else "--highlights"
    if config.remote.output_url is not None:
        raise UsageError(
            f"{name} writes beside results in a folder: copy the result from the object store, "
            f"then use `pipeline {name.removeprefix('--')}`"
        )
    if options.padding_seconds is not None and not (config.video or options.from_source):
        raise UsageError(
            "--highlights with --no-video: there is no annotated clip; add --from-source to cut "
            "the source"
        )
    if options.padding_seconds is not None and paths and all(map(is_surely_picture, paths)):
        what = f"{paths[0]} is a picture" if len(paths) == 1 else "all inputs are pictures"
        raise UsageError(f"{what}: --highlights is for clips; leave it out")
    if config.clip is None and options.from_source:
        raise UsageError("--from-source is for clips: it copies their packets")
    is_passing = config.remote.source_url is not None or arguments.videos == [STANDARD_INPUT]
    if is_passing and (options.from_source or options.crops):
        flag = "--crops" if options.crops else "--from-source"
        raise UsageError(f"{flag} reads the source again: store it as a file first")
    if options.from_source and config.redact.covered is not None:
        raise UsageError("--from-source would show what --redact covers: leave it out")
    return options


def cut_out(
    arguments: argparse.Namespace,
    configs: Sequence[ProcessConfig],
    options: HighlightOptions,
    shapes: Shapes | None,
    *,
    of_batch: bool = False,
) -> None:
    """Cut what `process` is asked for out of finished results.

    configs: those of the clips. Of many clips, the others are cut too if one of them fails.
    of_batch: as in `cut_each`. Raises PipelineError.
    """
    if not configs or (options.padding_seconds is None and not options.crops):
        return
    of_folder = {config.output_dir: config for config in configs}
    results = [folder / DETECTIONS_NAME for folder in of_folder]

    def config_of(path: Path) -> ProcessConfig:
        return of_folder[path.parent]

    cut_each(arguments, results, config_of, options, shapes, of_batch=of_batch)
