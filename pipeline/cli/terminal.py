"""What is printed: lines, and progress as a bar, or as lines if stderr is not a terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from typing import Any, TextIO

from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.core.text import printable

_LINE_INTERVAL_SECONDS = 5.0
_LONGEST_SUBJECT = 48


def discard(stream: TextIO) -> None:
    """Redirect a stream that failed, with its buffered text, to the null device.

    Otherwise Python fails on it again at exit, with its own exit code.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class ProgressPrinter:
    """Shows progress: a bar on a terminal, else a line every few seconds at most.

    If stderr cannot be written, nothing more is shown and the work continues.
    """

    def __init__(self) -> None:
        self._on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None
        self._stage = ""
        self._last_line = time.monotonic()
        self._beginnings: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def __call__(self, progress: Progress) -> None:
        try:
            self._show(progress)
        except OSError:
            discard(sys.stderr)

    def _show(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._close_bar()
            self._stage = progress.stage
            self._beginnings.setdefault(progress.stage, (time.monotonic(), progress.done))
        if self._on_terminal:
            self._update_bar(progress)
        elif sys.stderr is not None and time.monotonic() - self._last_line > _LINE_INTERVAL_SECONDS:
            self._last_line = time.monotonic()
            self._print_line(progress)

    def _update_bar(self, progress: Progress) -> None:
        from tqdm import tqdm

        # tqdm's monitor thread would make forking another child process unsafe.
        tqdm.monitor_interval = 0
        if self._bar is None:
            self._bar = tqdm(
                desc=progress.stage,
                total=progress.total,
                unit=progress.unit,
                unit_scale=progress.unit == "B",
                dynamic_ncols=True,
            )
        self._bar.set_description_str(_described(progress), refresh=False)
        self._bar.total = (
            progress.total
        )  # The total of many clips becomes more precise with each clip.
        self._bar.update(progress.done - self._bar.n)

    def _print_line(self, progress: Progress) -> None:
        began, already_done = self._beginnings[progress.stage]
        rate = (progress.done - already_done) / max(1e-9, time.monotonic() - began)
        line = f"{_described(progress)}: {progress.done}"
        if progress.total:
            line += f" of {progress.total}"
        if progress.total and rate:
            left = max(0, progress.total - progress.done) / rate
            line += f", {rate:.1f} {progress.unit}/s, {left:.0f} s left"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _described(progress: Progress) -> str:
    """The subject of a progress value; a clip name in it may be long and hostile."""
    if not progress.subject:
        return progress.stage
    subject = printable(progress.subject)
    if len(subject) > _LONGEST_SUBJECT:
        subject = f"{subject[: _LONGEST_SUBJECT - 3]}..."
    return f"{subject}: {progress.stage}"


def show(line: str, stream: TextIO | None = None) -> None:
    """Print a line; names and messages in it may come from hostile files.

    Raises OSError if standard output is on a full disk. Nothing is raised if its reader has
    closed it.
    """
    stream = stream or sys.stdout
    if stream is None:  # Closed by the shell.
        return
    shown = printable(line).encode(stream.encoding or "utf-8", "backslashreplace")
    try:
        print(shown.decode(stream.encoding or "utf-8"), file=stream, flush=True)
    except OSError as error:
        discard(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, "standard output") from error


def progress_shown(
    arguments: argparse.Namespace,
) -> contextlib.AbstractContextManager[ProgressCallback]:
    return contextlib.nullcontext(no_progress) if arguments.quiet else ProgressPrinter()
