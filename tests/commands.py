"""The command line in a process of its own, with a fault in its worker."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tests.conftest import without_progress

PROJECT = Path(__file__).resolve().parents[1]

HEAVY = ("openvino", "av", "cv2", "torch", "onnx", "ultralytics", "numpy", "tqdm")
"""Packages that a command loads only where it needs them."""


@contextlib.contextmanager
def faulty(
    fault: str,
    step: str,
    frame: int,
    *arguments: str,
    stdin: IO[bytes] | None = None,
    before: Callable[[], object] = lambda: None,
) -> Iterator[subprocess.Popen[str]]:
    """The command with a fault, in a session of its own; nothing of it is left afterwards.

    before: called in its process before it begins.
    """

    def begin() -> None:
        # A shell that runs the tests in the background makes its children deaf to SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        before()

    with subprocess.Popen(
        [sys.executable, "-m", "tests.faulty", fault, step, str(frame), *arguments],
        cwd=PROJECT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=begin,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def worker_pid(running: subprocess.Popen[str]) -> int:
    """Wait until the worker has come to its fault."""
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line.startswith("reached "), running.stderr and running.stderr.read()
    return int(line.split()[1])


def last_words(running: subprocess.Popen[str]) -> str:
    """All of stderr but progress; it ends only when the parent and the worker are both gone."""
    assert running.stderr is not None
    return without_progress(running.stderr.read())
