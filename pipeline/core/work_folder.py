"""The work folder, in the output folder, for unfinished work: its ownership and its lock.

Imports nothing heavy: the parent uses it to clean up after the child process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.core.errors import FolderInUse, InputError
from pipeline.core.notes import note

WORK_NAME = ".partial"
SPOOL_NAME = "stdin"
MARK_NAME = "pipeline-work.json"
"""The file that marks a work folder of this program."""
KEY_NAME = "key"

_NAMES = (WORK_NAME, f"{WORK_NAME}-pipeline")
"""The second is used if the first belongs to another program, such as rsync."""
_FORMAT = 1
_CLAIM_SECONDS = 5.0
"""Where no folder can be made at all, as in /proc, the system says the same as of one removed."""


def work_folder(output_dir: Path) -> Path:
    """The work folder of an output folder, whether it exists or not.

    Raises InputError if other programs use all its names.
    """
    folders = [output_dir / name for name in _NAMES]
    for folder in folders:
        if _is_ours(folder):
            return folder
    for folder in folders:
        if not os.path.lexists(folder):
            return folder
    raise InputError(
        f"{output_dir}: {' and '.join(_NAMES)} in it belong to another program: "
        "choose another output folder"
    )


def _is_ours(folder: Path) -> bool:
    if folder.is_symlink():
        return False
    try:
        mark = json.loads((folder / MARK_NAME).read_text(encoding="utf-8"))
        return bool(mark["format"] == _FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:  # Early versions had the key file only.
        settings = json.loads((folder / KEY_NAME).read_text(encoding="utf-8"))
        return bool(settings.keys() == {"key", "encoder_threads"})
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def locked_work_folder(output_dir: Path, *, owns_spool: bool = False) -> Iterator[Path]:
    """The work folder, created if needed, locked against other runs.

    owns_spool: whether this is the run whose standard input is stored there, or its cleanup.
    Raises InputError if the folder cannot be written, FolderInUse if another run uses it.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = _claimed(output_dir, stack)
        except FileExistsError as error:
            raise InputError(f"{error.filename}: is not a folder") from error
        except OSError as error:
            raise InputError(f"{output_dir}: cannot write there ({error.strerror})") from error
        if not owns_spool and is_held(folder / SPOOL_NAME):
            raise _in_use(output_dir)
        yield folder


def _claimed(output_dir: Path, stack: contextlib.ExitStack) -> Path:
    """The work folder, made, with the lock on the stack.

    A run that ends removes an output folder that is empty: also one that this run has just made.
    """
    give_up_at = time.monotonic() + _CLAIM_SECONDS
    while True:
        with contextlib.ExitStack() as holding:
            try:
                output_dir.mkdir(parents=True, exist_ok=True)
                descriptor = holding.enter_context(held(output_dir, output_dir))
                if not os.path.samestat(os.fstat(descriptor), output_dir.stat()):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                folder = work_folder(output_dir)
                _make(folder)
            except (FileNotFoundError, FileExistsError):  # mkdir raises both then.
                if _is_blocked(output_dir.absolute()) or time.monotonic() > give_up_at:
                    raise
                continue
            stack.push(holding.pop_all())
            return folder


def _is_blocked(folder: Path) -> bool:
    """Whether something is in the way of a folder that is no folder, and so of no other run.

    folder: absolute, for which there must be a current folder.
    """
    for path in (folder, *folder.parents):
        with suppress(FileNotFoundError):
            is_folder = stat.S_ISDIR(path.lstat().st_mode)
            return not (is_folder or path.is_dir())  # A link to one is followed.
    return True


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    mark = folder / MARK_NAME
    if not mark.exists():
        try:
            mark.write_text(json.dumps({"format": _FORMAT}) + "\n", encoding="utf-8")
        except OSError:
            with suppress(OSError):
                mark.unlink(missing_ok=True)
                folder.rmdir()
            raise


@contextmanager
def held(path: Path, output_dir: Path) -> Iterator[int]:
    """Hold a lock on a file or folder; yields its descriptor.

    Raises FolderInUse for the output folder, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(output_dir) from error
        except OSError as error:
            note(
                f"{output_dir}: its file system cannot lock files ({error.strerror}): do not start "
                "a second run into this folder"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process, perhaps this one, holds a lock on a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _in_use(output_dir: Path) -> FolderInUse:
    return FolderInUse(
        f"{output_dir}: another run is writing there; wait for it, or choose another output folder"
    )
