"""The work of a process that takes segments of a clip through all steps, beside others."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.execution.segment_worker import Attempt, RemoteTask, SegmentWorker


@dataclass(slots=True)
class ProcessSegments:
    """Processes one segment after the other, with the model kept loaded.

    cores: how many this process has.
    """

    cores: int
    _worker: SegmentWorker | None = field(default=None, init=False)

    def __call__(
        self, task: RemoteTask, on_progress: ProgressCallback, position: Position
    ) -> Attempt:
        if self._worker is None:
            self._worker = SegmentWorker(self.cores)
        counter = FrameCounter(on_progress)
        attempt = self._worker.attempt(task, position, counter.on_frame)
        counter.end()
        return attempt


class FrameCounter:
    """Reports the frames of one segment, also those that were too many to report each."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._num_frames = 0

    def on_frame(self) -> None:
        self._num_frames += 1
        self._on_progress(Progress("frames", self._num_frames, None))

    def end(self) -> None:
        self._on_progress(Progress("frames", self._num_frames, self._num_frames))
