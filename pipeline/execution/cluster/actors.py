"""Which actors there are, on which nodes, and what each is doing."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.execution.cluster.jobs import Job

END_SECONDS = 2.0
"""How long actors that were killed may take to end."""


@dataclass(eq=False, slots=True)
class Actor:
    """last_call: Ray's reference to its latest call. started_at: seconds of the monotonic clock."""

    handle: Any
    node_id: str
    last_call: Any
    started_at: float = field(default_factory=time.monotonic)


class Actors:
    """The actors of one class: each is starting, idle or busy with one job.

    arguments: of the class. cores: of a node that one actor has for itself. One thread changes it;
    `num_ready` and `num_nodes` may be called by any.
    """

    def __init__(self, actor_class: type, arguments: tuple[Any, ...], *, cores: int) -> None:
        self._class: Any = ray.remote(actor_class)
        self._arguments = arguments
        self._cores = cores
        self.starting: set[Actor] = set()
        self.idle: deque[Actor] = deque()
        self.busy: dict[Actor, Job] = {}

    def all(self) -> list[Actor]:
        return [*self.starting, *self.idle, *self.busy]

    def num_ready(self) -> int:
        return len(self.idle) + len(self.busy)

    def num_nodes(self) -> int:
        """The number of nodes with actors that are ready."""
        return len({actor.node_id for actor in [*self.idle, *self.busy]})

    def per_node(self) -> Counter[str]:
        """The number of actors on each node, by its id."""
        return Counter(actor.node_id for actor in self.all())

    def are_only_on(self, node_ids: set[str]) -> bool:
        """Whether no other node has actors."""
        return {*self.per_node()} <= node_ids

    def start(self, node_id: str, node_name: str) -> Actor:
        """Start an actor on a node; its `last_call` ends when it is ready."""
        handle = self._class.options(
            num_cpus=self._cores,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        ).remote(*self._arguments)
        actor = Actor(handle, node_id, handle.start.remote(node_name))
        self.starting.add(actor)
        return actor

    def set_ready(self, actor: Actor) -> None:
        self.starting.remove(actor)
        self.idle.append(actor)

    def assign(self, actor: Actor, job: Job) -> None:
        """Give an idle actor a job; its `last_call` ends when the job does."""
        actor.last_call = actor.handle.run.remote(job.argument)
        self.idle.remove(actor)
        self.busy[actor] = job

    def set_idle(self, actor: Actor) -> None:
        """Mark a busy actor as done with its job."""
        del self.busy[actor]
        self.idle.append(actor)

    def kill(self, actor: Actor) -> None:
        """Remove an actor. It may be alive: unreachable, or hanging."""
        self.starting.discard(actor)
        self.busy.pop(actor, None)
        with contextlib.suppress(ValueError):
            self.idle.remove(actor)
        ray.kill(actor.handle, no_restart=True)

    def end(self, actors: Collection[Actor]) -> None:
        """Kill actors and wait until they are gone, so that they do not write any more."""
        for actor in actors:
            self.kill(actor)
        if actors:
            calls = [actor.last_call for actor in actors]
            ray.wait(calls, num_returns=len(calls), timeout=END_SECONDS)
