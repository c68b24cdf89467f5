"""Runs that are interrupted, and their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import (
    InferOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.errors import Interrupted
from pipeline.core.progress import Progress
from pipeline.run.process import process_video
from pipeline.run.report_files import Report
from tests.conftest import process

SEGMENT_SECONDS = 0.8


KEYS = {"g": "10", "sc_threshold": "0"}


F32 = InferOptions(precision="f32")


def run(source: Path | SyntheticOptions, out: Path, weights: Path, **options: Any) -> Report:
    options = {"segment_seconds": SEGMENT_SECONDS, "infer": F32, **options}
    return process(source, out, weights, **options)


def interrupted_at(frame: int, error: BaseException) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done == frame:
            raise error

    return tell


def config_of(source: Path | SyntheticOptions, out: Path, weights: Path) -> ProcessConfig:
    return ProcessConfig(
        source=source,
        output_dir=out,
        weights=weights,
        infer=F32,
        segment_seconds=SEGMENT_SECONDS,
    )


def interrupt(source: Path | SyntheticOptions, out: Path, weights: Path, at: int) -> str:
    """Interrupt a run when so many frames are done; returns its message."""
    with pytest.raises(Interrupted) as caught:
        process_video(config_of(source, out, weights), interrupted_at(at, KeyboardInterrupt()))
    return str(caught.value)


def results(out: Path) -> tuple[bytes, bytes]:
    """The annotated clip and the detections, to the byte."""
    return (out / "annotated.mp4").read_bytes(), (out / "detections.jsonl").read_bytes()
