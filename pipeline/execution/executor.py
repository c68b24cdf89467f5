"""The interface between a run and the executors that process its segments."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

from pipeline.core.config import InferOptions, ProcessConfig
from pipeline.frames.segment import OpenClip
from pipeline.frames.task import Manifest, SegmentTask

Done = tuple[SegmentTask, Manifest]


class Executor(Protocol):
    """Takes segments through all steps; what it leaves are the files that each task names.

    cores: of this machine, or of each actor.
    at_once: how many segments share these cores; None where each has so many of its own.
    capacity: how many segments it can work on at the same time as things stand.
    most_at_once: the most that it could work on at the same time so far.
    waited_seconds: how long `run` has waited for the frames of other clips.
    """

    @property
    def cores(self) -> int: ...

    @property
    def at_once(self) -> int | None: ...

    @property
    def capacity(self) -> int: ...

    @property
    def most_at_once(self) -> int: ...

    @property
    def waited_seconds(self) -> float: ...

    def facts(self) -> dict[str, Any]:
        """Its entries in the report, as plain values."""
        ...

    def prepare(
        self, clip: OpenClip, config: ProcessConfig, infer: InferOptions, num_segments: int
    ) -> None:
        """Make ready what all segments of a clip need. Raises PipelineError."""
        ...

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Generator[Done, None, None]:
        """Yield every task as it is done, with its manifest.

        on_frames: called with the number of frames that were finished since the last call. Raises
        PipelineError.
        """
        ...
