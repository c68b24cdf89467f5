"""All segments of a clip, processed by an executor or resumed from an interrupted run."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.core.progress import Progress
from pipeline.execution.journal import Journal
from pipeline.frames.report_pictures import Picture, select_pictures
from pipeline.frames.stats import RunStats
from pipeline.frames.task import Manifest, RunSettings, SegmentFiles, SegmentTask
from pipeline.media.frame import Segment, SourceFaults, VideoInfo
from pipeline.run.context import RunContext

ProcessTasks = Callable[
    [Iterable[SegmentTask], Callable[[int], object]],
    Generator[tuple[SegmentTask, Manifest], None, None],
]
"""Yields every task as it is done; the second argument is called with the number of frames that
were finished since the last call."""


@dataclass(frozen=True, slots=True)
class TakenSegments:
    """The finished segments of a clip.

    first_number: of the first one; the others follow.
    reused: which of them were resumed from an interrupted run, counted from 0.
    began_seconds: the start of each, relative to the first, as if this run and the interrupted
        ones had been one.
    pictures: for the report.
    """

    manifests: list[Manifest]
    reused: frozenset[int]
    began_seconds: list[float]
    pictures: list[Picture]
    first_number: int = 0

    @property
    def num_frames(self) -> int:
        return sum(manifest.num_frames for manifest in self.manifests)

    @property
    def num_frames_reused(self) -> int:
        return sum(self.manifests[number].num_frames for number in self.reused)

    @property
    def seconds_reused(self) -> float:
        """The time in which earlier runs processed frames."""
        return sum(self.manifests[number].stats.frames_wall_seconds for number in self.reused)

    @property
    def at_once(self) -> int:
        """The largest number of segments processed at the same time."""
        begins, ends = sorted(self.began_seconds), sorted(self._done_seconds)
        return max(n - bisect_right(ends, begin) for n, begin in enumerate(begins, 1))

    @property
    def busy_seconds(self) -> float:
        """The time in which at least one segment was processed."""
        busy, until = 0.0, 0.0
        for begin, end in sorted(zip(self.began_seconds, self._done_seconds, strict=True)):
            busy += max(0.0, end - max(begin, until))
            until = max(until, end)
        return busy

    @property
    def _done_seconds(self) -> list[float]:
        return [
            began + manifest.stats.frames_wall_seconds
            for began, manifest in zip(self.began_seconds, self.manifests, strict=True)
        ]

    @property
    def end_seconds(self) -> float:
        return max(manifest.end_seconds for manifest in self.manifests)

    @property
    def was_cut(self) -> bool:
        """Whether the clip may have more frames than were requested."""
        return not self.manifests[-1].ended

    def stats(self) -> RunStats:
        """The measurements of all segments, added up."""
        stats = RunStats()
        for manifest, began_seconds in zip(self.manifests, self.began_seconds, strict=True):
            stats.add(manifest.stats, began_seconds)
        return stats

    def faults(self) -> SourceFaults:
        """The faults of all segments, added up."""
        faults = SourceFaults()
        for manifest in self.manifests:
            faults.add(manifest.faults)
        return faults

    def times(self, time_base: Fraction) -> dict[int, Fraction]:
        """The times of some frames of the clip, in seconds, by their indices."""
        begins = itertools.accumulate((m.num_frames for m in self.manifests), initial=0)
        return {
            begin + index: pts * time_base
            for begin, manifest in zip(begins, self.manifests, strict=False)
            for index, pts in manifest.times
        }


def take_segments(
    run: RunContext,
    info: VideoInfo,
    process: ProcessTasks,
    settings: RunSettings,
    segments: Sequence[Segment],
) -> TakenSegments:
    """Process all segments that are not finished. Raises PipelineError."""
    ledger = _Ledger(run, info, segments[0].number)
    started = time.perf_counter()
    tasks = ledger.tasks(settings, segments)
    # Closed also if a result cannot be kept: what still works is ended then.
    with contextlib.closing(process(tasks, ledger.report_frames)) as results:
        for task, manifest in results:
            if len(segments) > 1:  # Of a single one it is asked when the result is there.
                run.watched.require_unchanged()
            manifest.write(task.files.manifest)
            run.journal.add(task.segment.number, task.files.existing())
            ledger.add(task.segment.number, manifest, time.perf_counter() - started)
    return ledger.taken()


class _Ledger:
    """The segments that are finished, by this run or an earlier one, and those to process."""

    def __init__(self, run: RunContext, info: VideoInfo, first_number: int) -> None:
        self._run = run
        self._info = info
        self._first_number = first_number
        self._done: dict[int, Manifest] = {}
        self._pictures: list[Picture] = []
        self._arrived_seconds: dict[int, float] = {}
        self._num_frames = self._num_frames_reported = 0
        counts = (run.config.num_frames, info.num_frames_expected)
        self._expected = min((n for n in counts if n is not None), default=None)

    def tasks(self, settings: RunSettings, segments: Sequence[Segment]) -> Iterator[SegmentTask]:
        """A task for each segment that is not finished."""
        wanted, info = settings.config.num_frames, self._info
        for segment in segments:
            left = None if wanted is None else wanted - self._num_frames
            if left == 0:
                return
            kept = _kept(self._run.journal, segment.number)
            if kept is not None:
                self._keep(segment.number, kept)
                self._num_frames += kept.num_frames
                self.report_frames(kept.num_frames)
                continue
            all_before = segment.number - self._first_number == len(self._done)
            yield SegmentTask(
                settings=settings,
                segment=segment,
                files=SegmentFiles(self._run.journal.making, segment.number, info.annotated_suffix),
                first_index=self._num_frames if all_before else _first_index(segment, info),
                num_frames=left,
            )

    def add(self, number: int, manifest: Manifest, seconds: float) -> None:
        """Record a segment that finished now, so many seconds after the start of the first."""
        self._keep(number, manifest)
        self._num_frames += manifest.num_frames
        self._arrived_seconds[number] = seconds

    def _keep(self, number: int, manifest: Manifest) -> None:
        """Of the pictures of all segments, only those that the report shows stay in memory."""
        self._pictures = select_pictures([*self._pictures, *manifest.pictures])
        self._done[number] = dataclasses.replace(manifest, pictures=[])

    def report_frames(self, number: int) -> None:
        """Report progress by so many frames."""
        self._num_frames_reported += number
        self._run.on_progress(Progress("frames", self._num_frames_reported, self._expected))

    def taken(self) -> TakenSegments:
        reused = self._done.keys() - self._arrived_seconds.keys()
        return TakenSegments(
            [self._done[number] for number in sorted(self._done)],
            frozenset(number - self._first_number for number in reused),
            self._began_seconds(),
            self._pictures,
            self._first_number,
        )

    def _began_seconds(self) -> list[float]:
        """The start of each segment; resumed ones come first, one after the other."""
        began, before_seconds = {}, 0.0
        for number in sorted(self._done.keys() - self._arrived_seconds.keys()):
            began[number] = before_seconds
            before_seconds += self._done[number].stats.frames_wall_seconds
        for number, seconds in self._arrived_seconds.items():
            took_seconds = self._done[number].stats.frames_wall_seconds
            began[number] = before_seconds + max(0.0, seconds - took_seconds)
        return [began[number] for number in sorted(self._done)]


def _first_index(segment: Segment, info: VideoInfo) -> int:
    """The approximate number of frames before a segment."""
    if segment.start_pts is None or not info.frame_rate:
        return 0
    return max(0, round((segment.start_pts - info.start_pts) * info.time_base * info.frame_rate))


def _kept(journal: Journal, number: int) -> Manifest | None:
    """The manifest of a finished segment; None if it must be processed."""
    if not journal.has(number):
        return None
    try:
        return Manifest.read(SegmentFiles(journal.folder, number).manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # Written by another version.
