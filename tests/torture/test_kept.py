"""What an interrupted run has kept, and the disk that keeps it."""

from __future__ import annotations

import contextlib
import functools
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import Interrupted, PipelineError
from pipeline.core.progress import Progress
from pipeline.core.work_folder import WORK_NAME
from pipeline.run.process import process_video
from tests.conftest import write_clip
from tests.recordings import numbered
from tests.resuming import KEYS, config_of, interrupt, results, run

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

NUM_FRAMES = 120
Clip = tuple[Path, tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Clip:
    """A clip of six segments, and what a run over it gives that nothing interrupts."""
    folder = tmp_path_factory.mktemp("clip")
    path = write_clip(folder / "clip.mp4", [numbered(i) for i in range(NUM_FRAMES)], options=KEYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        run(path, folder / "out", tiny_weights)
    return path, results(folder / "out")


def damage(work: Path, rng: random.Random) -> str:
    """Cut, change, empty or delete one of the files that an interrupted run has kept."""
    victim = rng.choice(sorted(path for path in work.iterdir() if path.is_file()))
    content = bytearray(victim.read_bytes())
    kind = rng.choice(["cut", "changed", "emptied", "deleted", "grown"])
    if kind == "cut":
        victim.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "changed":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        victim.write_bytes(content)
    elif kind == "emptied":
        victim.write_bytes(b"")
    elif kind == "deleted":
        victim.unlink()
    else:
        victim.write_bytes(content + rng.randbytes(100))
    return f"{victim.name} {kind}"


def test_damage_to_what_was_kept(
    clip: Clip, tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]
) -> None:
    source, clean = clip
    with fault(
        "journal or a done segment damaged",
        "cut, changed, emptied or deleted at random",
        "noticed and redone; the result is that of a clean run",
    ) as row:
        for seed in range(60):
            rng, out = random.Random(seed), tmp_path / f"out-{seed}"
            interrupt(source, out, tiny_weights, rng.randrange(21, NUM_FRAMES))
            what = damage(out / WORK_NAME, rng)
            with row.attempt(f"seed {seed}, {what}"):
                run(source, out, tiny_weights)
                assert results(out) == clean
                assert not (out / WORK_NAME).exists()
            shutil.rmtree(out)


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int, *, read_only: bool = False) -> Iterator[Path]:
    """A file system in memory with so much room."""
    folder.mkdir()
    options = f"size={kilobytes}k" + (",ro" if read_only else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def refused(source: Path, out: Path, weights: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        run(source, out, weights)
    assert not isinstance(caught.value, Interrupted)
    final = [path.name for path in out.glob("*") if path.name != WORK_NAME] if out.is_dir() else []
    assert final == []
    return str(caught.value)


def test_the_disk(
    clip: Clip, tmp_path: Path, tiny_weights: Path, fault: Callable[..., Any]
) -> None:
    source, clean = clip
    size_kb = sum(len(part) for part in clean) // 1024
    with fault(
        "no space, read-only, vanished folder",
        "small tmpfs, at many sizes",
        "a clear error, never success; with free space, the run resumes from stored segments",
    ) as row:
        went_on = 0
        for kilobytes in range(8, 2 * size_kb, max(8, size_kb // 10)):
            with (
                row.attempt(f"{kilobytes} kB"),
                small_disk(tmp_path / "disk", kilobytes) as disk,
            ):
                message = refused(source, disk / "out", tiny_weights)
                assert "disk full" in message or "MB are free" in message, message
                subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
                went_on += run(source, disk / "out", tiny_weights)["segments"]["done_before"] > 0
                assert results(disk / "out") == clean
        with (
            row.attempt("read-only"),
            small_disk(tmp_path / "disk", 10_000, read_only=True) as disk,
        ):
            assert "Read-only file system" in refused(source, disk / "out", tiny_weights)
        with row.attempt("vanished"), small_disk(tmp_path / "disk", 10_000) as disk:
            with pytest.raises(PipelineError):
                run_while(source, disk / "out", tiny_weights, functools.partial(unmount, disk))
            small = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(disk)]
            subprocess.run(small, check=True)
        row.measured = f"{went_on} runs had segments to resume from"


def run_while(source: Path, out: Path, weights: Path, act: Callable[[], object]) -> None:
    """A run during which something happens once, when half of the frames are done."""

    def tell(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done == NUM_FRAMES // 2:
            act()

    process_video(config_of(source, out, weights), tell)


def unmount(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    subprocess.run(["umount", "-l", str(folder)], check=True)
