"""Measurements -> the values of report.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from fractions import Fraction
from typing import Any

from pipeline.core.config import ProcessConfig
from pipeline.core.machine import peak_memory_mb, processor_name, versions
from pipeline.core.text import counted
from pipeline.execution.executor import Executor
from pipeline.frames.audit import Audit
from pipeline.frames.segment import OpenClip
from pipeline.frames.stats import Occupancy, RunStats
from pipeline.frames.task import RunSettings
from pipeline.inference.selection import Selection
from pipeline.media.frame import VideoInfo
from pipeline.model.prepare import PreparedModel
from pipeline.model.quantization import Quantization
from pipeline.model.weights import OFFICIAL_SHA256
from pipeline.run.command import repeat_command
from pipeline.run.identity import RequestKeys
from pipeline.run.outputs import REPORT_VERSION
from pipeline.run.passes import Passes
from pipeline.run.report_files import Report, output_record
from pipeline.run.segments import TakenSegments
from pipeline.run.step_figures import (
    OTHER_THREADS,
    bottleneck,
    cpu_threads,
    speed_over_time,
    step_times,
    thread_times,
)
from pipeline.synthetic.judge import LEAST_IOU, Judgement

_INTERPOLATED, _INT8 = ("interpolated", "inferred"), ("int8", "float")
"""The sides of an audit."""


@dataclass(frozen=True, slots=True)
class Phases:
    """The wall time of the run, split into consecutive phases."""

    prepare_seconds: float
    frames_seconds: float
    finish_seconds: float

    @property
    def wall_seconds(self) -> float:
        return self.prepare_seconds + self.frames_seconds + self.finish_seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What was read in the finished files.

    judgement: None without ground truth. boxes_over_time: see `over_time`.
    annotated: see `annotated_record`; None without an annotated file.
    """

    judgement: Judgement | None
    boxes_over_time: dict[str, Any]
    annotated: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """A request for a result, and its outcome.

    stats: measured on all segments together.
    fingerprint: of the content of the clip; None without one.
    int8_audit: None for a model in float.
    """

    settings: RunSettings
    keys: RequestKeys
    clip: OpenClip
    selection: Selection
    executor: Executor
    passes: Passes
    stats: RunStats
    fingerprint: str | None
    int8_audit: Audit | None
    findings: Findings
    notes: list[str]
    phases: Phases

    @property
    def config(self) -> ProcessConfig:
        return self.settings.config

    @property
    def taken(self) -> TakenSegments:
        return self.passes.detected

    @property
    def at_once(self) -> int:
        """The number of segments that were processed at once.

        Where results arrive late, more seem to overlap than anything worked on.
        """
        return self.executor.at_once or min(self.taken.at_once, self.executor.most_at_once)

    @property
    def all_cores(self) -> int:
        """The cores that worked on the frames, of all actors together."""
        return self.executor.cores * (1 if self.executor.at_once else self.at_once)


