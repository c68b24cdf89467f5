"""What one actor does: segments, one after the other, watched from within."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

from pipeline.core.errors import PipelineError, UsageError, WorkerDied, as_pipeline_error
from pipeline.core.machine import thread_ids, versions
from pipeline.core.position import Position
from pipeline.execution.segment_worker import Attempt, RemoteTask, SegmentWorker
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog


class SegmentActor:
    """Takes segments through all steps with so many cores.

    expected: the versions of what results depend on, as the caller has them.
    Errors are returned, not raised: they then arrive as they are.
    """

    def __init__(self, cores: int, expected: dict[str, str]) -> None:
        self._cores = cores
        self._expected = expected
        # Ray's, which are always at something.
        self._other_threads = thread_ids()
        self._worker = SegmentWorker(cores)

    def start(self, node: str) -> PipelineError | None:
        """Make ready on the node of this name: results must not depend on where they are made."""
        self._worker = SegmentWorker(self._cores, node)
        found = versions()
        other = [
            f"{name} {found.get(name)} instead of {version}"
            for name, version in self._expected.items()
            if found.get(name) != version
        ]
        if not other:
            return None
        return UsageError(f"{node} has {', '.join(other)}: install the same on all nodes")

    def run(self, remote: RemoteTask) -> Attempt | PipelineError:
        """Do a segment; WorkerDied if a step hangs, and with it this actor."""
        result: Future[Attempt | PipelineError] = Future()
        position = Position()

        def work() -> None:
            try:
                result.set_result(self._worker.attempt(remote, position, lambda: None))
            except PipelineError as error:
                result.set_result(error)
            except BaseException as error:
                result.set_result(as_pipeline_error(error))

        threading.Thread(target=work, name="segment", daemon=True).start()
        watchdog = Watchdog(os.getpid(), position, remote.task.settings.config, self._other_threads)
        while not wait_for([result], POLL_SECONDS).done:
            try:
                watchdog.look()
            except WorkerDied as error:
                return error
        return result.result()
