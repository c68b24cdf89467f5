"""One clip from file to file, and what its speed is compared with, measured in rounds.

Each round measures, one after the other, the CPU time that every step costs by itself, the
pipeline, serial workers beside each other, the stock model, and the serial program.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import openvino as ov
from steps_alone import StepsAlone, infer_alone
from stock_model import stock_model
from worker_per_core import Work, worker_per_core_fps

from pipeline.core.cache import cache_dir
from pipeline.core.config import EncodeOptions, InferOptions, ProcessConfig
from pipeline.core.machine import available_cores
from pipeline.core.progress import no_progress
from pipeline.frames.calibration import default_calibration
from pipeline.frames.decode import VideoReader
from pipeline.inference.engine import Engine
from pipeline.inference.openvino import load_engine
from pipeline.inference.selection import rule
from pipeline.measure.benchmark_app import benchmark_app_fps
from pipeline.measure.own_process import in_own_process
from pipeline.model.prepare import prepare_model
from pipeline.model.quantize import quantize
from pipeline.model.weights import find_weights
from pipeline.run.process import process_video

SERIAL_PROGRAM = Path(__file__).with_name("serial_program.py")


@dataclass(frozen=True)
class Round:
    """step_ms, infer_ms: CPU milliseconds per frame of each step alone, on one thread.

    All else is frames per second.

    pipeline_fps: from file to file; frames_fps: the same run without what comes before the
    first frame and after the last. workers_fps: one serial worker on each core, see
    `worker_per_core`. stock_fps: the model as YOLOv5's exporter gives it, alone, in OpenVINO's
    benchmark_app with the THROUGHPUT hint, by precision; "default" is what OpenVINO chooses.
    adaptive_fps, adaptive_shares: the pipeline with `--adaptive`, from file to file, and the
    share of the frames that it inferred. together_fps: two runs at once, their frames over the
    time until both were done.
    """

    step_ms: dict[str, float]
    infer_ms: dict[str, float]
    model_fps: dict[str, float]
    pipeline_fps: dict[str, float]
    frames_fps: dict[str, float]
    adaptive_fps: dict[str, float]
    adaptive_shares: dict[str, float]
    workers_fps: dict[str, float]
    stock_fps: dict[str, float]
    together_fps: dict[str, float]
    serial_fps: dict[str, float]

    def allowed_fps(self, precision: str) -> float:
        """What the cores would reach if they did nothing but the steps, at their cost alone."""
        return 1000 * available_cores() / (sum(self.step_ms.values()) + self.infer_ms[precision])


@dataclass(frozen=True)
class Run:
    """Frames per second from the call to the finished files, and while frames were under way.

    inferred_share: of the frames, without those of the audit.
    """

    file_to_file_fps: float
    frames_fps: float
    inferred_share: float


class EndToEnd:
    """One clip, and the model in each precision."""

    def __init__(self, clip: Path, precisions: list[str], encode: EncodeOptions) -> None:
        self._clip, self._encode = clip, encode
        reader = VideoReader(clip)
        info = reader.info
        reader.close()
        self._weights = find_weights(None, no_progress)
        prepared = prepare_model(self._weights, info.size_wh, 640, no_progress)
        self._infer = {
            precision: dataclasses.replace(rule(info.size_wh).infer, precision=precision)
            for precision in precisions
        }
        self._engines: dict[str, Engine] = {}
        self._alone: dict[str, Engine] = {}
        for precision, options in self._infer.items():
            chosen = prepared
            if precision == "int8":
                calibration = default_calibration(prepared.head.class_names)
                chosen = quantize(prepared, calibration, no_progress)
            self._engines[precision] = load_engine(chosen, options)
            one_thread = dataclasses.replace(
                options, hint="LATENCY", num_streams=1, num_threads=1, num_requests=1, pinning=False
            )
            self._alone[precision] = load_engine(chosen, one_thread)
        width, height = prepared.input_wh
        self._stock_ir = cache_dir() / "stock" / f"{width}x{height}.xml"
        if not self._stock_ir.exists():
            self._stock_ir.parent.mkdir(parents=True, exist_ok=True)
            model = stock_model(self._weights, prepared.input_wh)
            ov.save_model(model, self._stock_ir, compress_to_fp16=False)
        first = next(iter(self._engines.values()))
        self._steps = StepsAlone(clip, info, prepared, first, encode)

    def round(self, scratch: Path, serial: dict[str, tuple[str, str]], *, together: bool) -> Round:
        """Measure everything once."""
        step_ms = self._steps.measure(scratch)
        infer_ms, model_fps, pipeline_fps, frames_fps = {}, {}, {}, {}
        adaptive_fps, adaptive_shares = {}, {}
        workers_fps, stock_fps, together_fps = {}, {}, {}
        for precision, engine in self._engines.items():
            infer_ms[precision], _ = infer_alone(self._alone[precision], self._steps.num_frames)
            _, model_fps[precision] = infer_alone(engine, self._steps.num_frames)
        for precision, options in self._infer.items():
            run = self._run(scratch / "pipeline", options)
            pipeline_fps[precision], frames_fps[precision] = run.file_to_file_fps, run.frames_fps
            run = self._run(scratch / "adaptive", options, adaptive=True)
            adaptive_fps[precision] = run.file_to_file_fps
            adaptive_shares[precision] = run.inferred_share
            workers_fps[precision] = worker_per_core_fps(
                Work(self._clip, self._weights, precision, self._encode, scratch / "workers")
            )
            if together:
                together_fps[precision] = self._together_fps(scratch, options)
            # INT8 is compared with the stock model as it comes.
            name = "default" if precision == "int8" else precision
            stock_fps[name] = benchmark_app_fps(
                self._stock_ir, "CPU", "THROUGHPUT", None if name == "default" else name, 3.0
            )
        return Round(
            step_ms=step_ms,
            infer_ms=infer_ms,
            model_fps=model_fps,
            pipeline_fps=pipeline_fps,
            frames_fps=frames_fps,
            adaptive_fps=adaptive_fps,
            adaptive_shares=adaptive_shares,
            workers_fps=workers_fps,
            stock_fps=stock_fps,
            together_fps=together_fps,
            serial_fps={
                name: self._serial_fps(scratch / "serial.mp4", *variant)
                for name, variant in serial.items()
            },
        )

    def _together_fps(self, scratch: Path, options: InferOptions) -> float:
        with ThreadPoolExecutor(2) as pool:
            each = pool.map(
                lambda name: self._run(scratch / name, options).file_to_file_fps, ("left", "right")
            )
            return 2 * min(each)

    def _run(self, output_dir: Path, options: InferOptions, *, adaptive: bool = False) -> Run:
        config = ProcessConfig(
            source=self._clip,
            output_dir=output_dir,
            overwrite=True,
            adaptive=adaptive,
            infer=options,
            encode=self._encode,
            reuse_duplicates=False,
        )
        return in_own_process(measured_run, config)

    def _serial_fps(self, output: Path, shape: str, precision: str) -> float:
        command = [sys.executable, SERIAL_PROGRAM, self._clip, output, self._weights]
        done = subprocess.run(  # noqa: S603
            [*map(str, command), shape, precision],
            check=True,
            capture_output=True,
            text=True,
        )
        frames, seconds = done.stdout.split()[-2:]
        return int(frames) / float(seconds)


def measured_run(config: ProcessConfig) -> Run:
    """Process a clip; a first run loads what a process loads only once."""
    process_video(dataclasses.replace(config, num_frames=20))
    started = time.perf_counter()
    report = process_video(config)
    seconds = time.perf_counter() - started
    num_frames = report["output"]["num_frames"]
    return Run(
        num_frames / seconds,
        report["speed"]["frames_fps"],
        report["detections"]["inferred_frames"] / num_frames,
    )
