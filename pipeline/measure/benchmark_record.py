"""The measured configurations -> the values of bench.json, and how they compare."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.core.agreement import agreement
from pipeline.core.machine import available_cores, processor_name, versions
from pipeline.inference.configurations import BASELINE, Configuration, Variant
from pipeline.measure.own_process import ModelSpeed

SCHEMA_VERSION = 1
MEASURED, ABSENT, FAILED = "measured", "unavailable", "failed"
BENCHMARK_APP_CONFIGURATION = "throughput"


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


def bench_record(
    rows: list[Row], devices: Sequence[str], app_fps: Sequence[float]
) -> dict[str, Any]:
    """What is measured and where; `benchmark` adds what was asked for.

    app_fps: of benchmark_app, in each round.
    """
    baseline, best_variants = _baseline(rows), _best_of_each(rows)
    plain = [_plain_row(row, baseline, row.name in best_variants) for row in rows]
    measured = [row for row in plain if row["status"] == MEASURED]
    best = max(measured, key=lambda row: float(row["fps_median"]), default=None)
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": processor_name(),
            "cores": available_cores(),
            "devices": list(devices),
        },
        "versions": {**versions(), **_torch_version(rows)},
        "baseline": baseline and baseline.name,
        "best": best and best["name"],
        "configurations": plain,
        "benchmark_app": _over_benchmark_app(rows, app_fps),
    }


def _baseline(rows: list[Row]) -> Row | None:
    """The row that others are compared with: PyTorch, or else the first one that was measured."""
    measured = [row for row in rows if row.rounds]
    named = [row for row in measured if row.configuration.name == BASELINE]
    return named[-1] if named else next(iter(measured), None)


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
    return {**plain, **_figures(row, baseline)}


def _figures(row: Row, baseline: Row) -> dict[str, Any]:
    fps = row.throughput_fps
    # Round by round, because the machine is not as fast in every one.
    factors = [a / b for a, b in zip(fps, baseline.throughput_fps, strict=False)]
    alike = agreement(row.rounds[0].detections, baseline.rounds[0].detections)
    return {
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


def _over_benchmark_app(rows: list[Row], app_fps: Sequence[float]) -> dict[str, Any] | None:
    ours = next(
        (row for row in rows if row.configuration.name == BENCHMARK_APP_CONFIGURATION), None
    )
    if ours is None or not app_fps:
        return None
    ratios = [a / b for a, b in zip(ours.throughput_fps, app_fps, strict=False)]
    return {
        "configuration": ours.name,
        "fps": list(app_fps),
        "ratio_median": statistics.median(ratios),
        "ratios": ratios,
    }


def _torch_version(rows: list[Row]) -> dict[str, str]:
    with contextlib.suppress(PackageNotFoundError):
        if any(row.variant.options.engine == "pytorch" for row in rows):
            return {"torch": version("torch")}
    return {}
