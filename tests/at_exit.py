"""Ends while an engine is open: python -m tests.at_exit runs FOLDER, or hangs FOLDER."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from pipeline.core.config import InferOptions
from pipeline.inference.engine import Heads
from pipeline.inference.openvino import InferPool, OpenVinoEngine
from tests.conftest import prepared_light_detector

_open: list[object] = []


def _show(error: BaseException) -> None:
    sys.stderr.write(str(error))


def main() -> None:
    """Leave a pool whose requests run, or whose callback hangs, to the end of the interpreter."""
    how, folder = sys.argv[1:]
    reached = threading.Event()

    def done(job: int, heads: Heads, seconds: float) -> None:
        reached.set()
        if how == "hangs":
            threading.Event().wait()

    options = InferOptions(precision="f32")
    engine = OpenVinoEngine(prepared_light_detector(Path(folder)), options)
    pool: InferPool[int] = engine.open_pool(done, _show)
    _open.extend((engine, pool))
    for job in range(1 if how == "hangs" else 20):
        pool.next_input()[:] = job
        pool.submit(job)
    assert reached.wait(30)


if __name__ == "__main__":
    main()
