"""The command on a real terminal."""

from __future__ import annotations

import fcntl
import functools
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
ENDLESS = ["process", "synthetic", "--size", "128x96", "--frames", "10000000"]
ROWS, COLUMNS = 24, 100


def take_terminal(terminal: int) -> None:
    """What a login does: keys like Ctrl-C typed there are for this process from now on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def read(keyboard: int) -> str:
    """What is shown next; empty when nobody has the terminal open any more."""
    try:
        return os.read(keyboard, 4096).decode()
    except OSError:
        return ""


def test_ctrl_c_leaves_one_clean_line_below_the_bar_and_nothing_else(
    tiny_weights: Path, tmp_path: Path
) -> None:
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    out = tmp_path / "out"
    options = ["--weights", str(tiny_weights), "--output-dir", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *ENDLESS, *options],
        cwd=PROJECT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=functools.partial(take_terminal, terminal),
    ) as running:
        os.close(terminal)
        shown = ""
        try:
            while not re.search(r"frames: .* [1-9]\d*/10000000", shown):
                more = read(keyboard)
                assert more, shown
                shown += more
            os.write(keyboard, b"\x03")
            while more := read(keyboard):
                shown += more
            assert running.wait(10) == 128 + signal.SIGINT
        finally:
            running.kill()
            os.close(keyboard)
    *above, bar, last, rest = shown.split("\r\n")
    assert all(line.startswith("\rconvert: ") for line in above), above
    assert bar.rpartition("\r")[2].startswith("frames: ")
    assert (last, rest) == ("pipeline: interrupted; no output was written", "")
    assert not out.exists()
