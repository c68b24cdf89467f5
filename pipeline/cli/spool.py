"""Standard input -> a regular file, because a clip is read several times."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.core.disk_space import disk_full, is_disk_full
from pipeline.core.errors import InputError, PipelineError
from pipeline.core.work_folder import SPOOL_NAME, held, locked_work_folder
from pipeline.execution.journal import tidy

_NAME = "standard input"
_CHUNK_BYTES = 1 << 20


def spool(stream: BinaryIO, path: Path, max_bytes: int | None = None) -> int:
    """Copy a stream to a new file until it ends; returns the number of bytes.

    max_bytes: None takes half of the free space, so that there is room for the result.
    Raises InputError, and removes the file, if the stream is empty, too long, or the file cannot
    be written.
    """
    num_bytes = 0
    try:
        if max_bytes is None:
            max_bytes = shutil.disk_usage(path.parent).free // 2
        with path.open("xb") as file:
            while chunk := stream.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > max_bytes:
                    raise InputError(
                        f"{_NAME}: more than {max_bytes / 1e6:.0f} MB, half of the free space in "
                        f"{path.parent}; save it as a file and give its path"
                    )
                file.write(chunk)
        if not num_bytes:
            raise InputError(f"{_NAME} is empty; give a clip with < or a pipe")
    except FileExistsError as error:
        raise InputError(f"{path} exists already") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        if is_disk_full(error, path.parent):
            raise disk_full(path.parent.parent, 3 * num_bytes) from error
        raise InputError(f"{_NAME}: cannot be stored in {path} ({error.strerror})") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return num_bytes


@contextlib.contextmanager
def spooled(stream: BinaryIO, output_dir: Path) -> Iterator[Path]:
    """A stream as a file in the work folder of a run, for as long as the context lasts.

    The file is locked for that time: no other run can start in the folder. The next run removes the
    file of a killed run. Raises FolderInUse, before anything is read, if another run uses the
    folder. Errors of the block that name the file are changed to name standard input.
    """
    created = not output_dir.exists()
    try:
        with contextlib.ExitStack() as stack:
            with locked_work_folder(output_dir) as folder:
                path = folder / SPOOL_NAME
                path.unlink(missing_ok=True)
                spool(stream, path)
                stack.enter_context(held(path, output_dir))
            try:
                yield path
            except PipelineError as error:
                error.args = tuple(str(part).replace(str(path), _NAME) for part in error.args)
                error.file = error.file and error.file.replace(str(path), _NAME)
                raise
    finally:
        tidy(output_dir, created=created)
