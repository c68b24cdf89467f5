"""Programs that are not ours, by which results are judged: ffmpeg and ffprobe."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import process

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="needs the programs ffmpeg and ffprobe"
)


def ffmpeg(*arguments: object) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    if b"Unknown encoder" in done.stderr:
        pytest.skip(f"this ffmpeg lacks an encoder: {done.stderr.decode().strip()}")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def result_of(clip: Path, weights: Path, **options: Any) -> tuple[Path, list[str]]:
    """The annotated clip, and the notes of its report."""
    out = clip.parent / "out"
    report = process(clip, out, weights, **options)
    return out / "annotated.mp4", report["output"]["notes"]


def probed(path: Path, streams: str = "") -> list[dict[str, Any]]:
    """streams: those of a kind; all by default."""
    chosen = ["-select_streams", streams] if streams else []
    command = ["ffprobe", "-v", "error", *chosen, "-show_streams"]
    done = subprocess.run([*command, "-of", "json", path], capture_output=True, check=True)
    return list(json.loads(done.stdout)["streams"])
