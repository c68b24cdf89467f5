"""One segment of a clip, drawn with detections that were found before: no model is needed."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import ProcessConfig
from pipeline.core.cover_lines import CoverLine
from pipeline.core.detection_lines import DetectionLine
from pipeline.core.errors import InputError
from pipeline.core.position import Place, Position, Step
from pipeline.frames.ahead import decoded_ahead
from pipeline.frames.annotated_file import FrameEncoder, open_encoder, verify_annotated
from pipeline.frames.codecs import annotated_bits
from pipeline.frames.cpu_account import CpuAccount, workers
from pipeline.frames.loop import Results, run_frames
from pipeline.frames.redact import Redactor
from pipeline.frames.sampling import DetectedFrame
from pipeline.frames.scaled import annotator
from pipeline.frames.snapshots import snapshots_of
from pipeline.frames.stats import RunStats
from pipeline.frames.task import Manifest, RecordedPart, SegmentTask
from pipeline.media.frame import Frame, FrameSource, SourceFaults, VideoInfo
from pipeline.model.heads import covered_class_ids

_TOLERANCE_SECONDS = 1e-6

_Texts: TypeAlias = "tuple[Iterator[str], Iterator[str]]"


class Lines(ABC):
    """Detection lines to be drawn. Raises InputError for what is no such line.

    name: of their file, in messages. class_names: by class_id. are_covered: whether a line of
    what is covered comes with each.
    """

    def __init__(self, name: str, class_names: Sequence[str], are_covered: bool) -> None:
        self.class_names = class_names
        self.are_covered = are_covered
        self._name = name

    @abstractmethod
    def _from(self, first_index: int) -> AbstractContextManager[_Texts]:
        """The lines from this frame on, and those of what is covered, if there are any."""

    def of(
        self, frames: Iterable[Frame], first_index: int, place: Place
    ) -> Iterator[DetectedFrame]:
        """Frames with their detections; a DetectionSource.

        first_index: the place of the first one in the clip. place: of this thread. Raises
        InputError if a line is of another frame.
        """
        with self._from(first_index) as (lines, cover_lines):
            for index, frame in enumerate(frames, first_index):
                place.enter(Step.READ_DETECTIONS)
                place.frame_index = index
                line = self._read(next(lines, ""), index)
                apart_seconds = abs(line.pts_seconds - frame.pts_seconds)
                if line.pts != frame.source_pts or not apart_seconds <= _TOLERANCE_SECONDS:
                    raise InputError(
                        f"{self._name}: line {index + 1} is of another frame than the clip's "
                        f"frame {index}, at {frame.pts_seconds:.6f} s: the detections belong to "
                        "another clip, or were changed"
                    )
                covers = None
                if self.are_covered:
                    covers = self._read_covers(next(cover_lines, ""), line, frame)
                yield DetectedFrame(frame, line.detections, inferred=True, covers=covers)

    def _read(self, text: str, index: int) -> DetectionLine:
        try:
            line = DetectionLine.from_json(text)
            found = line.detections
            if line.frame_index != index:
                raise ValueError(f"frame_index is {line.frame_index}")
            if not (np.isfinite(found.xyxy).all() and np.isfinite(found.confidence).all()):
                raise ValueError("a number is not finite")
            if set(found.class_id.tolist()).difference(range(len(self.class_names))):
                raise ValueError("a class is unknown")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(
                f"{self._name}: line {index + 1} is missing or damaged ({error})"
            ) from error
        return line

    def _read_covers(self, text: str, line: DetectionLine, frame: Frame) -> NDArray[np.int64]:
        try:
            cover = CoverLine.from_json(text)
            if (cover.frame_index, cover.pts_seconds) != (line.frame_index, line.pts_seconds):
                raise ValueError("it is of another frame")
            if (cover.covers[:, 2:] > (frame.image.width, frame.image.height)).any():
                raise ValueError("a cover is not in the frame")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InputError(
                f"{self._name}: the line of covers.jsonl of frame {line.frame_index} is missing or "
                f"damaged ({error}): process the clip again"
            ) from error
        return cover.covers


class RecordedLines(Lines):
    """Those of a whole clip, in a file. covers: the file of what is covered, if anything is."""

    def __init__(self, path: Path, class_names: Sequence[str], covers: Path | None = None) -> None:
        super().__init__(str(path), class_names, are_covered=covers is not None)
        self._path, self._covers = path, covers

    def seconds(self) -> list[float]:
        """When each frame is shown, for `first_line`."""
        with self._path.open(encoding="utf-8") as lines:
            return [self._read(text, index).pts_seconds for index, text in enumerate(lines)]

    @contextlib.contextmanager
    def _from(self, first_index: int) -> Iterator[_Texts]:
        with contextlib.ExitStack() as stack:
            paths = [self._path] if self._covers is None else [self._path, self._covers]
            files = [stack.enter_context(path.open(encoding="utf-8")) for path in paths]
            lines, *covers = [itertools.islice(file, first_index, None) for file in files]
            yield lines, covers[0] if covers else iter(())


class PartLines(Lines):
    """Those of one segment, as they travel with its task."""

    def __init__(self, part: RecordedPart) -> None:
        super().__init__("detections", part.class_names, part.covers is not None)
        self._part = part

    @contextlib.contextmanager
    def _from(self, first_index: int) -> Iterator[_Texts]:
        covers = self._part.covers
        yield (
            iter(self._part.lines.text().splitlines()),
            iter(() if covers is None else covers.text().splitlines()),
        )


def first_line(seconds: Sequence[float], start_seconds: float) -> int:
    """The index of the first line of a segment that begins at a time of the result.

    seconds: of all lines, in order.
    """
    return bisect_left(seconds, start_seconds - _TOLERANCE_SECONDS)


def render_segment(
    source: FrameSource,
    lines: Lines,
    task: SegmentTask,
    position: Position,
    on_frame: Callable[[], object],
    *,
    alone: bool = True,
) -> Manifest:
    """Draw a segment's detections into an annotated file that was read back and is right.

    task.first_index is exact: it tells the line of the first frame. position: set to where the
    work is. on_frame: called once per finished frame. alone: whether no other clip is worked on in
    this process. Raises PipelineError.
    """
    info, stats = source.info, RunStats(position)
    account = CpuAccount(alone=alone)
    settings = task.settings
    encoder = open_encoder(
        task.files.annotated, info, settings.config.encode, settings.encoder_threads
    )
    with contextlib.ExitStack() as stack:
        stack.callback(encoder.abandon)
        stack.enter_context(position.failures_told())
        results = _results(task, info, lines, encoder)
        frames = itertools.islice(source.frames(task.segment), task.num_frames)
        ahead = stack.enter_context(decoded_ahead(frames, task.first_index, stats))
        detected = lines.of(ahead, task.first_index, stats.consumer.place)
        end_seconds = run_frames(detected, results, stats, task.first_index, on_frame)
        threads = workers(source.worker_threads, encoder.worker_threads)
        account.record(stats, threads, stats.producer.decode.cpu_ns / 1e9)
        position.encoding.enter(Step.JOIN)
        if stats.num_frames:
            encoder.close()
    verify_annotated(task, info, encoder, end_seconds, position)
    return Manifest(
        end_seconds=end_seconds,
        ended=task.num_frames is None or stats.num_frames < task.num_frames,
        faults=SourceFaults(),
        times=encoder.some_times(),
        pictures=results.snapshots.pictures(),
        stats=stats,
        engine={},
    )


def _results(task: SegmentTask, info: VideoInfo, lines: Lines, encoder: FrameEncoder) -> Results:
    """Where the frames go: no line is written. Raises InputError, UsageError."""
    config = task.settings.config
    return Results(
        render=annotator(info, config, lines.class_names),
        encoder=encoder,
        snapshots=snapshots_of(task, info, lines.class_names),
        lines=None,
        class_names=lines.class_names,
        says_interpolated=False,
        redactor=_redactor(config, info, lines),
    )


def _redactor(config: ProcessConfig, info: VideoInfo, lines: Lines) -> Redactor | None:
    """What covers the frames; None where nothing is redacted. Raises InputError, UsageError."""
    if config.redact.covered is None:
        return None
    if not lines.are_covered:
        raise InputError(f"{info.name}: the covers are unknown: process the clip again")
    class_ids = covered_class_ids(config.redact, lines.class_names)
    bits = annotated_bits(info, config.encode)
    return Redactor(info, config.redact.cover_style, class_ids, bits)
