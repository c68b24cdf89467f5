"""Footage and checkpoints that are broken or mean harm, by the thousand."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ModelError
from pipeline.core.machine import available_cores
from pipeline.model.layers import build_graph
from tests.hostile import MEMORY_MB, Outcome, mutated_files, outcomes, truncated_files
from tests.malicious import ATTACKS
from tests.recordings import mutation_clips, small_clip
from tests.traps import CANARY, OWN_FRAMES, playlists, write_canary

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]

PROJECT = Path(__file__).resolve().parents[2]
NUM_MUTATED = 2000


def judge(row: Any, found: list[Outcome]) -> None:
    for outcome in found:
        with row.attempt(outcome.name):
            assert outcome.harmless, f"{outcome.kind}: {outcome.message}"
            assert outcome.peak_mb < MEMORY_MB
    kinds = Counter(outcome.kind for outcome in found)
    row.measured = (
        f"{kinds['frames']} gave frames, {kinds['refused']} an error; at most "
        f"{max(outcome.peak_mb for outcome in found):.0f} MB and "
        f"{max(outcome.seconds for outcome in found):.1f} s"
    )


def test_truncation(tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]) -> None:
    with fault(
        "clip cut short",
        "MP4, MKV, WebM, AVI, TS and FLV at every 2%, and in their headers",
        "what was decoded is kept and reported, or a clear error; parent alive",
    ) as row:
        found = []
        for suffix in ("mp4", "mkv", "webm", "avi", "ts", "flv"):
            clip = small_clip(tmp_path / f"clip.{suffix}", detail=100)
            size = clip.stat().st_size
            header = [100 * number / size for number in (0, 1, 4, 8, 16, 32, 64, 100, 200)]
            files = truncated_files(clip, tmp_path, [*header, *range(2, 101, 2)])
            found += outcomes(files, tiny_weights, tmp_path)
        judge(row, found)


def test_mutation(tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]) -> None:
    with fault(
        f"{NUM_MUTATED:,} mutated files",
        "MP4, MKV, AVI, WebM and TS, seeded",
        f"parent alive, nothing over 30 s, memory below {MEMORY_MB} MB",
    ) as row:
        clips, cores = mutation_clips(tmp_path), available_cores()

        def some(first: int) -> list[Outcome]:
            folder = tmp_path / str(first)
            folder.mkdir()
            files = mutated_files(clips, folder, range(first, NUM_MUTATED, cores))
            return outcomes(files, tiny_weights, folder)

        with ThreadPoolExecutor(cores) as pool:
            judge(row, list(itertools.chain(*pool.map(some, range(cores)))))


def test_playlists(tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    canary = write_canary(elsewhere)
    with (
        fault(
            "playlists and addresses",
            "HLS, concat, DASH, SDP, references in MOV and MKV, sequences, devices and more",
            "no canary byte in any output, no connection",
        ) as row,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        traps = playlists(tmp_path / "traps", canary, listener.getsockname()[1])
        listener.setblocking(False)
        for name, source in traps.items():
            out = tmp_path / "out" / name
            with row.attempt(name):
                arguments = [source, "--weights", str(tiny_weights), "--output-dir", str(out)]
                done = subprocess.run(
                    [sys.executable, "-m", "pipeline", "process", *arguments],
                    cwd=PROJECT,
                    capture_output=True,
                    timeout=60,
                )
                assert done.returncode in ((0,) if name in OWN_FRAMES else (1, 2))
                written = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
                assert not any(CANARY in part for part in [*written, done.stdout, done.stderr])
                with pytest.raises(BlockingIOError):
                    listener.accept()


def test_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    with fault(
        "malicious checkpoints",
        "every pickle instruction that can import or call, in every wrapping",
        "refused in one line; the canary never runs",
    ) as row:
        for name, attack in ATTACKS.items():
            with row.attempt(name):
                attack(tmp_path / "model.pt", canary)
                with pytest.raises(ModelError):
                    build_graph(tmp_path / "model.pt")
                assert not canary.exists()
