"""Whether a process makes progress, seen from outside and from within it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.core.config import EncodeOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import WorkerDied
from pipeline.core.machine import thread_ids
from pipeline.core.position import Position, Step
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog
from pipeline.frames.encode import require_decodable
from tests.conftest import gray, write_clip

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="only Linux tells what threads do"
)

LIMIT_SECONDS = 1.0
LOOKS = round(LIMIT_SECONDS / POLL_SECONDS)
ALLOWS_MORE = "; --stall-seconds allows more"
CONFIG = ProcessConfig(
    source=SyntheticOptions(), output_dir=Path("out"), stall_seconds=LIMIT_SECONDS
)


def at(step: Step) -> Position:
    position = Position()
    position.encoding.frame_index = 12
    position.encoding.enter(step)
    return position


@contextlib.contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has come to that code."""
    code = f"import os, sys; os.write(1, b'.')\n{code}"
    with subprocess.Popen(
        [sys.executable, "-ISc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        try:
            yield process
        finally:
            process.kill()


WAITS = "os.read(0, 1)"
SPINS = "while True: pass"
ECHOES = "while True: os.write(1, os.read(0, 1))"


def cpu_seconds(process_id: int) -> float:
    """As the kernel's clock of a process has it: see clock_getcpuclockid(3)."""
    return time.clock_gettime((~process_id << 3) | 2)


def until_at_rest(process_id: int) -> None:
    while Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        pass


def looks_until_hung(watchdog: Watchdog) -> tuple[int, str]:
    for number in range(1000):
        try:
            watchdog.look()
        except WorkerDied as error:
            return number + 1, str(error)
    raise AssertionError("it is not taken to hang")


@pytest.mark.parametrize(
    ("step", "times", "words"),
    [
        (Step.ENCODE, 1, f"encode of frame 12 failed: no progress for 1 s{ALLOWS_MORE}"),
        (Step.PREPARE, 1, f"no progress for 1 s (while preparing){ALLOWS_MORE}"),
        (Step.JOIN, 1, f"no progress for 1 s (encoding thread at join){ALLOWS_MORE}"),
        (
            Step.WAIT_CLUSTER,
            10,
            f"no progress for 10 s (encoding thread at wait cluster){ALLOWS_MORE}",
        ),
        # Of which the worker says more, if it can.
        (
            Step.WAIT_INFERENCE,
            2,
            f"no progress for 2 s (encoding thread at wait inference of frame 12){ALLOWS_MORE}",
        ),
    ],
)
def test_a_process_that_does_nothing_hangs_after_the_limit(
    step: Step, times: int, words: str
) -> None:
    with python(WAITS) as process:
        until_at_rest(process.pid)
        looks, error = looks_until_hung(Watchdog(process.pid, at(step), CONFIG))
    # What it did before it came to rest may be seen by the first look.
    assert times * LOOKS <= looks <= times * LOOKS + 1
    assert error == f"synthetic: {words}"


def test_a_heartbeat_or_a_message_begins_the_limit_anew() -> None:
    position = at(Step.ENCODE)
    with python(WAITS) as process:
        until_at_rest(process.pid)
        watchdog = Watchdog(process.pid, position, CONFIG)
        for _ in range(3):
            for _ in range(LOOKS - 1):
                watchdog.look()
            position.decoding.enter(Step.WAIT_IN_FLIGHT)
            watchdog.look()
            for _ in range(LOOKS - 1):
                watchdog.look()
            watchdog.progressed()
        assert LOOKS <= looks_until_hung(watchdog)[0] <= LOOKS + 1


def test_a_step_that_works_without_end_hangs_after_so_much_cpu_time() -> None:
    with python(SPINS) as process:
        watchdog, began = Watchdog(process.pid, at(Step.DECODE), CONFIG), cpu_seconds(process.pid)
        with pytest.raises(WorkerDied, match=r"decode of frame 12 failed: no end after 1 s of CPU"):
            look_for(watchdog, process.pid, 2 * LIMIT_SECONDS)
        assert LIMIT_SECONDS <= cpu_seconds(process.pid) - began < 2 * LIMIT_SECONDS


@pytest.mark.parametrize("step", [Step.PREPARE, Step.JOIN, Step.WAIT_INFERENCE, Step.WAIT_CLUSTER])
def test_long_work_where_no_frame_is_worked_on_is_spared(step: Step) -> None:
    with python(SPINS) as process:
        watchdog = Watchdog(process.pid, at(step), CONFIG)
        look_for(watchdog, process.pid, LIMIT_SECONDS + 0.2)


def test_a_copy_that_needs_next_to_no_cpu_time_is_spared() -> None:
    with python(ECHOES) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = Watchdog(process.pid, at(Step.JOIN), CONFIG)
        for _ in range(10 * LOOKS):
            os.write(process.stdin.fileno(), b"+")
            assert os.read(process.stdout.fileno(), 1) == b"+"
            watchdog.look()
        until_at_rest(process.pid)
        assert LOOKS <= looks_until_hung(watchdog)[0] <= LOOKS + 1


def test_a_process_that_is_stopped_does_not_hang_until_it_is_continued() -> None:
    with python(WAITS) as process:
        until_at_rest(process.pid)
        watchdog = Watchdog(process.pid, at(Step.ENCODE), CONFIG)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        for _ in range(10 * LOOKS):
            watchdog.look()
        process.send_signal(signal.SIGCONT)
        os.waitid(os.P_PID, process.pid, os.WCONTINUED)
        until_at_rest(process.pid)
        assert LOOKS <= looks_until_hung(watchdog)[0] <= LOOKS + 2


def test_a_process_of_which_nothing_is_told_hangs_after_the_limit_too() -> None:
    nobody = 2**30
    assert looks_until_hung(Watchdog(nobody, at(Step.ENCODE), CONFIG))[0] == LOOKS


@contextlib.contextmanager
def thread(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """A thread of this process, with what tells it to end."""
    end = threading.Event()
    running = threading.Thread(target=work, args=(end,))
    running.start()
    try:
        yield
    finally:
        end.set()
        running.join()


def spin(end: threading.Event) -> None:
    while not end.is_set():
        pass


def test_from_within_only_threads_that_are_not_of_others_count() -> None:
    def watchdog(others: frozenset[int]) -> Watchdog:
        return Watchdog(os.getpid(), at(Step.ENCODE), CONFIG, others)

    before = thread_ids()
    with thread(threading.Event.wait):
        assert LOOKS <= looks_until_hung(watchdog(before))[0] <= LOOKS + 1
    with thread(spin):
        assert LOOKS <= looks_until_hung(watchdog(thread_ids()))[0] <= LOOKS + 1
        with pytest.raises(WorkerDied, match="no end after 1 s of CPU time"):
            look_for(watchdog(before), os.getpid(), 2 * LIMIT_SECONDS)


def look_for(watchdog: Watchdog, process_id: int, more_cpu_seconds: float) -> None:
    """Look whenever a tenth of a second of CPU time was used, until so much of it was."""
    for _ in range(round(10 * more_cpu_seconds)):
        end = cpu_seconds(process_id) + 0.1
        while cpu_seconds(process_id) < end:
            time.sleep(0.005)  # It would take as much CPU time as what it waits for.
        watchdog.look()


def test_reading_an_av1_track_back_tells_of_every_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20)] * 30)
    beats: list[None] = []
    require_decodable(clip, EncodeOptions(codec="av1"), 30, lambda: beats.append(None))
    assert len(beats) == 30
