"""Reports the finished frames of one segment."""

from __future__ import annotations

from pipeline.core.progress import Progress, ProgressCallback


class FrameCounter:
    """Counts frames for a callback that does not pass on every report.

    on_progress: called with the number so far; the last one is passed on.
    """

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._num_frames = 0

    def on_frame(self) -> None:
        self._num_frames += 1
        self._on_progress(Progress("frames", self._num_frames, None))

    def end(self) -> None:
        self._on_progress(Progress("frames", self._num_frames, self._num_frames))
