"""Opens the engine, infers, fails and drops everything at random, again and again.

    python -m tests.rounds engines ROUNDS SEED FOLDER    pools and engines
    python -m tests.rounds runs ROUNDS SEED FOLDER       whole runs of `process_video`

Prints a line of JSON when it is through. A round that stands still ends the process, with the
stacks of all threads, also where a library holds the GIL.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import gc
import json
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from pipeline.core.config import InferOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import PipelineError
from pipeline.core.machine import thread_ids
from pipeline.core.progress import Progress
from pipeline.inference.engine import Heads
from pipeline.inference.openvino import InferPool, OpenVinoEngine
from pipeline.run import process as run_module
from tests.conftest import light_detector, prepared_light_detector

STALL_SECONDS = 120
_WARM_SHARE = 0.25
_KINDS = ("none", "callback", "on_error", "wrong shape", "consumer", "not drained", "interrupt")


class Fault(Exception):
    """Raised on purpose."""


@contextlib.contextmanager
def interrupted_within(seconds: float) -> Iterator[None]:
    """A KeyboardInterrupt, at whatever the main thread does by then."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        # From CPython's `threading.Condition.wait`, interrupted before it has its lock again.
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def infer_some(pool: InferPool[int], kind: str, chance: random.Random) -> None:
    for job in range(chance.randrange(12)):
        if kind == "wrong shape":
            with contextlib.suppress(ValueError):
                pool.next_input()[:] = np.zeros((7, 7, 3), np.uint8)
        pool.next_input()[:] = job
        pool.submit(job)
        if kind == "consumer" and job == 3:
            raise Fault(job)
    if kind != "not drained":
        pool.drain()


class EngineRound:
    """One engine with one to three pools, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._prepared = prepared_light_detector(folder)
        self.kept: collections.deque[object] = collections.deque(maxlen=8)

    def __call__(self, kind: str, chance: random.Random) -> None:
        options = InferOptions(
            precision="f32",
            num_requests=chance.choice([None, 1, 3]),
            num_streams=chance.choice([None, 1, 2]),
            batch=chance.choice([1, 1, 2]),
        )
        engine = OpenVinoEngine(self._prepared, options)
        for _ in range(chance.randrange(1, 4)):
            pool: InferPool[int] = engine.open_pool(
                lambda job, heads, seconds: self._done(kind, job, heads), self._on_error(kind)
            )
            try:
                infer_some(pool, kind, chance)
            except (Fault, PipelineError) as error:
                self.kept.append(error)  # Its traceback keeps frames, and they the pool.
            if chance.random() < 0.5:
                pool.close()
        if chance.random() < 0.5:
            engine.close()

    def _done(self, kind: str, job: int, heads: Heads) -> None:
        if job == 5:
            self.kept.append(heads[0])  # Against the rules: a view that outlives its request.
        if kind in ("callback", "on_error") and job == 2:
            raise Fault(job)

    def _on_error(self, kind: str) -> Any:
        def failed(error: BaseException) -> None:
            self.kept.append(error)
            if kind == "on_error":
                raise Fault("on_error")

        return failed


class RunRound:
    """A run of `process_video` on a few frames of the scene."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._weights = folder / "light.xml"
        ov.save_model(light_detector(), self._weights, compress_to_fp16=False)

    def __call__(self, kind: str, chance: random.Random) -> None:
        fails_at = chance.randrange(12)

        def on_progress(progress: Progress) -> None:
            if kind in ("callback", "consumer") and progress.done == fails_at:
                raise Fault(progress.done)

        config = ProcessConfig(
            source=SyntheticOptions(num_frames=12, size_wh=(128, 96)),
            output_dir=self._folder / "output",
            weights=self._weights,
            overwrite=True,
            infer=InferOptions(precision="f32"),
        )
        with contextlib.suppress(PipelineError, Fault):
            run_module.process_video(config, on_progress)


def main() -> None:
    what, num_rounds, seed, folder = sys.argv[1:]
    faulthandler.enable()
    chance = random.Random(int(seed))
    take = EngineRound(Path(folder)) if what == "engines" else RunRound(Path(folder))
    counts: collections.Counter[str] = collections.Counter()
    longest_interrupt = {"engines": 0.05, "runs": 0.5}[what]
    warm_mb, started = 0.0, time.monotonic()
    for number in range(int(num_rounds)):
        faulthandler.dump_traceback_later(STALL_SECONDS, exit=True)
        kind = chance.choice(_KINDS) if number else "none"
        if kind == "interrupt":
            with interrupted_within(chance.uniform(0.0005, longest_interrupt)):
                take(kind, chance)
        else:
            take(kind, chance)
        counts[kind] += 1
        if number == int(_WARM_SHARE * int(num_rounds)):
            gc.collect()
            warm_mb = resident_mb()
    if isinstance(take, EngineRound):
        take.kept.clear()
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "openvino-end":
            thread.join()  # What was dropped last ends beside this thread.
    faulthandler.cancel_dump_traceback_later()
    record = {
        "rounds": dict(counts),
        "seconds": round(time.monotonic() - started, 1),
        "grown_mb": round(resident_mb() - warm_mb, 1),
        "num_threads": len(thread_ids()),
    }
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
