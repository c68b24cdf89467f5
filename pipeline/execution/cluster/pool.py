"""A pool of long-lived actors on all nodes of a Ray cluster, each with one job at a time."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from pipeline.core.errors import as_pipeline_error
from pipeline.execution.cluster.actors import END_SECONDS, Actors
from pipeline.execution.cluster.dispatch import Dispatch
from pipeline.execution.cluster.growth import LOOK_SECONDS
from pipeline.execution.cluster.jobs import Job
from pipeline.execution.cluster.nodes import actors_that_fit, nodes_alive

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class ActorPool(Generic[Argument, Result]):
    """Does jobs on actors of one class, each of which has so many cores of a node for itself.

    actor_class: `start(node)` makes an actor ready on the node of that name and returns None,
    `run(argument)` does a job and returns its result; both return an error, a PipelineError, where
    there is one. WorkerDied means that the actor cannot be used any more. arguments: of the class.

    There are as many actors as fit on the nodes, but not more than there are jobs. An actor that is
    lost is never restarted, and its job goes to another one, on another node where there is one.
    Any thread may call. The calls, and the ends of what actors do, are events, which a thread of
    the pool handles one after the other.
    """

    def __init__(self, actor_class: type, arguments: tuple[Any, ...], *, cores: int) -> None:
        self._cores = cores
        self._actors = Actors(actor_class, arguments, cores=cores)
        self._dispatch = Dispatch(self._actors, self._when_done, cores=cores)
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._handle_events, name="actors", daemon=True)
        self._thread.start()

    def submit(self, argument: Argument, name: str) -> Future[Result]:
        """Have a job done; name: of the job, in messages. The future raises PipelineError."""
        future: Future[Result] = Future()
        self._events.put(functools.partial(self._dispatch.add, Job(argument, name, future)))
        return future

    def cancel(self, futures: Collection[Future[Result]]) -> None:
        """Discard jobs, and the actors that are busy with them; returns when those have ended."""
        discarded = threading.Event()

        def discard() -> None:
            self._dispatch.discard({*futures})
            discarded.set()

        self._events.put(discard)
        discarded.wait(2 * END_SECONDS)

    def close(self) -> None:
        """End all actors; jobs that are not done are discarded."""

        def end() -> None:
            self._closed = True
            self._dispatch.end()

        self._events.put(end)
        self._thread.join(2 * END_SECONDS)

    @property
    def capacity(self) -> int:
        """The number of actors that fit on the nodes that are alive now."""
        return sum(actors_that_fit(node, self._cores) for node in nodes_alive().values())

    @property
    def num_actors(self) -> int:
        """The number of actors that are ready."""
        return self._actors.num_ready()

    @property
    def num_nodes(self) -> int:
        """The number of nodes with actors that are ready."""
        return self._actors.num_nodes()

    def _handle_events(self) -> None:
        try:
            while not self._closed:
                self._dispatch.grow()
                with contextlib.suppress(Empty):
                    self._events.get(timeout=LOOK_SECONDS)()
                self._dispatch.assign()
        except Exception as error:  # Ray itself has failed, or is gone.
            self._dispatch.fail(as_pipeline_error(error))
            while not self._closed:
                with contextlib.suppress(Exception):
                    self._events.get()()

    def _when_done(self, call: Any, then: Callable[[Future[Any]], None]) -> None:
        future: Future[Any] = call.future()
        future.add_done_callback(lambda done: self._events.put(functools.partial(then, done)))
