"""Work for processes side by side; in a module that a new interpreter loads in a moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import ModelError
from pipeline.core.machine import available_cores
from pipeline.core.position import Position, Step
from pipeline.core.progress import Progress, ProgressCallback


@dataclass(frozen=True)
class Answer:
    process_id: int
    cores: int


def work(order: str, on_progress: ProgressCallback, position: Position) -> Answer:
    """Do as told."""
    word, _, argument = order.partition(" ")
    if word == "die" or (word == "die-once" and not Path(argument).exists()):
        if argument:
            Path(argument).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "hang":
        threading.Event().wait()
    elif word == "wait":
        while not Path(argument).exists():
            position.encoding.enter(Step.WAIT_TURN)
            time.sleep(0.01)
    elif word == "mark":
        Path(argument).touch()
    elif word == "fail":
        raise ModelError(argument)
    elif word == "frames":
        for number in range(1, int(argument) + 1):
            on_progress(Progress("frames", number, int(argument)))
    return Answer(os.getpid(), available_cores())
