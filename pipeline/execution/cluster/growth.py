"""Starts actors where nodes have room and jobs wait, and gives up when none gets ready."""

from __future__ import annotations

import time

from pipeline.core.errors import PipelineError, UsageError, WorkerDied
from pipeline.core.text import counted
from pipeline.execution.cluster.actors import Actor, Actors
from pipeline.execution.cluster.autoscaler import ResourceRequest
from pipeline.execution.cluster.jobs import JobQueue
from pipeline.execution.cluster.nodes import Nodes

LOOK_SECONDS = 2.0
"""Between two looks at the nodes."""
LATE_SECONDS = 15.0
"""An actor that takes longer to start is replaced by another one elsewhere."""
NO_ACTOR_SECONDS = 120.0
"""How long jobs wait while no actor is ready: a cluster that grows needs a while for a node."""


class Growth:
    """Keeps as many actors as fit on the nodes, but not more than there are jobs."""

    def __init__(self, nodes: Nodes, actors: Actors, queue: JobQueue, *, cores: int) -> None:
        self._nodes = nodes
        self._actors = actors
        self._queue = queue
        self._cores = cores
        self._request = ResourceRequest(cores)
        self._next_look = self._last_ready = time.monotonic()

    def look_soon(self) -> None:
        """Look at the nodes at the next call of `start_actors`: an actor is missing."""
        self._next_look = time.monotonic()

    def restart_timeout(self) -> None:
        """Count the time without actors from now: there were no jobs before."""
        self._next_look = self._last_ready = time.monotonic()

    def start_actors(self) -> list[Actor]:
        """If it is time to look: remove actors of lost nodes, and start and return new ones."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + LOOK_SECONDS
        self._request.ask(self._num_jobs())
        self._nodes.refresh()
        for actor in [actor for actor in self._actors.idle if not self._alive(actor)]:
            self._actors.kill(actor)
            self.look_soon()
        rooms = self._rooms()[: self._num_missing(now)]
        return [self._actors.start(node_id, self._nodes.name(node_id)) for node_id in rooms]

    def end(self) -> None:
        """Need no actors any more."""
        self._request.withdraw()

    def timeout_error(self) -> PipelineError | None:
        """The error of all jobs if they have waited too long without any actor; else None."""
        now = time.monotonic()
        if self._actors.num_ready() or not self._queue:
            self._last_ready = now
        elif now > self._last_ready + NO_ACTOR_SECONDS:
            return self._no_actor()
        return None

    def _alive(self, actor: Actor) -> bool:
        return self._nodes.is_alive(actor.node_id)

    def _rooms(self) -> list[str]:
        """The id of a node for each actor that fits there, best first.

        Nodes where no actor was lost come first; one actor on each comes before a second on any.
        """
        have, avoided = self._actors.per_node(), self._queue.nodes_to_avoid()
        rooms = sorted(
            (node_id in avoided, number, node_id)
            for node_id, fit in self._nodes.usable().items()
            for number in range(have[node_id], fit)
        )
        return [node_id for *_, node_id in rooms]

    def _num_missing(self, now: float) -> int:
        # Where other work has the cores, an actor may take long to start: others need not wait.
        late = sum(actor.started_at < now - LATE_SECONDS for actor in self._actors.starting)
        return max(0, self._num_jobs() - (len(self._actors.all()) - late))

    def _num_jobs(self) -> int:
        return len(self._queue) + len(self._actors.busy)

    def _no_actor(self) -> PipelineError:
        if self._actors.starting:
            return WorkerDied(
                f"no actor could be started within {NO_ACTOR_SECONDS:.0f} s: the cluster's cores "
                "are taken by other work"
            )
        return UsageError(
            f"no node of the cluster has {counted(self._cores, 'core')}, as an actor needs: give "
            "fewer --cores-per-actor, or use larger nodes"
        )
