"""The work of a process that takes segments of a clip through all steps, beside others."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.core.memory import keep_memory
from pipeline.core.position import Position
from pipeline.core.progress import ProgressCallback
from pipeline.execution.frame_counter import FrameCounter
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
            keep_memory()
            self._worker = SegmentWorker(self.cores)
        counter = FrameCounter(on_progress)
        attempt = self._worker.attempt(task, position, counter.on_frame)
        counter.end()
        return attempt
