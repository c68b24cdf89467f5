"""The checkpoint itself in PyTorch, behind the same seam as OpenVINO."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.config import InferOptions
from pipeline.core.errors import InferenceError, ModelError
from pipeline.core.progress import no_progress
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.inference.openvino import load_engine
from pipeline.inference.pytorch import PyTorchEngine, PyTorchPool
from pipeline.model.prepare import PreparedModel, prepare_model
from tests.checkpoints import save, small_yolov5
from tests.conftest import prepared_light_detector, whole_heads

PYTORCH = InferOptions(engine="pytorch")
WIDE, IMGSZ = (96, 54), 96


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoint") / "model.pt", small_yolov5(2))


@pytest.fixture
def prepared(checkpoint: Path) -> PreparedModel:
    return prepare_model(checkpoint, WIDE, IMGSZ, no_progress)


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)


def heads_of(engine: Engine, num_pictures: int) -> dict[int, list[NDArray[np.float32]]]:
    found: dict[int, list[NDArray[np.float32]]] = {}
    errors: list[BaseException] = []

    def keep(job: int, heads: Heads, latency_seconds: float) -> None:
        assert latency_seconds > 0
        assert all(head.flags.c_contiguous for head in heads)
        found[job] = [head.copy() for head in heads]

    pool = engine.open_pool(keep, errors.append)
    for job in range(num_pictures):
        pool.next_input()[:] = picture(job)
        pool.submit(job)
    pool.drain()
    assert errors == []
    assert pool.num_running == 0
    return found


def test_it_gives_the_heads_of_the_model_that_was_saved(prepared: PreparedModel) -> None:
    engine = load_engine(prepared, PYTORCH)
    assert isinstance(engine, PyTorchEngine)
    assert engine.input_shape == (1, 64, 96, 3)
    original = small_yolov5(2)
    for job, heads in heads_of(engine, 4).items():
        image = torch.from_numpy(picture(job)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            expected = [head[0].permute(1, 2, 0).numpy() for head in original(image)]
        for found, right in zip(heads, expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-3, atol=1e-3)


def test_openvino_in_float32_gives_the_same_heads(prepared: PreparedModel) -> None:
    by_pytorch = heads_of(load_engine(prepared, PYTORCH), 5)
    by_openvino = heads_of(load_engine(prepared, InferOptions(precision="f32", batch=2)), 5)
    assert sorted(by_pytorch) == sorted(by_openvino) == list(range(5))
    for job, heads in by_pytorch.items():
        for a, b in zip(heads, whole_heads(prepared, by_openvino[job]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_its_facts_are_plain_values(prepared: PreparedModel) -> None:
    facts = load_engine(prepared, PYTORCH).facts()
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["engine"], facts["precision"]) == ("pytorch", "f32")
    openvino = load_engine(prepared, InferOptions(precision="f32")).facts()
    assert facts.keys() == openvino.keys()


def test_it_keeps_to_the_cores_of_the_process(
    prepared: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.inference.pytorch.available_cores", lambda: 1)
    engine = load_engine(prepared, PYTORCH)
    assert engine.facts()["num_threads"] == 1
    seen: list[int] = []
    errors: list[BaseException] = []
    pool: Pool[int] = engine.open_pool(
        lambda *_: seen.append(torch.get_num_threads()), errors.append
    )
    pool.next_input()[:] = picture(0)
    pool.submit(0)
    pool.drain()
    assert (seen, errors) == ([1], [])


@pytest.mark.parametrize("name", ["light.xml", "model.onnx"])
def test_it_runs_checkpoints_only(tmp_path: Path, name: str) -> None:
    prepared = dataclasses.replace(prepared_light_detector(tmp_path), weights=tmp_path / name)
    with pytest.raises(ModelError, match=rf"{name}: PyTorch runs \.pt checkpoints only"):
        load_engine(prepared, PYTORCH)


def open_pool(
    prepared: PreparedModel, done: list[int], errors: list[BaseException]
) -> PyTorchPool[int]:
    return PyTorchEngine(prepared).open_pool(lambda job, *_: done.append(job), errors.append)


def run(pool: PyTorchPool[int], job: int) -> None:
    pool.next_input()[:] = picture(job)
    pool.submit(job)


def test_inputs_begin_as_padding(prepared: PreparedModel) -> None:
    pool = open_pool(prepared, [], [])
    for job in range(3):
        assert (pool.next_input() == 114).all()
        pool.next_input()[:] = 3
        pool.submit(job)
    pool.drain()


def test_what_was_submitted_last_rests_until_the_next_is_submitted(prepared: PreparedModel) -> None:
    pool = open_pool(prepared, [], [])
    last = np.zeros(0, np.uint8)
    for job in range(20):
        pool.next_input()[:] = picture(job)
        if job:
            np.testing.assert_array_equal(last, picture(job - 1))
        last = pool.next_input()
        pool.submit(job)
        pool.flush()
    pool.drain()


def test_a_pool_that_was_drained_can_be_used_again(prepared: PreparedModel) -> None:
    done: list[int] = []
    pool = open_pool(prepared, done, [])
    pool.drain()
    for job in range(6):
        run(pool, job)
        pool.drain()
        assert done == list(range(job + 1))


def test_a_drained_pool_leaves_no_thread(prepared: PreparedModel) -> None:
    pool = open_pool(prepared, [], [])
    run(pool, 0)
    pool.drain()
    assert [thread for thread in threading.enumerate() if thread.name == "pytorch"] == []


class Fault(Exception):
    """Raised on purpose."""


@pytest.mark.parametrize("kind", [Fault, KeyboardInterrupt, SystemExit])
def test_a_callback_that_fails_is_told_and_the_pool_goes_on(
    prepared: PreparedModel, kind: type[BaseException]
) -> None:
    done: list[int] = []
    errors: list[BaseException] = []

    def every_third(job: int, *_: object) -> None:
        if job % 3 == 0:
            raise kind(f"job {job}")
        done.append(job)

    pool = PyTorchEngine(prepared).open_pool(every_third, errors.append)
    for job in range(9):
        run(pool, job)
    pool.drain()
    assert done == [1, 2, 4, 5, 7, 8]
    assert [str(error) for error in errors] == ["job 0", "job 3", "job 6"]


def test_an_inference_that_fails_is_an_error_of_a_later_wait_and_of_every_drain(
    prepared: PreparedModel,
) -> None:
    done: list[int] = []
    # An input that three halvings cannot be undone for: its upsampled half does not fit.
    odd = dataclasses.replace(prepared, input_wh=(100, 60))
    pool = open_pool(odd, done, [])

    def go_on() -> None:
        for job in range(10):
            pool.next_input()
            pool.submit(job)

    with pytest.raises(InferenceError, match=r"inference failed: .*size"):
        go_on()
    for _ in range(2):
        with pytest.raises(InferenceError, match="inference failed") as caught:
            pool.drain()
        assert "\n" not in str(caught.value)
    assert done == []
