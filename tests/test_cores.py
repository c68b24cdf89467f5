"""Runs that keep to some of the cores of a machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from pipeline.cli.commands import main
from pipeline.core.cores import core_shares, limited_cores
from pipeline.core.machine import available_cores

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs cores by their ids"),
    pytest.mark.skipif(available_cores() < 2, reason="needs two cores"),
]


def test_the_cores_are_divided_without_a_rest() -> None:
    have = os.sched_getaffinity(0)
    for number in range(1, len(have) + 1):
        shares = core_shares(number)
        assert sorted(core for share in shares for core in share) == sorted(have)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_threads_and_processes_that_start_meanwhile_are_limited_too() -> None:
    before, found = os.sched_getaffinity(0), []
    with limited_cores(1):
        thread = threading.Thread(target=lambda: found.append(available_cores()))
        thread.start()
        thread.join()
        words = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
        found.append(int(subprocess.run(words, check=True, capture_output=True).stdout))
    assert found == [1, 1]
    assert os.sched_getaffinity(0) == before


def test_more_cores_than_there_are_change_nothing() -> None:
    before = os.sched_getaffinity(0)
    for number in (None, len(before), 4096):
        with limited_cores(number):
            assert os.sched_getaffinity(0) == before


def test_everything_that_a_command_starts_keeps_to_the_cores(
    tmp_path: Path, tiny_weights: Path
) -> None:
    words = ["process", "synthetic", "--frames", "90", "--size", "128x96", "--cores", "1"]
    words += ["--weights", str(tiny_weights), "--output-dir", str(tmp_path / "out"), "--quiet"]
    num_cores: dict[int, int] = {}
    with subprocess.Popen([sys.executable, "-m", "pipeline", *words]) as run:
        while run.poll() is None:
            num_cores.update(cores_of_threads(run.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(0.02)
    assert run.returncode == 0
    assert set(num_cores.values()) == {1}
    assert len(num_cores) > 4  # Of Python, FFmpeg and OpenVINO.
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["configuration"]["cores"], report["configuration"]["num_streams"]) == (1, 1)


def cores_of_threads(process_id: int) -> dict[int, int]:
    """How many cores each thread of the children of a process may run on, by its id."""
    found = {}
    with contextlib.suppress(psutil.Error, OSError):
        for child in psutil.Process(process_id).children(recursive=True):
            for thread in Path(f"/proc/{child.pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    found[int(thread.name)] = len(os.sched_getaffinity(int(thread.name)))
    return found


def test_no_cores_are_a_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--cores", "0"]) == 2
    assert "cores" in capsys.readouterr().err
