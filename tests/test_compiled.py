"""The one owner of OpenVINO's objects: nothing hangs, whoever drops what, and whenever."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.config import InferOptions
from pipeline.core.errors import InferenceError
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.inference.models import Models
from pipeline.inference.openvino import InferPool, OpenVinoEngine
from pipeline.model.compiled import Compiled, compile_for
from pipeline.model.quantization import Quantization
from tests.commands import run
from tests.conftest import light_detector, prepared_light_detector

OPTIONS = InferOptions(precision="f32", num_requests=2)


def ignore(job: int, heads: Heads, latency_seconds: float) -> None: ...


def unexpected(error: BaseException) -> None:
    pytest.fail(str(error))


def ends(engine: Engine) -> threading.Event:
    """Set when the model is gone."""
    assert isinstance(engine, OpenVinoEngine)
    return engine.compiled._owned.ended


def infer(pool: Pool[int], num_jobs: int = 4) -> None:
    for job in range(num_jobs):
        pool.next_input()[:] = job
        pool.submit(job)
    pool.drain()


def open_engine(folder: Path) -> OpenVinoEngine:
    return OpenVinoEngine(prepared_light_detector(folder), OPTIONS)


def test_a_closed_engine_is_gone_and_says_so(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    with engine, engine.open_pool(ignore, unexpected) as pool:
        infer(pool)
    assert ends(engine).is_set()
    with pytest.raises(InferenceError, match="closed"):
        pool.next_input()
    with pytest.raises(InferenceError, match="closed"):
        engine.open_pool(ignore, unexpected)
    with pytest.raises(InferenceError, match="closed"):
        engine.compiled.infer()
    engine.close()
    pool.close()


@pytest.mark.parametrize("closes_pool", [False, True])
def test_what_is_dropped_without_close_ends_all_the_same(tmp_path: Path, closes_pool: bool) -> None:
    engine = open_engine(tmp_path)
    ended, pool = ends(engine), engine.open_pool(ignore, unexpected)
    infer(pool)
    if closes_pool:
        pool.close()
    del engine
    assert not ended.wait(0.1) or closes_pool
    del pool
    assert ended.wait(30)


def test_a_pool_dropped_while_its_requests_run_ends_after_them(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    reached, go_on, ended = threading.Event(), threading.Event(), ends(engine)

    def hold(job: int, heads: Heads, latency_seconds: float) -> None:
        reached.set()
        assert go_on.wait(30)

    pool: InferPool[int] = engine.open_pool(hold, unexpected)
    pool.next_input()
    pool.submit(0)
    assert reached.wait(30)
    del pool, engine
    gc.collect()
    assert not ended.wait(0.1)
    go_on.set()
    assert ended.wait(30)


def test_an_engine_closed_before_its_pool_ends_with_the_pool(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    with engine.open_pool(ignore, unexpected) as pool:
        engine.close()
        infer(pool)
        assert not ends(engine).is_set()
    assert ends(engine).is_set()


def test_a_callback_may_close_the_pool_and_the_engine(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    ended, done = ends(engine), threading.Event()

    def close(job: int, heads: Heads, latency_seconds: float) -> None:
        pool.close()  # It cannot be closed yet: this call is what runs.
        engine.close()
        done.set()

    pool: InferPool[int] = engine.open_pool(close, unexpected)
    pool.next_input()
    pool.submit(0)
    assert done.wait(30)
    assert ended.wait(30)


def test_a_request_that_hangs_holds_up_nobody_and_is_never_destroyed(
    tmp_path: Path,
) -> None:
    engine = open_engine(tmp_path)
    reached, go_on, ended = threading.Event(), threading.Event(), ends(engine)

    def hang(job: int, heads: Heads, latency_seconds: float) -> None:
        reached.set()
        assert go_on.wait(60)

    with engine, engine.open_pool(hang, unexpected) as pool:
        pool.next_input()
        pool.submit(0)
        assert reached.wait(30)
    assert pool.num_running == 1
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(30)


def test_an_exception_whose_traceback_is_kept_keeps_no_model(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    errors: list[BaseException] = []

    def fail(job: int, heads: Heads, latency_seconds: float) -> None:
        raise ValueError(job)

    with engine, engine.open_pool(fail, errors.append) as pool:
        infer(pool)
    assert ends(engine).is_set()
    assert len(errors) == 4


def test_what_the_error_callback_raises_is_an_error_of_the_next_wait(
    tmp_path: Path,
) -> None:
    engine = open_engine(tmp_path)

    def fail(job: int, heads: Heads, latency_seconds: float) -> None:
        raise ValueError(job)

    def fail_too(error: BaseException) -> None:
        raise RuntimeError("no room")

    with (
        engine,
        engine.open_pool(fail, fail_too) as pool,
        pytest.raises(InferenceError, match="a callback failed: no room"),
    ):
        infer(pool)


def test_outputs_outlive_their_requests(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    kept: list[np.ndarray[Any, Any]] = []

    def keep(job: int, heads: Heads, latency_seconds: float) -> None:
        kept.extend(heads)

    with engine, engine.open_pool(keep, unexpected) as pool:
        infer(pool)
    assert ends(engine).is_set()
    assert all(np.isfinite(head).all() for head in kept)


def test_callers_that_wait_for_no_callback_own_their_model_too() -> None:
    with Compiled(lambda: compile_for(light_detector(), "CPU", {})) as compiled:
        dark, light = (compiled.infer(np.full((1, 96, 128, 3), v, np.uint8)) for v in (0, 255))
        assert dark[0].max() < light[0].max()
    assert compiled._owned.ended.is_set()


def test_a_model_that_cannot_be_compiled_leaves_no_thread_behind() -> None:
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="NOTHING"):
        Compiled(lambda: compile_for(light_detector(), "NOTHING", {}))
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_models_close_what_was_used_longest_ago_and_nothing_that_is_used(tmp_path: Path) -> None:
    prepared = [prepared_light_detector(tmp_path) for _ in range(6)]
    with Models() as models:
        with models.engine(prepared[0], OPTIONS) as first:
            for one in prepared[1:5]:
                with models.engine(one, OPTIONS) as engine:
                    assert not ends(engine).is_set()
            assert not ends(first).is_set()
            with first.open_pool(ignore, unexpected) as pool:
                infer(pool)
        assert ends(first).is_set()
        with models.engine(prepared[4], OPTIONS) as same:
            assert same is engine
            assert not ends(engine).is_set()
    assert ends(engine).is_set()


def test_an_engine_is_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    pool: InferPool[int] = engine.open_pool(ignore, unexpected)
    infer(pool)
    pool.close()
    gone = weakref.ref(pool), weakref.ref(engine)
    gc.disable()
    try:
        del pool, engine
        assert [ref() for ref in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["runs", "hangs"])
def test_the_interpreter_ends_whatever_is_open(tmp_path: Path, how: str) -> None:
    ended = run(how, tmp_path, module="tests.at_exit", timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""


@contextmanager
def all_cores_busy() -> Iterator[None]:
    command = [sys.executable, "-c", "while True: pass"]
    programs = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def rounds(what: str, number: int, folder: Path, seconds: float) -> dict[str, Any]:
    """What `tests.rounds` prints; a hang fails with the stacks of all threads."""
    ended = run(what, number, number, folder, module="tests.rounds", timeout=seconds)
    assert ended.returncode == 0, ended.stderr
    record: dict[str, Any] = json.loads(ended.stdout)
    assert sum(record["rounds"].values()) == number
    return record


def test_rounds_of_opening_failing_and_dropping_do_not_hang(tmp_path: Path) -> None:
    record = rounds("engines", 60, tmp_path, 200)
    assert record["grown_mb"] < 100


def test_runs_that_fail_or_are_interrupted_do_not_hang(tmp_path: Path) -> None:
    record = rounds("runs", 12, tmp_path, 200)
    assert record["grown_mb"] < 100


@pytest.mark.torture
@pytest.mark.timeout(4 * 3600)
def test_20000_rounds_on_busy_cores_neither_hang_nor_grow(tmp_path: Path) -> None:
    with all_cores_busy():
        record = rounds("engines", 20_000, tmp_path, 4 * 3600)
    assert record["grown_mb"] < 50, record
    assert record["num_threads"] < 100, record


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_300_runs_on_busy_cores_neither_hang_nor_grow(tmp_path: Path) -> None:
    with all_cores_busy():
        record = rounds("runs", 300, tmp_path, 3600)
    assert record["grown_mb"] < 50, record


def test_three_sizes_in_turns_keep_their_engines_in_int8_and_in_float(tmp_path: Path) -> None:
    """As a batch of clips of three sizes in INT8 takes them: each is compared with float."""
    sizes = [prepared_light_detector(tmp_path / str(number)) for number in range(3)]
    as_int8 = Quantization(calibrated_on="nothing", folder=tmp_path, accuracy=None)
    both = [[dataclasses.replace(size, quantization=as_int8), size] for size in sizes]
    with Models() as models:
        rounds = []
        for _ in range(2):
            engines = []
            for prepared in (model for pair in both for model in pair):
                with models.engine(prepared, OPTIONS) as engine:
                    engines.append(engine)
            rounds.append(engines)
        assert len(set(map(id, rounds[0]))) == 6
        assert all(first is again for first, again in zip(*rounds, strict=True))
