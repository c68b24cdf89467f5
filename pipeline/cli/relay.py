"""A program of its own: writes the objects of a command, and all other lines as objects, to stderr.

It lives in a session of its own, so that keys of the terminal do not end it before the command.
Only the standard library is imported: it starts within a few hundredths of a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import sys

END = b'{"event": "end", '
"""What the last object of a command begins with."""
_DIED = (
    '{"event": "end", "exit_code": null, "status": "died", "message": "the command was killed", '
    '"outputs": []}'
)
_CHUNK_BYTES = 1 << 16
_LINE_ENDS = re.compile(rb"[\r\n]+")


def relay(objects: int, texts: int, out: int) -> None:
    """Write what comes from two pipes to a file, line by line, up to the object that ends all.

    objects: one JSON object a line, passed on as they are. texts: any text, as what libraries
    write to stderr; each line becomes an object. If all writers end without that object, one is
    written that says so. A file that cannot be written takes nothing more.
    """
    left: dict[int, bytes] = {objects: b"", texts: b""}
    os.set_blocking(texts, False)
    writer = _Writer(out)
    has_begun = False
    while left:
        # The object that comes first is written before any text, which may be there by now too.
        waiting = list(left) if has_begun or objects not in left else [objects]
        ready, _, _ = select.select(waiting, [], [])
        # What was written before an object comes first.
        for pipe in sorted(ready, key=lambda pipe: pipe == objects):
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(pipe, _CHUNK_BYTES)
                *lines, rest = _LINE_ENDS.split(left[pipe] + chunk)
                left[pipe] = rest
                if not chunk or (pipe == texts and len(rest) > _CHUNK_BYTES):
                    lines, left[pipe] = [*lines, rest], b""
                if not chunk:
                    del left[pipe]
                if pipe == texts:
                    writer.write(*map(_logged, filter(None, lines)))
                    continue
                for line in filter(None, lines):
                    has_begun = True
                    if line.startswith(END):
                        writer.write(*map(_logged, filter(None, _all(texts, left))))
                        writer.write(line)
                        return
                    writer.write(line)
    writer.write(_DIED.encode())


def _all(pipe: int, left: dict[int, bytes]) -> list[bytes]:
    """All lines that a pipe still has, without waiting for more."""
    found = left.get(pipe, b"")
    with contextlib.suppress(BlockingIOError):
        while pipe in left and (chunk := os.read(pipe, _CHUNK_BYTES)):
            found += chunk
    return _LINE_ENDS.split(found)


def _logged(line: bytes) -> bytes:
    text = line.decode("utf-8", "backslashreplace")
    return json.dumps({"event": "log", "message": text}).encode()


class _Writer:
    def __init__(self, out: int) -> None:
        self._out = out
        self._works = True

    def write(self, *lines: bytes) -> None:
        rest = b"".join(line + b"\n" for line in lines)
        try:
            while rest and self._works:
                rest = rest[os.write(self._out, rest) :]
        except OSError:  # Nobody reads it, or its disk is full.
            self._works = False


if __name__ == "__main__":
    relay(int(sys.argv[1]), int(sys.argv[2]), sys.stderr.fileno())
