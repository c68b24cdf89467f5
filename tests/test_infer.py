"""The pool of requests, and what can go wrong with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from pipeline.config import InferOptions
from pipeline.errors import InferenceError, ModelError, PipelineError, UsageError
from pipeline.infer import Heads, InferPool, compile_model, require_device, resolved_precision
from tests.conftest import gray, light_detector, with_light

OPTIONS = InferOptions(precision="f32")
GOOD_LEVEL, BAD_LEVEL = 192, 7


class Results:
    """What came back, gathered on whatever thread it came."""

    def __init__(self, fault: Callable[[int], None] | None = None) -> None:
        self.brightest: dict[int, tuple[int, int]] = {}
        self.latencies: list[float] = []
        self.errors: list[BaseException] = []
        self._fault = fault

    def done(self, job: int, heads: Heads, latency_seconds: float) -> None:
        if self._fault is not None:
            self._fault(job)
        row, column = np.unravel_index(heads[0][..., 4].argmax(), heads[0].shape[:2])
        self.brightest[job] = int(column), int(row)
        self.latencies.append(latency_seconds)

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


def pool_of(
    model: ov.Model, results: Results, cache: Path, num_requests: int | None = 3
) -> InferPool[int]:
    compiled = compile_model(model, OPTIONS, cache)
    return InferPool(compiled, num_requests, results.done, results.failed)


def run(pool: InferPool[int], job: int, pixels: Any) -> None:
    request = pool.wait_for_request()
    pool.input_of(request)[:] = pixels
    pool.submit(request, job)


def fails_unless_the_level_is_good() -> ov.Model:
    """An inference that fails while it runs: it reshapes to as many values as pixels are bright."""
    image = ops.parameter([1, 8, 8, 3], np.uint8, name="images")
    brightest = ops.reduce_max(ops.convert(image, "i64"), np.arange(4), keep_dims=False)
    count = ops.reshape(brightest, np.array([1]), False)
    one = ops.constant(np.array([1, 1, 1], np.int64))
    values = ops.convert(ops.reshape(image, np.array([-1]), False), "f32")
    tiled = ops.concat([values] * 5, 0)
    usual = ops.slice(tiled, np.array([0]), np.array([192]), np.array([1]), np.array([0]))
    return ov.Model([ops.reshape(usual, ops.concat([one, count], 0), False)], [image], "fails")


def cell(job: int) -> tuple[int, int]:
    return job % 16, job * 7 % 12


@pytest.mark.parametrize("num_requests", [1, 3, None])
def test_every_job_gets_the_result_of_its_own_input(
    tmp_path: Path, num_requests: int | None
) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path, num_requests)
    assert len(pool) == num_requests or (num_requests is None and len(pool) >= 1)
    for job in range(200):
        run(pool, job, with_light(cell(job)))
        assert 0 <= pool.num_running <= len(pool)
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(200)}
    assert results.errors == []
    assert min(results.latencies) > 0
    assert pool.num_running == 0
    assert pool.stalled_seconds() == 0


def test_a_pool_that_was_drained_can_be_used_again(tmp_path: Path) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path)
    pool.drain()
    for job in range(6):
        run(pool, job, with_light(cell(job)))
        pool.drain()
        assert results.brightest[job] == cell(job)


def test_inputs_begin_as_padding_and_become_it_again(tmp_path: Path) -> None:
    pool = pool_of(light_detector(), Results(), tmp_path)
    request = pool.wait_for_request()
    assert (pool.input_of(request) == 114).all()
    pool.input_of(request)[:] = 3
    pool.clear_input(request)
    assert (pool.input_of(request) == 114).all()


class Fault(Exception):
    """Raised on purpose."""


@pytest.mark.parametrize("kind", [Fault, KeyboardInterrupt, SystemExit])
def test_a_callback_that_fails_is_told_and_the_pool_goes_on(
    tmp_path: Path, kind: type[BaseException]
) -> None:
    def every_third(job: int) -> None:
        if job % 3 == 0:
            raise kind(f"job {job}")

    results = Results(every_third)
    pool = pool_of(light_detector(), results, tmp_path)
    for job in range(60):
        run(pool, job, with_light(cell(job)))
    pool.drain()
    assert sorted(results.brightest) == [job for job in range(60) if job % 3]
    assert sorted(str(error) for error in results.errors) == sorted(
        f"job {job}" for job in range(0, 60, 3)
    )
    assert all(isinstance(error, kind) for error in results.errors)


@pytest.mark.parametrize("num_requests", [1, 2, 4])
def test_an_inference_that_fails_is_an_error_of_a_later_wait(
    tmp_path: Path, num_requests: int
) -> None:
    pool = pool_of(fails_unless_the_level_is_good(), Results(), tmp_path, num_requests)
    run(pool, 0, BAD_LEVEL)

    def go_on() -> None:
        for job in range(1, 20):
            run(pool, job, GOOD_LEVEL)
        pool.drain()

    with pytest.raises(InferenceError, match="inference failed") as caught:
        go_on()
    assert "\n" not in str(caught.value)
    assert len(pool) == num_requests


def test_after_a_drain_that_failed_nothing_runs_any_more(tmp_path: Path) -> None:
    # A process that ends while a callback is still to come is aborted by the interpreter.
    def take_long(_: int) -> None:
        np.sort(np.random.default_rng(0).random(500_000))

    results = Results(take_long)
    pool = pool_of(fails_unless_the_level_is_good(), results, tmp_path, 4)
    run(pool, 0, BAD_LEVEL)
    for job in (1, 2, 3):
        run(pool, job, GOOD_LEVEL)
    with pytest.raises(InferenceError):
        pool.drain()
    assert len(results.latencies) + len(results.errors) == 3


@pytest.mark.parametrize("num_good", [0, 1, 5])
def test_an_inference_that_fails_is_an_error_of_the_drain(tmp_path: Path, num_good: int) -> None:
    pool = pool_of(fails_unless_the_level_is_good(), Results(), tmp_path, 2)
    for job in range(num_good):
        run(pool, job, GOOD_LEVEL)
    run(pool, num_good, BAD_LEVEL)
    for _ in range(2):
        with pytest.raises(InferenceError, match="inference failed") as caught:
            pool.drain()
        assert "\n" not in str(caught.value)
    assert len(pool) == 2


def test_inferences_that_do_not_fail_give_the_model_that_sometimes_does(tmp_path: Path) -> None:
    done: list[int] = []
    compiled = compile_model(fails_unless_the_level_is_good(), OPTIONS, tmp_path)
    pool: InferPool[int] = InferPool(compiled, 2, lambda job, _, __: done.append(job), done.append)  # type: ignore[arg-type]
    for job in range(20):
        run(pool, job, GOOD_LEVEL)
    pool.drain()
    assert sorted(done) == list(range(20))


@pytest.mark.parametrize("shape", [(96, 64, 3), (48, 128, 3), (96, 128, 4), (2, 96, 128, 3)])
def test_a_picture_of_the_wrong_shape_never_costs_a_request(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path)
    wrong = np.zeros(shape, np.uint8)
    for _ in range(1000):
        request = pool.wait_for_request()
        with pytest.raises(ValueError, match="broadcast"):
            pool.input_of(request)[:] = wrong
    for job in range(30):
        run(pool, job, with_light(cell(job)))
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(30)}


def test_the_time_without_an_answer_grows_until_there_is_one(tmp_path: Path) -> None:
    reached, looked = threading.Event(), threading.Event()

    def hold_the_first(job: int) -> None:
        if job == 0:
            reached.set()
            assert looked.wait(30)

    results = Results(hold_the_first)
    pool = pool_of(light_detector(), results, tmp_path, 2)
    assert pool.stalled_seconds() == 0
    run(pool, 0, gray(20))
    assert reached.wait(30)
    # OpenVINO's CPU device calls back on one thread: the second cannot be answered meanwhile.
    run(pool, 1, gray(20))
    ages = [pool.stalled_seconds() for _ in range(2)]
    assert pool.num_running == 2
    looked.set()
    pool.drain()
    assert 0 < ages[0] < ages[1]
    assert results.errors == []
    assert pool.stalled_seconds() == 0


CPU_ONLY = ["CPU"]
TWO_GPUS = ["CPU", "GPU.0", "GPU.1"]


@pytest.mark.parametrize(
    ("device", "available"),
    [
        ("CPU", CPU_ONLY),
        ("AUTO", CPU_ONLY),
        ("AUTO:CPU", CPU_ONLY),
        ("MULTI:CPU", CPU_ONLY),
        ("BATCH:CPU(4)", CPU_ONLY),
        ("AUTO:-GPU", CPU_ONLY),
        ("AUTO:-GPU,-NPU", CPU_ONLY),
        ("GPU", TWO_GPUS),
        ("GPU.1", TWO_GPUS),
        ("AUTO:GPU,CPU", TWO_GPUS),
        ("AUTO:GPU.1,CPU", TWO_GPUS),
        ("AUTO:-GPU.0", TWO_GPUS),
        ("MULTI:GPU.0,GPU.1", TWO_GPUS),
        ("HETERO:GPU,CPU", TWO_GPUS),
        ("BATCH:GPU(4)", TWO_GPUS),
        ("BATCH:GPU.1(16)", TWO_GPUS),
    ],
)
def test_a_device_that_is_there_is_accepted(device: str, available: list[str]) -> None:
    require_device(device, available)


@pytest.mark.parametrize(
    ("device", "available", "missing"),
    [
        ("GPU", CPU_ONLY, "GPU"),
        ("GPU.1", CPU_ONLY, "GPU.1"),
        ("GPU.2", TWO_GPUS, "GPU.2"),
        ("AUTO:GPU,CPU", CPU_ONLY, "GPU"),
        ("MULTI:CPU,NPU", TWO_GPUS, "NPU"),
        ("HETERO:NPU,GPU", CPU_ONLY, "NPU, GPU"),
        ("BATCH:GPU(4)", CPU_ONLY, "GPU"),
        ("BATCH:NPU", TWO_GPUS, "NPU"),
        ("cpu", CPU_ONLY, "cpu"),
        ("-", CPU_ONLY, "-"),
        ("", CPU_ONLY, ""),
        ("CPU:GPU", CPU_ONLY, "CPU:GPU"),
        ("nonsense", TWO_GPUS, "nonsense"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(
    device: str, available: list[str], missing: str
) -> None:
    with pytest.raises(UsageError) as caught:
        require_device(device, available)
    assert f"device {missing} is not on this machine" in str(caught.value)
    assert f"it has: {', '.join(available)}" in str(caught.value)


@pytest.mark.parametrize("device", ["AUTO", "AUTO:CPU", "MULTI:CPU", "BATCH:CPU(4)", "AUTO:-NPU"])
def test_what_is_accepted_also_compiles(tmp_path: Path, device: str) -> None:
    options = InferOptions(device=device, precision="f32")
    results = Results()
    compiled = compile_model(light_detector(), options, tmp_path)
    pool = InferPool(compiled, 2, results.done, results.failed)
    run(pool, 5, with_light(cell(5)))
    pool.drain()
    assert results.brightest == {5: cell(5)}


@pytest.mark.parametrize("device", ["NPU.9", "MULTI", "HETERO", "BATCH", "AUTO:CPU(0)"])
def test_a_device_that_cannot_work_is_one_clear_error(tmp_path: Path, device: str) -> None:
    with pytest.raises(PipelineError, match=device.partition(":")[0]) as caught:
        compile_model(light_detector(), InferOptions(device=device), tmp_path)
    assert isinstance(caught.value, UsageError | ModelError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("hint", ["THROUGHPUT", "LATENCY", "CUMULATIVE_THROUGHPUT", "NONE"])
def test_the_hint_reaches_openvino(tmp_path: Path, hint: str) -> None:
    device = "AUTO" if hint == "CUMULATIVE_THROUGHPUT" else "CPU"
    options = InferOptions(hint=hint, device=device, precision="f32")
    compiled = compile_model(light_detector(), options, tmp_path)
    found = str(compiled.get_property("PERFORMANCE_HINT")).rpartition(".")[2]
    assert found == ("LATENCY" if hint == "NONE" else hint)


def test_streams_and_requests_reach_openvino(tmp_path: Path) -> None:
    options = InferOptions(num_streams=2, num_requests=5, precision="f32")
    compiled = compile_model(light_detector(), options, tmp_path)
    assert compiled.get_property("NUM_STREAMS") == 2
    assert len(InferPool(compiled, options.num_requests, lambda *_: None, lambda _: None)) == 5


def test_a_precision_asked_for_is_taken() -> None:
    assert resolved_precision("f32") == "f32"
    assert resolved_precision("bf16") == "bf16"


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "f32")])
def test_the_automatic_precision_is_the_one_that_is_fast_here(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str
) -> None:
    monkeypatch.setattr("pipeline.infer.has_native_bf16", lambda: native)
    assert resolved_precision("auto") == precision
