"""The command line in a process of its own, with a fault in its worker."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tests.conftest import without_progress
from tests.zygote import Request

PROJECT = Path(__file__).resolve().parents[1]

HEAVY = ("openvino", "av", "cv2", "torch", "onnx", "ultralytics", "numpy", "tqdm")
"""Packages that a command loads only where it needs them."""

Stream = IO[Any] | int | None


class Command:
    """A running `pipeline ARGUMENTS`, forked from a process that has imported it: see zygote.py.

    It is used like a `subprocess.Popen` of text. Standard output and errors are pipes if nothing
    else is given, standard input is empty. before: called in the command before all else; it must
    be a function of a module, or a `functools.partial` of one.
    """

    def __init__(
        self,
        *arguments: object,
        module: str = "pipeline.__main__",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        start_new_session: bool = False,
        before: Callable[[], object] | None = None,
    ) -> None:
        self.args = [module, *map(str, arguments)]
        self.returncode: int | None = None
        self._ours = contextlib.ExitStack()
        request = Request(
            module,
            tuple(self.args[1:]),
            folder=str(cwd or Path.cwd()),
            environment=dict(os.environ if env is None else env),
            new_session=start_new_session,
            before=before,
        )
        with contextlib.ExitStack() as theirs:
            self.stdin, first = self._stream(stdin, "w", theirs)
            self.stdout, second = self._stream(stdout, "r", theirs)
            self.stderr, third = self._stream(stderr, "r", theirs)
            ours, told = socket.socketpair()
            self._told = self._ours.enter_context(ours)
            descriptors = [first, second, third, theirs.enter_context(told).fileno()]
            with _starting:
                started, control = _zygote()
                if started.poll() is not None:
                    end_zygote()
                    control = _zygote()[1]
            try:
                socket.send_fds(control, [pickle.dumps(request)], descriptors)
                told.close()
                self.pid = int(self._line())
            except BaseException:
                self._ours.close()
                raise

    def _stream(
        self, given: Stream, mode: str, theirs: contextlib.ExitStack
    ) -> tuple[IO[str] | None, int]:
        """This end of a pipe, if it is one, and the descriptor for the command."""
        if given is None or given == subprocess.DEVNULL:
            return None, theirs.enter_context(Path(os.devnull).open("r+b", buffering=0)).fileno()
        if given != subprocess.PIPE:
            return None, given if isinstance(given, int) else given.fileno()
        reading, writing = os.pipe()
        ours, other = (reading, writing) if mode == "r" else (writing, reading)
        theirs.callback(os.close, other)
        return self._ours.enter_context(os.fdopen(ours, mode)), other

    def _line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            more = self._told.recv(100)
            assert more, f"the zygote has ended: {_zygote()[0].poll()}"
            line += more
        return line.decode()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        with self._ours:
            if self.stdin and not self.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    self.stdin.close()
            self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or -N of signal N. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._line())
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # It has ended since.
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, sent: str = "", timeout: float | None = None) -> tuple[str, str]:
        """All of standard output and errors. Raises subprocess.TimeoutExpired."""
        said: dict[str, str] = {}

        def read(name: str, stream: IO[str] | None) -> None:
            said[name] = stream.read() if stream else ""

        readers = [
            threading.Thread(target=read, args=arguments, daemon=True)
            for arguments in (("out", self.stdout), ("err", self.stderr))
        ]
        for reader in readers:
            reader.start()
        if self.stdin:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(sent)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        self._ours.close()
        return said["out"], said["err"]


def run(
    *arguments: object, timeout: float = 90, sent: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` does; options as of `Command`."""
    with Command(*arguments, **options) as command:
        try:
            out, err = command.communicate(sent, timeout)
        except BaseException:
            command.kill()
            raise
        return subprocess.CompletedProcess(command.args, command.wait(), out, err)


_starting = threading.Lock()


@functools.cache
def _zygote() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Started by the first test of this process that needs it."""
    control, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with served:
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote", str(served.fileno())],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            pass_fds=[served.fileno()],
            start_new_session=True,
        )
    return started, control


def end_zygote() -> None:
    """To be called when no further command will be run."""
    if _zygote.cache_info().currsize:
        started, control = _zygote()
        control.close()
        started.wait()
        _zygote.cache_clear()


@contextlib.contextmanager
def faulty(
    fault: str,
    step: str,
    frame: int,
    *arguments: str,
    stdin: Stream = subprocess.DEVNULL,
    before: Callable[[], object] | None = None,
) -> Iterator[Command]:
    """The command with a fault, in a session of its own; nothing of it is left afterwards.

    before: called in its process before it begins.
    """
    words = (fault, step, frame, *arguments)
    with Command(
        *words,
        module="tests.faulty",
        cwd=PROJECT,
        stdin=stdin,
        start_new_session=True,
        before=before,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def worker_pid(running: Command) -> int:
    """Wait until the worker has come to its fault."""
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line.startswith("reached "), running.stderr and running.stderr.read()
    return int(line.split()[1])


def wait_until(condition: Callable[[], object]) -> None:
    """For what a process does without saying so."""
    while not condition():
        time.sleep(0.02)


def last_words(running: Command) -> str:
    """All of stderr but progress; it ends only when the parent and the worker are both gone."""
    assert running.stderr is not None
    return without_progress(running.stderr.read())
