"""Where segments are worked on: here, or on many machines. All that both share is in `run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.config import ClusterOptions, ProcessConfig
from pipeline.errors import UsageError
from pipeline.model.loaded import Models
from pipeline.position import Position
from pipeline.segment import Manifest, OpenClip, SegmentTask

Done = tuple[SegmentTask, Manifest]


class Executor(Protocol):
    """Takes segments through all steps; what it leaves are the files that each task names.

    cores: that one segment is worked on with.
    places: how many segments it can work on at the same time as things stand.
    in_order: whether it takes a task only after the one before is done and was yielded.
    """

    @property
    def cores(self) -> int: ...

    @property
    def in_order(self) -> bool: ...

    @property
    def places(self) -> int: ...

    def facts(self) -> dict[str, Any]:
        """What the report tells of it, as plain values."""
        ...

    def prepare(self, clip: OpenClip, config: ProcessConfig) -> None:
        """Make ready what all segments of a clip need. Raises PipelineError."""
        ...

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Iterator[Done]:
        """Yield every task as it is done, with its manifest.

        on_frames: is told of so many frames more that are done. Raises PipelineError.
        """
        ...


@contextmanager
def open_executor(
    cluster: ClusterOptions | None, models: Models, position: Position
) -> Iterator[Executor]:
    """This process, or the cluster. Raises UsageError if there is none."""
    if cluster is None:
        from pipeline.executors.local import LocalExecutor

        yield LocalExecutor(models, position)
        return
    try:
        from pipeline.executors.ray import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("a cluster needs Ray: pip install ray") from error
    with RayExecutor(cluster, position) as executor:
        yield executor
