"""The threads of BLAS, OpenCV, OpenMP and PyTorch: one a call while frames run, then as before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from pipeline import process_video
from pipeline.core.config import InferOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import PipelineError
from pipeline.core.library_threads import one_library_thread
from pipeline.core.machine import available_cores
from pipeline.core.progress import Progress
from tests.checkpoints import save, small_yolov5

SCENE = SyntheticOptions(num_frames=12, size_wh=(128, 96))


def settings() -> dict[str, int]:
    """The number of threads of every library in this process, by its file."""
    blas = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    return {**blas, "cv2": cv2.getNumThreads(), "torch": torch.get_num_threads()}


def held_to_one() -> bool:
    blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert blas
    return {*blas, cv2.getNumThreads()} == {1}


@pytest.fixture(autouse=True)
def chosen_by_the_host() -> Iterator[None]:
    """Numbers that no default would give."""
    cv2_before, torch_before = cv2.getNumThreads(), torch.get_num_threads()
    with threadpool_limits(4):
        cv2.setNumThreads(3)
        torch.set_num_threads(5)
        yield
    cv2.setNumThreads(cv2_before)
    torch.set_num_threads(torch_before)


def test_libraries_have_one_thread_while_frames_run_and_those_of_the_host_afterwards(
    tmp_path: Path, tiny_weights: Path
) -> None:
    before, seen = settings(), []
    config = ProcessConfig(source=SCENE, output_dir=tmp_path, weights=tiny_weights)
    process_video(config, lambda progress: seen.append(held_to_one()) if frames(progress) else None)
    assert seen == [True] * 12
    assert settings() == before
    assert before["cv2"] == 3


def frames(progress: Progress) -> bool:
    return progress.stage == "frames"


def test_they_are_those_of_the_host_after_a_run_that_failed(
    tmp_path: Path, tiny_weights: Path
) -> None:
    before = settings()

    def fail(progress: Progress) -> None:
        if frames(progress) and progress.done == 5:
            assert held_to_one()
            raise ValueError("no more, please")

    config = ProcessConfig(source=SCENE, output_dir=tmp_path, weights=tiny_weights)
    with pytest.raises((PipelineError, ValueError), match="no more, please"):
        process_video(config, fail)
    assert settings() == before


def test_pytorch_has_all_cores_while_it_infers_and_the_threads_of_the_host_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights, seen = save(tmp_path / "small.pt", small_yolov5(2)), {}
    before = settings()
    config = ProcessConfig(
        source=SCENE,
        output_dir=tmp_path / "out",
        weights=weights,
        imgsz=128,
        infer=InferOptions(engine="pytorch", hint="NONE"),
    )
    report = process_video(config, lambda now: seen.update({now.stage: held_to_one()}))
    # Threads of BLAS that the preparation wakes would spin on when frames run, and be reported.
    assert seen == {"convert": True, "frames": True}
    assert report["configuration"]["num_threads"] == available_cores()
    assert settings() == before
    assert before["torch"] == 5


def test_of_runs_at_once_the_last_one_to_end_restores_the_threads() -> None:
    before = settings()
    first, second = one_library_thread(), one_library_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert held_to_one()
    second.__exit__(None, None, None)
    after = settings()
    assert {name: after[name] for name in after if "gomp" not in name} == {
        name: before[name] for name in before if "gomp" not in name
    }


IMPORT = """
import cv2, numpy
from threadpoolctl import threadpool_info
def settings():
    return cv2.getNumThreads(), [pool["num_threads"] for pool in threadpool_info()]
cv2.setNumThreads(3)
before = settings()
import pipeline, pipeline.run.process, pipeline.model.preprocess
pipeline.process_video
assert settings()[0] == before[0], settings()
assert settings()[1][: len(before[1])] == before[1], settings()
"""


def test_importing_the_package_changes_nothing_in_the_host() -> None:
    subprocess.run([sys.executable, "-c", IMPORT], check=True, timeout=60)


PRODUCTS = """
import sys, threading, time
from pathlib import Path
import numpy
matrix = numpy.ones((500, 500))
matrix @ matrix  # Starts the threads of BLAS.
from pipeline.core.machine import thread_ids
blas = thread_ids() - {threading.get_native_id()}
from pipeline import ProcessConfig, SyntheticOptions, process_video

def cpu_seconds():
    return sum(time.clock_gettime((~thread << 3) | 6) for thread in blas)

def multiply(progress):
    before = cpu_seconds()
    matrix @ matrix
    seconds[progress.stage] = seconds.get(progress.stage, 0.0) + cpu_seconds() - before

seconds = {}
source = SyntheticOptions(num_frames=30, size_wh=(128, 96))
process_video(ProcessConfig(
    source=source, output_dir=Path(sys.argv[1]), weights=Path(sys.argv[2])
), multiply)
print(len(blas), seconds["frames"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the clocks of single threads")
@pytest.mark.skipif(available_cores() < 2, reason="BLAS has no threads of its own on one core")
def test_a_matrix_product_while_frames_run_wakes_no_thread_of_blas(
    tmp_path: Path, tiny_weights: Path
) -> None:
    # Ultralytics, which other tests load, sets one for the processes that it starts.
    limits = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS, str(tmp_path / "out"), str(tiny_weights)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if name not in limits},
    )
    num_threads, cpu_seconds = done.stdout.split()
    assert int(num_threads) >= 1
    assert float(cpu_seconds) < 0.001
