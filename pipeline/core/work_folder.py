"""The folder in an output folder where a run keeps unfinished work: whose it is, and who uses it.

Imports nothing heavy: it is also what tidies up when the process that worked has died.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.core.errors import FolderInUse, InputError
from pipeline.core.notes import note

WORK_NAME = ".partial"
SPOOL_NAME = "stdin"
MARK_NAME = "pipeline-work.json"
"""The file that tells our folder from that of another program."""
KEY_NAME = "key"

_NAMES = (WORK_NAME, f"{WORK_NAME}-pipeline")
"""The second one is taken where the first belongs to another program, as rsync."""
_FORMAT = 1


def work_folder(output_dir: Path) -> Path:
    """Where runs into a folder keep unfinished work, whether it exists yet or not.

    Raises InputError where other programs have taken all names for it.
    """
    folders = [output_dir / name for name in _NAMES]
    for folder in folders:
        if _is_ours(folder):
            return folder
    for folder in folders:
        if not os.path.lexists(folder):
            return folder
    raise InputError(
        f"{output_dir}: {' and '.join(_NAMES)} in it were not made by this program and are left "
        "alone: choose another output folder"
    )


def _is_ours(folder: Path) -> bool:
    if folder.is_symlink():
        return False
    try:
        mark = json.loads((folder / MARK_NAME).read_text(encoding="utf-8"))
        return bool(mark["format"] == _FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:  # Versions before the mark had the key alone.
        settings = json.loads((folder / KEY_NAME).read_text(encoding="utf-8"))
        return bool(settings.keys() == {"key", "encoder_threads"})
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def locked_work_folder(output_dir: Path, *, owns_spool: bool = False) -> Iterator[Path]:
    """The work folder, made if need be, while no other run may use it.

    owns_spool: this is the run that standard input is kept for there, or cleans up after it.
    Raises InputError if the folder cannot be written, FolderInUse if another run is at work there.
    """
    with contextlib.ExitStack() as stack:
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(output_dir, output_dir))
            folder = work_folder(output_dir)
            _make(folder)
        except OSError as error:
            raise InputError(f"{output_dir}: cannot write there ({error.strerror})") from error
        if not owns_spool and is_held(folder / SPOOL_NAME):
            raise _in_use(output_dir)
        yield folder


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
def held(path: Path, output_dir: Path) -> Iterator[None]:
    """Hold a lock on a file or folder. Raises FolderInUse for the output folder, OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _in_use(output_dir) from error
        except OSError as error:
            note(
                f"{output_dir}: its file system cannot lock files ({error.strerror}); a second "
                "run that writes there at the same time would not be noticed"
            )
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody, perhaps this process, holds a lock on a file."""
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
    return FolderInUse(f"{output_dir}: another run is writing there")
