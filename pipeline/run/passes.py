"""The passes over the frames of a clip: one, or detect -> track, cover -> draw.

What needs the whole clip is found between the two: the ids of tracks, and what is covered.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.config import DEFAULT_DRAWING, EncodeOptions
from pipeline.core.errors import InputError
from pipeline.core.file_part import FilePart
from pipeline.core.position import Step
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import counted
from pipeline.frames.segment import OpenClip
from pipeline.frames.stats import RunStats
from pipeline.frames.task import Manifest, RecordedPart, RunSettings, SegmentTask
from pipeline.media.frame import Segment, VideoInfo
from pipeline.model.heads import covered_class_ids
from pipeline.run.context import RunContext
from pipeline.run.join import join_annotated, join_detections, notes_on_frames
from pipeline.run.outputs import COVERS_NAME, DETECTIONS_NAME, WEAK_NAME
from pipeline.run.redaction.found import CoverRules
from pipeline.run.redaction.lines import write_covers
from pipeline.run.segments import ProcessTasks, TakenSegments, take_segments
from pipeline.run.tracks.lines import write_tracked
from pipeline.run.tracks.tracker import open_tracker


@dataclass(frozen=True, slots=True)
class Passes:
    """The finished passes over the frames of a clip.

    drawn: the segments of a second pass, in which the boxes were drawn; None without one.
    num_tracks: None where nothing is tracked. track_wall_seconds, track_cpu_seconds: of tracking.
    """

    detected: TakenSegments
    drawn: TakenSegments | None = None
    num_tracks: int | None = None
    track_wall_seconds: float = 0.0
    track_cpu_seconds: float = 0.0

    @property
    def annotated(self) -> TakenSegments:
        """The segments with annotated files, if there are any."""
        return self.drawn or self.detected

    @property
    def seconds_reused(self) -> float:
        """The time in which earlier runs processed frames."""
        return sum(taken.seconds_reused for taken in self._all())

    @property
    def busy_seconds(self) -> float:
        """The time in which frames were worked on."""
        return self.track_wall_seconds + sum(taken.busy_seconds for taken in self._all())

    def stats(self) -> RunStats:
        """The measurements of all passes; each frame counts once."""
        stats = self.detected.stats()
        if self.drawn is not None:
            stats.add_pass(self.drawn.stats())
        stats.add_tracking(self.track_wall_seconds, self.track_cpu_seconds)
        return stats

    def _all(self) -> list[TakenSegments]:
        return [self.detected] if self.drawn is None else [self.detected, self.drawn]


def num_parts(run: RunContext, segments: Sequence[Segment]) -> int:
    """How many segments are journaled: those of both passes."""
    return len(segments) * (2 if _draws_later(run) else 1)


def take_passes(
    run: RunContext,
    clip: OpenClip,
    process: ProcessTasks,
    settings: RunSettings,
    segments: Sequence[Segment],
) -> Passes:
    """Take all frames through all steps, as far as that is not done. Raises PipelineError.

    With two passes, the joined detection lines are in the folder of finished files then.
    """
    if not run.config.keeps_weak:
        return Passes(take_segments(run, clip.source.info, process, settings, segments))
    detected = _detect(run, clip.source.info, process, settings, segments)
    passes = _tracked_and_covered(run, clip, detected)
    if not run.config.video:
        return passes
    drawn = _draw(run, clip, process, settings, segments, detected)
    return dataclasses.replace(passes, drawn=drawn)


def _detect(
    run: RunContext,
    info: VideoInfo,
    process: ProcessTasks,
    settings: RunSettings,
    segments: Sequence[Segment],
) -> TakenSegments:
    """The first pass: the detections of all frames, joined."""
    undrawn = dataclasses.replace(
        run.config, video=False, encode=EncodeOptions(), draw=DEFAULT_DRAWING
    )
    settings = dataclasses.replace(settings, config=undrawn)
    detected = take_segments(_pass_of(run, 0), info, process, settings, segments)
    join_detections(run, info, detected)
    return detected


def _tracked_and_covered(run: RunContext, clip: OpenClip, detected: TakenSegments) -> Passes:
    """What is found between the passes: ids of tracks, and what is covered in each frame."""
    info = clip.source.info
    wall, cpu = time.perf_counter(), time.thread_time()
    num_tracks = None
    if run.config.track is not None:
        num_tracks = _track(run, run.config.track, float(info.frame_rate or 30))
    if run.config.redact.covered is not None:
        _cover(run, info, clip.prepared.head.class_names)
    return Passes(
        detected,
        num_tracks=num_tracks,
        track_wall_seconds=time.perf_counter() - wall,
        track_cpu_seconds=time.thread_time() - cpu,
    )


def _draw(
    run: RunContext,
    clip: OpenClip,
    process: ProcessTasks,
    settings: RunSettings,
    segments: Sequence[Segment],
    detected: TakenSegments,
) -> TakenSegments:
    """The second pass over the segments that had frames. Raises InputError for other frames."""
    again = [
        dataclasses.replace(segment, number=len(segments) + segment.number)
        for segment in segments[: len(detected.manifests)]
    ]
    parts = _Parts(run, clip.prepared.head.class_names, detected, again[0].number)
    second = _pass_of(run, detected.num_frames)
    drawn = take_segments(second, clip.source.info, parts.drawn_by(process), settings, again)
    if drawn.num_frames != detected.num_frames:
        raise InputError(
            f"{run.config.source_name}: {counted(detected.num_frames, 'frame')} could be decoded "
            f"in the first pass, but in the second {drawn.num_frames}: the clip or its storage is "
            "faulty"
        )
    return drawn


def _pass_of(run: RunContext, frames_before: int) -> RunContext:
    """The run in one of its passes. frames_before: that the passes before it have finished."""
    num_passes = 2 if _draws_later(run) else 1
    progress = _Part(run.on_progress, num_passes, frames_before)
    return dataclasses.replace(run, on_progress=progress)


def join(run: RunContext, clip: OpenClip, passes: Passes) -> list[str]:
    """Join the files of all segments, as far as that is not done; returns notes for the report.

    Raises PipelineError if they cannot be joined, or if the result fails its check.
    """
    source = clip.source
    notes = join_annotated(run, source, passes.annotated) if run.config.video else []
    if not run.config.keeps_weak:
        join_detections(run, source.info, passes.detected)
    return notes + notes_on_frames(source, passes.detected)


def _draws_later(run: RunContext) -> bool:
    return run.config.video and run.config.keeps_weak


def _track(run: RunContext, name: str, frame_rate: float) -> int:
    """Give the joined lines ids; returns the number of tracks. name: of the tracker."""
    finished = run.journal.finished
    tracker = open_tracker(name, frame_rate, run.config.detect.least_confidence)
    detections, untracked = finished / DETECTIONS_NAME, finished / "untracked.jsonl"
    detections.replace(untracked)
    at_frame = _at_frame(run, Step.TRACK)
    found = write_tracked(untracked, finished / WEAK_NAME, detections, tracker, at_frame)
    untracked.unlink()
    return found


def _cover(run: RunContext, info: VideoInfo, class_names: Sequence[str]) -> None:
    """Write what is covered in each frame of the joined lines."""
    redact, finished = run.config.redact, run.journal.finished
    write_covers(
        finished / DETECTIONS_NAME,
        finished / WEAK_NAME,
        finished / COVERS_NAME,
        covered_class_ids(redact, class_names),
        CoverRules(info.size_wh, redact.hold_seconds, redact.cover_margin),
        _at_frame(run, Step.COVER),
    )


def _at_frame(run: RunContext, step: Step) -> Callable[[int], None]:
    """Says where the work is, when called with the index of a frame."""
    place = run.position.encoding

    def at_frame(index: int) -> None:
        place.enter(step)
        place.frame_index = index

    return at_frame


class _Part:
    """Progress of one of several passes, in frames of the clip.

    before: frames that the passes before it have finished.
    """

    def __init__(self, on_progress: ProgressCallback, num_passes: int, before: int) -> None:
        self._on_progress = on_progress
        self._num_passes, self._before = num_passes, before

    def __call__(self, progress: Progress) -> None:
        done = (self._before + progress.done) // self._num_passes
        self._on_progress(dataclasses.replace(progress, done=done))


class _Parts:
    """The lines of each segment, for the tasks of a second pass.

    detected: the segments of the first one. first_number: of the segments of the second.
    """

    def __init__(
        self,
        run: RunContext,
        class_names: tuple[str, ...],
        detected: TakenSegments,
        first_number: int,
    ) -> None:
        self._class_names, self._first_number = class_names, first_number
        counts = [manifest.num_frames for manifest in detected.manifests]
        self._begins = list(itertools.accumulate(counts, initial=0))
        self._lines = _PartedFile(run.journal.finished / DETECTIONS_NAME, counts)
        self._covers: _PartedFile | None = None
        if run.config.redact.covered is not None:
            self._covers = _PartedFile(run.journal.finished / COVERS_NAME, counts)

    def drawn_by(self, process: ProcessTasks) -> ProcessTasks:
        """The same process, in which tasks get the lines that are to be drawn."""

        def draw(
            tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
        ) -> Generator[tuple[SegmentTask, Manifest], None, None]:
            yield from process(map(self._with_lines, tasks), on_frames)

        return draw

    def _with_lines(self, task: SegmentTask) -> SegmentTask:
        place = task.segment.number - self._first_number
        covers = None if self._covers is None else self._covers.part(place)
        recorded = RecordedPart(self._lines.part(place), self._class_names, covers)
        return dataclasses.replace(task, first_index=self._begins[place], recorded=recorded)


class _PartedFile:
    """A file with a line for each frame, in parts of so many lines."""

    def __init__(self, path: Path, counts: Sequence[int]) -> None:
        self._path = path
        self._offsets = [0]
        with path.open("rb") as lines:
            for count in counts:
                length = sum(len(line) for line in itertools.islice(lines, count))
                self._offsets.append(self._offsets[-1] + length)

    def part(self, place: int) -> FilePart:
        begin, end = self._offsets[place : place + 2]
        return FilePart(self._path, begin, end)
