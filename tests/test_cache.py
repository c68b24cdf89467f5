"""What is kept between runs may be damaged, gone or impossible to keep: a run goes on."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.cache import is_whole
from pipeline.core.notes import collected_notes
from pipeline.core.progress import no_progress
from pipeline.model.prepare import prepare_model
from tests.checkpoints import (
    CONVERT_IN_A_FRESH_PROCESS,
    IMGSZ,
    WIDE,
    heads_of,
    save,
    three_convolutions,
)
from tests.conftest import gray, process, read_detections, write_clip

Damage = Callable[[Path, random.Random], object]


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def change_bytes(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(3):
        content[rng.randrange(len(content))] ^= 1 + rng.randrange(255)
    path.write_bytes(content)


def lengthen(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(10))


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def scribble(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(2000))


def remove(path: Path, _: random.Random) -> None:
    path.unlink()


def folder_in_its_place(path: Path, _: random.Random) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


DAMAGES: list[Damage] = [
    truncate,
    change_bytes,
    lengthen,
    empty,
    scribble,
    remove,
    folder_in_its_place,
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and a cache that a run of it has filled."""
    folder = tmp_path_factory.mktemp("whole")
    weights = save(folder / "model.pt", three_convolutions(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        heads_of(prepare_model(weights, WIDE, IMGSZ, no_progress))
    return folder


@pytest.fixture
def kept(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own, to be damaged."""
    shutil.copytree(whole / "cache", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and "160x96" in path.name) + [
        path for pattern in ("*.blob", "*.blob.seal") for path in cache.rglob(pattern)
    ]


def use(whole: Path) -> tuple[list[NDArray[np.float32]], list[str]]:
    with collected_notes() as notes:
        heads = heads_of(prepare_model(whole / "model.pt", WIDE, IMGSZ, no_progress))
    return heads, notes


@pytest.fixture(scope="module")
def expected(whole: Path) -> list[NDArray[np.float32]]:
    """What the model makes of a picture, with the cache as it was filled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(whole / "cache"))
        heads, notes = use(whole)
    assert notes == []
    return heads


def test_what_is_whole_is_taken_without_a_word(whole: Path, kept: Path) -> None:
    assert len(files_of(kept)) == 6
    before = {path: path.stat().st_mtime_ns for path in files_of(kept)}
    _, notes = use(whole)
    assert notes == []
    assert {path: path.stat().st_mtime_ns for path in files_of(kept)} == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("number", range(6))
def test_whatever_is_damaged_the_model_sees_the_same(
    whole: Path, kept: Path, expected: list[NDArray[np.float32]], number: int, damage: Damage
) -> None:
    damage(files_of(kept)[number], random.Random(number))
    found, notes = use(whole)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert len(notes) <= 1
    assert all("damaged" in text or "cannot be written" in text for text in notes)


@pytest.mark.parametrize("pattern", ["160x96.bin", "160x96.npz", "160x96.xml", "*.blob"])
def test_one_changed_byte_is_noticed_told_and_mended(whole: Path, kept: Path, pattern: str) -> None:
    (path,) = kept.rglob(pattern)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    _, notes = use(whole)
    assert len(notes) == 1
    assert "is damaged; rebuilding it" in notes[0]
    assert use(whole)[1] == []


def test_all_of_it_damaged_at_once_is_all_made_anew(
    whole: Path, kept: Path, expected: list[NDArray[np.float32]]
) -> None:
    rng = random.Random(7)
    for path in files_of(kept):
        change_bytes(path, rng)
    found, _ = use(whole)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert use(whole)[1] == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system of one's own, where that is permitted."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a file system")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


@pytest.mark.parametrize(
    "kind", ["under /proc", "a file in its place", "below a file", "read-only", "full", "half full"]
)
def test_where_nothing_can_be_kept_a_run_goes_on_and_says_so_once(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mounted: Callable[[str], Path],
    kind: str,
) -> None:
    (tmp_path / "file").write_text("in the way")
    if kind == "under /proc":
        cache = Path("/proc/nowhere")
    elif kind == "a file in its place":
        cache = tmp_path / "cache"
        cache.mkdir()
        (cache / "pipeline").write_text("in the way")
    elif kind == "below a file":
        cache = tmp_path / "file"
    else:
        options = {"read-only": "ro", "full": "size=4k", "half full": "size=40k"}
        cache = mounted(options[kind])
    clip = write_clip(tmp_path / "clip.mp4", [gray(level, (160, 96)) for level in range(0, 90, 9)])
    expected = process(clip, tmp_path / "kept", whole / "model.pt", imgsz=IMGSZ)
    assert expected["output"]["notes"] == []
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    report = process(clip, tmp_path / "not kept", whole / "model.pt", imgsz=IMGSZ)
    notes = report["output"]["notes"]
    assert len(notes) == 1
    assert str(cache) in notes[0]
    assert "XDG_CACHE_HOME" in notes[0]
    assert read_detections(tmp_path / "not kept") == read_detections(tmp_path / "kept")


@pytest.mark.slow
def test_many_cold_processes_at_once_all_succeed_and_leave_a_whole_cache(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = [sys.executable, "-c", CONVERT_IN_A_FRESH_PROCESS, str(whole / "model.pt")]
    command += [str(side) for side in WIDE]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = []
    for child in running:
        output, errors = child.communicate(timeout=100)
        assert child.returncode == 0, errors
        outputs.append(output)
    # One that is late finds what another has made.
    assert any("stages: convert" in output for output in outputs)
    (ir,) = (tmp_path / "cache").rglob("160x96.xml")
    assert is_whole(ir)
    _, notes = use(whole)
    assert notes == []
