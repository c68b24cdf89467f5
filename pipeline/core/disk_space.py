"""The error for a full disk. Imports nothing heavy."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.core.errors import EncodeError, InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_HARDLY_BYTES = 1 << 16


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether an error, or one of its causes, means that a disk is full.

    FFmpeg gives no reason if it cannot write the end of a file: then the free space decides.
    """
    cause: BaseException | None = error
    seen: set[int] = (
        set()
    )  # The causes of an exception that was raised more than once may form a cycle.
    while cause is not None and id(cause) not in seen:
        if getattr(cause, "errno", None) in _FULL:
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    with suppress(OSError):
        return isinstance(error, EncodeError) and shutil.disk_usage(folder).free < _HARDLY_BYTES
    return False


def disk_full(folder: Path, needed_bytes: float, freed_bytes: int = 0) -> InputError:
    """The error with the folder and the space that is needed.

    freed_bytes: the size of the files that will be removed because of it.
    """
    free_bytes = freed_bytes
    with suppress(OSError):
        free_bytes += shutil.disk_usage(folder).free
    return InputError(
        f"{folder}: disk full: {_megabytes(free_bytes)} MB free, about "
        f"{_megabytes(needed_bytes)} MB needed; make room, or choose another folder"
    )


def num_bytes_in(folders: Iterable[Path]) -> int:
    """The total size of all files in folders."""
    return sum(
        path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()
    )


def _megabytes(num_bytes: float) -> str:
    megabytes = num_bytes / 1e6
    return f"{megabytes:.0f}" if megabytes >= 10 else f"{megabytes:.1f}"
