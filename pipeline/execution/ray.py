"""Segments worked on by Ray actors, on one machine or many; only paths and values travel."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

# Before it is imported: it reports nothing to its makers, and says nothing of GPUs that none use.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayError

from pipeline.core.config import ClusterOptions, InferOptions, ProcessConfig
from pipeline.core.errors import PipelineError, UsageError, reason_of
from pipeline.core.machine import available_cores, versions
from pipeline.core.position import Position, Step
from pipeline.core.text import counted
from pipeline.execution.cluster.nodes import nodes_alive
from pipeline.execution.cluster.pool import ActorPool
from pipeline.execution.executor import Done
from pipeline.execution.remote_tasks import remote_tasks, take_over
from pipeline.execution.segment_actor import SegmentActor
from pipeline.execution.segment_worker import Attempt, RemoteTask
from pipeline.execution.store import remove
from pipeline.frames.segment import OpenClip
from pipeline.frames.task import SegmentTask
from pipeline.inference.openvino import resolved_precision

_START_HERE = "local"
_ANSWER_SECONDS = 10.0
_BEAT_SECONDS = 0.25
_USUAL_CORES = 4
_OBJECT_STORE_BYTES = 100 << 20  # Nothing large goes through it.


class RayExecutor:
    """The actors of one cluster, which is started here where none is running.

    position: receives a heartbeat while the cluster works. Raises UsageError if there is no such
    cluster. A context manager, which ends the actors, and the cluster if it was started here.
    """

    waited_seconds = 0.0

    def __init__(self, options: ClusterOptions, position: Position) -> None:
        self._position = position
        self._most_nodes = self.most_at_once = 1
        self._beat()
        _connect(options)
        try:
            self._cores = options.cores_per_actor or _cores_per_actor()
            resolved_precision("auto")  # Found once, while nothing else is at work here.
            self._actors: ActorPool[RemoteTask, Attempt] = ActorPool(
                SegmentActor, (self._cores, versions()), cores=self._cores
            )
        except BaseException:
            ray.shutdown()
            raise

    at_once = None

    @property
    def cores(self) -> int:
        return self._cores

    @property
    def capacity(self) -> int:
        return self._actors.capacity

    def facts(self) -> dict[str, Any]:
        return {
            "executor": "ray",
            "nodes": self._most_nodes,
        }

    def close(self) -> None:
        self._actors.close()
        ray.shutdown()

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(
        self, clip: OpenClip, config: ProcessConfig, infer: InferOptions, num_segments: int
    ) -> None:
        if infer.engine != "openvino":
            raise UsageError("a cluster runs the model in OpenVINO: use another --config")

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Generator[Done, None, None]:
        travelling = remote_tasks(clip, list(tasks), self._beat)
        exchange_url = travelling[0][1].exchange_url if travelling else None
        arrived: SimpleQueue[Future[Attempt]] = SimpleQueue()
        under_way: dict[Future[Attempt], SegmentTask] = {}
        try:
            for task, remote in travelling:
                source = task.settings.config.source_name
                future = self._actors.submit(remote, f"segment {task.segment.number} of {source}")
                under_way[future] = task
                future.add_done_callback(arrived.put)
            while under_way:
                future = self._next(arrived)
                attempt = future.result()
                task = under_way.pop(future)
                manifest = take_over(attempt, task, exchange_url, self._beat)
                on_frames(manifest.num_frames)
                yield task, manifest
        finally:
            self._actors.cancel(under_way)
            if exchange_url is not None:
                remove(exchange_url)

    def _next(self, arrived: SimpleQueue[Future[Attempt]]) -> Future[Attempt]:
        while True:
            self._beat()
            self._most_nodes = max(self._most_nodes, self._actors.num_nodes)
            self.most_at_once = max(self.most_at_once, self.capacity)
            with contextlib.suppress(Empty):
                return arrived.get(timeout=_BEAT_SECONDS)

    def _beat(self) -> None:
        self._position.encoding.enter(Step.WAIT_CLUSTER)


def _connect(options: ClusterOptions) -> None:
    """Join the cluster that is asked for or running; else start one on this machine."""
    address = options.address or os.environ.get("RAY_ADDRESS") or "auto"
    if address.startswith("ray://"):
        raise UsageError(f"{address}: Ray's client is not used; give HOST:PORT of the head")
    # Ray puts a handler of its own in place of the one that ends a run properly.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address == _START_HERE:
            _start(options)
        else:
            _require_answer(address)
            ray.init(address=address, **_settings(options))
    except ConnectionError as error:
        if _asks_for_a_token(error):
            raise UsageError(
                f"the Ray cluster at {address} asks for a token: set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN if its token is not the one in ~/.ray/auth_token"
            ) from error
        if address != "auto":
            raise UsageError(
                f"no Ray cluster answers at {address} ({reason_of(error)}): `ray status` shows "
                "the address of a running one"
            ) from error
        _start(options)
    except (RuntimeError, ValueError, RayError) as error:  # RayError: there is no token at all.
        raise UsageError(f"Ray does not start or answer ({reason_of(error)})") from error
    finally:
        signal.signal(signal.SIGTERM, handler)


def _asks_for_a_token(error: BaseException | None) -> bool:
    """Ray gives the reason as a text of the error that it was raised from."""
    while error is not None:
        if "InvalidAuthToken" in str(error):
            return True
        error = error.__cause__
    return False


def _start(options: ClusterOptions) -> None:
    if (options.cores_per_actor or 1) > available_cores():
        raise UsageError(
            f"--cores-per-actor {options.cores_per_actor}: this machine, on which a cluster is to "
            f"be started, has {counted(available_cores(), 'core')}"
        )
    try:
        ray.init(
            address="local",
            num_cpus=available_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            **_settings(options),
        )
    except PipelineError:
        raise
    except Exception as error:  # Of any kind, where its processes do not answer in time.
        raise UsageError(f"Ray does not start here ({reason_of(error)})") from error


def _settings(options: ClusterOptions) -> dict[str, Any]:
    return {"log_to_driver": options.show_logs, "logging_level": logging.ERROR}


def _require_answer(address: str) -> None:
    """Raise ConnectionError where nothing listens: Ray itself would wait a minute for that."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from error


def _cores_per_actor() -> int:
    """As many as every node has, but not more than one segment makes good use of."""
    have = [int(node["Resources"].get("CPU", 0)) for node in nodes_alive().values()]
    return max(1, min([_USUAL_CORES, *(number for number in have if number)]))
