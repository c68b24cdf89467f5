"""The executor that a run asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.core.config import ClusterOptions
from pipeline.core.errors import UsageError
from pipeline.core.position import Position
from pipeline.core.turns import Turns
from pipeline.execution.executor import Executor
from pipeline.inference.models import Models

if TYPE_CHECKING:
    from pipeline.execution.segment_processes import SegmentProcesses


@contextmanager
def open_executor(
    cluster: ClusterOptions | None,
    models: Models,
    position: Position,
    turns: Turns | None = None,
    processes: SegmentProcesses | None = None,
) -> Iterator[Executor]:
    """The executor for the options. Raises UsageError if there is no cluster.

    turns: of the clips that other threads of this process work on; None if there are none.
    processes: for segments side by side on this machine, kept for further clips; None starts some
    for this executor alone.
    """
    if cluster is None:
        from pipeline.execution.local import LocalExecutor
        from pipeline.execution.segment_processes import SegmentProcesses

        if processes is not None:
            yield LocalExecutor(models, position, turns, processes)
            return
        with SegmentProcesses() as own:
            yield LocalExecutor(models, position, turns, own)
        return
    try:
        from pipeline.execution.ray import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("a cluster needs the extra ray: pip install ray") from error
    with RayExecutor(cluster, position) as executor:
        yield executor
