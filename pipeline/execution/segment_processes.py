"""The processes side by side that take the segments of one clip after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.core.closing import Closing
from pipeline.core.cores import core_shares
from pipeline.execution.processes import SideBySide
from pipeline.execution.segment_process import ProcessSegments
from pipeline.execution.segment_worker import Attempt, RemoteTask


class SegmentProcesses(Closing):
    """Keeps its processes, with their models compiled, for as long as the same are asked for.

    For one clip at a time. A context manager, which ends them.
    """

    def __init__(self) -> None:
        self._shares: list[list[int]] = []
        self._group: SideBySide[RemoteTask, Attempt] | None = None

    @contextmanager
    def side_by_side(
        self, at_once: int, cores_each: int
    ) -> Iterator[SideBySide[RemoteTask, Attempt]]:
        """So many processes, each with its share of the cores; ended if a clip fails in them."""
        shares = core_shares(at_once)
        # One may have been killed since the last clip, for which this clip is not to blame.
        if self._group is None or self._shares != shares or not self._group.is_idle:
            self.close()
            self._group, self._shares = SideBySide(ProcessSegments(cores_each), shares), shares
        group = self._group
        try:
            yield group
        finally:
            if not group.is_idle:
                self.close()

    def close(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.close()
