"""`highlights`: clips of what an earlier run found; also `process --highlights`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.crops import cut_crops
from pipeline.cli.groups import add_debug, add_quiet, add_results
from pipeline.cli.options import given
from pipeline.cli.terminal import progress_shown, show, show_error, show_note, show_outputs
from pipeline.core.config import STANDARD_INPUT, ProcessConfig
from pipeline.core.errors import Interrupted, PipelineError, UsageError
from pipeline.core.highlight_options import HIGHLIGHT_FORMS, PADDING_SECONDS, HighlightOptions
from pipeline.core.text import counted
from pipeline.run.events.shapes import Shapes, read_shapes
from pipeline.run.outputs import DETECTIONS_NAME, HIGHLIGHTS_NAME

if TYPE_CHECKING:
    from pipeline.run.events.follow import Events  # At run time it would load NumPy.


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "highlights",
        help="cut clips of what was found out of existing results",
        description="Cut the frames with finds, or with events, and what precedes and follows "
        "them out of the annotated clips of earlier runs: writes highlights/ beside each, with an "
        "edit decision list (.edl) and an OpenTimelineIO timeline (.otio), in place of earlier "
        "ones.",
        formatter_class=HelpFormatter,
    )
    add_results(command)
    command.add_argument(
        "--padding",
        dest="padding_seconds",
        type=float,
        default=PADDING_SECONDS,
        metavar="SECONDS",
        help="what is shown before and after a find",
    )
    command.add_argument(
        "--as",
        dest="form",
        choices=HIGHLIGHT_FORMS,
        default=HIGHLIGHT_FORMS[0],
        help="each: a clip for each stretch; one: one clip of all of them",
    )
    command.add_argument(
        "--lines",
        type=Path,
        metavar="FILE",
        help="cut out the crossings of the lines and the visits to the zones of this YAML or JSON "
        "file, in place of all finds; the boxes need a track_id",
    )
    command.add_argument(
        "--from-source",
        dest="clips",
        type=Path,
        metavar="CLIPS",
        help="copy them from the source, without boxes and from the key frame before; CLIPS is the "
        "clip, or the folder with the clips",
    )
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.run.exports.clip import find_results

    options = HighlightOptions(
        padding_seconds=arguments.padding_seconds,
        form=arguments.form,
        from_source=arguments.clips is not None,
    )
    shapes = None if arguments.lines is None else read_shapes(arguments.lines)
    results = find_results(arguments.results)
    for path in results:
        source = None
        if arguments.clips is not None:
            source = _source_of(path, arguments.clips)
        _cut(arguments, path, options, shapes, source, alone=len(results) == 1)


def _source_of(detections: Path, at: Path) -> Path:
    from pipeline.run.exports.clip import source_file
    from pipeline.run.recorded import from_report

    def find(_: Path, report: dict[str, Any]) -> Path:
        return source_file(report["source"]["name"], report["source"]["fingerprint"], at)

    return from_report(detections, find)


def requested_highlights(arguments: argparse.Namespace, config: ProcessConfig) -> HighlightOptions:
    """What `process` is to cut out. Raises UsageError for what cannot be cut out."""
    options = HighlightOptions(**given(HighlightOptions, arguments))
    if options.padding_seconds is None and not options.crops:
        return options
    name = "--crops" if options.padding_seconds is None else "--highlights"
    if config.remote.output_url is not None:
        raise UsageError(
            f"{name} writes beside results in a folder: copy the result from the object store, "
            "then use `pipeline highlights`"
        )
    if options.padding_seconds is not None and not (config.video or options.from_source):
        raise UsageError(
            "--highlights with --no-video: there is no annotated clip; add --from-source to cut "
            "the source"
        )
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
) -> None:
    """Cut what `process` is asked for out of finished results.

    configs: those of the clips. Of many clips, the others are cut too if one of them fails; all
    errors are shown but the last one. Raises PipelineError.
    """
    errors: list[PipelineError] = []
    for config in configs:
        detections, alone = config.output_dir / DETECTIONS_NAME, len(configs) == 1
        try:
            if options.padding_seconds is not None:
                _cut(arguments, detections, options, shapes, config.clip, alone=alone)
            if options.crops:
                cut_crops(arguments, detections, config, alone=alone)
        except Interrupted:
            raise
        except PipelineError as error:
            errors.append(error)
    for earlier in errors[:-1]:
        show_error(str(earlier))
    if errors:
        raise errors[-1]


def _cut(
    arguments: argparse.Namespace,
    detections: Path,
    options: HighlightOptions,
    shapes: Shapes | None,
    source: Path | None,
    *,
    alone: bool,
) -> None:
    from pipeline.run.highlights.highlights import read_found, write_highlights

    clip = read_found(detections)
    if clip.is_picture and not alone:
        return  # Of a batch.
    with progress_shown(arguments, clip.name) as progress:
        events = None if shapes is None else _events(clip.detections, shapes)
        record = write_highlights(clip, options, events, source, progress)
    for line in record["notes"]:
        show_note(line)
    show_outputs([clip.folder / HIGHLIGHTS_NAME])
    if not arguments.quiet:
        show(_summary(record, clip.folder, None if alone else clip.name))


def _events(detections: Path, shapes: Shapes) -> Events:
    from pipeline.run.events.events import find_events
    from pipeline.run.exports.clip import read_clips

    return find_events(read_clips([detections]), shapes)[0].events


def _summary(record: dict[str, Any], folder: Path, clip: str | None) -> str:
    begin = f"{clip}: " if clip else ""
    if not record["clips"]:
        return f"{begin}no highlights: there are no {record['of']}"
    frames = sum(entry["num_frames"] for entry in record["clips"])
    names = ", ".join(record["lists"])
    return (
        f"{begin}{counted(len(record['clips']), 'highlight')} of {counted(frames, 'frame')} in "
        f"{folder / HIGHLIGHTS_NAME}, with {names}"
    )
