"""All segments of a clip, done by an executor or by an earlier run that was interrupted."""

from __future__ import annotations

import itertools
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.core.progress import Progress
from pipeline.execution.journal import Journal
from pipeline.frames.segment import Manifest, OpenClip, RunSettings, SegmentFiles, SegmentTask
from pipeline.frames.stats import RunStats
from pipeline.media.frame import Segment, SourceFaults, VideoInfo
from pipeline.run.context import RunContext


@dataclass(frozen=True, slots=True)
class TakenSegments:
    """The segments of a clip, all done.

    reused: the numbers of those that an earlier run had done.
    began_seconds: when each began, counted from the first, as if this run and those before it
        had been one.
    """

    manifests: list[Manifest]
    reused: frozenset[int]
    began_seconds: list[float]

    @property
    def num_frames(self) -> int:
        return sum(manifest.num_frames for manifest in self.manifests)

    @property
    def num_frames_reused(self) -> int:
        return sum(self.manifests[number].num_frames for number in self.reused)

    @property
    def seconds_reused(self) -> float:
        """For how long frames were under way in earlier runs."""
        return sum(self.manifests[number].stats.frames_wall_seconds for number in self.reused)

    @property
    def at_once(self) -> int:
        """How many segments were worked on at the same time, at the most."""
        begins, ends = sorted(self.began_seconds), sorted(self._done_seconds)
        return max(n - bisect_right(ends, begin) for n, begin in enumerate(begins, 1))

    @property
    def busy_seconds(self) -> float:
        """For how long at least one segment was worked on."""
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
        """Whether there may be more frames than were asked for."""
        return not self.manifests[-1].ended

    @property
    def pictures(self) -> list[str]:
        return [picture for manifest in self.manifests for picture in manifest.pictures]

    def stats(self) -> RunStats:
        """What was measured on all segments, added up."""
        stats = RunStats()
        for manifest, began_seconds in zip(self.manifests, self.began_seconds, strict=True):
            stats.add(manifest.stats, began_seconds)
        return stats

    def faults(self) -> SourceFaults:
        """What was mended or skipped in all segments, added up."""
        faults = SourceFaults()
        for manifest in self.manifests:
            faults.add(manifest.faults)
        return faults

    def times(self, time_base: Fraction) -> dict[int, Fraction]:
        """When some frames of the clip are shown, in seconds, by their numbers."""
        begins = itertools.accumulate((m.num_frames for m in self.manifests), initial=0)
        return {
            begin + index: pts * time_base
            for begin, manifest in zip(begins, self.manifests, strict=False)
            for index, pts in manifest.times
        }


def take_segments(
    run: RunContext, clip: OpenClip, settings: RunSettings, segments: Sequence[Segment]
) -> TakenSegments:
    """Have every segment done that is not yet. Raises PipelineError."""
    ledger = _Ledger(run, clip.source.info)
    started = time.perf_counter()
    tasks = ledger.tasks(settings, segments)
    for task, manifest in run.executor.run(clip, tasks, ledger.report_frames):
        run.watched.require_unchanged()
        manifest.write(task.files.manifest)
        run.journal.add(task.segment.number, task.files.existing())
        ledger.add(task.segment.number, manifest, time.perf_counter() - started)
    return ledger.taken()


class _Ledger:
    """Which segments are done, by this run or an earlier one, and which are to be done."""

    def __init__(self, run: RunContext, info: VideoInfo) -> None:
        self._run = run
        self._info = info
        self._done: dict[int, Manifest] = {}
        self._arrived_seconds: dict[int, float] = {}
        self._num_frames = self._num_frames_reported = 0
        counts = (run.config.num_frames, info.num_frames_expected)
        self._expected = min((n for n in counts if n is not None), default=None)

    def tasks(self, settings: RunSettings, segments: Sequence[Segment]) -> Iterator[SegmentTask]:
        """A task for each segment that no earlier run has done."""
        wanted, info = settings.config.num_frames, self._info
        for segment in segments:
            left = None if wanted is None else wanted - self._num_frames
            if left == 0:
                return
            kept = _kept(self._run.journal, segment.number)
            if kept is not None:
                self._done[segment.number] = kept
                self._num_frames += kept.num_frames
                self.report_frames(kept.num_frames)
                continue
            all_before = segment.number == len(self._done)
            yield SegmentTask(
                settings=settings,
                segment=segment,
                files=SegmentFiles(self._run.journal.making, segment.number, info.annotated_suffix),
                first_index=self._num_frames if all_before else _first_index(segment, info),
                num_frames=left,
            )

    def add(self, number: int, manifest: Manifest, seconds: float) -> None:
        """Note a segment that was done now, so many seconds after the first began."""
        self._done[number] = manifest
        self._num_frames += manifest.num_frames
        self._arrived_seconds[number] = seconds

    def report_frames(self, number: int) -> None:
        """Report the progress of so many frames more."""
        self._num_frames_reported += number
        self._run.on_progress(Progress("frames", self._num_frames_reported, self._expected))

    def taken(self) -> TakenSegments:
        return TakenSegments(
            [self._done[number] for number in sorted(self._done)],
            frozenset(self._done.keys() - self._arrived_seconds.keys()),
            self._began_seconds(),
        )

    def _began_seconds(self) -> list[float]:
        """When each segment began: reused ones come first, one after the other."""
        began, before_seconds = {}, 0.0
        for number in sorted(self._done.keys() - self._arrived_seconds.keys()):
            began[number] = before_seconds
            before_seconds += self._done[number].stats.frames_wall_seconds
        for number, seconds in self._arrived_seconds.items():
            took_seconds = self._done[number].stats.frames_wall_seconds
            began[number] = before_seconds + max(0.0, seconds - took_seconds)
        return [began[number] for number in sorted(self._done)]


def _first_index(segment: Segment, info: VideoInfo) -> int:
    """About how many frames come before a segment."""
    if segment.start_pts is None or not info.frame_rate:
        return 0
    return max(0, round((segment.start_pts - info.start_pts) * info.time_base * info.frame_rate))


def _kept(journal: Journal, number: int) -> Manifest | None:
    """What an earlier run found of a segment; None if it has to be done."""
    if not journal.has(number):
        return None
    try:
        return Manifest.read(SegmentFiles(journal.folder, number).manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # Written by another version.
