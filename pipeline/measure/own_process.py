"""One configuration measured in a process of its own, so that nothing of it stays behind."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as NoResultYet
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions, InferOptions, SyntheticOptions
from pipeline.core.errors import InferenceError
from pipeline.core.library_threads import one_library_thread
from pipeline.core.progress import no_progress
from pipeline.execution.child import end_with_parent
from pipeline.inference.engine import Heads, Pool
from pipeline.inference.openvino import load_engine
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel, prepare_model

_DETECT = DetectOptions()

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ModelJob:
    """What to measure: a model, how it runs, and on which inputs.

    source: the frames that the inputs were made of; INT8 is calibrated on them.
    inputs: a .npy file, uint8 (N, height, width, 3), gone through again and again.
    """

    weights: Path
    source: SyntheticOptions
    imgsz: int
    options: InferOptions
    inputs: Path
    num_frames: int
    nms_free: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """What was measured: of the model alone, without anything before or after it.

    detections: of the distinct inputs, to compare with others.
    """

    load_seconds: float
    first_inference_seconds: float
    seconds: float
    num_frames: int
    facts: dict[str, Any]
    detections: list[Detections]

    @property
    def throughput_fps(self) -> float:
        return self.num_frames / self.seconds


def in_own_process(
    work: Callable[[Job], Result], job: Job, most_seconds: float | None = None
) -> Result:
    """work(job), in a new process that ends with it.

    Raises what it raises, InferenceError if the process dies, TimeoutError if it has taken
    most_seconds, its start included, and is not done; the process is ended then, as it is when
    this one is interrupted or killed.
    """
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_watch_parent)
    try:
        return executor.submit(work, job).result(most_seconds)
    except BrokenProcessPool as error:
        raise InferenceError("the process that ran the model died") from error
    except BaseException as error:
        # When interrupted, the shutdown would wait for the process to finish its work.
        for process in multiprocessing.active_children():
            process.kill()
        if isinstance(error, NoResultYet):  # Another class than TimeoutError in Python 3.10.
            raise TimeoutError(f"not done within {most_seconds} s") from error
        raise
    finally:
        executor.shutdown()


def _watch_parent() -> None:
    # Nobody else ends a process whose parent was killed, or was interrupted before it knew of it.
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()


def measure_model(job: ModelJob) -> ModelSpeed:
    """Load the model, warm every request, then time it. Raises UsageError, ModelError."""
    started = time.perf_counter()
    prepared = _prepared(job)
    inputs: NDArray[np.uint8] = np.load(job.inputs, mmap_mode="r")
    box = letterbox(job.source.size_wh, prepared.input_wh)
    found: dict[int, Detections] = {}
    errors: list[BaseException] = []

    def keep_first(index: int, heads: Heads, _: float) -> None:
        if index in found:
            return
        found[index] = detections_from(
            prepared.head,
            prepared.head.select(heads, _DETECT.confidence_threshold),
            box,
            _DETECT,
        )

    pool: Pool[int]
    with (
        load_engine(prepared, job.options) as engine,
        engine.open_pool(keep_first, errors.append) as pool,
        one_library_thread(),
    ):
        load_seconds = time.perf_counter() - started
        first_seconds = _seconds(lambda: _infer(pool, inputs, 1))
        # Every input once, to know what is found on it, and every request, to warm it.
        _infer(pool, inputs, max(len(inputs), 2 * pool.num_requests * pool.batch))
        seconds = _seconds(lambda: _infer(pool, inputs, job.num_frames))
        facts = engine.facts()
    if errors:
        raise errors[0]
    return ModelSpeed(
        load_seconds=load_seconds,
        first_inference_seconds=first_seconds,
        seconds=seconds,
        num_frames=job.num_frames,
        facts=facts,
        detections=[found[index] for index in range(len(inputs))],
    )


def _prepared(job: ModelJob) -> PreparedModel:
    """The model of a job, quantised for INT8."""
    size_wh = job.source.size_wh
    prepared = prepare_model(job.weights, size_wh, job.imgsz, no_progress, nms_free=job.nms_free)
    if job.options.precision != "int8" or prepared.quantization is not None:
        return prepared
    from pipeline.frames.calibration import default_calibration
    from pipeline.model.quantize import quantize

    return quantize(prepared, default_calibration(prepared.head.class_names), no_progress)


def _infer(pool: Pool[int], inputs: NDArray[np.uint8], num_frames: int) -> None:
    for number in range(num_frames):
        index = number % len(inputs)
        pool.next_input()[:] = inputs[index]
        pool.submit(index)
    pool.drain()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
