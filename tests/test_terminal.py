"""The command on a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import termios
from pathlib import Path

from tests.commands import Command
from tests.faulty import allow_seconds

ENDLESS = ["process", "synthetic", "--size", "128x96", "--frames", "10000000"]
ENDLESS += ["--segment-seconds", "1000000"]  # None of them is ever kept.
ROWS, COLUMNS = 24, 100


def begin_at_terminal() -> None:
    """What a login does: keys like Ctrl-C typed there are for this process from now on."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    allow_seconds(to_stop=3600)


def read(keyboard: int) -> bytes:
    """What is shown next; empty when nobody has the terminal open any more."""
    try:
        return os.read(keyboard, 4096)
    except OSError:
        return b""


def test_ctrl_c_leaves_one_clean_line_below_the_bar_and_nothing_else(
    tiny_weights: Path, tmp_path: Path
) -> None:
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    out = tmp_path / "out"
    options = ["--weights", str(tiny_weights), "--output-dir", str(out)]
    with Command(
        *ENDLESS,
        *options,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        before=begin_at_terminal,
    ) as running:
        os.close(terminal)
        shown = b""
        try:
            while not re.search(rb"frames: .* [1-9]\d*/10000000", shown):
                more = read(keyboard)
                assert more, shown
                shown += more
            os.write(keyboard, b"\x03")
            while more := read(keyboard):
                shown += more
            assert running.wait() == 128 + signal.SIGINT
        finally:
            running.kill()
            os.close(keyboard)
    *above, bar, last, rest = shown.decode().split("\r\n")
    assert all(line.startswith("\rconvert: ") for line in above), above
    assert bar.rpartition("\r")[2].startswith("frames: ")
    assert (last, rest) == ("pipeline: interrupted; no output was written", "")
    assert not out.exists()
