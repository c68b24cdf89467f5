"""What the pipeline's speed is compared with does the same work."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import av
import numpy as np
import pytest
from bench_e2e import report_lines
from busy_clip import busy_clip
from end_to_end import Round, measured_run
from numpy.typing import NDArray
from worker_per_core import Work, worker_per_core_fps

from pipeline.core.config import EncodeOptions, InferOptions, ProcessConfig
from pipeline.core.detection_lines import read_detection_lines
from pipeline.core.machine import available_cores
from tests.conftest import CHECKPOINT, SHARED, needs_checkpoint, process, with_light, write_clip

SHARED_PICTURES = SHARED / "coco128" / "images"


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [image.to_ndarray().astype(np.uint8) for image in container.decode(video=0)]


def test_a_worker_on_each_core_makes_the_same_clip_as_the_pipeline(
    tmp_path: Path, tiny_weights: Path
) -> None:
    images = [with_light((index % 16, index % 12)) for index in range(40)]
    clip = write_clip(tmp_path / "clip.mp4", images, options={"crf": "10"})
    affinity = os.sched_getaffinity(0)
    work = Work(clip, tiny_weights, "f32", EncodeOptions(threads=1), tmp_path / "workers")
    assert worker_per_core_fps(work) > 0
    assert os.sched_getaffinity(0) == affinity

    process(
        clip,
        tmp_path / "pipeline",
        tiny_weights,
        infer=InferOptions(precision="f32"),
        encode=EncodeOptions(threads=1),
    )
    expected = pictures(tmp_path / "pipeline" / "annotated.mp4")
    made = sorted(work.output_dir.iterdir())
    assert len(made) == available_cores()
    for path in made:
        np.testing.assert_array_equal(pictures(path), expected)


def test_ratios_are_taken_within_a_round() -> None:
    def round_of(pipeline: float, workers: float) -> Round:
        same = {field.name: {"f32": 1.0} for field in fields(Round)}
        return Round(
            **{
                **same,
                "serial_fps": {},
                "together_fps": {},
                "pipeline_fps": {"f32": pipeline},
                "workers_fps": {"f32": workers},
            }
        )

    rounds = [round_of(90, 100), round_of(45, 50), round_of(300, 400)]
    lines = report_lines(rounds, ["f32"])
    line = next(line for line in lines if line.startswith("pipeline over a worker per core"))
    assert line.split()[-5:] == ["100.0", "0.90", "(0.75", "to", "0.90)"]


def test_adaptive_and_int8_are_compared_with_all_frames_inferred_in_float() -> None:
    def round_of(float_fps: float, int8_fps: float) -> Round:
        same = {field.name: {"f32": 1.0, "int8": 1.0, "default": 1.0} for field in fields(Round)}
        full = {"f32": float_fps, "int8": int8_fps}
        return Round(
            **{
                **same,
                "serial_fps": {},
                "together_fps": {},
                "pipeline_fps": full,
                "adaptive_fps": {name: 2 * fps for name, fps in full.items()},
                "adaptive_shares": {"f32": 0.25, "int8": 0.31},
            }
        )

    lines = report_lines([round_of(40, 60), round_of(20, 32), round_of(80, 112)], ["f32", "int8"])

    def figures(start: str) -> list[str]:
        (line,) = (line for line in lines if line.startswith(start))
        return line.removeprefix(start).split()

    assert figures("--adaptive, 25% inferred, over all") == ["80.0", "2.00", "(2.00", "to", "2.00)"]
    assert figures("--adaptive, 31% inferred, over all")[:2] == ["120.0", "2.00"]
    assert figures("int8 over f32") == ["60.0", "1.50", "(1.40", "to", "1.60)"]
    assert figures("int8 --adaptive over f32") == ["120.0", "3.00", "(2.80", "to", "3.20)"]


def test_a_measured_run_gives_the_share_of_frames_inferred(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((4, 4))] * 40)
    config = ProcessConfig(
        source=clip,
        output_dir=tmp_path / "out",
        weights=tiny_weights,
        overwrite=True,
        reuse_duplicates=False,
    )
    assert measured_run(config).inferred_share == 1.0
    run = measured_run(replace(config, adaptive=True))
    lines = read_detection_lines(tmp_path / "out" / "detections.jsonl")
    assert run.inferred_share == sum(not line.interpolated for line in lines) / 40
    assert run.inferred_share < 0.5
    assert run.file_to_file_fps > 0


@needs_checkpoint
@pytest.mark.skipif(not SHARED_PICTURES.is_dir(), reason="needs ../shared/coco128")
def test_the_busy_clip_is_busy(tmp_path: Path) -> None:
    clip = busy_clip(SHARED_PICTURES, tmp_path / "busy.mp4", num_frames=8)
    report = process(clip, tmp_path / "out", CHECKPOINT, every=4, reuse_duplicates=False)
    assert tuple(report["source"]["size_wh"]) == (1024, 576)
    assert report["output"]["num_frames"] == 8
    assert report["detections"]["total"] >= 20 * 8
