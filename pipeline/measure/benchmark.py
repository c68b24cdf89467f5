"""Every configuration on the same frames, round after round, and how they compare."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from pipeline.core.agreement import agreement
from pipeline.core.config import InferOptions, ModelName, SyntheticOptions
from pipeline.core.errors import InferenceError, PipelineError, UsageError, reason_of
from pipeline.core.machine import available_cores, processor_name, versions
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.core.text import counted
from pipeline.core.typed import convert_fields, converted
from pipeline.inference.configurations import (
    BASELINE,
    UNDER,
    Configuration,
    Variant,
    configuration,
    configurations,
)
from pipeline.inference.openvino import resolved_precision
from pipeline.measure.own_process import ModelJob, ModelSpeed, in_own_process, measure_model
from pipeline.model.compiled import core
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.prepare import PreparedModel, note_model, prepare_model
from pipeline.model.preprocess import Preprocessor
from pipeline.model.weights import find_weights
from pipeline.synthetic.source import SyntheticSource

SCHEMA_VERSION = 1
MEASURED, ABSENT, FAILED = "measured", "unavailable", "failed"
BENCHMARK_APP_CONFIGURATION = "throughput"

# With the telemetry left out, as in `pipeline/__init__.py`.
_BENCHMARK_APP = """
import sys
sys.modules["openvino_telemetry"] = None
from openvino.tools.benchmark.main import main
main()
"""
_MOST_INPUTS = 64
LEAST_BENCHMARK_APP_SECONDS = 2.0


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


@dataclass(slots=True)
class Row:
    """One variant of a configuration, and what its rounds gave."""

    configuration: Configuration
    variant: Variant
    status: str = MEASURED
    reason: str = ""
    rounds: list[ModelSpeed] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.configuration.name} {self.variant.label}".strip()

    @property
    def throughput_fps(self) -> list[float]:
        return [speed.throughput_fps for speed in self.rounds]

    @property
    def median_fps(self) -> float:
        return statistics.median(self.throughput_fps) if self.rounds else 0.0


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
    return _result(options, rows, prepared, num_inputs, devices, app_fps)


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


def benchmark_app_fps(
    ir: Path, device: str, hint: str, precision: str | None, seconds: float
) -> float:
    """What OpenVINO's own benchmark_app measures for a graph; its own precision if None.

    Raises InferenceError if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-c", _BENCHMARK_APP),
            *("-m", str(ir), "-d", device, "-hint", hint.lower()),
            *(("-infer_precision", precision) if precision else ()),
            *("-t", str(round(max(seconds, LEAST_BENCHMARK_APP_SECONDS)))),
            *("-report_type", "no_counters", "-json_stats", "-report_folder", folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        report = Path(folder) / "benchmark_report.json"
        if done.returncode or not report.is_file():
            said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
            raise InferenceError(f"benchmark_app failed: {said.splitlines()[-1]}")
        return float(json.loads(report.read_text())["execution_results"]["throughput"])


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


def _result(
    options: BenchOptions,
    rows: list[Row],
    prepared: PreparedModel,
    num_inputs: int,
    devices: list[str],
    app_fps: list[float],
) -> dict[str, Any]:
    baseline = next((row for row in rows if row.rounds), None)
    for row in rows:
        if row.rounds and row.configuration.name == BASELINE:
            baseline = row
    best_variants = _best_of_each(rows)
    plain = [_plain_row(row, baseline, row.name in best_variants) for row in rows]
    measured = [row for row in plain if row["status"] == MEASURED]
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor_name(),
            "cores": available_cores(),
            "devices": devices,
        },
        "versions": {**versions(), **_torch_version(rows)},
        "model": prepared.weights.name,
        "frames": {
            "source": options.source.image.name if options.source.image else "synthetic",
            "size_wh": list(options.source.size_wh),
            "input_wh": list(prepared.input_wh),
            "num_frames": options.num_frames,
            "num_rounds": options.num_rounds,
            "num_distinct": num_inputs,
        },
        "baseline": baseline.name if baseline else None,
        "best": max(measured, key=lambda row: float(row["fps_median"]))["name"]
        if measured
        else None,
        "configurations": plain,
        "benchmark_app": None,
    }
    ours = next(
        (row for row in rows if row.configuration.name == BENCHMARK_APP_CONFIGURATION), None
    )
    if ours is not None and app_fps:
        ratios = [a / b for a, b in zip(ours.throughput_fps, app_fps, strict=False)]
        result["benchmark_app"] = {
            "configuration": ours.name,
            "fps": app_fps,
            "ratio_median": statistics.median(ratios),
            "ratios": ratios,
        }
    return result


def _best_of_each(rows: list[Row]) -> set[str]:
    """The name of the fastest variant of every configuration that was measured."""
    best: dict[str, Row] = {}
    for row in rows:
        current = best.get(row.configuration.name)
        if row.rounds and (current is None or row.median_fps > current.median_fps):
            best[row.configuration.name] = row
    return {row.name for row in best.values()}


def _plain_row(row: Row, baseline: Row | None, best: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "name": row.name,
        "configuration": row.configuration.name,
        "family": row.configuration.family,
        "description": row.configuration.description,
        "options": asdict(row.variant.options),
        "status": row.status if row.rounds or row.status != MEASURED else FAILED,
        "reason": row.reason,
        "best_of_configuration": best,
    }
    if row.status != MEASURED or not row.rounds or baseline is None:
        return plain
    fps = row.throughput_fps
    # Round by round, because the machine is not as fast in every one.
    factors = [a / b for a, b in zip(fps, baseline.throughput_fps, strict=False)]
    alike = agreement(row.rounds[0].detections, baseline.rounds[0].detections)
    return {
        **plain,
        "facts": row.rounds[0].facts,
        "fps": fps,
        "fps_median": statistics.median(fps),
        "fps_min": min(fps),
        "fps_max": max(fps),
        "seconds_per_image": 1 / statistics.median(fps),
        "first_inference_seconds": statistics.median(s.first_inference_seconds for s in row.rounds),
        "load_seconds": statistics.median(s.load_seconds for s in row.rounds),
        "factor": statistics.median(factors),
        "agreement": alike.share,
        "compared_boxes": alike.num_boxes,
        "changes_detections": not alike.same,
    }


def _torch_version(rows: list[Row]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    with contextlib.suppress(PackageNotFoundError):
        if any(row.variant.options.engine == "pytorch" for row in rows):
            return {"torch": version("torch")}
    return {}
