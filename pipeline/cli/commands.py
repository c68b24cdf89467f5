"""Arguments -> validated config -> run -> exit code. The only place that prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from pipeline.batch.batch import Batch
from pipeline.batch.clips import find_clips
from pipeline.batch.report import batch_record, has_news, write_batch
from pipeline.batch.work import CLIPS_AT_ONCE, ProcessClips, end_processing
from pipeline.cli.arguments import (
    infer_options,
    is_batch,
    process_config,
    render_config,
    tune_config,
)
from pipeline.cli.exports import export_command, export_results, require_local_export
from pipeline.cli.parsers import OUTPUT_FOLDER, parse_arguments
from pipeline.cli.spool import spooled
from pipeline.cli.summary import batch_summary, failure_lines, run_summary
from pipeline.cli.terminal import ProgressPrinter, discard
from pipeline.core.config import (
    CLIP,
    STANDARD_INPUT,
    AutoOptions,
    InferOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.cores import limited_cores
from pipeline.core.errors import (
    InputError,
    Interrupted,
    ModelError,
    PipelineError,
    UsageError,
    as_pipeline_error,
)
from pipeline.core.machine import available_cores
from pipeline.core.notes import collected_notes
from pipeline.core.options import declared
from pipeline.core.position import Position
from pipeline.core.progress import ProgressCallback, no_progress
from pipeline.core.text import counted, printable
from pipeline.execution.journal import is_publishing
from pipeline.execution.supervise import ChildProcess, supervise
from pipeline.inference.configurations import AUTO, configurations
from pipeline.run.outputs import DETECTIONS_NAME, require_free_output
from pipeline.run.recorded import RecordedRun, Rendered, read_recorded

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_USE = 0, 1, 2
_EXIT_BY_SIGNAL = 128


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = parse_arguments(argv)
    try:
        with collected_notes() as notes, limited_cores(_cores(arguments)):
            _COMMANDS[arguments.command](arguments)
        if arguments.command != "process":  # Its report contains them.
            for line in notes:
                _show(f"note: {line}", sys.stderr)
    except Interrupted as error:
        return _fail(arguments, error, _EXIT_BY_SIGNAL + error.signal_number)
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", _EXIT_BY_SIGNAL + signal.SIGINT)
    except SystemExit as error:  # By another signal: see __main__.
        return _fail(arguments, "interrupted", int(error.code or EXIT_DONE))
    except UsageError as error:
        return _fail(arguments, f"{error}; see pipeline {arguments.command} --help", EXIT_WRONG_USE)
    except PipelineError as error:
        return _fail(arguments, error, EXIT_FAILED)
    except Exception as error:
        return _fail(arguments, as_pipeline_error(error), EXIT_FAILED)
    return EXIT_DONE


def _cores(arguments: argparse.Namespace) -> int | None:
    """The limit on cores, before a library is loaded that starts threads for all of them."""
    if arguments.command == "plan":  # Those of a cluster.
        return None
    number: int | None = getattr(arguments, "cores", None)
    declared(ProcessConfig)["cores"].require_valid("cores", number)
    return number


def _fail(arguments: argparse.Namespace, reason: object, code: int) -> int:
    if arguments.debug:
        for line in traceback.format_exc().splitlines():
            _show(line, sys.stderr)
    _show("pipeline: " + " ".join(str(reason).split()), sys.stderr)
    return code


def _show(line: str, stream: TextIO | None = None) -> None:
    """Print a line; names and messages in it may come from hostile files.

    Raises OSError if standard output is on a full disk. Nothing is raised if its reader has
    closed it.
    """
    stream = stream or sys.stdout
    if stream is None:  # Closed by the shell.
        return
    shown = printable(line).encode(stream.encoding or "utf-8", "backslashreplace")
    try:
        print(shown.decode(stream.encoding or "utf-8"), file=stream, flush=True)
    except OSError as error:
        discard(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, "standard output") from error


def _progress_shown(
    arguments: argparse.Namespace,
) -> contextlib.AbstractContextManager[ProgressCallback]:
    return contextlib.nullcontext(no_progress) if arguments.quiet else ProgressPrinter()


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


@dataclasses.dataclass(frozen=True, slots=True)
class RenderInChild:
    """The work of the child process of `render`, which imports FFmpeg and OpenCV."""

    recorded: RecordedRun

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> Rendered:
        from pipeline.run.render import render_clip

        return render_clip(config, self.recorded, on_progress, position)


def _process(arguments: argparse.Namespace) -> None:
    if is_batch(arguments):
        _process_batch(arguments)
        return
    config = process_config(arguments)
    require_local_export(arguments.export, config.remote.output_url)
    with contextlib.ExitStack() as stack:
        if arguments.videos == [STANDARD_INPUT]:
            if sys.stdin is None:
                raise UsageError("standard input is closed; give a clip with < or a pipe")
            if not is_publishing(config.output_dir):
                require_free_output(config)  # Before all of it has been read.
            source = stack.enter_context(spooled(sys.stdin.buffer, config.output_dir))
            config = dataclasses.replace(config, source=source)
        progress = stack.enter_context(_progress_shown(arguments))
        report = supervise(process_in_child, config, progress)
    place = config.remote.output_url or str(config.output_dir)
    try:
        if report["done_before"]:
            _show(
                f"{config.source_name}: skipped, already done with the same model and options; "
                "--overwrite repeats it"
            )
        for line in () if arguments.quiet else run_summary(report, place):
            _show(line)
    except OSError as error:  # The result is the files.
        complete = f"{place}/{report['output']['file'] or DETECTIONS_NAME}"
        _show(
            f"pipeline: {complete} is complete; its summary could not be shown "
            f"({error.filename}: {error.strerror})",
            sys.stderr,
        )
    for line in report["output"]["notes"]:
        _show(f"note: {line}", sys.stderr)
    export_results([config.output_dir], arguments.export, config.output_dir)


def _process_batch(arguments: argparse.Namespace) -> None:
    output_dir = Path(arguments.output_dir or OUTPUT_FOLDER)
    config = dataclasses.replace(process_config(arguments), output_dir=output_dir)
    with collected_notes() as notes:
        batch = Batch(config, find_clips(arguments.videos, output_dir))
    for line in notes:
        _show(f"note: {line}", sys.stderr)
    unwritten: InputError | None = None
    try:
        with _progress_shown(arguments) as progress:
            # Before the worker starts, which holds back the signals that would end this.
            if clips := batch.clips_left(progress):
                at_once = CLIPS_AT_ONCE if config.cluster is None else 1
                with ChildProcess(ProcessClips(), end_processing, at_once) as worker:
                    batch.process(clips, worker, supervise, progress)
                worker.require_not_stopped()
    finally:
        if batch.number_of("not reached") < len(batch.results):
            record = batch_record(batch, [*notes, *batch.notes], output_dir)
            news = has_news(record, output_dir)
            try:
                if news:
                    write_batch(record, output_dir)
            except InputError as error:  # The results are the clips; reported at the end.
                unwritten = error
            with contextlib.suppress(OSError):  # The results are the files.
                for line in (
                    () if arguments.quiet else batch_summary(record, output_dir, kept=not news)
                ):
                    _show(line)
            for line in batch.notes:
                _show(f"note: {line}", sys.stderr)
    finished = [result.clip.output_dir for result in batch.results if result.figures]
    export_results(finished, arguments.export, output_dir)
    if failed := [result for result in batch.results if result.status == "failed"]:
        if arguments.debug:
            for result in failed:
                for line in traceback.format_exception(result.error):
                    _show(line.rstrip("\n"), sys.stderr)
        for line in failure_lines(failed):
            _show(line, sys.stderr)
        raise PipelineError(f"{len(failed)} of {counted(len(batch.results), 'clip')} failed")
    if unwritten is not None:
        raise unwritten


def _render(arguments: argparse.Namespace) -> None:
    recorded = read_recorded(arguments.detections)
    config = render_config(arguments, recorded)
    with _progress_shown(arguments) as progress:
        rendered = supervise(RenderInChild(recorded), config, progress)
    if not arguments.quiet:
        seconds = rendered.wall_seconds
        frames = counted(rendered.num_frames, "frame")
        _show(f"{frames} in {seconds:.2f} s: {rendered.num_frames / seconds:.1f} fps")
        _show(f"{config.output_dir}/{rendered.file}")
    for line in rendered.notes:
        _show(f"note: {line}", sys.stderr)


def _export(arguments: argparse.Namespace) -> None:
    for path in export_command(arguments):
        if not arguments.quiet:
            _show(str(path))


def _evaluate(arguments: argparse.Namespace) -> None:
    from pipeline.measure.evaluate import evaluate

    if arguments.calibration == CLIP:
        raise UsageError("evaluate has no clip: give --calibration a folder (./clip if so named)")
    with _progress_shown(arguments) as progress:
        result = evaluate(
            arguments.data,
            weights=arguments.weights,
            imgsz=arguments.imgsz,
            infer=_concrete(infer_options(arguments)),
            calibration=arguments.calibration,
            on_progress=progress,
        )
    images, boxes = counted(result.num_images, "image"), counted(result.num_boxes, "box", "boxes")
    _show(f"{images}, {boxes}")
    for precision, found in result.accuracy.items():
        _show(f"{precision:<5} mAP@0.5 {found.map_50:.4f}, mAP@0.5:0.95 {found.map_50_95:.4f}")


def _bench(arguments: argparse.Namespace) -> None:
    from pipeline.measure.benchmark import BenchOptions, benchmark
    from pipeline.measure.chart import PAGE_NAME, require_chart, table_lines, write_bench

    require_chart()
    options = BenchOptions(
        source=SyntheticOptions(
            num_frames=arguments.frames, size_wh=arguments.size, image=arguments.image
        ),
        num_frames=arguments.frames,
        num_rounds=arguments.rounds,
        imgsz=arguments.imgsz,
        weights=arguments.weights,
        names=tuple(arguments.configs) if arguments.configs else None,
    )
    with _progress_shown(arguments) as progress:
        result = benchmark(options, progress)
    write_bench(result, arguments.output_dir)
    if arguments.quiet:
        return
    for line in table_lines(result):
        _show(line)
    _show(f"page in {arguments.output_dir / PAGE_NAME}")


def _tune(arguments: argparse.Namespace) -> None:
    from pipeline.measure.tuner import tune

    with _progress_shown(arguments) as progress:
        tuned = tune(tune_config(arguments), progress)
    if arguments.quiet:
        return
    for entry in tuned.selection.alternatives:
        rounds = ", ".join(f"{fps:.1f}" for fps in entry.throughput_fps)
        _show(f"{entry.median_fps:>7.1f} fps  {entry.name}  ({rounds})")
    kept = f"kept in {tuned.path}" if tuned.path else "not kept: the cache folder cannot be written"
    _show(f"{tuned.selection.reason}; {kept}")
    if tuned.int8_gain is not None:
        _show(
            f"INT8 would be {tuned.int8_gain:.2f} times as fast: --precision int8; "
            "`pipeline evaluate` measures its accuracy"
        )
    if tuned.adaptive is not None:
        _show(str(tuned.adaptive))


def _plan(arguments: argparse.Namespace) -> None:
    from pipeline.batch.footage import read_headers
    from pipeline.measure.sizing import JobOptions, size_job, table_lines

    options = JobOptions(
        fps_per_core=arguments.fps_per_core,
        cores=arguments.cores,
        cores_per_actor=arguments.cores_per_actor,
        segment_seconds=arguments.segment_seconds,
        clips_at_once=arguments.clips_at_once,
        bandwidth_bytes=arguments.bandwidth and 1e6 * arguments.bandwidth,
        price_per_core_hour=arguments.price_per_core_hour,
    )
    # The usual output folder contains no footage.
    clips = find_clips(arguments.footage, Path(OUTPUT_FOLDER))
    headers = read_headers(clip.path for clip in clips)
    for line in table_lines(size_job(headers, options)):
        _show(line)


def _configs(_: argparse.Namespace) -> None:
    from pipeline.model.compiled import core

    devices = core().available_devices
    _show(f"{AUTO:<14} the fastest that `tune` measured here, else a rule; the default")
    for entry in configurations(available_cores()).values():
        _show(f"{entry.name:<14} {entry.description}")
        for variant in entry.variants if len(entry.variants) > 1 else ():
            _show(f"{'':<14} --config '{entry.name} {variant.label}'")
        if why := entry.why_unavailable(devices):
            _show(f"{'':<14} {why}")


def _models(arguments: argparse.Namespace) -> None:
    from pipeline.cli.models import described, json_text, table_lines

    found = described(arguments.models)
    for line in json_text(found).splitlines() if arguments.json else table_lines(found):
        _show(line)
    if failed := [entry for entry in found if entry.error]:
        raise ModelError(f"{counted(len(failed), 'model')} cannot be used: {failed[0].error}")


def _concrete(options: InferOptions | AutoOptions) -> InferOptions:
    """The options for pictures, for which nothing is tuned."""
    return options.over(InferOptions()) if isinstance(options, AutoOptions) else options


_COMMANDS = {
    "process": _process,
    "render": _render,
    "export": _export,
    "evaluate": _evaluate,
    "bench": _bench,
    "tune": _tune,
    "plan": _plan,
    "configs": _configs,
    "models": _models,
}
