"""The cache folder: its files are checked, rebuilt if damaged, and optional for a run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from pipeline.core.errors import ModelError
from pipeline.core.notes import note

if TYPE_CHECKING:
    import openvino as ov

_SEAL_SUFFIX = ".seal"
_CHUNK_BYTES = 1 << 20


class NotKept(ModelError):
    """The cache folder cannot be written."""


def publish(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file, and the files that belong to it, and rename them when they are complete.

    An IR consists of several files with one stem: the graph is renamed last, so that its other
    files exist if it exists. Raises NotKept.
    """
    with scratch_folder(target.parent) as scratch:
        write(scratch / target.name)
        for part in sorted(scratch.iterdir(), key=lambda part: part.name == target.name):
            place = target.parent / part.name
            if place.is_dir():
                shutil.rmtree(place)
            part.replace(place)


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A temporary folder inside a cache folder. Raises NotKept if that cannot be written."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as name:
            yield Path(name)
    except OSError as error:
        raise NotKept(
            f"{cache_dir()}: cannot be written ({error.strerror}), nothing is cached; "
            "make it writable, or set another cache folder with XDG_CACHE_HOME"
        ) from error


def save_ir(model: ov.Model, ir: Path) -> None:
    """Write an IR in float32. Raises OSError if it cannot be written."""
    import openvino as ov  # Imported here: rendering a page needs only the rest of this module.

    try:
        ov.save_model(model, ir, compress_to_fp16=False)
    except RuntimeError as error:  # The error contains no more than that.
        raise OSError(errno.EIO, "the disk is full or broken", str(ir)) from error


def seal(target: Path, *parts: Path) -> None:
    """Write the checksums of a file, and of the files that belong to it, beside it."""
    sums = {path.name: _checksum(path) for path in (target, *parts)}
    _seal_of(target).write_text(json.dumps(sums), encoding="utf-8")


def is_whole(target: Path) -> bool:
    """Whether a file, and the files that belong to it, match their checksums; a note if not.

    OpenVINO detects a truncated file, but not a changed byte: it then computes wrong results.
    """
    if not (target.exists() and _seal_of(target).exists()):
        return False
    try:
        sums = dict(json.loads(_seal_of(target).read_text(encoding="utf-8")))
        if target.name in sums and all(
            _checksum(target.parent / Path(name).name) == kept for name, kept in sums.items()
        ):
            return True
    except (OSError, ValueError, TypeError):
        pass
    note_damage(target)
    return False


def note_damage(path: Path) -> None:
    """Note that a cached file is damaged and will be rebuilt."""
    note(f"{path.name} in the cache folder {path.parent} is damaged; rebuilding it")


@cache
def temporary_folder() -> Path:
    """The folder that replaces the cache folder if that cannot be written.

    Removed when the process ends, or earlier by `remove_temporary_folder`.
    """
    folder = tempfile.TemporaryDirectory(prefix="pipeline-")
    _OPEN.append(folder)
    return Path(folder.name)


_OPEN: list[tempfile.TemporaryDirectory[str]] = []


def remove_temporary_folder() -> None:
    """Remove it now: for a process that does not run its exit handlers."""
    temporary_folder.cache_clear()
    while _OPEN:
        _OPEN.pop().cleanup()


def link_whole(path: Path, folder: Path) -> bool:
    """Copy a cached file into another folder; a damaged one is removed instead."""
    if not is_whole(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return False
    try:
        os.link(path, folder / path.name)
    except OSError:  # Not every file system supports links.
        shutil.copyfile(path, folder / path.name)
    return True


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + _SEAL_SUFFIX)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def cache_dir() -> Path:
    """The folder of converted models and the downloaded checkpoint of this user."""
    return user_cache_path("pipeline")
