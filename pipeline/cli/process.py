"""`process`: one clip, or many as a batch."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.batch.batch import Batch, ClipResult
from pipeline.batch.clips import find_clips
from pipeline.batch.report import batch_record, has_news, write_batch
from pipeline.batch.work import ProcessClips, clips_at_once
from pipeline.cli import json_lines
from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.arguments import is_batch, process_config
from pipeline.cli.events import count_events, requested_shapes
from pipeline.cli.export import export_results, require_local_export
from pipeline.cli.groups import (
    OUTPUT_FOLDER,
    add_cores,
    add_limits,
    add_model_options,
    add_synthetic,
)
from pipeline.cli.highlights import cut_out, requested_highlights
from pipeline.cli.options import add_options, read_name, read_path
from pipeline.cli.spool import spooled
from pipeline.cli.summary import batch_summary, failure_lines, run_summary
from pipeline.cli.terminal import (
    progress_shown,
    show,
    show_error,
    show_log,
    show_note,
    show_outputs,
)
from pipeline.core.config import (
    STANDARD_INPUT,
    ClusterOptions,
    DetectOptions,
    DrawOptions,
    EncodeOptions,
    ProcessConfig,
    RedactOptions,
)
from pipeline.core.errors import InputError, PipelineError, UsageError
from pipeline.core.highlight_options import HighlightOptions
from pipeline.core.notes import collected_notes
from pipeline.core.position import Position
from pipeline.core.progress import ProgressCallback
from pipeline.core.text import counted
from pipeline.execution.journal import is_publishing
from pipeline.execution.supervise import ChildProcess, supervise
from pipeline.run.events.shapes import Shapes
from pipeline.run.exports.formats import EXPORT_FORMATS
from pipeline.run.outputs import (
    BATCH_JSON_NAME,
    BATCH_PAGE_NAME,
    DETECTIONS_NAME,
    OUTPUT_NAMES,
    VIEWER_PAGE_NAME,
    require_free_output,
)


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "process",
        help="annotate one or many clips or pictures",
        description="Annotate a clip: writes annotated.mp4, detections.jsonl, viewer.html, "
        "report.json and report.html, for the synthetic scene also truth.jsonl. A picture gives "
        "annotated.jpg or annotated.png instead of annotated.mp4, and no viewer.html. Given "
        "several files, a folder or a pattern, each "
        "clip (or each picture, if there are no clips) is processed into its own output folder; "
        "batch.json and batch.html summarise them. A clip with a finished result for the same "
        "model and options is skipped. A clip that fails does not stop the others. Rerun an "
        "interrupted command to resume.",
        formatter_class=HelpFormatter,
    )
    command.add_argument(
        "videos",
        nargs="*",
        metavar="video",
        help="a clip, '-' for standard input, or 'synthetic' for the synthetic scene (the "
        "default); or files, folders and quoted patterns like 'cams/**/*.mp4'",
    )
    command.add_argument(
        "--output-dir",
        type=read_name,
        metavar="DIR",
        help="output folder (default: output/CLIP; for many clips: output)",
    )
    add_options(command, ProcessConfig, "overwrite")
    add_cores(command)
    command.add_argument(
        "--export",
        nargs="+",
        choices=EXPORT_FORMATS,
        metavar="FORMAT",
        default=[],
        help="write the detections in these formats too, into export/ of the output folder: "
        + ", ".join(EXPORT_FORMATS),
    )
    command.add_argument(
        "--events",
        type=read_path,
        metavar="FILE",
        help="count tracks that cross the lines or visit the zones of this YAML or JSON file, into "
        "events.csv and events.json; needs --track",
    )
    add_model_options(command)
    add_options(command.add_argument_group("boxes"), DetectOptions)
    add_options(
        command.add_argument_group("frames"),
        ProcessConfig,
        *(
            "num_frames",
            "start",
            "end",
            "every",
            "adaptive",
            "tile",
            "track",
            "least_agreement",
            "deinterlace",
            "reuse_duplicates",
            "segment_seconds",
            "segments_at_once",
        ),
    )
    encoding = command.add_argument_group("encoding")
    add_options(encoding, EncodeOptions)
    add_options(encoding, ProcessConfig, "video")
    add_options(command.add_argument_group("drawing"), DrawOptions)
    add_options(command.add_argument_group("redaction"), RedactOptions)
    add_options(command.add_argument_group("highlights"), HighlightOptions)
    add_options(add_limits(command), ProcessConfig, "stall_seconds")
    add_synthetic(command)
    cluster = command.add_argument_group("cluster", "Process segments on a Ray cluster.")
    cluster.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="this machine or a Ray cluster",
    )
    add_options(cluster, ClusterOptions, "address", "cores_per_actor")


def run(arguments: argparse.Namespace) -> None:
    if is_batch(arguments):
        _process_batch(arguments)
        return
    config = process_config(arguments)
    require_local_export(arguments.export, config.remote.output_url)
    shapes = requested_shapes(arguments.events, config)
    highlights = requested_highlights(arguments, config, [config.clip] if config.clip else [])
    name = config.source_name
    with contextlib.ExitStack() as stack:
        if arguments.videos == [STANDARD_INPUT]:
            if sys.stdin is None:
                raise UsageError("standard input is closed; give a clip with < or a pipe")
            if not is_publishing(config.output_dir):
                require_free_output(config)  # Before all of it has been read.
            source = stack.enter_context(spooled(sys.stdin.buffer, config.output_dir))
            config = dataclasses.replace(config, source=source)
        progress = stack.enter_context(progress_shown(arguments, name))
        report = supervise(process_in_child, config, progress)
    is_remote = config.remote.output_url is not None
    place = config.remote.output_url or str(config.output_dir)
    try:
        if report["done_before"]:
            show(
                f"{config.source_name}: skipped, already done with the same model and options; "
                "--overwrite repeats it"
            )
        has_viewer = is_remote or (config.output_dir / VIEWER_PAGE_NAME).exists()
        for line in () if arguments.quiet else run_summary(report, place, has_viewer=has_viewer):
            show(line)
    except OSError as error:  # The result is the files.
        complete = f"{place}/{report['output']['file'] or DETECTIONS_NAME}"
        show_error(
            f"{complete} is complete; its summary could not be shown "
            f"({error.filename}: {error.strerror})"
        )
    for line in report["output"]["notes"]:
        show_note(line)
    show_outputs([place] if is_remote else _files_in(config.output_dir))
    export_results([config.output_dir], arguments.export, config.output_dir)
    _count_events(arguments, [config.output_dir], shapes, config.output_dir)
    cut_out(arguments, [config], highlights, shapes)


def _process_batch(arguments: argparse.Namespace) -> None:
    output_dir = Path(arguments.output_dir or OUTPUT_FOLDER)
    config = dataclasses.replace(process_config(arguments), output_dir=output_dir)
    shapes = requested_shapes(arguments.events, config)
    with collected_notes() as notes:
        batch = Batch(config, find_clips(arguments.videos, output_dir), _show_clip)
    paths = [result.clip.path for result in batch.results]
    highlights = requested_highlights(arguments, config, paths)
    for line in notes:
        show_note(line)
    unwritten: InputError | None = None
    try:
        with progress_shown(arguments) as progress:
            # Before the worker starts, which holds back the signals that would end this.
            if clips := batch.clips_left(progress):
                # Removed also where the child is killed.
                with tempfile.TemporaryDirectory(prefix="pipeline-") as scratch:
                    work = ProcessClips(len(clips), Path(scratch))
                    with ChildProcess(work, work.end, clips_at_once(config)) as worker:
                        batch.process(clips, worker, supervise, progress)
                worker.require_not_stopped()
    finally:
        for result in batch.results:
            if result.status == "not reached":
                _show_clip(result)
        if batch.number_of("not reached") < len(batch.results):
            unwritten = _report_batch(batch, notes, output_dir, quiet=arguments.quiet)
    failed = [result for result in batch.results if result.status == "failed"]
    try:
        _use_results(arguments, batch.results, config, shapes, highlights)
    finally:
        _show_failed(failed, debug=arguments.debug)
    if failed:
        raise PipelineError(f"{len(failed)} of {counted(len(batch.results), 'clip')} failed")
    if unwritten is not None:
        raise unwritten


def _report_batch(
    batch: Batch, notes: Sequence[str], output_dir: Path, *, quiet: bool
) -> InputError | None:
    """Write and show what became of the clips; returns why it could not be written, if so.

    The results are the clips: what fails here is reported at the end.
    """
    unwritten: InputError | None = None
    record = batch_record(batch, [*notes, *batch.notes], output_dir)
    news = has_news(record, output_dir)
    try:
        if news:
            write_batch(record, output_dir)
            show_outputs([output_dir / BATCH_JSON_NAME, output_dir / BATCH_PAGE_NAME])
    except InputError as error:
        unwritten = error
    with contextlib.suppress(OSError):
        for line in () if quiet else batch_summary(record, output_dir, kept=not news):
            show(line)
    for line in batch.notes:
        show_note(line)
    return unwritten


def _use_results(
    arguments: argparse.Namespace,
    results: Sequence[ClipResult],
    config: ProcessConfig,
    shapes: Shapes | None,
    highlights: HighlightOptions,
) -> None:
    """Export, count and cut what the finished results of a batch have.

    config: of all clips, with the output folder of the batch.
    """
    done = [
        dataclasses.replace(config, source=result.clip.path, output_dir=result.clip.output_dir)
        for result in results
        if result.figures
    ]
    finished = [clip.output_dir for clip in done]
    export_results(finished, arguments.export, config.output_dir)
    _count_events(arguments, finished, shapes, config.output_dir)
    cut_out(arguments, done, highlights, shapes, of_batch=True)


def _show_failed(failed: Sequence[ClipResult], *, debug: bool) -> None:
    if debug:
        for result in failed:
            for line in traceback.format_exception(result.error):
                show_log(line.rstrip("\n"))
    if json_lines.current() is not None:  # For programs, each by itself.
        for result in failed:
            show_error(f"{result.clip.path}: {result.reason}")
        return
    for line in failure_lines(failed):
        show_error(line, line)


def _show_clip(result: ClipResult) -> None:
    files = _files_in(result.clip.output_dir) if result.figures else []
    show_outputs(files, result.clip.path, result.status)


def _files_in(folder: Path) -> list[Path]:
    """The files of a result."""
    return [file for name in OUTPUT_NAMES if (file := folder / name).exists()]


def _count_events(
    arguments: argparse.Namespace, folders: list[Path], shapes: Shapes | None, output_dir: Path
) -> None:
    for line in count_events(folders, shapes, output_dir):
        if not arguments.quiet:
            show(line)


def process_in_child(
    config: ProcessConfig, on_progress: ProgressCallback, position: Position
) -> dict[str, Any]:
    """The work of the child process of `process`, which imports the heavy libraries."""
    from pipeline.core.cache import remove_temporary_folder
    from pipeline.run.remote import process_or_skip

    try:
        return process_or_skip(config, on_progress, position)
    finally:
        remove_temporary_folder()
