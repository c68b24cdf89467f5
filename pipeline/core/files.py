"""Hashes of files, and flushing them to disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def file_sha256(path: Path, beat: Callable[[], object] = lambda: None) -> str:
    """The SHA-256 of a file's content, in hexadecimal; beat: called once per megabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            beat()
    return digest.hexdigest()


def flush_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
