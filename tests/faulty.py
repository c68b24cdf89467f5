"""The command with a fault in its worker: python -m tests.faulty FAULT STEP FRAME process ...

The worker says "reached PID" on stdout when it comes to that step of that frame, and then does
what follows. Of many clips, the frames of all that a worker does are counted, for most steps;
with "encode:NAME" those of every clip whose output folder has that in its path.

    tell    goes on
    kill    is killed, as by the kernel when memory runs out
    segv    reads where there is nothing
    exit    leaves without a word
    until:PATH  goes on when there is that file; it reads until then, which is no stall
    pause   does not go on until the run is interrupted
    hang    never comes back; on the main thread it says "told to stop" when it is
    spin    never comes back either, and works all the time
    work    works for 2 s of CPU time and goes on
    crowd   works for 0.5 s of CPU time beside 6 others on each core, says "took SECONDS", goes on
    raise   raises an exception that is not of this package
    stick   raises it too, and then does not come back from a library that is to clean up
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.batch.work import ProcessClips
from pipeline.cli import process
from pipeline.cli.commands import main as run_command
from pipeline.core.config import ProcessConfig
from pipeline.core.machine import available_cores
from pipeline.core.position import Position
from pipeline.core.progress import ProgressCallback
from pipeline.execution import watch
from pipeline.execution.journal import Journal


def fail(fault: str) -> None:
    if fault == "hang" and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: say("told to stop"))
    say(f"reached {os.getpid()}")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "segv":
        ctypes.string_at(0)
    elif fault == "exit":
        os._exit(3)
    elif fault.startswith("until:"):
        read_until_there_is(Path(fault.removeprefix("until:")))
    elif fault in ("hang", "pause"):
        wait_for_ever()
    elif fault == "spin":
        work_for(float("inf"))
    elif fault == "work":
        work_for(2.0)
    elif fault == "crowd":
        with busy_loops(6 * available_cores()):
            started = time.monotonic()
            work_for(0.5)
            say(f"took {time.monotonic() - started}")
    elif fault in ("raise", "stick"):
        if fault == "stick":
            from pipeline.frames.decode import VideoReader
            from pipeline.frames.encode import VideoEncoder

            for owner, name in ((VideoEncoder, "abandon"), (VideoReader, "close")):
                setattr(owner, name, never_come_back)
        raise ZeroDivisionError("made on purpose")


def read_until_there_is(path: Path) -> None:
    with Path("/dev/zero").open("rb", buffering=0) as zeros:
        while not path.exists():
            zeros.read(1)
            time.sleep(0.01)


def wait_for_ever() -> None:
    """Without CPU time. A signal that comes just before a sleep would not end that."""
    if threading.current_thread() is not threading.main_thread():
        while True:
            time.sleep(1000)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    while True:
        woken.recv(1)


def never_come_back(_: object) -> None:
    """As a library may: with Python's lock, so that no other thread runs either."""
    ctypes.PyDLL(None).sleep(1000)


