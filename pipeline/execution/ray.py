"""Segments worked on by Ray actors, on one machine or many; only paths and values travel."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

# Before it is imported: it reports nothing to its makers, and says nothing of GPUs that none use.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from pipeline.core.config import ClusterOptions, InferOptions
from pipeline.core.errors import UsageError, reason_of
from pipeline.core.machine import available_cores, versions
from pipeline.core.notes import note
from pipeline.core.position import Beat, Position, Step
from pipeline.core.text import counted
from pipeline.core.work_folder import WORK_NAME
from pipeline.execution.cluster.nodes import nodes_alive
from pipeline.execution.cluster.pool import ActorPool
from pipeline.execution.executor import Done
from pipeline.execution.segment_actor import (
    WITNESS_NAME,
    Attempt,
    RemoteTask,
    SegmentActor,
    SharedModel,
)
from pipeline.execution.store import download, joined, remove, upload
from pipeline.frames.segment import OpenClip
from pipeline.frames.task import Manifest, RunSettings, SegmentTask
from pipeline.inference.openvino import resolved_precision
from pipeline.model.parts import parts_sha256
from pipeline.model.prepare import save_prepared

_MODEL_NAME = "model"
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

    def __init__(self, options: ClusterOptions, position: Position) -> None:
        self._position = position
        self._most_nodes = 1
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

    def prepare(self, clip: OpenClip, infer: InferOptions) -> None:
        if infer.engine != "openvino":
            raise UsageError("a cluster runs the model in OpenVINO: use another --config")

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Iterator[Done]:
        remote_tasks = _remote_tasks(clip, list(tasks), self._cores, self._beat)
        exchange_url = remote_tasks[0][1].exchange_url if remote_tasks else None
        arrived: SimpleQueue[Future[Attempt]] = SimpleQueue()
        under_way: dict[Future[Attempt], SegmentTask] = {}
        try:
            for task, remote in remote_tasks:
                source = task.settings.config.source_name
                future = self._actors.submit(remote, f"segment {task.segment.number} of {source}")
                under_way[future] = task
                future.add_done_callback(arrived.put)
            while under_way:
                future = self._next(arrived)
                attempt = future.result()
                task = under_way.pop(future)
                manifest = _take_over(attempt, task, exchange_url, self._beat)
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
            with contextlib.suppress(Empty):
                return arrived.get(timeout=_BEAT_SECONDS)

    def _beat(self) -> None:
        self._position.encoding.enter(Step.WAIT_CLUSTER)


def _remote_tasks(
    clip: OpenClip, tasks: list[SegmentTask], cores: int, beat: Beat
) -> list[tuple[SegmentTask, RemoteTask]]:
    """The tasks as they travel; what all of them need is put where they are made."""
    if not tasks:
        return []
    making, settings = tasks[0].files.folder.absolute(), tasks[0].settings
    config = settings.config
    witness = uuid.uuid4().hex
    (making / WITNESS_NAME).write_text(witness, encoding="utf-8")
    model = _share_model(clip, making / _MODEL_NAME, config.imgsz)
    exchange_url = None
    if config.remote.output_url is not None:
        # The name is that of this run's folder here: a folder of another program has another.
        name = f"{WORK_NAME}-{making.parent.parent.name}"
        exchange_url = joined(config.remote.output_url, name)
        upload(model.ir.parent, joined(exchange_url, model.ir.parent.name), beat)
    settings = _elsewhere(settings, making, cores)
    source_bytes = config.origin.num_bytes()
    return [
        (
            task,
            RemoteTask(_moved(task, settings, making), model, witness, source_bytes, exchange_url),
        )
        for task in tasks
    ]


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
        if address != "auto":
            raise UsageError(
                f"no Ray cluster answers at {address} ({reason_of(error)}): `ray status` tells "
                "where one is"
            ) from error
        _start(options)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"Ray does not start or answer ({reason_of(error)})") from error
    finally:
        signal.signal(signal.SIGTERM, handler)


def _start(options: ClusterOptions) -> None:
    if (options.cores_per_actor or 1) > available_cores():
        raise UsageError(
            f"--cores-per-actor {options.cores_per_actor}: this machine, on which a cluster is to "
            f"be started, has {counted(available_cores(), 'core')}"
        )
    ray.init(
        address="local",
        num_cpus=available_cores(),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        **_settings(options),
    )


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


def _elsewhere(settings: RunSettings, making: Path, cores: int) -> RunSettings:
    """Settings that mean the same on every node, for so many cores."""
    infer = dataclasses.replace(
        settings.infer,
        # Decided once: nodes may differ in what they are fastest in.
        precision=resolved_precision(settings.infer.precision, settings.infer.device),
        num_threads=cores,
        # Actors on one node would all be pinned to the same cores.
        pinning=False,
    )
    config = settings.config
    config = dataclasses.replace(
        config, source=config.origin.absolute(), output_dir=making.parent.parent
    )
    return dataclasses.replace(settings, config=config, infer=infer)


def _moved(task: SegmentTask, settings: RunSettings, making: Path) -> SegmentTask:
    """A task with paths that do not depend on where it is read."""
    files = dataclasses.replace(task.files, folder=making)
    return dataclasses.replace(task, settings=settings, files=files)


def _share_model(clip: OpenClip, folder: Path, imgsz: int) -> SharedModel:
    """Put the very graph that was prepared here where all nodes can read it."""
    folder.mkdir(exist_ok=True)
    ir = folder / "model.xml"
    save_prepared(clip.prepared, ir)
    key = f"{parts_sha256(ir)} {clip.prepared.source_wh}"
    return SharedModel(ir, key, imgsz, clip.prepared.quantization)


def _take_over(
    attempt: Attempt, task: SegmentTask, exchange_url: str | None, beat: Beat
) -> Manifest:
    """Move the files of an attempt to where the task wants them."""
    if exchange_url is not None:
        source = joined(exchange_url, attempt.files.folder.name)
        download(source, attempt.files.folder, beat)
    for text in attempt.notes:
        note(text)
    manifest = Manifest.read(attempt.files.manifest)
    for part in attempt.files.existing():
        part.replace(task.files.folder / part.name)
    attempt.files.folder.rmdir()
    return manifest
