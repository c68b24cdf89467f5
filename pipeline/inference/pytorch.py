"""The checkpoint in PyTorch, one frame at a time: the baseline.

Importing this module imports torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.errors import InferenceError, ModelError
from pipeline.core.machine import available_cores, process_cpu_seconds
from pipeline.inference.engine import Engine, Heads, Job, Pool, inference_error
from pipeline.model.letterbox import PADDING_VALUE
from pipeline.model.prepare import PreparedModel
from pipeline.model.pytorch import YOLO, read_pytorch

_NUM_INPUTS = 3
_CLOSE_SECONDS = 2.0


class PyTorchEngine(Engine):
    """A YOLOv5 checkpoint in float32, on all cores. Raises ModelError if it is not a .pt file."""

    def __init__(self, prepared: PreparedModel) -> None:
        if prepared.weights.suffix != ".pt":
            raise ModelError(f"{prepared.weights}: PyTorch runs .pt checkpoints only")
        self._model, _ = read_pytorch(prepared.weights, nms_free=not prepared.head.needs_nms)
        self._input_wh = prepared.input_wh

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (1, self._input_wh[1], self._input_wh[0], 3)

    def facts(self) -> dict[str, Any]:
        return {
            "engine": "pytorch",
            "device": "CPU",
            "execution_devices": ["CPU"],
            "hint": "NONE",
            "precision": "f32",
            "float_precision": "f32",
            "num_streams": 1,
            "num_threads": available_cores(),
            "pinning": False,
        }

    def open_pool(
        self,
        on_done: Callable[[Job, Heads, float], None],
        on_error: Callable[[BaseException], None],
    ) -> PyTorchPool[Job]:
        return PyTorchPool(self._model, self.input_shape, on_done, on_error)

    def close(self) -> None:
        """Python frees the model when neither this nor a pool is used any more."""


class PyTorchPool(Pool[Job]):
    """One thread that runs the model; the next frame is prepared while it does."""

    num_requests = 1
    batch = 1

    def __init__(
        self,
        model: YOLO,
        input_shape: tuple[int, ...],
        on_done: Callable[[Job, Heads, float], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._model = model
        self._on_done = on_done
        self._on_error = on_error
        self._free: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
        for _ in range(_NUM_INPUTS):
            self._free.put(np.full(input_shape[1:], PADDING_VALUE, np.uint8))
        self._waiting: SimpleQueue[tuple[Job, NDArray[np.uint8]] | None] = SimpleQueue()
        self._filling: NDArray[np.uint8] | None = None
        self._is_running = False
        self._error: InferenceError | None = None
        self._worker: threading.Thread | None = None
        self._is_closed = False

    @property
    def num_running(self) -> int:
        return int(self._is_running)

    def cpu_seconds(self) -> float:
        return process_cpu_seconds()

    def next_input(self) -> NDArray[np.uint8]:
        if self._filling is None and not self._is_closed:
            self._filling = self._free.get()
        if self._error is not None:
            raise self._error
        if self._filling is None or self._is_closed:
            raise InferenceError("the pool of requests is closed")
        return self._filling

    def submit(self, job: Job) -> None:
        assert self._filling is not None
        if self._worker is None:
            self._worker = threading.Thread(target=self._run, name="pytorch", daemon=True)
            self._worker.start()
        self._waiting.put((job, self._filling))
        self._filling = None

    def flush(self) -> None:
        """Every frame is a batch of its own."""

    def drain(self) -> None:
        if self._worker is not None:
            self._waiting.put(None)
            self._worker.join()
            self._worker = None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._is_closed = True
        if self._worker is not None:
            self._waiting.put(None)
            self._worker.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        # A setting of the process, which the host of this library may have chosen.
        num_threads = torch.get_num_threads()
        torch.set_num_threads(available_cores())
        try:
            self._infer_all()
        finally:
            torch.set_num_threads(num_threads)

    def _infer_all(self) -> None:
        while (work := self._waiting.get()) is not None:
            job, pixels = work
            if self._error is None and not self._is_closed:
                self._is_running = True
                self._infer(job, pixels)
                self._is_running = False
            self._free.put(pixels)

    def _infer(self, job: Job, pixels: NDArray[np.uint8]) -> None:
        started = time.perf_counter()
        try:
            with torch.inference_mode():
                images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255.0
                heads = [head[0].permute(1, 2, 0).numpy() for head in self._model(images)]
        except Exception as error:
            self._error = inference_error(f"inference failed: {error}", job)
            self._error.__cause__ = error
            return
        try:
            # Rows and columns first, as OpenVINO gives them: postprocessing reads it in one piece.
            contiguous = [np.ascontiguousarray(head) for head in heads]
            self._on_done(job, contiguous, time.perf_counter() - started)
        except BaseException as error:
            self._on_error(error)