def work_for(cpu_seconds: float) -> None:
    end = time.thread_time() + cpu_seconds
    while time.thread_time() < end:
        pass


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """So many other processes that never rest; they end with this one at the latest."""
    code = f"import os; os.write(1, b'.'); os.read(0, 1)\nwhile os.getppid() == {os.getpid()}: pass"
    begin, told = os.pipe()
    with contextlib.ExitStack() as stack:
        loops = []
        with os.fdopen(told, "wb"):  # When it is closed they begin: all have started by then.
            for _ in range(number):
                loop = subprocess.Popen(
                    [sys.executable, "-ISc", code],
                    stdin=begin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                stack.enter_context(loop)
                stack.callback(loop.kill)
                loops.append(loop)
            os.close(begin)
            for loop in loops:
                assert loop.stdout is not None
                assert loop.stdout.read(1) == b"."
        yield


def say(line: str) -> None:
    # Unbuffered: a signal may come while the line before is still being flushed, and Python's
    # buffers refuse to be entered twice.
    os.write(1, f"{line}\n".encode())


def at_call(number: int, fault: str, step: Callable[..., Any]) -> Callable[..., Any]:
    calls = iter(range(sys.maxsize))

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            fail(fault)
        return step(*arguments, **options)

    return wrapped


def break_encoders(fault: str, name: str, frame: int) -> None:
    """Patch the encoders of clips that have a name in their path."""
    from pipeline.frames.encode import VideoEncoder

    begin, encode = VideoEncoder.__init__, VideoEncoder.encode
    broken = set()

    def began(encoder: Any, path: Any, *arguments: Any, **options: Any) -> None:
        if name in str(path):
            broken.add(encoder)
        begin(encoder, path, *arguments, **options)

    def faulty_encode(encoder: Any, *arguments: Any) -> None:
        if encoder in broken and encoder.num_frames == frame:
            fail(fault)
        encode(encoder, *arguments)

    setattr(VideoEncoder, "__init__", began)  # noqa: B010
    setattr(VideoEncoder, "encode", faulty_encode)  # noqa: B010


def break_step(fault: str, step: str, frame: int) -> None:
    """Patch this process, which is the worker."""
    if step.startswith("encode:"):
        break_encoders(fault, step.removeprefix("encode:"), frame)
        return
    from pipeline.core.boxes import Detections
    from pipeline.frames.annotate import Annotator
    from pipeline.frames.decode import VideoReader
    from pipeline.frames.detect import ModelDetections
    from pipeline.frames.encode import VideoEncoder
    from pipeline.model.preprocess import Preprocessor
    from pipeline.model.yolov5 import YOLOv5Head
    from pipeline.run import join, opening
    from pipeline.synthetic.source import SyntheticSource

    def faulty_frames(whole: Callable[..., Any]) -> Callable[..., Any]:
        def frames(source: Any, *arguments: Any) -> Any:
            for item in whole(source, *arguments):
                if item.index == frame:
                    fail(fault)
                yield item

        return frames

    if step == "decode":
        for source in (VideoReader, SyntheticSource):
            setattr(source, "frames", faulty_frames(source.frames))  # noqa: B010
        return
    if step == "postprocess":
        whole = ModelDetections.detections_of

        def faulty_detections(source: Any, item: Any, candidates: Any) -> Any:
            if item.index == frame:
                fail(fault)
            return whole(source, item, candidates)

        setattr(ModelDetections, "detections_of", faulty_detections)  # noqa: B010
        return
    owner, name = {
        "prepare": (opening, "find_weights"),
        "preprocess": (Preprocessor, "__call__"),
        "callback": (YOLOv5Head, "select"),
        "annotate": (Annotator, "__call__"),
        "encode": (VideoEncoder, "encode"),
        "write": (Detections, "as_records"),
        "join": (join, "mux"),
    }[step]
    setattr(owner, name, at_call(frame, fault, getattr(owner, name)))


def pause_after_segments(number: int) -> None:
    """Let the run of this process, or of its worker, pause when it has added so many segments."""
    add, numbers = Journal.add, itertools.count(1)

    def added(journal: Journal, *arguments: Any) -> None:
        add(journal, *arguments)
        if next(numbers) == number:
            fail("pause")

    setattr(Journal, "add", added)  # noqa: B010


def allow_seconds(
    to_stop: float = watch.STOP_SECONDS, for_the_same_signal: float = watch.SAME_SIGNAL_SECONDS
) -> None:
    """Let the command of this process wait so long for its worker to stop.

    for_the_same_signal: how long the one that came first is not taken for a second one.
    """
    watch.STOP_SECONDS, watch.SAME_SIGNAL_SECONDS = to_stop, for_the_same_signal


def main() -> int:
    fault, step, frame, *arguments = sys.argv[1:]
    work = process.process_in_child

    def faulty(config: ProcessConfig, on_progress: ProgressCallback, position: Position) -> Any:
        break_step(fault, step, int(frame))
        return work(config, on_progress, position)

    whole = ProcessClips.__call__
    broken: list[int] = []

    def faulty_clips(
        clips: ProcessClips,
        config: ProcessConfig,
        on_progress: ProgressCallback,
        position: Position,
    ) -> Any:
        if not broken:
            broken.append(os.getpid())
            break_step(fault, step, int(frame))
        return whole(clips, config, on_progress, position)

    process.process_in_child = faulty
    setattr(ProcessClips, "__call__", faulty_clips)  # noqa: B010
    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
