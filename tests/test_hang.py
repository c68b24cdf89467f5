"""A test that hangs ends, and is named, also where a library holds the GIL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

HANGS = """
import ctypes
import pytest

@pytest.mark.parametrize("number", range(9))
def test_before(number):
    pass

def test_that_holds_the_gil():
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)

@pytest.mark.parametrize("number", range(9))
def test_after(number):
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the C library is found otherwise")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_test_that_holds_the_gil_is_ended_and_named(tmp_path: Path, workers: str) -> None:
    test = tmp_path / "test_hangs.py"
    test.write_text(HANGS, encoding="utf-8")
    started = time.monotonic()
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
            *("-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(tmp_path)),
            # Of the plugins that are installed, those that the limits depend on.
            *("-p", "xdist", "-p", "pytest_timeout", "-n", workers),
            # What stands in pyproject.toml, sooner: both limits.
            *("-o", "faulthandler_timeout=2", "-o", "timeout=1", str(test)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert ended.returncode == 1
    assert "Timeout (0:00:02)!" in ended.stderr
    assert "in test_that_holds_the_gil" in ended.stderr
    assert time.monotonic() - started < 80
    if workers != "0":
        # The others go on to their end, and the summary comes last.
        *_, named, summary = ended.stdout.splitlines()
        assert named.startswith("FAILED test_hangs.py::test_that_holds_the_gil - worker ")
        assert "1 failed" in summary
