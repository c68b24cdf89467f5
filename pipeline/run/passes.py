"""The passes over the frames of a clip: one, or with tracks detect -> track -> draw."""

from __future__ import annotations

import dataclasses
import itertools
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.config import DEFAULT_DRAWING, EncodeOptions
from pipeline.core.errors import InputError
from pipeline.core.position import Step
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import counted
from pipeline.frames.segment import OpenClip
from pipeline.frames.stats import RunStats
from pipeline.frames.task import Manifest, RecordedPart, RunSettings, SegmentTask
from pipeline.media.frame import Segment
from pipeline.run.context import RunContext
from pipeline.run.join import join_annotated, join_detections, notes_on_frames
from pipeline.run.outputs import DETECTIONS_NAME, WEAK_NAME
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

    With tracks, the joined detection lines are in the folder of finished files then.
    """
    info, config = clip.source.info, run.config
    if config.track is None:
        return Passes(take_segments(run, info, process, settings, segments))
    num_passes = 2 if config.video else 1
    first = dataclasses.replace(run, on_progress=_Part(run.on_progress, num_passes, 0))
    undrawn = dataclasses.replace(config, video=False, encode=EncodeOptions(), draw=DEFAULT_DRAWING)
    detect = dataclasses.replace(settings, config=undrawn)
    detected = take_segments(first, info, process, detect, segments)
    join_detections(run, info, detected)
    wall, cpu = time.perf_counter(), time.thread_time()
    num_tracks = _track(run, float(info.frame_rate or 30))
    passes = Passes(
        detected,
        num_tracks=num_tracks,
        track_wall_seconds=time.perf_counter() - wall,
        track_cpu_seconds=time.thread_time() - cpu,
    )
    if not config.video:
        return passes
    again = [
        dataclasses.replace(segment, number=len(segments) + segment.number)
        for segment in segments[: len(detected.manifests)]
    ]
    lines = run.journal.finished / DETECTIONS_NAME
    parts = _Parts(lines, clip.prepared.head.class_names, detected, again[0].number)
    second = dataclasses.replace(
        run, on_progress=_Part(run.on_progress, num_passes, detected.num_frames)
    )
    drawn = take_segments(second, info, parts.drawn_by(process), settings, again)
    if drawn.num_frames != detected.num_frames:
        raise InputError(
            f"{config.source_name}: {counted(detected.num_frames, 'frame')} could be decoded, and "
            f"then {drawn.num_frames}: the clip or its storage is faulty"
        )
    return dataclasses.replace(passes, drawn=drawn)


def join(run: RunContext, clip: OpenClip, passes: Passes) -> list[str]:
    """Join the files of all segments, as far as that is not done; returns notes for the report.

    Raises PipelineError if they cannot be joined, or if the result fails its check.
    """
    source = clip.source
    notes = join_annotated(run, source, passes.annotated) if run.config.video else []
    if run.config.track is None:
        join_detections(run, source.info, passes.detected)
    return notes + notes_on_frames(source, passes.detected)


def _draws_later(run: RunContext) -> bool:
    return run.config.video and run.config.track is not None


def _track(run: RunContext, frame_rate: float) -> int:
    """Give the joined lines ids; returns the number of tracks."""
    config, finished, place = run.config, run.journal.finished, run.position.encoding

    def on_frame(index: int) -> None:
        place.enter(Step.TRACK)
        place.frame_index = index

    assert config.track is not None
    tracker = open_tracker(config.track, frame_rate, config.detect.least_confidence)
    detections, untracked = finished / DETECTIONS_NAME, finished / "untracked.jsonl"
    detections.replace(untracked)
    found = write_tracked(untracked, finished / WEAK_NAME, detections, tracker, on_frame)
    untracked.unlink()
    return found


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
        detections: Path,
        class_names: tuple[str, ...],
        detected: TakenSegments,
        first_number: int,
    ) -> None:
        self._detections, self._class_names = detections, class_names
        self._first_number = first_number
        counts = [manifest.num_frames for manifest in detected.manifests]
        self._begins = list(itertools.accumulate(counts, initial=0))
        self._offsets = _offsets(detections, counts)

    def drawn_by(self, process: ProcessTasks) -> ProcessTasks:
        """The same process, in which tasks get the lines that are to be drawn."""

        def draw(
            tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
        ) -> Generator[tuple[SegmentTask, Manifest], None, None]:
            yield from process(map(self._with_lines, tasks), on_frames)

        return draw

    def _with_lines(self, task: SegmentTask) -> SegmentTask:
        place = task.segment.number - self._first_number
        begin, end = self._offsets[place : place + 2]
        with self._detections.open("rb") as lines:
            lines.seek(begin)
            packed = zlib.compress(lines.read(end - begin), 1)
        recorded = RecordedPart(packed, self._class_names)
        return dataclasses.replace(task, first_index=self._begins[place], recorded=recorded)


def _offsets(path: Path, counts: Sequence[int]) -> list[int]:
    """Where in a file the lines of each part begin, and where the last one ends."""
    offsets = [0]
    with path.open("rb") as lines:
        for count in counts:
            length = sum(len(line) for line in itertools.islice(lines, count))
            offsets.append(offsets[-1] + length)
    return offsets
