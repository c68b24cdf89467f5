"""The model compiled by OpenVINO, its pools of requests, and what can go wrong with them."""

from __future__ import annotations

import functools
import hashlib
import json
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pipeline.core.cache import NotKept, link_whole, publish, scratch_folder, seal
from pipeline.core.config import InferOptions
from pipeline.core.errors import InferenceError, ModelError, UsageError, reason_of
from pipeline.core.machine import available_cores, has_core_quota
from pipeline.core.notes import note
from pipeline.inference.configurations import is_cpu, missing_devices
from pipeline.inference.engine import Engine, Heads, Job, Pool, inference_error
from pipeline.inference.precision import fastest_float_precision
from pipeline.inference.selection import available_devices
from pipeline.model.compiled import Compiled, compile_for, core, inference_cpu_seconds
from pipeline.model.graph import with_batch
from pipeline.model.letterbox import PADDING_VALUE
from pipeline.model.prepare import PreparedModel

_BLOBS = "*.blob"


def load_engine(prepared: PreparedModel, options: InferOptions) -> Engine:
    """Load the model with the given options. Raises UsageError, ModelError."""
    if options.engine == "pytorch":
        library_threads = cv2.getNumThreads()
        try:
            from pipeline.inference.pytorch import PyTorchEngine
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the PyTorch engine needs {error.name}: pip install torch ultralytics"
            ) from error
        finally:
            cv2.setNumThreads(library_threads)  # Importing ultralytics sets it to one.

        return PyTorchEngine(prepared)
    return OpenVinoEngine(prepared, options)


def require_device(device: str, available: Sequence[str]) -> None:
    """Raise UsageError unless all devices of a device name are available."""
    missing = missing_devices(device, available)
    if missing:
        raise UsageError(
            f"device {', '.join(missing)} is unavailable on this machine; "
            f"devices are: {', '.join(available)}"
        )


def resolved_precision(precision: str, device: str = "CPU") -> str:
    """The element type of float inference, for "auto" and for what INT8 leaves in float too.

    On the CPU it is the fastest; any other device, alone or among several, chooses for itself,
    which is "auto".
    """
    if precision not in ("auto", "int8"):
        return precision
    return fastest_float_precision() if is_cpu(device, available_devices()) else "auto"


def compile_model(model: ov.Model, options: InferOptions, cache: Path) -> Compiled:
    """Compile for a device, or take what an earlier run compiled; a damaged cache is noted.

    The caller closes it. Raises UsageError, ModelError.
    """
    return Compiled(lambda: _compile_or_load(model, options, cache))


def _compile_or_load(model: ov.Model, options: InferOptions, cache: Path) -> ov.CompiledModel:
    require_device(options.device, core().available_devices)
    config = compile_config(options)
    try:
        return _compile_cached(model, options.device, config, cache)
    except NotKept as error:
        note(str(error))
    except RuntimeError:
        pass  # The cache or the model is at fault; if it is the model, it fails again.
    try:
        return compile_for(model, options.device, config)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO cannot compile the model for {options.device} with {config} "
            f"({reason_of(error)})"
        ) from error


def _compile_cached(
    model: ov.Model, device: str, config: dict[str, str], cache: Path
) -> ov.CompiledModel:
    """Compile with OpenVINO's cache in a folder of this process, and keep what is new in it.

    OpenVINO writes its files in place, and a process that reads one at that time crashes.
    """
    facts = json.dumps([device, config, list(model.input().shape)])
    kept = cache / hashlib.sha256(facts.encode()).hexdigest()[:16]
    with scratch_folder(cache) as scratch:
        known = {blob.name for blob in kept.glob(_BLOBS) if link_whole(blob, scratch)}
        compiled = compile_for(model, device, {"CACHE_DIR": str(scratch), **config})
        for blob in scratch.glob(_BLOBS):
            if blob.name not in known:
                publish(kept / blob.name, functools.partial(_move_sealed, blob))
    return compiled


def _move_sealed(source: Path, target: Path) -> None:
    source.rename(target)
    seal(target)


