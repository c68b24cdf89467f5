"""Runs commands in forks of a process that has imported them: python -m tests.zygote SOCKET.

Most of the CPU time of a short command is the import of libraries, which is spared here. Each
command is a process of its own all the same: it begins with one thread, its own folder,
environment, streams and session, and ends as any interpreter does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

_PRELOADED = (
    "openvino",
    "av",
    "cv2",
    "threadpoolctl",
    "jinja2",
    "pipeline.cli.commands",
    "pipeline.run.process",
    "pipeline.run.remote",
    "pipeline.run.render",
    "tests.faulty",
)
MAX_REQUEST_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Request:
    """module: its `main()` is run, as by `python -m`, with these arguments in sys.argv.

    before: called in the command before all else.
    """

    module: str
    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    new_session: bool
    before: Callable[[], object] | None


def serve(control: socket.socket) -> Callable[[], int] | None:
    """Fork a process for every request; return in it what it is to run, and None at the end.

    With a request come the descriptors of its three streams, and of a socket, to which the pid and
    at last the exit code are written, a line each.
    """
    with selectors.DefaultSelector() as waiting:
        waiting.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is not control:
                    waiting.unregister(key.fileobj)
                    os.close(key.fd)
                    _tell_end(*key.data)
                    continue
                message, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
                if not message:
                    return None
                told = descriptors.pop()
                pid = os.fork()
                if pid == 0:
                    os.close(told)
                    control.close()
                    return _begin(pickle.loads(message), descriptors)
                for stream in descriptors:
                    os.close(stream)
                _tell(told, pid)
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, told))


def _tell_end(pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    _tell(told, os.waitstatus_to_exitcode(status))
    os.close(told)


def _tell(told: int, number: int) -> None:
    with contextlib.suppress(OSError):  # Its test is over, and waits for nothing any more.
        os.write(told, f"{number}\n".encode())


def _begin(request: Request, streams: list[int]) -> Callable[[], int]:
    """Make this fork what a new process would be."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # What is for the terminal is so at once, as in a process that begins there.
    sys.stdin, sys.stdout = os.fdopen(0, "r"), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
    if request.new_session:
        os.setsid()
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = [request.module, *request.arguments]
    # As if it had been started by a shell in the foreground.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if request.before is not None:
        request.before()
    main: Callable[[], int] = import_module(request.module).main
    return main


if __name__ == "__main__":
    for name in _PRELOADED:
        import_module(name)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        command = serve(control)
    sys.exit(command() if command else 0)
