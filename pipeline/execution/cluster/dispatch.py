"""Hands jobs to actors, and decides what follows when a call of an actor ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

from ray.exceptions import RayError, RayTaskError

from pipeline.core.config import MOST_ATTEMPTS
from pipeline.core.errors import PipelineError, UsageError, WorkerDied, reason_of
from pipeline.core.notes import note
from pipeline.execution.cluster.actors import Actor, Actors
from pipeline.execution.cluster.growth import Growth
from pipeline.execution.cluster.jobs import Job, JobQueue
from pipeline.execution.cluster.nodes import Nodes

WhenDone = Callable[[Any, Callable[[Future[Any]], None]], None]


class Dispatch:
    """The state of a pool of actors; one thread makes all calls.

    cores: of one actor. when_done: called with Ray's reference to a call, and a function that is to
    be called on that thread with the future of the call, when it is done.
    """

    def __init__(self, actors: Actors, when_done: WhenDone, *, cores: int) -> None:
        self._actors = actors
        self._when_done = when_done
        self._nodes = Nodes(cores)
        self._queue = JobQueue()
        self._growth = Growth(self._nodes, actors, self._queue, cores=cores)
        self._broken: PipelineError | None = None

    def add(self, job: Job) -> None:
        """Queue a job; it fails at once if no actor can ever do it."""
        if self._broken is not None:
            job.resolve(self._broken)
            return
        if not self._queue and not self._actors.busy:
            self._growth.restart_timeout()
        self._queue.put(job)

    def grow(self) -> None:
        """Start actors where there is room for them; fail all jobs if there was none for long."""
        for actor in self._growth.start_actors():
            self._when_done(actor.last_call, functools.partial(self._on_started, actor))
        error = self._growth.timeout_error()
        if error is not None:
            self._fail_all(error)

    def assign(self) -> None:
        """Give jobs to idle actors."""
        for actor in [*self._actors.idle]:
            if not self._queue:
                break
            job = self._queue.take(actor.node_id, self._actors.are_only_on)
            if job is not None:
                self._actors.assign(actor, job)
                self._when_done(actor.last_call, functools.partial(self._on_finished, actor))

    def discard(self, futures: Collection[Future[Any]]) -> None:
        """Discard jobs, and end the actors that are busy with them."""
        self._queue.discard(futures)
        self._actors.end([a for a, job in self._actors.busy.items() if job.future in futures])
        self._growth.look_soon()

    def end(self) -> None:
        """Discard all jobs and end all actors."""
        self._queue.clear()
        self._growth.end()
        self._actors.end(self._actors.all())

    def fail(self, error: PipelineError) -> None:
        """Fail all jobs, and those that come later."""
        self._broken = error
        self._fail_all(error)

    def _fail_all(self, error: PipelineError) -> None:
        for job in [*self._queue.clear(), *self._actors.busy.values()]:
            job.resolve(error)

    def _on_started(self, actor: Actor, future: Future[Any]) -> None:
        if actor not in self._actors.starting:
            return
        error = future.exception() or future.result()
        if error is None:
            self._actors.set_ready(actor)
        elif isinstance(error, PipelineError):
            self._kill(actor)
            self._give_up(actor.node_id, error)
        else:
            reason = self._reason(actor, error)
            self._kill(actor)
            if self._nodes.count_failed_start(actor.node_id):
                self._give_up(actor.node_id, WorkerDied(f"actors do not start: {reason}"))

    def _give_up(self, node_id: str, error: PipelineError) -> None:
        """Continue without a node, if there are others; a UsageError always ends the run."""
        self._nodes.give_up(node_id)
        self._nodes.refresh()
        if not self._nodes.usable():
            self.fail(error)
        elif isinstance(error, UsageError):
            self._fail_all(error)
        else:
            note(f"{error}; the run continues without that node")

    def _on_finished(self, actor: Actor, future: Future[Any]) -> None:
        job = self._actors.busy.get(actor)
        if job is None:
            return
        error = future.exception()
        value = None if error else future.result()
        if error is None and not isinstance(value, WorkerDied):
            self._actors.set_idle(actor)
            job.resolve(value)
            return
        reason = str(value) if error is None else self._reason(actor, error)
        self._kill(actor)
        job.lost_on.append(actor.node_id)
        if len(job.lost_on) < MOST_ATTEMPTS:
            self._queue.put_back(job)
        else:
            job.resolve(WorkerDied(f"{job.name} failed on {MOST_ATTEMPTS} actors: {reason}"))

    def _kill(self, actor: Actor) -> None:
        self._actors.kill(actor)
        self._growth.look_soon()

    def _reason(self, actor: Actor, error: BaseException) -> str:
        node = self._nodes.name(actor.node_id)
        if isinstance(error, RayTaskError) or not isinstance(error, RayError):
            return f"{node}: {reason_of(error)}"
        self._nodes.refresh()
        if not self._nodes.is_alive(actor.node_id):
            return f"{node} was lost"
        return f"an actor on {node} died, possibly out of memory"
