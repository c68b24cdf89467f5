"""Work for workers of tests; in a module that a new interpreter loads in a moment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import EncodeError, InputError
from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback


def count_to_five(_: ProcessConfig, on_progress: ProgressCallback, position: Position) -> object:
    for i in range(1, 6):
        position.encoding.frame_index = i
        on_progress(Progress("counting", i, 5))
    return {"pid": os.getpid(), "counted": 5}


def fail_to_encode(*_: object) -> None:
    error = EncodeError("too hard")
    error.file, error.step, error.frame_index = "clip.mp4", "encode", 412
    raise error


def need_the_impossible(*_: object) -> None:
    class OfNobodyElseError(Exception):
        """Cannot be sent to another process."""

    raise OfNobodyElseError("secret")


def interrupt_the_parent(*_: object) -> str:
    # The signal is blocked here, so that this work ends as if it came when all was done.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.kill(os.getppid(), signal.SIGTERM)
    signal.sigwait({signal.SIGTERM})
    return "all done"


def process_id(*_: object) -> int:
    return os.getpid()


def ask_for_death(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Counting:
    """Work that remembers how often it was done in this process; some of it fails."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, config: ProcessConfig, *_: object) -> tuple[int, int]:
        self.times += 1
        how = config.source_name
        if how == "unreadable":
            raise InputError("no video")
        if how == "unexpected":
            raise ZeroDivisionError
        if how == "dead":
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), self.times


def begin_and_sleep(begun: str) -> None:
    Path(begun).touch()
    time.sleep(1000)


def leave_a_mark(folder: str) -> None:
    Path(folder, "ended").touch()


def resident_mb_while_processing(config: ProcessConfig) -> dict[int, float]:
    """The memory of the process after every 500 frames."""
    from pipeline.run.process import process_video

    page_bytes = os.sysconf("SC_PAGE_SIZE")
    resident_mb: dict[int, float] = {}

    def watch(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done % 500 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident_mb[progress.done] = pages * page_bytes / 1e6

    process_video(config, watch)
    return resident_mb