def compile_config(options: InferOptions) -> dict[str, str]:
    """OpenVINO's properties for the options, within the cores that this process may use."""
    config = {}
    precision = resolved_precision(options.precision, options.device)
    if precision != "auto":
        config["INFERENCE_PRECISION_HINT"] = precision
    if options.hint != "NONE":
        config["PERFORMANCE_HINT"] = options.hint
    if options.num_streams is not None:
        config["NUM_STREAMS"] = str(options.num_streams)
    if options.num_requests is not None:
        config["PERFORMANCE_HINT_NUM_REQUESTS"] = str(options.num_requests)
    on_cores = options.device.startswith("AUTO") or "CPU" in options.device
    if options.num_threads is not None and on_cores:
        config["INFERENCE_NUM_THREADS"] = str(options.num_threads)
    elif has_core_quota() and on_cores:
        # OpenVINO minds the affinity of the process, but not the quota of its cgroup.
        config["INFERENCE_NUM_THREADS"] = str(available_cores())
    if options.pinning is not None and "CPU" in options.device:
        config["ENABLE_CPU_PINNING"] = "YES" if options.pinning else "NO"
    return config


class OpenVinoEngine(Engine):
    """The model compiled by OpenVINO. Raises UsageError, ModelError."""

    def __init__(self, prepared: PreparedModel, options: InferOptions) -> None:
        self._options = options
        self._quantized = prepared.quantization is not None
        model = prepared.model
        if options.batch > 1:
            model = with_batch(model, options.batch)
        self.compiled = compile_model(model, options, prepared.compiled_cache_dir)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.compiled.input_shape

    def facts(self) -> dict[str, Any]:
        # AUTO has no such property; then it is the requested one.
        asked = resolved_precision(self._options.precision, self._options.device)
        element_type = self._property("INFERENCE_PRECISION_HINT", asked)
        name = element_type.to_string() if isinstance(element_type, ov.Type) else element_type
        return {
            "engine": "openvino",
            "device": self._options.device,
            "execution_devices": list(self._property("EXECUTION_DEVICES", [])),
            "hint": self._options.hint,
            "precision": "int8" if self._quantized else str(name),
            "float_precision": str(name),
            "num_streams": self._property("NUM_STREAMS", None),
            "num_threads": self._property("INFERENCE_NUM_THREADS", None),
            "pinning": self._property("ENABLE_CPU_PINNING", None),
        }

    def open_pool(
        self,
        on_done: Callable[[Job, Heads, float], None],
        on_error: Callable[[BaseException], None],
    ) -> InferPool[Job]:
        return InferPool(self.compiled, self._num_requests(), on_done, on_error)

    def close(self) -> None:
        self.compiled.close()

    def _num_requests(self) -> int:
        """Twice what OpenVINO finds enough to keep its streams busy.

        While a request waits for the thread that prepares frames, another one is already there
        for the stream: on a full machine that thread does not run at once.
        """
        if self._options.num_requests is not None:
            return self._options.num_requests
        return 2 * int(self._property("OPTIMAL_NUMBER_OF_INFER_REQUESTS", 1))

    def _property(self, name: str, default: Any) -> Any:
        """A property of the compiled model; not every device has every one."""
        try:
            return self.compiled.get_property(name)
        except RuntimeError:
            return default


@dataclass(frozen=True, slots=True)
class _Running(Generic[Job]):
    jobs: tuple[Job, ...]
    buffer: int
    started_seconds: float


