"""Highlights and crops of finished results: cut in a child process, and shown.

Their clips may be hostile or broken: FFmpeg reads them where the parent can end what hangs or dies.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.cli.terminal import progress_shown, show, show_error, show_note, show_outputs
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import Interrupted, PipelineError, WorkerDied, as_pipeline_error
from pipeline.core.highlight_options import HighlightOptions
from pipeline.core.notes import collected_notes
from pipeline.core.position import Beat, Position, Step
from pipeline.core.progress import ProgressCallback
from pipeline.core.text import counted
from pipeline.execution.supervise import ChildProcess
from pipeline.run.events.shapes import Shapes
from pipeline.run.outputs import CROPS_NAME, HIGHLIGHTS_NAME, remove_unfinished


@dataclass(slots=True)
class CutOut:
    """What was cut out of one result.

    highlights: what the report says of them. num_crops: None where none were asked for. errors: of
    what could not be cut.
    """

    name: str
    highlights: dict[str, Any] | None = None
    num_crops: int | None = None
    notes: list[str] = field(default_factory=list)
    errors: list[PipelineError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CutInChild:
    """The work of the child process, for one result after the other.

    detections: of each result, by its folder, which is the output folder of a config. of_many:
    whether some results may be pictures, which have no highlights.
    """

    options: HighlightOptions
    shapes: Shapes | None
    detections: Mapping[Path, Path]
    of_many: bool = False

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> CutOut:
        found = CutOut(config.source_name)
        # Far from each other, what is cut out gives no progress for long.
        beat = functools.partial(position.encoding.enter, Step.PREPARE)
        with collected_notes() as notes:
            for is_asked, cut in (
                (self.options.padding_seconds is not None, self._cut_highlights),
                (self.options.crops, self._cut_crops),
            ):
                try:
                    if is_asked:
                        cut(config, found, on_progress, beat)
                except PipelineError as error:
                    found.errors.append(error)
        found.notes += notes
        return found

    def _cut_highlights(
        self, config: ProcessConfig, found: CutOut, on_progress: ProgressCallback, beat: Beat
    ) -> None:
        from pipeline.run.events.events import find_events
        from pipeline.run.exports.clip import read_clips
        from pipeline.run.highlights.highlights import read_found, write_highlights

        detections = self.detections[config.output_dir]
        clip, events = read_found(detections), None
        if clip.is_picture and self.of_many:
            return
        if self.shapes is not None:
            events = find_events(read_clips([detections]), self.shapes, beat)[0].events
        record = write_highlights(clip, self.options, events, config.clip, on_progress, beat)
        found.highlights, found.name = record, clip.name
        found.notes += record["notes"]

    def _cut_crops(
        self, config: ProcessConfig, found: CutOut, on_progress: ProgressCallback, beat: Beat
    ) -> None:
        from pipeline.run.crops import write_crops
        from pipeline.run.recorded import from_report

        detections = self.detections[config.output_dir]
        report = from_report(detections, lambda _, report: report)
        found.num_crops = len(write_crops(detections, report, config, on_progress, beat))


def cut_each(
    arguments: argparse.Namespace,
    results: Sequence[Path],
    config_of: Callable[[Path], ProcessConfig],
    options: HighlightOptions,
    shapes: Shapes | None = None,
    *,
    of_batch: bool = False,
) -> None:
    """Cut something out of each of some results, given by their detections, and show what.

    config_of: that of a result, with its source and its folder; may raise PipelineError. Of
    several results, one that fails is shown, and the others are cut. of_batch: whether there may
    have been more, which have no result. Raises PipelineError.
    """
    beside = {path.parent: path for path in results}  # Of two in a folder, the second counts.
    several, failed = len(beside) > 1, []
    # Before signals are held back: the search of a large folder ends with Ctrl-C.
    configs = [_config_or_error(config_of, path) for path in beside.values()]
    work = CutInChild(options, shapes, beside, of_many=several or of_batch)
    with ChildProcess(work) as child:
        for folder, config in zip(beside, configs, strict=True):
            try:
                errors = _cut(arguments, child, folder, config, several=several)
            except Interrupted:
                remove_unfinished(folder)
                raise
            failed += errors[-1:]
            for error in errors if several else errors[:-1]:
                text = str(error)
                show_error(text if str(folder) in text else f"{folder}: {text}")
    child.require_not_stopped()
    if failed and not several:
        raise failed[0]
    if failed:
        raise PipelineError(f"{len(failed)} of {counted(len(beside), 'result')} could not be cut")


def _config_or_error(
    config_of: Callable[[Path], ProcessConfig], path: Path
) -> ProcessConfig | PipelineError:
    try:
        return config_of(path)
    except PipelineError as error:
        return error
    except OSError as error:  # Of a file of that name, which may not be read.
        return as_pipeline_error(error)


def _cut(
    arguments: argparse.Namespace,
    child: ChildProcess[CutOut],
    folder: Path,
    config: ProcessConfig | PipelineError,
    *,
    several: bool,
) -> list[PipelineError]:
    """Cut something out of one result, and show it; returns why that failed. Raises Interrupted."""
    if isinstance(config, PipelineError):
        return [config]
    try:
        with progress_shown(arguments, config.source_name) as progress:
            found = child.run(config, progress)
    except Interrupted:
        raise
    except PipelineError as error:
        if isinstance(error, WorkerDied):
            remove_unfinished(folder)
        return [error]
    for line in found.notes:
        show_note(line)
    lines = []
    if found.highlights is not None:
        show_outputs([folder / HIGHLIGHTS_NAME])
        lines.append(_of_highlights(found.highlights, folder))
    if found.num_crops is not None:
        show_outputs([folder / CROPS_NAME])
        lines.append(f"{counted(found.num_crops, 'crop')} in {folder / CROPS_NAME}")
    for line in () if arguments.quiet else lines:
        show(f"{found.name}: {line}" if several else line)
    return found.errors


def _of_highlights(record: dict[str, Any], folder: Path) -> str:
    if not record["clips"]:
        return f"no highlights: there are no {record['of']}"
    frames = sum(entry["num_frames"] for entry in record["clips"])
    names = ", ".join(record["lists"])
    return (
        f"{counted(len(record['clips']), 'highlight')} of {counted(frames, 'frame')} in "
        f"{folder / HIGHLIGHTS_NAME}, with {names}"
    )
