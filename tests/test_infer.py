"""The pool of requests, and what can go wrong with it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from pipeline.core.config import InferOptions
from pipeline.core.errors import InferenceError, ModelError, PipelineError, UsageError
from pipeline.inference.engine import Heads
from pipeline.inference.openvino import (
    InferPool,
    OpenVinoEngine,
    compile_config,
    compile_model,
    load_engine,
    require_device,
    resolved_precision,
)
from pipeline.model.compiled import INFERENCE_NICENESS, Compiled
from pipeline.model.graph import with_batch
from tests.conftest import gray, light_detector, prepared_light_detector, with_light

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
    model: ov.Model, results: Results, cache: Path, num_requests: int = 3, batch: int = 1
) -> InferPool[int]:
    compiled = compile_model(with_batch(model, batch), OPTIONS, cache)
    return pool_on(compiled, num_requests, results.done, results.failed)


def pool_on(
    compiled: Compiled,
    num_requests: int,
    on_done: Callable[[int, Heads, float], None],
    on_error: Callable[[BaseException], None],
) -> InferPool[int]:
    return InferPool(compiled, num_requests, on_done, on_error)


def run(pool: InferPool[int], job: int, pixels: Any) -> None:
    pool.next_input()[:] = pixels
    pool.submit(job)


def fails_unless_the_level_is_good(batch: int = 1) -> ov.Model:
    """An inference that fails while it runs: it reshapes to as many values as pixels are bright."""
    image = ops.parameter([batch, 8, 8, 3], np.uint8, name="images")
    brightest = ops.reduce_max(ops.convert(image, "i64"), np.arange(4), keep_dims=False)
    darkest = ops.reduce_min(ops.convert(image, "i64"), np.arange(4), keep_dims=False)
    worst = ops.select(ops.equal(darkest, np.int64(BAD_LEVEL)), darkest, brightest)
    count = ops.reshape(worst, np.array([1]), False)
    first = ops.constant(np.array([batch, 1, 1], np.int64))
    values = ops.convert(ops.reshape(image, np.array([-1]), False), "f32")
    return ov.Model([ops.reshape(values, ops.concat([first, count], 0), False)], [image], "fails")


def cell(job: int) -> tuple[int, int]:
    return job % 16, job * 7 % 12


@pytest.mark.parametrize("num_requests", [1, 3, None])
def test_every_job_gets_the_result_of_its_own_input(
    tmp_path: Path, num_requests: int | None
) -> None:
    results = Results()
    options = InferOptions(precision="f32", num_requests=num_requests)
    engine = OpenVinoEngine(prepared_light_detector(tmp_path), options)
    pool = engine.open_pool(results.done, results.failed)
    optimal = engine.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    assert pool.num_requests == (2 * optimal if num_requests is None else num_requests)
    for job in range(200):
        run(pool, job, with_light(cell(job)))
        assert 0 <= pool.num_running <= pool.num_requests
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(200)}
    assert results.errors == []
    assert min(results.latencies) > 0
    assert pool.num_running == 0


BATCHES = [(1, 1), (1, 4), (2, 3), (3, 8)]


@pytest.mark.parametrize("num_jobs", [1, 24, 50])
@pytest.mark.parametrize(("num_requests", "batch"), BATCHES)
def test_of_a_batch_every_job_gets_its_own_result_and_its_padding_is_dropped(
    tmp_path: Path, num_requests: int, batch: int, num_jobs: int
) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path, num_requests, batch)
    assert (pool.num_requests, pool.batch) == (num_requests, batch)
    for job in range(num_jobs):
        run(pool, job, with_light(cell(job)))
        assert pool.num_running <= num_requests
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(num_jobs)}
    assert len(results.latencies) == num_jobs
    assert results.errors == []
    assert pool.num_running == 0


def test_a_batch_runs_when_it_is_full_and_not_before(tmp_path: Path) -> None:
    all_done = threading.Event()

    def count_down(job: int) -> None:
        if job == 3:
            all_done.set()

    results = Results(count_down)
    pool = pool_of(light_detector(), results, tmp_path, 2, 4)
    for job in range(3):
        run(pool, job, with_light(cell(job)))
        assert pool.num_running == 0
    run(pool, 3, with_light(cell(3)))
    assert all_done.wait(30)
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(4)}


def test_a_flush_runs_what_a_batch_holds_so_far(tmp_path: Path) -> None:
    both = threading.Event()
    results = Results(lambda job: both.set() if job == 1 else None)
    pool = pool_of(light_detector(), results, tmp_path, 2, 4)
    pool.flush()
    assert pool.num_running == 0
    for job in range(2):
        run(pool, job, with_light(cell(job)))
    pool.flush()
    assert both.wait(30)
    pool.flush()
    for job in range(2, 9):
        run(pool, job, with_light(cell(job)))
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(9)}
    assert len(results.latencies) == 9


def test_a_flush_after_looking_for_a_place_leaves_that_place_alone(tmp_path: Path) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path, 2, 2)
    run(pool, 0, with_light(cell(0)))
    pool.next_input()[:] = with_light(cell(9))  # Written, but not submitted.
    pool.flush()
    pool.flush()
    run(pool, 1, with_light(cell(1)))
    pool.drain()
    assert results.brightest == {0: cell(0), 1: cell(1)}


@pytest.mark.parametrize(("num_requests", "batch"), BATCHES)
def test_what_was_submitted_last_rests_until_the_next_is_submitted(
    tmp_path: Path, num_requests: int, batch: int
) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path, num_requests, batch)
    last = np.zeros(0, np.uint8)
    for job in range(60):
        pixels = pool.next_input()
        pixels[:] = with_light(cell(job))
        assert pool.next_input() is pixels or np.shares_memory(pool.next_input(), pixels)
        if job:
            np.testing.assert_array_equal(last, with_light(cell(job - 1)))
            assert not np.shares_memory(last, pixels)
        if job % 7 == 0:
            pool.flush()
            pool.next_input()[:] = with_light(cell(job))
            if job:
                np.testing.assert_array_equal(last, with_light(cell(job - 1)))
        last = pool.next_input()
        pool.submit(job)
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(60)}


def test_a_pool_that_was_drained_can_be_used_again(tmp_path: Path) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path)
    pool.drain()
    for job in range(6):
        run(pool, job, with_light(cell(job)))
        pool.drain()
        assert results.brightest[job] == cell(job)


@pytest.mark.parametrize("batch", [1, 3])
def test_inputs_begin_as_padding(tmp_path: Path, batch: int) -> None:
    pool = pool_of(light_detector(), Results(), tmp_path, 2, batch)
    for job in range(3 * batch):  # One buffer more than there are requests.
        pixels = pool.next_input()
        assert pixels.shape == (96, 128, 3)
        assert pixels.dtype == np.uint8
        assert (pixels == 114).all()
        pixels[:] = 3
        pool.submit(job)
    pool.drain()


def test_a_pool_that_nobody_needs_any_more_is_let_go_and_its_model_with_it(tmp_path: Path) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path)
    run(pool, 0, with_light(cell(0)))
    pool.drain()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None


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


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_requests", [1, 2, 4])
def test_an_inference_that_fails_is_an_error_of_a_later_wait(
    tmp_path: Path, num_requests: int, batch: int
) -> None:
    model = fails_unless_the_level_is_good(batch)
    pool = pool_of(model, Results(), tmp_path, num_requests, batch)
    run(pool, 0, BAD_LEVEL)

    def go_on() -> None:
        for job in range(1, 20 * batch):
            run(pool, job, GOOD_LEVEL)
        pool.drain()

    with pytest.raises(InferenceError, match="inference failed") as caught:
        go_on()
    assert "\n" not in str(caught.value)
    assert pool.num_requests == num_requests


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


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_good", [0, 1, 5])
def test_an_inference_that_fails_is_an_error_of_the_drain(
    tmp_path: Path, num_good: int, batch: int
) -> None:
    pool = pool_of(fails_unless_the_level_is_good(batch), Results(), tmp_path, 2, batch)
    for job in range(num_good):
        run(pool, job, GOOD_LEVEL)
    run(pool, num_good, BAD_LEVEL)
    for _ in range(2):
        with pytest.raises(InferenceError, match="inference failed") as caught:
            pool.drain()
        assert "\n" not in str(caught.value)
    assert pool.num_requests == 2


@pytest.mark.parametrize("batch", [1, 3])
def test_inferences_that_do_not_fail_give_the_model_that_sometimes_does(
    tmp_path: Path, batch: int
) -> None:
    done: list[int] = []
    errors: list[BaseException] = []
    compiled = compile_model(fails_unless_the_level_is_good(batch), OPTIONS, tmp_path)
    pool = pool_on(compiled, 2, lambda job, *_: done.append(job), errors.append)
    for job in range(20):
        run(pool, job, GOOD_LEVEL)
    pool.flush()
    pool.drain()
    assert sorted(done) == list(range(20))
    assert errors == []


@pytest.mark.parametrize("shape", [(96, 64, 3), (48, 128, 3), (96, 128, 4), (2, 96, 128, 3)])
def test_a_picture_of_the_wrong_shape_never_costs_a_request(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    results = Results()
    pool = pool_of(light_detector(), results, tmp_path)
    wrong = np.zeros(shape, np.uint8)
    for _ in range(1000):
        with pytest.raises(ValueError, match="broadcast"):
            pool.next_input()[:] = wrong
    for job in range(30):
        run(pool, job, with_light(cell(job)))
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(30)}


def test_only_threads_that_infer_count_as_progress_of_inference(tmp_path: Path) -> None:
    def work(_: int) -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    results = Results(work)
    pool = pool_of(light_detector(), results, tmp_path, 2)
    spent = []
    # Threads of models that other tests left behind may end meanwhile, with what they had spent.
    for job in range(3):
        before = pool.cpu_seconds()
        work(0)
        idle = pool.cpu_seconds()
        run(pool, job, gray(20))
        pool.drain()
        spent.append((idle - before, pool.cpu_seconds() - idle))
    assert results.errors == []
    assert sorted(host for host, _ in spent)[1] < 0.1
    assert sorted(inference for _, inference in spent)[1] >= 0.2


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
    assert f"device {missing} is unavailable on this machine" in str(caught.value)
    assert f"devices are: {', '.join(available)}" in str(caught.value)


@pytest.mark.parametrize("device", ["AUTO", "AUTO:CPU", "MULTI:CPU", "BATCH:CPU(4)", "AUTO:-NPU"])
def test_what_is_accepted_also_compiles(tmp_path: Path, device: str) -> None:
    options = InferOptions(device=device, precision="f32")
    results = Results()
    compiled = compile_model(light_detector(), options, tmp_path)
    pool = pool_on(compiled, 2, results.done, results.failed)
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
    engine = OpenVinoEngine(prepared_light_detector(tmp_path), options)
    assert engine.compiled.get_property("NUM_STREAMS") == 2
    assert engine.open_pool(lambda *_: None, lambda _: None).num_requests == 5


@pytest.mark.parametrize("device", ["CPU", "AUTO", "BATCH:CPU(4)"])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_device_name_gives_every_job_its_own_result(
    tmp_path: Path, device: str, batch: int
) -> None:
    options = InferOptions(device=device, precision="f32", batch=batch)
    engine = load_engine(prepared_light_detector(tmp_path), options)
    assert engine.input_shape == (batch, 96, 128, 3)
    results = Results()
    pool = engine.open_pool(results.done, results.failed)
    assert pool.num_requests >= 2
    for job in range(50):
        pool.next_input()[:] = with_light(cell(job))
        pool.submit(job)
    pool.drain()
    assert results.brightest == {job: cell(job) for job in range(50)}
    assert results.errors == []
    facts = engine.facts()
    assert (facts["engine"], facts["device"], facts["precision"]) == ("openvino", device, "f32")


def test_facts_are_plain_values(tmp_path: Path) -> None:
    options = InferOptions(num_streams=1, num_threads=1, pinning=False, precision="f32")
    facts = OpenVinoEngine(prepared_light_detector(tmp_path), options).facts()
    assert json.loads(json.dumps(facts)) == {
        "engine": "openvino",
        "device": "CPU",
        "execution_devices": ["CPU"],
        "hint": "THROUGHPUT",
        "precision": "f32",
        "float_precision": "f32",
        "num_streams": 1,
        "num_threads": 1,
        "pinning": False,
    }


def held_to(cores: int, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pipeline.inference.openvino.has_core_quota", lambda: True)
    patch.setattr("pipeline.inference.openvino.available_cores", lambda: cores)


@pytest.mark.parametrize(
    "device", ["CPU", "AUTO", "AUTO:-GPU", "BATCH:CPU(4)", "MULTI:CPU", "HETERO:CPU"]
)
def test_a_quota_of_cores_is_kept_to_under_every_name_of_the_cpu(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_to(1, monkeypatch)
    options = InferOptions(device=device, precision="f32")
    assert compile_config(options)["INFERENCE_NUM_THREADS"] == "1"
    results = Results()
    pool = load_engine(prepared_light_detector(tmp_path), options).open_pool(
        results.done, results.failed
    )
    pool.next_input()[:] = with_light(cell(3))
    pool.submit(3)
    pool.drain()
    assert results.brightest == {3: cell(3)}


def test_a_number_of_threads_that_is_asked_for_goes_over_the_quota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held_to(1, monkeypatch)
    config = compile_config(InferOptions(num_threads=2, precision="f32"))
    assert config["INFERENCE_NUM_THREADS"] == "2"
    assert "INFERENCE_NUM_THREADS" not in compile_config(
        InferOptions(device="GPU", precision="f32")
    )


def test_without_a_quota_openvino_counts_the_cores_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.inference.openvino.has_core_quota", lambda: False)
    assert "INFERENCE_NUM_THREADS" not in compile_config(InferOptions(precision="f32"))


def test_a_precision_asked_for_is_taken() -> None:
    assert resolved_precision("f32") == "f32"
    assert resolved_precision("bf16") == "bf16"


@pytest.mark.parametrize("asked", ["auto", "int8"])
@pytest.mark.parametrize("fastest", ["bf16", "f32"])
def test_what_is_left_open_is_the_float_precision_that_is_fast_here(
    monkeypatch: pytest.MonkeyPatch, asked: str, fastest: str
) -> None:
    monkeypatch.setattr("pipeline.inference.openvino.fastest_float_precision", lambda: fastest)
    assert resolved_precision(asked) == fastest


@pytest.mark.parametrize(
    ("device", "available", "is_measured"),
    [
        ("CPU", ["CPU", "GPU"], True),
        ("BATCH:CPU(4)", ["CPU", "GPU"], True),
        ("AUTO:CPU", ["CPU", "GPU"], True),
        ("AUTO", ["CPU"], True),
        ("AUTO:-GPU", ["CPU", "GPU"], True),
        ("AUTO", ["CPU", "GPU"], False),
        ("AUTO:GPU,CPU", ["CPU", "GPU"], False),
        ("GPU", ["CPU", "GPU.0", "GPU.1"], False),
        ("GPU.1", ["CPU", "GPU.0", "GPU.1"], False),
        ("NPU", ["CPU", "NPU"], False),
        ("HETERO:NPU,CPU", ["CPU", "NPU"], False),
    ],
)
@pytest.mark.parametrize("asked", ["auto", "int8"])
def test_only_the_cpu_gets_the_float_precision_that_was_measured_on_it(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    available: list[str],
    is_measured: bool,
    asked: str,
) -> None:
    monkeypatch.setattr("pipeline.inference.openvino.fastest_float_precision", lambda: "bf16")
    monkeypatch.setattr("pipeline.inference.openvino.available_devices", lambda: tuple(available))
    assert resolved_precision(asked, device) == ("bf16" if is_measured else "auto")
    config = compile_config(InferOptions(device=device, precision=asked))
    assert config.get("INFERENCE_PRECISION_HINT") == ("bf16" if is_measured else None)


def test_a_gpu_gets_the_precision_that_was_asked_for() -> None:
    config = compile_config(InferOptions(device="GPU", precision="f32"))
    assert config["INFERENCE_PRECISION_HINT"] == "f32"


NICENESS = """
import os, sys, threading
from pathlib import Path
from pipeline.core.config import InferOptions
from pipeline.inference.openvino import OpenVinoEngine
from pipeline.core.machine import thread_ids
from tests.conftest import prepared_light_detector
prepared, before = prepared_light_detector(Path(sys.argv[1])), thread_ids()
engine = OpenVinoEngine(prepared, InferOptions(precision="f32"))
with engine, engine.open_pool(lambda *_: None, print) as pool:
    pool.next_input()
    pool.submit(0)
    pool.drain()
    inferring = thread_ids() - before - {thread.native_id for thread in threading.enumerate()}
    print({os.getpriority(os.PRIO_PROCESS, thread) for thread in inferring})
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has niceness of threads")
def test_the_threads_that_infer_make_room_for_those_that_decode_and_encode(tmp_path: Path) -> None:
    # In a new process: OpenVINO uses threads again, of models that are gone.
    own = os.getpriority(os.PRIO_PROCESS, 0)
    words = subprocess.run(
        [sys.executable, "-c", NICENESS, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[1],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert words.split() == [str({min(own + INFERENCE_NICENESS, 19)}), str(own)]


def queue_of(pool: InferPool[int]) -> object:
    return pool._requests._queue


def test_the_next_pool_takes_over_the_requests_and_answers_for_itself(tmp_path: Path) -> None:
    engine = OpenVinoEngine(prepared_light_detector(tmp_path), OPTIONS)
    first, second = Results(), Results()
    with engine, engine.open_pool(first.done, first.failed) as pool:
        queue = queue_of(pool)
        run(pool, 1, with_light((1, 1)))
        pool.drain()
        pool.close()
        with engine.open_pool(second.done, second.failed) as later:
            assert queue_of(later) is queue
            for job in range(20):
                run(later, job, with_light((job % 5, 0)))
            later.drain()
    assert first.brightest == {1: (1, 1)}
    assert second.brightest == {job: (job % 5, 0) for job in range(20)}
    assert first.errors + second.errors == []


def test_requests_of_a_pool_that_is_open_are_not_used_by_another(tmp_path: Path) -> None:
    engine = OpenVinoEngine(prepared_light_detector(tmp_path), OPTIONS)
    results = Results()
    pool: InferPool[int] = engine.open_pool(results.done, results.failed)
    queue = queue_of(pool)
    other: InferPool[int] = engine.open_pool(results.done, results.failed)
    assert queue_of(other) is not queue
    pool.close()
    again: InferPool[int] = engine.open_pool(results.done, results.failed)
    assert queue_of(again) is queue
