"""An actor for tests of the pool of actors; in a module that nodes load in a moment."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.core.errors import ModelError, PipelineError, WorkerDied


class Toy:
    """An actor that does as it is told, and leaves a line for every start."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._node = ""

    def start(self, node: str) -> PipelineError | None:
        self._node = node
        with self._log.open("a") as log:
            log.write(node + "\n")
        return None

    def run(self, order: str) -> str | PipelineError:
        if order == "die":
            os._exit(1)
        if order == "hang":
            return WorkerDied("it hangs")
        if order == "fail":
            return ModelError("no")
        if order == "raise":
            raise ValueError("out of order")
        if order.startswith("read "):
            Path(order.removeprefix("read ")).read_bytes()  # Until it is written to and closed.
        return self._node
