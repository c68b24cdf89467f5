"""What is printed: lines, and progress as a bar, or as lines if stderr is not a terminal.

With `--progress json`, everything on stderr is an object instead: see json_lines.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from pipeline.cli import json_lines
from pipeline.cli.json_lines import JsonLines
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.core.text import printable

_LINE_INTERVAL_SECONDS = 5.0
_OBJECT_INTERVAL_SECONDS = 0.5
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
        self._speed = _Speed()

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
            self._speed.begin(progress)
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
        rate, left = self._speed.of(progress)
        line = f"{_described(progress)}: {progress.done}"
        if progress.total:
            line += f" of {progress.total}"
        if left is not None:
            line += f", {rate:.1f} {progress.unit}/s, {left:.0f} s left"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _ObjectPrinter:
    """Writes an object when a stage begins or ends, else two a second.

    clip: the one that is processed, if there is one only.
    """

    def __init__(self, lines: JsonLines, clip: str | None) -> None:
        self._lines = lines
        self._clip = clip
        self._speed = _Speed()
        self._stage = ""
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now, ends = time.monotonic(), progress.done == progress.total
        begins, self._stage = progress.stage != self._stage, progress.stage
        if not (begins or ends or now - self._last >= _OBJECT_INTERVAL_SECONDS):
            return
        self._last = now
        self._speed.begin(progress)
        rate, left = self._speed.of(progress)
        self._lines.write_if_read(
            "progress",
            stage=progress.stage,
            frame=progress.done,
            total=progress.total,
            unit=progress.unit,
            fps=rate and round(rate, 2),
            eta=left if left is None else round(left, 1),
            clip=progress.clip or self._clip,
        )


class _Speed:
    """How fast each stage is, since it was first seen here."""

    def __init__(self) -> None:
        self._beginnings: dict[str, tuple[float, int]] = {}

    def begin(self, progress: Progress) -> None:
        self._beginnings.setdefault(progress.stage, (time.monotonic(), progress.done))

    def of(self, progress: Progress) -> tuple[float | None, float | None]:
        """Units per second, and the seconds that are left; None if they are unknown."""
        began, already_done = self._beginnings[progress.stage]
        rate = (progress.done - already_done) / max(1e-9, time.monotonic() - began)
        if rate <= 0:
            return None, None
        left = None if not progress.total else max(0, progress.total - progress.done) / rate
        return rate, left


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


def show_note(text: str) -> None:
    """Show what a user should know about the result, on stderr."""
    _tell("note", text, f"note: {text}")


def show_error(text: str, line: str | None = None) -> None:
    """Show why the command failed, on stderr; line: the text as a line, if it is another one."""
    _tell("error", text, f"pipeline: {text}" if line is None else line)


def show_log(text: str) -> None:
    """Show details, on stderr."""
    _tell("log", text, text)


def show_outputs(paths: Sequence[object], clip: object = None, status: str = "done") -> None:
    """Name the files of a result with `--progress json`; otherwise summaries name them.

    clip: one of many; None for the outputs of the command itself.
    """
    lines = json_lines.current()
    if lines is None:
        return
    if clip is None:
        lines.add_outputs(paths)
    else:
        lines.write("clip", clip=str(clip), status=status, outputs=[str(path) for path in paths])


def _tell(event: str, text: str, line: str) -> None:
    lines = json_lines.current()
    if lines is None:
        show(line, sys.stderr)
    else:
        lines.write(event, message=text)


def progress_shown(
    arguments: argparse.Namespace, clip: str | None = None
) -> contextlib.AbstractContextManager[ProgressCallback]:
    """A callback for progress; clip: the one that is processed, if there is one only."""
    if arguments.quiet:
        return contextlib.nullcontext(no_progress)
    lines = json_lines.current()
    return (
        ProgressPrinter() if lines is None else contextlib.nullcontext(_ObjectPrinter(lines, clip))
    )
