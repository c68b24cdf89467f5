"""The executor that a run asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.config import ClusterOptions
from pipeline.core.errors import UsageError
from pipeline.core.position import Position
from pipeline.core.turns import Turns
from pipeline.execution.executor import Executor
from pipeline.inference.models import Models


@contextmanager
def open_executor(
    cluster: ClusterOptions | None,
    models: Models,
    position: Position,
    turns: Turns | None = None,
) -> Iterator[Executor]:
    """The executor for the options. Raises UsageError if there is no cluster.

    turns: of the clips that other threads of this process work on; None if there are none.
    """
    if cluster is None:
        from pipeline.execution.local import LocalExecutor

        yield LocalExecutor(models, position, turns)
        return
    try:
        from pipeline.execution.ray import RayExecutor
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError("a cluster needs the extra ray: pip install ray") from error
    with RayExecutor(cluster, position) as executor:
        yield executor
