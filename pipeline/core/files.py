"""Hashes and fingerprints of files, and flushing them to disk."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20
_NUM_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


def file_sha256(path: Path, beat: Callable[[], object] = lambda: None) -> str:
    """The SHA-256 of a file's content, in hexadecimal; beat: called once per megabyte.

    Raises OSError, also for what is not a regular file: a named pipe would wait for its writer.
    """
    digest = hashlib.sha256()
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            beat()
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """What identifies a file's content without reading it all, in hexadecimal.

    The SHA-256 of its size and of 16 samples of it, the first and the last bytes included. Raises
    OSError.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(_NUM_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * number // (_NUM_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def file_stamp(path: Path) -> list[Any]:
    """What identifies a file without reading it: name, size, ns of the last change. Raises OSError.

    A clip with the same stamp and the same path counts as the same clip from run to run.
    """
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]


def file_state(path: Path) -> tuple[str, int]:
    """Fingerprint, and ns of the last change: the same as long as nothing wrote to the file.

    Raises OSError.
    """
    return fingerprint(path), path.stat().st_mtime_ns


def real_path(path: Path) -> Path:
    """The absolute path without links; of a circle of links, where `resolve` fails, one of them."""
    return Path(os.path.realpath(path))


def flush_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
