"""`--progress json`: stderr as one JSON object a line, from the first line to the last.

Whatever writes to stderr (this process, its child processes, the libraries in them) writes to a
pipe; a process of its own (relay.py) makes objects of these lines. See docs/formats.md.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.cli import relay

VERSION = 1
"""Of the objects: raised when a field is removed or changes its meaning."""
FLAG = "--progress"
_STDERR = 2
_ENDING_SECONDS = 10.0
_STATUS = {0: "done", 1: "failed", 2: "failed"}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class JsonLines:
    """Writes objects; `exit_code` and what was told before are in the last one."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.exit_code = 128 + signal.SIGINT  # Of a command that does not come to its end.
        self._outputs: list[str] = []
        self._error = ""

    def write(self, event: str, **fields: Any) -> None:
        """Write an object; nothing happens if it cannot be written."""
        if event == "error":
            self._error = fields["message"]
        line = json.dumps({"event": event, **_encodable(fields)}, allow_nan=False) + "\n"
        rest = line.encode()
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._pipe, rest) :]

    def write_if_read(self, event: str, **fields: Any) -> None:
        """Write an object that may be left out if earlier ones have not been read yet."""
        if select.select([], [self._pipe], [], 0)[1]:
            self.write(event, **fields)

    def add_outputs(self, paths: Sequence[object]) -> None:
        """Files that the command has written, for the last object."""
        self._outputs += [path for path in map(str, paths) if path not in self._outputs]

    def end(self) -> None:
        self.write(
            "end",
            exit_code=self.exit_code,
            status=_STATUS.get(self.exit_code, "interrupted"),
            message=self._error if self.exit_code else "",
            outputs=self._outputs,
        )


_current: JsonLines | None = None


def current() -> JsonLines | None:
    """Where objects are written; None unless they were asked for."""
    return _current


def asked_for(words: Sequence[str]) -> bool:
    """Whether a command line asks for objects: known before it is parsed, as that may fail."""
    options = [*words[: words.index("--")]] if "--" in words else [*words]
    forms = [word.partition("=")[2] for word in options if word.startswith(f"{FLAG}=")]
    forms += [form for flag, form in itertools.pairwise(options) if flag == FLAG]
    return "json" in forms and sys.stderr is not None


@contextlib.contextmanager
def written(command: str) -> Iterator[JsonLines]:
    """Write stderr as objects; the last one is written when the context ends."""
    global _current
    import subprocess  # Not needed by most commands, and slow to import.

    read_objects, objects = os.pipe()
    read_texts, texts = os.pipe()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", relay.__file__, str(read_objects), str(read_texts)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(read_objects, read_texts),
        start_new_session=True,
    )
    os.close(read_objects)
    os.close(read_texts)
    sys.stderr.flush()
    before = os.dup(_STDERR)
    os.dup2(texts, _STDERR)
    os.close(texts)
    lines = _current = JsonLines(objects)
    lines.write("start", version=VERSION, command=command)
    try:
        yield lines
    except SystemExit as error:  # --help, and options that are not valid.
        lines.exit_code = int(error.code or 0)
        raise
    finally:
        _current = None
        with _signals_ignored():
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            # A reader that has stopped reading must not hold up the end.
            if select.select([], [objects], [], _ENDING_SECONDS)[1]:
                lines.end()
            os.close(objects)
            with contextlib.suppress(subprocess.TimeoutExpired):  # Its reader takes nothing more.
                process.wait(_ENDING_SECONDS)
            os.dup2(before, _STDERR)
            os.close(before)


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """The last object says how the command ended: a signal comes too late to change it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _encodable(value: Any) -> Any:
    """Without lone surrogates, which file names may have and strict parsers refuse."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_encodable(entry) for entry in value]
    return value
