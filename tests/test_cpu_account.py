"""All CPU time of a run is in its report, also that of threads that do not work on frames."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import process_video
from pipeline.core.config import EncodeOptions, InferOptions, ProcessConfig, SyntheticOptions
from pipeline.core.progress import Progress
from pipeline.run.report_files import Report
from tests.checkpoints import save, small_yolov5
from tests.conftest import process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of threads")

NUM_FRAMES = 100
SCENE = SyntheticOptions(num_frames=NUM_FRAMES, size_wh=(320, 240))


def cpu_ms(report: Report) -> dict[str, float]:
    return {step["step"]: step["cpu_ms"] for step in report["steps"]}


def threads_cpu_ms(report: Report) -> dict[str, float]:
    return {thread["thread"]: thread["cpu_ms"] for thread in report["cpu_threads"]}


@pytest.mark.alone
def test_the_rows_of_the_report_add_up_to_the_cpu_time_of_the_process(
    tmp_path: Path, tiny_weights: Path
) -> None:
    ticks: list[float] = []

    def tick(progress: Progress) -> None:
        if progress.stage == "frames":
            ticks.append(time.process_time())

    started = time.process_time()
    report = process_video(
        ProcessConfig(source=SCENE, output_dir=tmp_path, weights=tiny_weights), tick
    )
    run_seconds = time.process_time() - started
    steps_seconds = sum(cpu_ms(report).values()) * NUM_FRAMES / 1000
    threads_seconds = sum(threads_cpu_ms(report).values()) * NUM_FRAMES / 1000
    assert steps_seconds == pytest.approx(threads_seconds, rel=0.03)
    # What comes before the first frame is done and after the last one is in the rows too.
    assert 0.97 * (ticks[-1] - ticks[0]) <= steps_seconds <= 1.01 * run_seconds
    assert cpu_ms(report)["other threads"] <= 0.05 * sum(cpu_ms(report).values())
    assert not [note for note in report["output"]["notes"] if "CPU time" in note]


def test_a_thread_of_the_host_has_a_row_of_its_own_and_a_warning(
    tmp_path: Path, tiny_weights: Path
) -> None:
    stop = threading.Event()
    block = bytes(1_000_000)

    def burn() -> None:
        while not stop.is_set():
            hashlib.sha256(block)

    burner = threading.Thread(target=burn, name="burner")
    burner.start()
    before = time.thread_time()
    try:
        report = process(SCENE, tmp_path, tiny_weights)
    finally:
        stop.set()
        burner.join()
    assert time.thread_time() > before
    other_ms, all_ms = cpu_ms(report)["other threads"], sum(cpu_ms(report).values())
    assert other_ms > 0.05 * all_ms
    assert threads_cpu_ms(report)["burner"] == pytest.approx(other_ms, rel=0.1)
    # Inference is not what pays for it.
    assert cpu_ms(report)["infer"] + other_ms < all_ms
    (warning,) = [note for note in report["output"]["notes"] if "CPU time" in note]
    assert "burner" in warning
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<b>burner</b>" in page


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_threads_of_every_encoder_are_its_own(
    tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    encode = EncodeOptions(codec=codec, threads=2)
    scene = SyntheticOptions(num_frames=60, size_wh=(320, 240))
    report = process(scene, tmp_path, tiny_weights, encode=encode)
    assert cpu_ms(report)["other threads"] <= 0.05 * sum(cpu_ms(report).values())
    assert threads_cpu_ms(report)["encoder"] > 0


def test_what_pytorch_takes_is_inference(tmp_path: Path) -> None:
    weights = save(tmp_path / "small.pt", small_yolov5(2))
    infer = InferOptions(engine="pytorch", hint="NONE")
    scene = SyntheticOptions(num_frames=12, size_wh=(320, 240))
    report: dict[str, Any] = process(scene, tmp_path / "out", weights, infer=infer, imgsz=320)
    assert cpu_ms(report)["infer"] > 10 * cpu_ms(report)["other threads"]
