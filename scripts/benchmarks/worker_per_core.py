"""What the cores reach in company when nothing has to be scheduled: one serial worker on each.

Every worker is a process of its own, kept on its own core, that takes the whole clip through
decode -> preprocess -> infer -> postprocess -> annotate -> encode, one frame after the other,
without a queue or a second thread. The steps then cost what they cost beside each other, where
they share caches and memory, and no core ever waits: what a perfect schedule could reach.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.config import DetectOptions, EncodeOptions, InferOptions
from pipeline.core.library_threads import one_library_thread
from pipeline.core.machine import available_cores
from pipeline.core.progress import no_progress
from pipeline.frames.annotate import Annotator
from pipeline.frames.calibration import default_calibration
from pipeline.frames.decode import VideoReader
from pipeline.frames.encode import VideoEncoder
from pipeline.inference.openvino import OpenVinoEngine
from pipeline.measure.own_process import in_own_process
from pipeline.model.compiled import Compiled
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.preprocess import Preprocessor
from pipeline.model.quantize import quantize

_IMGSZ = 640
_WARM_UP_FRAMES = 20
_DETECT = DetectOptions()


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker does, and the folder that its clip goes to, as core-0.mp4 and so on."""

    clip: Path
    weights: Path
    precision: str
    encode: EncodeOptions
    output_dir: Path


@dataclass(frozen=True, slots=True)
class _Worker:
    work: Work
    core: int
    start: threading.Barrier


def worker_per_core_fps(work: Work) -> float:
    """The frames per second of all workers together.

    They begin together, warm. The speed of each is its own frames over its own time, until its
    encoder has written the last one, and these are added up: all frames over the time of the
    slowest would count a core that has nothing left to do as slow.
    """
    work.output_dir.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))[: available_cores()]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ThreadPoolExecutor(len(cores)) as threads:
        start = manager.Barrier(len(cores))
        workers = [_Worker(work, core, start) for core in cores]
        return sum(threads.map(lambda worker: in_own_process(_fps_of_worker, worker), workers))


def _fps_of_worker(worker: _Worker) -> float:
    work = worker.work
    os.sched_setaffinity(0, {worker.core})
    reader = VideoReader(work.clip)
    size_wh = reader.info.size_wh
    reader.close()
    prepared = prepare_model(work.weights, size_wh, _IMGSZ, no_progress)
    if work.precision == "int8":
        calibration = default_calibration(prepared.head.class_names)
        prepared = quantize(prepared, calibration, no_progress)
    options = InferOptions(
        hint="LATENCY",
        precision=work.precision,
        num_streams=1,
        num_requests=1,
        num_threads=1,
        pinning=False,
    )
    output = work.output_dir / f"core-{worker.core}.mp4"
    with OpenVinoEngine(prepared, options) as engine:
        _annotate(work, prepared, engine.compiled, output, _WARM_UP_FRAMES, lambda: None)
        return _annotate(work, prepared, engine.compiled, output, None, worker.start.wait)


@one_library_thread()
def _annotate(
    work: Work,
    prepared: PreparedModel,
    compiled: Compiled,
    output: Path,
    num_frames: int | None,
    wait: Callable[[], object],
) -> float:
    """Frames per second from the first frame, for which it waits, to the last one encoded."""
    reader = VideoReader(work.clip)
    box = letterbox(reader.info.size_wh, prepared.input_wh)
    preprocess, annotator = Preprocessor(box), Annotator(reader.info, prepared.head.class_names)
    encoder = VideoEncoder(output, reader.info, work.encode)
    model_input = np.full((1, *prepared.input_wh[::-1], 3), PADDING_VALUE, np.uint8)
    wait()
    started = time.perf_counter()
    for frame in itertools.islice(reader, num_frames):
        preprocess(frame, model_input[0])
        heads = [head[0] for head in compiled.infer(model_input)]
        detections = detections_from(
            prepared.head,
            prepared.head.select(heads, _DETECT.confidence_threshold),
            box,
            _DETECT,
        )
        image = annotator(frame.image, detections)
        encoder.encode(image, frame.pts, frame.duration, frame.time_base)
    encoder.flush()
    seconds = time.perf_counter() - started
    encoder.close()
    reader.close()
    return encoder.num_frames / seconds
