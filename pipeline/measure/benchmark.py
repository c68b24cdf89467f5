"""Every configuration on the same frames, round after round."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from pipeline.core.config import InferOptions, ModelName, SyntheticOptions
from pipeline.core.errors import PipelineError, UsageError, reason_of
from pipeline.core.machine import available_cores
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.core.text import counted
from pipeline.core.typed import convert_fields, converted
from pipeline.inference.configurations import UNDER, Variant, configuration, configurations
from pipeline.inference.openvino import resolved_precision
from pipeline.measure.benchmark_app import benchmark_app_fps
from pipeline.measure.benchmark_record import (
    ABSENT,
    BENCHMARK_APP_CONFIGURATION,
    FAILED,
    MEASURED,
    Row,
    bench_record,
)
from pipeline.measure.own_process import ModelJob, in_own_process, measure_model
from pipeline.model.compiled import core
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.prepare import note_model, prepare_model
from pipeline.model.preprocess import Preprocessor
from pipeline.model.weights import find_weights
from pipeline.synthetic.source import SyntheticSource

_MOST_INPUTS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """The frames and configurations to measure.

    source: where the frames come from; the first distinct ones are gone through repeatedly.
    num_frames: in all rounds together, for every configuration.
    nms_free: see `prepare_model`.
    names: configurations to measure; None takes all.
    """

    source: SyntheticOptions
    num_frames: int = 1024
    num_rounds: int = 4
    imgsz: int = 640
    weights: ModelName | Path | None = None
    nms_free: bool = False
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        if self.num_rounds < 1:
            raise UsageError(f"--rounds must be 1 or more, not {self.num_rounds}")
        if self.num_frames < self.num_rounds:
            raise UsageError(
                f"{counted(self.num_frames, 'frame')} for {counted(self.num_rounds, 'round')}: "
                "give at least one frame per round"
            )


def benchmark(
    options: BenchOptions,
    on_progress: ProgressCallback = no_progress,
    *,
    devices: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Measure every configuration in a process of its own; returns the contents of bench.json.

    devices: those of this machine, unless given. A configuration that is unavailable has a row
    with the reason. Raises PipelineError for a model or a picture that cannot be used.
    """
    options = converted("options", options, BenchOptions)
    devices = list(devices if devices is not None else core().available_devices)
    rows = _rows(options.names, devices)
    weights = find_weights(options.weights, on_progress)
    prepared = prepare_model(
        *(weights, options.source.size_wh, options.imgsz, on_progress), nms_free=options.nms_free
    )
    note_model(prepared, options.imgsz)
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "inputs.npy"
        num_inputs = _write_inputs(options.source, prepared.input_wh, inputs)
        ir = Path(scratch) / "model.xml"
        ov.save_model(prepared.model, ir, compress_to_fp16=False)
        jobs = [
            ModelJob(
                *(weights, options.source, options.imgsz, InferOptions(), inputs, frames),
                nms_free=options.nms_free,
            )
            for frames in _shares(options.num_frames, options.num_rounds)
        ]
        app_fps = _measure(rows, jobs, ir, on_progress)
    return {
        **bench_record(rows, devices, app_fps),
        "model": prepared.weights.name,
        "frames": _frames_record(options, prepared.input_wh, num_inputs),
    }


def _rows(names: Sequence[str] | None, devices: Sequence[str]) -> list[Row]:
    """One of each variant of these configurations, or of all."""
    cores = available_cores()
    chosen = [configuration(name, cores) for name in dict.fromkeys(names or configurations(cores))]
    return [
        Row(
            entry,
            variant,
            ABSENT if entry.why_unavailable(devices) else MEASURED,
            entry.why_unavailable(devices) or "",
        )
        for entry in chosen
        for variant in entry.variants
    ]


def _measure(
    rows: list[Row], jobs: Sequence[ModelJob], ir: Path, on_progress: ProgressCallback
) -> list[float]:
    """Measure the rows in rounds, in which they take turns; returns those of benchmark_app.

    jobs: one for each round, whose options are those of the row.
    """
    app_fps: list[float] = []
    measured = [row for row in rows if row.status == MEASURED]
    total, done = len(jobs) * len(measured), 0
    for number, job in enumerate(jobs):
        for row in sorted(measured, key=lambda row: row.variant.options.precision == "int8"):
            on_progress(Progress("bench", done, total, unit="measurement"))
            done += 1
            if row.status != MEASURED:
                continue
            if row.variant.options.precision == "int8" and number == 0:
                row.variant = _int8_under_the_best(row, rows)
            asked = dataclasses.replace(job, options=row.variant.options)
            try:
                row.rounds.append(in_own_process(measure_model, asked))
                if row.configuration.name == BENCHMARK_APP_CONFIGURATION:
                    app_fps.append(_benchmark_app_beside(ir, row))
            except (PipelineError, RuntimeError) as error:
                row.status, row.reason = FAILED, reason_of(error)
    on_progress(Progress("bench", total, total, unit="measurement"))
    return app_fps


def _benchmark_app_beside(ir: Path, row: Row) -> float:
    options, seconds = row.variant.options, row.rounds[-1].seconds
    precision = resolved_precision(options.precision, options.device)
    asked = None if precision == "auto" else precision
    return benchmark_app_fps(ir, options.device, options.hint, asked, seconds)


def _shares(total: int, parts: int) -> list[int]:
    """How many of the frames fall into each round."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def _write_inputs(source: SyntheticOptions, input_wh: tuple[int, int], path: Path) -> int:
    """The distinct frames of a source as model inputs in one file; returns their number."""
    count = 1 if source.image else min(_MOST_INPUTS, source.num_frames)
    inputs = np.full((count, input_wh[1], input_wh[0], 3), PADDING_VALUE, np.uint8)
    preprocess = Preprocessor(letterbox(source.size_wh, input_wh))
    few = dataclasses.replace(source, num_frames=count)
    for frame in SyntheticSource(few):
        preprocess(frame, inputs[frame.index])
    np.save(path, inputs)
    return count


def _frames_record(
    options: BenchOptions, input_wh: tuple[int, int], num_inputs: int
) -> dict[str, Any]:
    image = options.source.image
    return {
        "source": image.name if image else "synthetic",
        "size_wh": list(options.source.size_wh),
        "input_wh": list(input_wh),
        "num_frames": options.num_frames,
        "num_rounds": options.num_rounds,
        "num_distinct": num_inputs,
    }


def _int8_under_the_best(row: Row, rows: list[Row]) -> Variant:
    """The options of the fastest float configuration of OpenVINO so far, in INT8."""
    floats = [
        other
        for other in rows
        if other.rounds and other.variant.options.engine == "openvino" and other is not row
    ]
    if not floats:
        return row.variant
    best = max(floats, key=lambda other: other.median_fps)
    options = dataclasses.replace(best.variant.options, precision="int8")
    return Variant(f"{UNDER} {best.name}", options)