class InferPool(Pool[Job]):
    """Asynchronous requests of OpenVINO, each with an input buffer that is written in place.

    From OpenVINO's side a callback never fails, because one that does makes a later call abort
    the process.
    """

    def __init__(
        self,
        compiled: Compiled,
        num_requests: int,
        on_done: Callable[[Job, Heads, float], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._compiled = compiled
        self._on_done = on_done
        self._on_error = on_error
        self._callback_error: BaseException | None = None
        self._running: dict[int, _Running[Job]] = {}
        self._last_done_seconds = 0.0
        self._filling: tuple[int, int] | None = None
        self._jobs: list[Job] = []
        self._requests = compiled.open_requests(num_requests, self._finished)
        # Dropped without `close`, it is closed all the same.
        self._drop = weakref.finalize(self, compiled.leave_requests, self._requests)
        self._drop.atexit = False
        input_shape = compiled.input_shape
        self.num_requests, self.batch = len(self._requests), input_shape[0]
        # One more than there are requests, so that the one submitted last can rest.
        num_buffers = self.num_requests + 1
        self._buffers = [np.full(input_shape, PADDING_VALUE, np.uint8) for _ in range(num_buffers)]
        self._free = deque(range(num_buffers))
        self._tensors = [ov.Tensor(buffer, shared_memory=True) for buffer in self._buffers]

    @property
    def num_running(self) -> int:
        return len(self._running)

    def cpu_seconds(self) -> float:
        return inference_cpu_seconds()

    def next_input(self) -> NDArray[np.uint8]:
        if self._filling is None:
            request_id = self._wait_for_request()
            self._filling = (request_id, self._free.popleft())
        place: NDArray[np.uint8] = self._buffers[self._filling[1]][len(self._jobs)]
        return place

    def submit(self, job: Job) -> None:
        self._jobs.append(job)
        if len(self._jobs) == self.batch:
            self.flush()

    def flush(self) -> None:
        if not self._jobs:
            return
        assert self._filling is not None
        (request_id, buffer), self._filling = self._filling, None
        # The rest of a batch that is not full is left from an earlier one, and ignored.
        jobs, self._jobs = tuple(self._jobs), []
        self._running[request_id] = _Running(jobs, buffer, time.perf_counter())
        self._requests.start(request_id, self._tensors[buffer])

    def drain(self) -> None:
        self.flush()
        failures = []
        for request_id in range(self.num_requests):
            try:
                self._requests.wait(request_id)
            except RuntimeError as error:
                failures.append((request_id, error))
        if failures:
            request_id, reason = failures[0]
            raise self._failure(request_id, f"failed: {reason_of(reason)}") from reason
        for request_id in list(self._running):
            self._raise_if_failed(request_id)
        self._raise_if_callback_failed()

    def close(self) -> None:
        if self._drop.alive and self._compiled.close_requests(self._requests):
            self._drop.detach()
            self._buffers.clear()
            self._tensors.clear()
            # Their owner, which often owns this pool too, is free without the garbage collector.
            del self._on_done, self._on_error

    def _wait_for_request(self) -> int:
        try:
            request_id = self._requests.wait_for_any()
        except RuntimeError as error:
            self.drain()  # Knows which it was.
            raise InferenceError(f"inference failed: {reason_of(error)}") from error
        self._raise_if_failed(request_id)
        self._raise_if_callback_failed()
        return request_id

    def _finished(self, request_id: int) -> None:
        try:
            running = self._running[request_id]
            self._last_done_seconds = time.perf_counter()
            latency = self._last_done_seconds - running.started_seconds
            heads = self._requests.outputs(request_id)
            for i, job in enumerate(running.jobs):
                self._on_done(job, [head[i] for head in heads], latency)
        except BaseException as error:
            self._report(error)
        finally:
            # Last, so that a callback that hangs looks like the request that it holds up.
            finished = self._running.pop(request_id, None)
            if finished is not None:
                self._free.append(finished.buffer)

    def _raise_if_failed(self, request_id: int) -> None:
        """A request that is idle again without its callback having run is one that failed."""
        if request_id not in self._running:
            return
        try:
            self._requests.wait(request_id)
        except RuntimeError as error:
            raise self._failure(request_id, f"failed: {reason_of(error)}") from error
        raise self._failure(request_id, "gave no result")

    def _report(self, error: BaseException) -> None:
        try:
            self._on_error(error)
        except BaseException as second:
            self._callback_error = second

    def _raise_if_callback_failed(self) -> None:
        if self._callback_error is not None:
            reason = reason_of(self._callback_error)
            raise InferenceError(f"a callback failed: {reason}") from self._callback_error

    def _failure(self, request_id: int, what: str) -> InferenceError:
        running = self._running.get(request_id)
        return inference_error(f"inference {what}", running.jobs[0] if running else None)
