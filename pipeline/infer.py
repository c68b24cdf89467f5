"""The compiled model, its pool of requests, the callbacks, and what can go wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pipeline.config import InferOptions
from pipeline.errors import InferenceError, ModelError, UsageError, reason_of
from pipeline.letterbox import PADDING_VALUE
from pipeline.machine import has_native_bf16
from pipeline.preprocess import blank_input

_VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")

Job = TypeVar("Job")
Heads = Sequence[NDArray[np.float32]]


def require_device(device: str, available: Sequence[str]) -> None:
    """Raise UsageError unless every device that the name stands for is there.

    "AUTO:GPU,CPU" stands for two devices, "GPU" also for "GPU.0", "AUTO" for what there is.
    """
    name, _, members = device.partition(":")
    # "-GPU" leaves a device out, which it need not be there for; "(4)" is a batch size.
    wanted = [
        part.partition("(")[0] for part in members.split(",") if part and not part.startswith("-")
    ]
    if name not in _VIRTUAL_DEVICES:
        wanted = [device]
    present = {*available, *(entry.partition(".")[0] for entry in available)}
    missing = [entry for entry in wanted if entry not in present]
    if missing:
        raise UsageError(
            f"device {', '.join(missing)} is not on this machine; it has: {', '.join(available)}"
        )


def resolved_precision(precision: str) -> str:
    """The element type that inference runs in: "auto" is bf16 only where that is fast."""
    if precision == "auto":
        return "bf16" if has_native_bf16() else "f32"
    return precision


def compile_model(model: ov.Model, options: InferOptions, cache: Path) -> ov.CompiledModel:
    """Compile for a device, or take it from OpenVINO's cache. Raises UsageError, ModelError."""
    core = ov.Core()
    require_device(options.device, core.available_devices)
    config: dict[str, object] = {
        "CACHE_DIR": str(cache),
        "INFERENCE_PRECISION_HINT": resolved_precision(options.precision),
    }
    if options.hint != "NONE":
        config["PERFORMANCE_HINT"] = options.hint
    if options.num_streams is not None:
        config["NUM_STREAMS"] = str(options.num_streams)
    if options.num_requests is not None:
        config["PERFORMANCE_HINT_NUM_REQUESTS"] = str(options.num_requests)
    try:
        return core.compile_model(model, options.device, config)
    except RuntimeError:
        del config["CACHE_DIR"]  # Another process may be writing there, or nobody can.
    try:
        return core.compile_model(model, options.device, config)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO cannot compile the model for {options.device} with {config} "
            f"({reason_of(error)})"
        ) from error


@dataclass(frozen=True, slots=True)
class _Running(Generic[Job]):
    job: Job
    started_seconds: float


class InferPool(Generic[Job]):
    """A pool of asynchronous requests, each with an input buffer that is written in place.

    One thread submits. `on_done(job, heads, latency_seconds)` is called on threads of OpenVINO
    as requests finish, in any order; heads are views that are valid only during the call.
    An exception of it is caught and handed to `on_error`: from OpenVINO's side a callback never
    fails, because one that does makes a later call abort the process.
    """

    def __init__(
        self,
        compiled_model: ov.CompiledModel,
        num_requests: int | None,
        on_done: Callable[[Job, Heads, float], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._queue = ov.AsyncInferQueue(compiled_model, num_requests or 0)
        self._requests = list(self._queue)
        self._on_done = on_done
        self._on_error = on_error
        shape = compiled_model.input().shape
        self._inputs = [blank_input((shape[2], shape[1])) for _ in self._requests]
        for request, buffer in zip(self._requests, self._inputs, strict=True):
            request.set_input_tensor(ov.Tensor(buffer, shared_memory=True))
        self._running: dict[int, _Running[Job]] = {}
        self._last_done_seconds = 0.0
        self._queue.set_callback(self._callback)

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def stalled_seconds(self) -> float:
        """How long requests have been running without one of them finishing; 0 if none runs."""
        starts = [running.started_seconds for running in list(self._running.values())]
        if not starts:
            return 0.0
        return time.perf_counter() - max(min(starts), self._last_done_seconds)

    def wait_for_request(self) -> int:
        """Wait until a request is free; its number. Raises InferenceError if one has failed."""
        try:
            request_id: int = self._queue.get_idle_request_id()
        except RuntimeError as error:
            raise InferenceError(f"inference failed: {reason_of(error)}") from error
        self._raise_if_failed(request_id)
        return request_id

    def input_of(self, request_id: int) -> NDArray[np.uint8]:
        """The uint8 (height, width, 3) input buffer of a free request."""
        buffer: NDArray[np.uint8] = self._inputs[request_id][0]
        return buffer

    def clear_input(self, request_id: int) -> None:
        """Make a free request's input all padding, for a picture of another shape than the last."""
        self._inputs[request_id].fill(PADDING_VALUE)

    def submit(self, request_id: int, job: Job) -> None:
        """Start the free request that `wait_for_request` gave, on what its input now holds."""
        self._running[request_id] = _Running(job, time.perf_counter())
        self._queue.start_async(userdata=request_id)

    def drain(self) -> None:
        """Wait until nothing runs any more. Raises InferenceError if a request failed."""
        failures = []
        for request in self._requests:
            try:
                request.wait()
            except RuntimeError as error:
                failures.append(error)
        if failures:
            raise InferenceError(f"inference failed: {reason_of(failures[0])}") from failures[0]
        for request_id in list(self._running):
            self._raise_if_failed(request_id)

    def _callback(self, request: ov.InferRequest, request_id: int) -> None:
        try:
            running = self._running[request_id]
            self._last_done_seconds = time.perf_counter()
            latency = self._last_done_seconds - running.started_seconds
            heads = [tensor.data[0] for tensor in request.output_tensors]
            self._on_done(running.job, heads, latency)
        except BaseException as error:
            self._on_error(error)
        finally:
            # Last, so that a callback that hangs looks like the request that it holds up.
            self._running.pop(request_id, None)

    def _raise_if_failed(self, request_id: int) -> None:
        """A request that is idle again without its callback having run is one that failed."""
        failed = self._running.get(request_id)
        if failed is None:
            return
        try:
            self._requests[request_id].wait()
        except RuntimeError as error:
            raise InferenceError(f"inference failed on {failed.job}: {reason_of(error)}") from error
        raise InferenceError(f"inference gave no result for {failed.job}")
