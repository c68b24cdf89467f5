"""Jobs of actors, and the queue in which they wait for one."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import PipelineError


@dataclass(eq=False, slots=True)
class Job:
    """One call of an actor's `run`.

    name: in messages. lost_on: the ids of the nodes whose actors were lost during this job.
    """

    argument: Any
    name: str
    future: Future[Any]
    lost_on: list[str] = field(default_factory=list)

    def resolve(self, value: object) -> None:
        """Set the result, or the exception if it is a PipelineError; only the first one counts."""
        if self.future.done():
            return
        if isinstance(value, PipelineError):
            self.future.set_exception(copy.copy(value))  # Callers add to the one that they get.
        else:
            self.future.set_result(value)


class JobQueue:
    """The jobs that wait for an actor, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, job: Job) -> None:
        self._waiting.append(job)

    def put_back(self, job: Job) -> None:
        """Queue a job whose actor was lost: it is next."""
        self._waiting.appendleft(job)

    def take(self, node_id: str, are_only_on: Callable[[set[str]], bool]) -> Job | None:
        """Remove and return the first job for an actor on a node; None if there is none.

        A job returns to a node where it lost an actor only if no other node has actors.
        are_only_on: called with the ids of nodes; whether no other node has actors.
        """
        for job in self._waiting:
            if node_id not in job.lost_on or are_only_on({*job.lost_on}):
                self._waiting.remove(job)
                return job
        return None

    def nodes_to_avoid(self) -> set[str]:
        """The ids of the nodes where actors were lost during a job that is waiting."""
        return {node_id for job in self._waiting for node_id in job.lost_on}

    def discard(self, futures: Collection[Future[Any]]) -> None:
        self._waiting = deque(job for job in self._waiting if job.future not in futures)

    def clear(self) -> list[Job]:
        """Remove and return all jobs."""
        jobs = [*self._waiting]
        self._waiting.clear()
        return jobs
