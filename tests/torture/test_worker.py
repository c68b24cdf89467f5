"""The worker fails, hangs or is killed, by the hundred."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.config import InferOptions
from pipeline.core.machine import available_cores
from pipeline.core.work_folder import WORK_NAME
from pipeline.execution.journal import Journal
from pipeline.inference.engine import Pool
from pipeline.inference.openvino import load_engine
from tests.conftest import prepared_light_detector, write_clip
from tests.recordings import numbered
from tests.resuming import KEYS, SEGMENT_SECONDS, results

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

PROJECT = Path(__file__).resolve().parents[2]
NUM_FRAMES = 120
STEPS = ("decode", "preprocess", "callback", "postprocess", "annotate", "encode", "write")
MOST_SECONDS = 10.0
NUM_KILLS = 50

Clip = tuple[Path, tuple[bytes, bytes], list[str], float]


def command(clip: Path, out: Path, weights: Path, *options: str) -> list[str]:
    usual = ("--weights", weights, "--output-dir", out, "--precision", "f32", *options)
    return ["process", *map(str, (clip, *usual))]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own, of which nothing is left afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def session_is_empty(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Clip:
    """A clip, what a clean run in six segments gives, its options, and how long it takes."""
    folder = tmp_path_factory.mktemp("clip")
    path = write_clip(folder / "clip.mp4", [numbered(i) for i in range(NUM_FRAMES)], options=KEYS)
    options = ["--segment-seconds", str(SEGMENT_SECONDS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name in ("cold", "clean"):
            begin = time.monotonic()
            arguments = command(path, folder / name, tiny_weights, *options)
            subprocess.run([sys.executable, "-m", "pipeline", *arguments], cwd=PROJECT, check=True)
            seconds = time.monotonic() - begin
    return path, results(folder / "clean"), options, seconds


def final_files(out: Path) -> list[str]:
    return [path.name for path in out.glob("*") if path.name != WORK_NAME]


def raise_in(step: str, frame: int, source: Path, out: Path, weights: Path) -> None:
    faulty = ("tests.faulty", "raise", step, str(frame))
    with started(*faulty, *command(source, out, weights)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("reached ")
        reached = time.monotonic()
        words = process.stderr.read()
        assert process.wait() == 1
        seconds = time.monotonic() - reached
        assert seconds < MOST_SECONDS, f"{seconds:.1f} s"
        assert session_is_empty(process.pid)
    named = {"callback": r"callback of frame \d+"}.get(step, f"{step} of frame {frame}")
    assert re.search(rf"{re.escape(str(source))}: {named} failed", words), words
    assert not out.exists()


def test_exceptions(
    clip: Clip, tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]
) -> None:
    with fault(
        "exception in a step",
        "in each, at the first, a middle and the last frame, 100 seeds",
        "exit within 10 s, step and frame named; no process and no file left",
    ) as row:

        def one(seed: int) -> None:
            rng = random.Random(seed)
            step = STEPS[seed % len(STEPS)]
            frame = rng.choice([0, rng.randrange(1, NUM_FRAMES - 1), NUM_FRAMES - 1])
            with row.attempt(f"seed {seed}, {step} of frame {frame}"):
                raise_in(step, frame, clip[0], tmp_path / f"out-{seed}", tiny_weights)

        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(one, range(100)))


def test_requests(
    clip: Clip, tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]
) -> None:
    with fault(
        "a request that never answers, pictures of the wrong shape",
        "callback held up at 5 frames; 1,000 wrong shapes",
        "exit within 10 s with the frame named; the pool stays whole",
    ) as row:
        for frame in (0, 1, 40, 80, NUM_FRAMES - 1):
            with row.attempt(f"stalled at frame {frame}"):
                out = tmp_path / f"out-{frame}"
                faulty = ("tests.faulty", "hang", "callback", str(frame))
                limit = ("--stall-seconds", "4")
                with started(*faulty, *command(clip[0], out, tiny_weights, *limit)) as process:
                    assert process.stdout is not None
                    assert process.stderr is not None
                    process.stdout.readline()
                    reached = time.monotonic()
                    words = process.stderr.read()
                    assert process.wait() == 1
                    assert time.monotonic() - reached < MOST_SECONDS
                    assert session_is_empty(process.pid)
                assert re.search(
                    r"of frame \d+ failed: the model did not answer within 4 s", words
                ), words
                assert not out.exists()
        prepared = prepared_light_detector(tmp_path)
        done: list[int] = []
        engine = load_engine(prepared, InferOptions(precision="f32", num_requests=2))
        pool: Pool[int] = engine.open_pool(lambda job, *_: done.append(job), lambda error: None)
        wrong = np.zeros((7, 7, 3), np.uint8)
        for _ in range(1000):
            with row.attempt("wrong shape"), pytest.raises(ValueError, match="broadcast"):
                pool.next_input()[:] = wrong
        with row.attempt("afterwards"):
            for job in range(50):
                pool.next_input()[:] = 0
                pool.submit(job)
            pool.drain()
            assert sorted(done) == list(range(50))


def kill_and_resume(
    clip: Clip, out: Path, weights: Path, seed: int, kill: Callable[[subprocess.Popen[str]], bool]
) -> int:
    """Returns the number of segments that were there to go on from."""
    source, clean, options, seconds = clip
    arguments = command(source, out, weights, *options)
    with started("pipeline", *arguments) as process:
        time.sleep(random.Random(seed).uniform(0.2, 1.1) * seconds)
        killed = kill(process)
        process.communicate()
        assert process.returncode == 0 or killed
    kept = Journal(out / WORK_NAME).num_done
    if (out / "annotated.mp4").exists():
        # It comes last: whatever killed the run then found it complete.
        assert results(out) == clean
        assert {"report.json", "report.html"} < set(final_files(out))
        if not kept:
            shutil.rmtree(out)
            return 0
    subprocess.run([sys.executable, "-m", "pipeline", *arguments], cwd=PROJECT, check=True)
    assert results(out) == clean
    assert not (out / WORK_NAME).exists()
    said = re.search(r'"done_before": (\d+)', (out / "report.json").read_text())
    assert said is not None
    assert int(said[1]) == kept, f"{kept} were kept, {said[1]} were used"
    shutil.rmtree(out)
    return kept


def worker_of(process: subprocess.Popen[str]) -> int | None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(OSError, IndexError):
        return int(children.read_text().split()[0])
    return None


def kill_worker(process: subprocess.Popen[str]) -> bool:
    while process.poll() is None:
        pid = worker_of(process)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def kill_tree(process: subprocess.Popen[str]) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        return True
    return False


@pytest.mark.parametrize(
    ("name", "kill"), [("the worker", kill_worker), ("the whole tree", kill_tree)]
)
def test_kills(
    clip: Clip,
    tmp_path: Path,
    tiny_weights: Path,
    fault: Callable[..., Any],
    name: str,
    kill: Callable[[subprocess.Popen[str]], bool],
) -> None:
    with fault(
        f"SIGKILL of {name}",
        f"at {NUM_KILLS} random moments, then the same command again",
        "no clip under its final name until it is right; the result is that of a clean run, byte "
        "for byte; only the segment that was cut is redone",
    ) as row:
        kept: list[int] = []

        def one(seed: int) -> None:
            out = tmp_path / f"out-{seed}"
            with row.attempt(f"seed {seed}"):
                kept.append(kill_and_resume(clip, out, tiny_weights, seed, kill))

        with ThreadPoolExecutor(available_cores()) as pool:
            list(pool.map(one, range(NUM_KILLS)))
        row.measured = f"{sum(number > 0 for number in kept)} runs had segments to resume from"
