"""What --adaptive costs and gains on a clip, against every frame inferred."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.agreement import Agreement, agreement
from pipeline.core.boxes import Detections
from pipeline.core.config import ProcessConfig
from pipeline.core.detection_lines import DetectionLine, read_detection_lines
from pipeline.frames.audit import DECIDING_IOU, sure_confidence
from pipeline.measure.own_process import in_own_process
from pipeline.run.outputs import DETECTIONS_NAME
from pipeline.run.process import process_video


@dataclass(frozen=True, slots=True)
class AdaptiveGain:
    """Ratios above 1 mean that --adaptive is faster; medians over rounds.

    inferred_share: of the frames. agreement: of all boxes at IoU 0.75, `ours` with --adaptive.
    frames: of the throughput from the first frame decoded to the last one encoded.
    file_to_file: of the whole run. cpu: of the CPU time of the frames.
    """

    inferred_share: float
    agreement: Agreement
    frames: float
    file_to_file: float
    cpu: float

    def __str__(self) -> str:
        gain = (
            f"--adaptive would be {self.frames:.2f} times as fast: {self.inferred_share:.0%} of "
            "the frames inferred, "
        )
        worse = self.agreement.worse
        if not worse.num_boxes:
            return gain + "too few boxes to compare"
        low, high = worse.interval
        return (
            f"{gain}{worse.value:.1%} of the boxes as with all of them "
            f"(95% interval {low:.1%} to {high:.1%})"
        )


@dataclass(frozen=True, slots=True)
class _Speed:
    frames_fps: float
    file_to_file_fps: float
    cpu_seconds: float


def adaptive_gain(
    config: ProcessConfig, num_rounds: int, most_seconds: float = float("inf")
) -> AdaptiveGain:
    """Process the source of the config with and without, in turn, so many times.

    Raises PipelineError, TimeoutError if there is no time for a round.
    """
    end_seconds = time.perf_counter() + most_seconds
    ratios: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        full, adaptive = (
            dataclasses.replace(
                config,
                output_dir=Path(scratch) / name,
                overwrite=True,
                every=1,
                adaptive=name == "adaptive",
            )
            for name in ("full", "adaptive")
        )
        for _ in range(num_rounds):
            slow, fast = (_speed_by(job, end_seconds) for job in (full, adaptive))
            ratios.append(
                (
                    fast.frames_fps / slow.frames_fps,
                    fast.file_to_file_fps / slow.file_to_file_fps,
                    slow.cpu_seconds / fast.cpu_seconds,
                )
            )
        lines = [_lines(job) for job in (adaptive, full)]
    frames, file_to_file, cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
    sure = sure_confidence(config.detect.least_confidence)
    return AdaptiveGain(
        sum(not line.interpolated for line in lines[0]) / len(lines[0]),
        agreement(_boxes(lines[0]), _boxes(lines[1]), DECIDING_IOU, sure),
        frames,
        file_to_file,
        cpu,
    )


def _lines(job: ProcessConfig) -> list[DetectionLine]:
    return list(read_detection_lines(job.output_dir / DETECTIONS_NAME))


def _boxes(lines: list[DetectionLine]) -> list[Detections]:
    return [line.detections for line in lines]


def _speed_by(job: ProcessConfig, end_seconds: float) -> _Speed:
    left = end_seconds - time.perf_counter()
    if left <= 0:
        raise TimeoutError
    return in_own_process(_speed_of, job, None if left == float("inf") else left)


def _speed_of(job: ProcessConfig) -> _Speed:
    report = process_video(job)
    speed, num_frames = report["speed"], report["output"]["num_frames"]
    cpu_ms = sum(step["cpu_ms"] for step in report["steps"])
    return _Speed(speed["frames_fps"], speed["file_to_file_fps"], cpu_ms * num_frames / 1000)
