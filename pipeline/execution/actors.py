"""Long-lived Ray actors on all nodes of a cluster, each with one job at a time.

Actors and nodes may be lost at any moment, and nodes may join: the others continue.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.config import MOST_ATTEMPTS
from pipeline.core.errors import PipelineError, UsageError, WorkerDied, as_pipeline_error, reason_of
from pipeline.core.notes import note

_LOOK_SECONDS = 2.0
_LATE_SECONDS = 15.0
_NOBODY_SECONDS = 120.0
_END_SECONDS = 2.0

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Job:
    """tried: the nodes of the actors that were lost over it."""

    argument: Any
    name: str
    future: Future[Any]
    tried: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Actor:
    """last: the reference to what it was told last; job: what it is at; since: when it was made."""

    handle: Any
    node_id: str
    last: Any
    job: _Job | None = None
    since: float = field(default_factory=time.monotonic)


class ActorPool(Generic[Argument, Result]):
    """Does jobs on actors of one class, each of which has so many cores of a node for itself.

    actor_class: `start(node)` makes an actor ready on the node of that name and returns None,
    `run(argument)` does a job and returns its result; both return an error, a PipelineError, where
    there is one. WorkerDied means that the actor is of no use any more. arguments: for the class.

    There are as many actors as fit on the nodes, but not more than there are jobs. One that is
    lost is never started again under its name, and its job goes to another one, on another node
    where there is one. Any thread may call; one of the pool's own looks after all actors.
    """

    def __init__(self, actor_class: type, arguments: tuple[Any, ...], *, cores: int) -> None:
        self._class: Any = ray.remote(actor_class)
        self._arguments = arguments
        self._cores = cores
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._starting: set[_Actor] = set()
        self._idle: deque[_Actor] = deque()
        self._busy: set[_Actor] = set()
        self._nodes: dict[str, str] = {}
        self._failed_starts: Counter[str] = Counter()
        self._look_at = self._somebody_at = time.monotonic()
        self._closed = False
        self._broken: PipelineError | None = None
        self._thread = threading.Thread(target=self._look_after, name="actors", daemon=True)
        self._thread.start()

    def submit(self, argument: Argument, name: str) -> Future[Result]:
        """Have a job done; name: of the job, for messages. The future raises PipelineError."""
        future: Future[Result] = Future()
        self._events.put(functools.partial(self._take, _Job(argument, name, future)))
        return future

    def cancel(self, futures: Collection[Future[Result]]) -> None:
        """Forget jobs, together with the actors that are at them; returns when those have ended."""
        done = threading.Event()
        self._events.put(functools.partial(self._forget, set(futures), done))
        done.wait(2 * _END_SECONDS)

    def close(self) -> None:
        """End all actors; jobs that are not done are forgotten."""
        self._events.put(self._close)
        self._thread.join(2 * _END_SECONDS)

    @property
    def num_places(self) -> int:
        """How many fit on the nodes that are there now."""
        nodes = nodes_alive().values()
        return sum(int(node["Resources"].get("CPU", 0) // self._cores) for node in nodes)

    @property
    def num_actors(self) -> int:
        """How many are ready."""
        return len(self._idle) + len(self._busy)

    @property
    def num_nodes(self) -> int:
        """How many have actors that are ready."""
        return len({actor.node_id for actor in [*self._idle, *self._busy]})

    # From here on, on the pool's own thread.

    def _look_after(self) -> None:
        try:
            while not self._closed:
                self._look_at_nodes()
                with contextlib.suppress(Empty):
                    self._events.get(timeout=_LOOK_SECONDS)()
                self._assign()
        except Exception as error:  # Ray itself has failed, or is gone.
            self._broken = as_pipeline_error(error)
            self._fail_all(self._broken)
            while not self._closed:
                with contextlib.suppress(Exception):
                    self._events.get()()

    def _take(self, job: _Job) -> None:
        if self._broken is not None:
            _resolve(job, self._broken)
            return
        if not self._waiting and not self._busy:
            self._look_at = self._somebody_at = time.monotonic()
        self._waiting.append(job)

    def _assign(self) -> None:
        for _ in range(min(len(self._idle), len(self._waiting))):
            actor = self._idle.popleft()
            job = self._next_for(actor)
            if job is None:
                self._idle.append(actor)
                continue
            actor.job, actor.last = job, actor.handle.run.remote(job.argument)
            self._busy.add(actor)
            self._when_done(actor.last, functools.partial(self._finished, actor))

    def _next_for(self, actor: _Actor) -> _Job | None:
        """The first job that may go to an actor: not where it was lost, if it can go elsewhere."""
        for job in self._waiting:
            if actor.node_id not in job.tried or self._nodes_with_actors() <= {*job.tried}:
                self._waiting.remove(job)
                return job
        return None

    def _nodes_with_actors(self) -> set[str]:
        return {actor.node_id for actor in [*self._busy, *self._starting, *self._idle]}

    def _when_done(self, reference: Any, then: Callable[[Future[Any]], None]) -> None:
        future: Future[Any] = reference.future()
        future.add_done_callback(lambda done: self._events.put(functools.partial(then, done)))

    def _started(self, actor: _Actor, future: Future[Any]) -> None:
        if actor not in self._starting:
            return
        error = future.exception() or future.result()
        if error is None:
            self._starting.remove(actor)
            self._idle.append(actor)
        elif isinstance(error, PipelineError):
            self._lose(actor)
            self._refuse(actor.node_id, error)
        else:
            reason = self._reason(actor, error)
            self._lose(actor)
            self._failed_starts[actor.node_id] += 1
            if self._failed_starts[actor.node_id] == MOST_ATTEMPTS:
                self._refuse(actor.node_id, WorkerDied(f"actors do not start: {reason}"))

    def _refuse(self, node_id: str, error: PipelineError) -> None:
        """Go on without a node, if there are others; what a user can mend is never passed over."""
        self._failed_starts[node_id] = MOST_ATTEMPTS
        if not self._usable_nodes():
            self._broken = error
        if isinstance(error, UsageError) or self._broken is not None:
            self._fail_all(error)
        else:
            note(f"{error}; the run continues without that node")

    def _finished(self, actor: _Actor, future: Future[Any]) -> None:
        job = actor.job
        if actor not in self._busy or job is None:
            return
        error = future.exception()
        value = None if error else future.result()
        if error is None and not isinstance(value, WorkerDied):
            self._busy.remove(actor)
            actor.job = None
            self._idle.append(actor)
            _resolve(job, value)
            return
        reason = str(value) if error is None else self._reason(actor, error)
        self._lose(actor)
        job.tried.append(actor.node_id)
        if len(job.tried) < MOST_ATTEMPTS:
            self._waiting.appendleft(job)
        else:
            _resolve(job, WorkerDied(f"{job.name} failed on {MOST_ATTEMPTS} actors: {reason}"))

    def _reason(self, actor: _Actor, error: BaseException) -> str:
        node = node_name(self._nodes.get(actor.node_id, "?"), actor.node_id)
        if isinstance(error, RayTaskError) or not isinstance(error, RayError):
            return f"{node}: {reason_of(error)}"
        if actor.node_id not in nodes_alive():
            return f"{node} was lost"
        return f"an actor on {node} died, possibly out of memory"

    def _lose(self, actor: _Actor) -> None:
        self._starting.discard(actor)
        self._busy.discard(actor)
        with contextlib.suppress(ValueError):
            self._idle.remove(actor)
        # It may be alive: out of reach only, or hanging.
        ray.kill(actor.handle, no_restart=True)
        self._look_at = time.monotonic()

    def _look_at_nodes(self) -> None:
        """Now and then: start actors where there is room for them and something to do."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        alive = nodes_alive()
        self._nodes.update(
            {node_id: node["NodeManagerHostname"] for node_id, node in alive.items()}
        )
        for actor in [actor for actor in self._idle if actor.node_id not in alive]:
            self._lose(actor)
        actors = [*self._starting, *self._idle, *self._busy]
        have = Counter(actor.node_id for actor in actors)
        usable = self._usable_nodes(alive)
        avoided = {node_id for job in self._waiting for node_id in job.tried}
        # One on every node comes before a second one on any.
        places = sorted(
            (node_id in avoided, place, node_id)
            for node_id, node in usable.items()
            for place in range(have[node_id], int(node["Resources"]["CPU"] // self._cores))
        )
        # Where other work has the cores, an actor may take long to start: others need not wait.
        late = sum(actor.since < now - _LATE_SECONDS for actor in self._starting)
        wanted = len(self._waiting) + len(self._busy) - (len(actors) - late)
        for *_, node_id in places[: max(0, wanted)]:
            self._start(node_id)
        if self._busy or self._idle or not self._waiting:
            self._somebody_at = now
        elif now > self._somebody_at + _NOBODY_SECONDS:
            self._fail_all(_nobody(self._cores, any_room=bool(self._starting)))

    def _usable_nodes(self, alive: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            node_id: node
            for node_id, node in (nodes_alive() if alive is None else alive).items()
            if node["Resources"].get("CPU", 0) >= self._cores
            and self._failed_starts[node_id] < MOST_ATTEMPTS
        }

    def _start(self, node_id: str) -> None:
        handle = self._class.options(
            num_cpus=self._cores,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(*self._arguments)
        name = node_name(self._nodes[node_id], node_id)
        actor = _Actor(handle, node_id, handle.start.remote(name))
        self._starting.add(actor)
        self._when_done(actor.last, functools.partial(self._started, actor))

    def _forget(self, futures: set[Future[Any]], done: threading.Event) -> None:
        self._waiting = deque(job for job in self._waiting if job.future not in futures)
        ending = [actor for actor in self._busy if actor.job and actor.job.future in futures]
        self._end(ending)
        done.set()

    def _close(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._end([*self._starting, *self._idle, *self._busy])

    def _end(self, actors: Collection[_Actor]) -> None:
        """Kill actors and wait until they are gone, so that they write nothing any more."""
        for actor in actors:
            self._lose(actor)
        if actors:
            last = [actor.last for actor in actors]
            ray.wait(last, num_returns=len(last), timeout=_END_SECONDS)

    def _fail_all(self, error: PipelineError) -> None:
        jobs = [*self._waiting, *(actor.job for actor in self._busy if actor.job)]
        self._waiting.clear()
        for job in jobs:
            _resolve(job, error)


def node_name(hostname: str, node_id: str) -> str:
    """A node as messages name it."""
    return f"node {hostname} ({node_id[:8]})"


def nodes_alive() -> dict[str, Any]:
    """Ray's records of the nodes that are alive, by their ids."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node for node in nodes if node["Alive"]}


def _resolve(job: _Job, value: object) -> None:
    if job.future.done():
        return
    if isinstance(value, PipelineError):
        job.future.set_exception(copy.copy(value))  # Whoever gets it may add to it.
    else:
        job.future.set_result(value)


def _nobody(cores: int, *, any_room: bool) -> PipelineError:
    if any_room:
        return WorkerDied(
            f"no actor could be started within {_NOBODY_SECONDS:.0f} s: the cluster's cores are "
            "taken by other work"
        )
    return UsageError(
        f"no node of the cluster has the {cores} cores of an actor: --cores-per-actor with fewer, "
        "or larger nodes"
    )
