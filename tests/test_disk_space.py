"""A disk that fills up, for real: a small file system in memory."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.disk_space import is_disk_full
from tests.commands import run
from tests.conftest import write_clip

NUM_FRAMES = 50
SIZE_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Noise, of which nothing can be left out."""
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (96, 128, 3), np.uint8) for _ in range(NUM_FRAMES)]
    return write_clip(tmp_path / "clip.mp4", images, options={"g": "10", "sc_threshold": "0"})


def process(
    source: str, out: Path, weights: Path, *options: str, stdin: Path | None = None
) -> subprocess.CompletedProcess[str]:
    with (stdin or Path("/dev/null")).open("rb") as stream:
        return run(
            *("process", source, "--weights", weights, "--output-dir", out, *options), stdin=stream
        )


def fill(disk: Path, but: int) -> None:
    free = shutil.disk_usage(disk).free
    (disk / "other").write_bytes(bytes(max(0, free - but)))


def needed_mb(done: subprocess.CompletedProcess[str], out: Path) -> float:
    assert done.returncode == 1
    told = re.search(
        rf"^pipeline: {re.escape(str(out))}: disk full: [\d.]+ MB free, about ([\d.]+) MB needed",
        done.stderr,
        re.MULTILINE,
    )
    assert told, done.stderr
    return float(told[1])


@pytest.mark.parametrize("free_kb", [32, 100, 300, 600])
def test_a_disk_that_fills_up_while_a_clip_is_processed_names_folder_and_need(
    small_disk: Path, clip: Path, tiny_weights: Path, free_kb: int
) -> None:
    out = small_disk / "out"
    fill(small_disk, free_kb << 10)
    done = process(str(clip), out, tiny_weights, "--crf", "1")
    assert needed_mb(done, out) > free_kb / 1000
    assert not out.exists()


def test_with_room_made_the_same_command_goes_on(
    small_disk: Path, clip: Path, tiny_weights: Path
) -> None:
    out = small_disk / "out"
    options = ["--crf", "30", "--segment-seconds", "0.4"]
    fill(small_disk, 300 << 10)
    done = process(str(clip), out, tiny_weights, *options)
    assert needed_mb(done, out) > 0.1
    assert "kept: rerun the command to resume" in done.stderr
    (small_disk / "other").unlink()
    done = process(str(clip), out, tiny_weights, *options)
    assert done.returncode == 0, done.stderr
    assert "resumed from an interrupted run" in done.stdout


def test_a_disk_that_fills_up_with_standard_input_names_folder_and_need(
    small_disk: Path, clip: Path, tiny_weights: Path
) -> None:
    out = small_disk / "out"
    fill(small_disk, 40 << 10)
    done = process("-", out, tiny_weights, stdin=clip)
    assert done.returncode == 1
    assert done.stderr.startswith("pipeline: ")
    assert str(out) in done.stderr
    assert "MB" in done.stderr
    assert not out.exists()


def test_causes_that_are_a_circle_are_looked_at_once(tmp_path: Path) -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not is_disk_full(first, tmp_path)
    second.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_disk_full(first, tmp_path)