def build_report(run: FinishedRun) -> Report:
    """The report of a finished run."""
    stats, taken, annotated = run.stats, run.taken, run.findings.annotated
    encoder_threads = run.settings.encoder_threads if annotated else None
    steps = step_times(stats, max(1, run.all_cores // run.at_once), encoder_threads, run.at_once)
    return {
        "schema_version": REPORT_VERSION,
        "result_key": run.keys.result,
        "detections_key": run.keys.detections,
        "command": repeat_command(run.config),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": {
            **_plain(asdict(run.clip.source.info)),
            "fingerprint": run.fingerprint,
            "faults": asdict(taken.faults()),
        },
        "output": output_record(stats.num_frames, annotated, run.notes),
        "segments": {
            "number": len(taken.manifests),
            "done_before": len(taken.reused),
            "frames_done_before": taken.num_frames_reused,
        },
        "configuration": _configuration(run),
        "selection": _selection(run.selection),
        "model": _model(run.clip.prepared),
        "speed": _speed(run, steps),
        "phases": asdict(run.phases),
        "threads": thread_times(stats),
        "steps": steps,
        "cpu_threads": cpu_threads(stats),
        "bottleneck": bottleneck(steps),
        "queues": {
            "requests_running": _occupancy(stats.requests_running),
            "inferred_waiting": _occupancy(stats.completed),
            "reorder_buffer": _occupancy(stats.reorder),
        },
        "audit": _audit(run.stats.audit, run.config, _INTERPOLATED)
        if run.config.adaptive
        else None,
        "precision_audit": run.int8_audit and _audit(run.int8_audit, run.config, _INT8),
        "detections": _detections(run),
        "events": None,
        "highlights": None,
        "crops": None,
        "truth": run.findings.judgement and _truth(run.findings.judgement),
        "peak_memory_mb": peak_memory_mb(),
        "machine": {"processor": processor_name(), "cores": run.executor.cores},
        "versions": versions(),
    }


def _configuration(run: FinishedRun) -> dict[str, Any]:
    config = run.config
    return {
        **run.taken.manifests[-1].engine,
        **run.executor.facts(),
        "segments_at_once": run.at_once,
        "num_requests": run.stats.requests_running.limit,
        "max_frames_in_flight": run.stats.in_flight.limit,
        "cores": run.all_cores,
        "every": config.every,
        "adaptive": config.adaptive,
        "tile": config.tile,
        "track": config.track,
        "reuse_duplicates": config.reuse_duplicates,
        "deinterlace": config.deinterlace,
        "segment_seconds": config.segment_seconds,
        "num_frames": config.num_frames,
        "start": config.start,
        "end": config.end,
        "detect": {**asdict(config.detect), "iou_threshold": config.detect.nms_iou},
        "redact": asdict(config.redact),
        "encode": {**asdict(config.encode), "threads": run.settings.encoder_threads},
        "draw": asdict(config.draw),
    }


def _selection(selection: Selection) -> dict[str, Any]:
    return {
        "by": selection.by,
        "reason": selection.reason,
        "alternatives": [
            {**asdict(entry), "median_fps": entry.median_fps} for entry in selection.alternatives
        ],
    }


def _model(prepared: PreparedModel) -> dict[str, Any]:
    return {
        "file": prepared.weights.name,
        "sha256": prepared.weights_sha256,
        "official": prepared.weights_sha256 == OFFICIAL_SHA256,
        "class_names": list(prepared.head.class_names),
        "num_classes": len(prepared.head.class_names),
        "precision_note": precision_note(prepared.quantization),
        "calibrated_on": prepared.quantization and prepared.quantization.calibrated_on,
    }


def _speed(run: FinishedRun, steps: list[dict[str, Any]]) -> dict[str, Any]:
    stats, wall_seconds = run.stats, run.phases.wall_seconds
    frames, all_cores = stats.num_frames, run.all_cores
    frames_fps = frames / run.passes.busy_seconds
    cpu_ms = 1000 * stats.frames_cpu_seconds / frames
    steps_ms = sum(step["cpu_ms"] for step in steps if step["step"] != OTHER_THREADS)
    infer_cpu_ms = next(step["cpu_ms"] for step in steps if step["step"] == "infer")
    return {
        "wall_seconds": wall_seconds,
        "file_to_file_fps": frames / wall_seconds,
        "times_real_time": _real_time(run.clip.source.info, frames, wall_seconds),
        "frames_fps": frames_fps,
        "model_alone_fps": 1000 * all_cores / infer_cpu_ms if infer_cpu_ms else None,
        "cores_allow_fps": 1000 * all_cores / steps_ms if steps_ms else None,
        "cores_busy": cpu_ms * frames_fps / (1000 * all_cores),
        "mean_request_latency_ms": 1000 * stats.latency_seconds_sum / stats.inferred_parts,
        "over_time": speed_over_time(stats),
    }


def _detections(run: FinishedRun) -> dict[str, Any]:
    stats, class_names = run.stats, run.clip.prepared.head.class_names
    inferred, reused = stats.inferred_frames, stats.reused_frames
    return {
        "inferred_frames": inferred,
        "reused_frames": reused,
        "interpolated_frames": stats.num_frames - inferred - reused,
        "total": sum(stats.detections_per_class.values()),
        "frames_with_any": sum(1 for number in stats.detections_per_frame if number),
        "tracks": run.passes.num_tracks,
        "per_class": {
            class_names[class_id]: number
            for class_id, number in stats.detections_per_class.most_common()
        },
        "over_time": run.findings.boxes_over_time,
    }


def _audit(audit: Audit, config: ProcessConfig, sides: tuple[str, str]) -> dict[str, Any]:
    """How many boxes of either side of an audit have partners."""
    return {
        "num_frames": audit.num_frames,
        "least_agreement": config.least_agreement,
        "verdict": audit.verdict(config.least_agreement),
        "by_iou": [
            {
                "iou": iou,
                sides[0]: asdict(found.ours),
                sides[1]: asdict(found.theirs),
                "share": found.share,
                "interval_95": list(found.worse.interval),
            }
            for iou, found in audit.by_iou.items()
        ],
    }


def audit_warning(stats: RunStats, least_agreement: float) -> str | None:
    """A warning if the audit shows that too few boxes agree; else None."""
    if stats.audit.verdict(least_agreement) != "below":
        return None
    low, high = stats.audit.deciding.worse.interval
    return (
        f"of the boxes of interpolated frames, {low:.1%} to {high:.1%} are as the model finds them "
        f"there, less than --least-agreement {least_agreement:g}: run without --adaptive"
    )


def _truth(judgement: Judgement) -> dict[str, Any]:
    return {
        **asdict(judgement),
        "recall": judgement.recall,
        "precision": judgement.precision,
        "least_iou": LEAST_IOU,
    }


def precision_note(quantization: Quantization | None) -> str | None:
    """A note on the accuracy of a quantised model; None for a float model."""
    if quantization is None:
        return None
    if quantization.accuracy is None:
        return "INT8, accuracy not evaluated"
    found = quantization.accuracy
    scores = ", ".join(
        f"{values['map_50_95']:.4f} in {precision}"
        for precision, values in found["accuracy"].items()
    )
    pictures = counted(found["num_images"], "picture")
    return f"INT8, mAP@0.5:0.95 {scores}, on {pictures} of {found['data']}"


def _occupancy(queue: Occupancy) -> dict[str, float | int | None]:
    return {"mean": queue.mean, "max": queue.maximum, "limit": queue.limit}


def _real_time(info: VideoInfo, frames: int, wall_seconds: float) -> float | None:
    if not info.frame_rate:
        return None
    return float(frames / info.frame_rate) / wall_seconds


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Fractions as text, as FFmpeg writes them."""
    return {
        key: f"{value.numerator}/{value.denominator}" if isinstance(value, Fraction) else value
        for key, value in values.items()
    }
