"""Clips and results in an object store: copied from there before a run, and to there after it.

The store's own packages are extras, and find credentials as they always do: in the environment,
in a file of the user's, from the machine. Messages name the address and the kind of an error only,
because what a package says may hold a part of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import posixpath
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.cache import cache_dir
from pipeline.core.disk_space import is_disk_full
from pipeline.core.errors import InputError, UsageError
from pipeline.core.notes import note
from pipeline.core.position import Beat, no_beat

PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
"""What each kind of address needs."""

_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
"""Errors of botocore and of google.auth, which need not be installed."""
_POLL_SECONDS = 0.25
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(name: str) -> bool:
    """Whether a name is an address in a store, rather than a path. Raises UsageError.

    What looks like an address of an unknown kind is treated as a path.
    """
    found = _SCHEME.match(name)
    if found is None or found[1] not in PACKAGES:
        return False
    bucket, _, key = name[found.end() :].partition("/")
    # A secret may have a slash in it: then the rest of it looks like a key.
    in_two = ":" in bucket and "@" in key and not bucket.startswith("arn:")
    if "@" in bucket or in_two or "?" in name:
        raise UsageError(
            f"{found[1]}://...: leave credentials out of the address; put them into the "
            "environment or a file in the home folder"
        )
    return True


def require_known(name: str) -> None:
    """Raise UsageError for an address of an unknown kind, unless a file has that name.

    The message does not repeat it: it may have a password in it.
    """
    found = _SCHEME.match(name)
    if found is not None and found[1] not in PACKAGES and not Path(name).exists():
        known = " and ".join(f"{scheme}://" for scheme in PACKAGES)
        raise UsageError(f"{found[1]}://...: only files and addresses of {known} are supported")


def scratch_output(url: str, source: str) -> Path:
    """Where the results for a store are made; the same for the same run, which may resume there."""
    name = hashlib.sha256(f"{source} {url}".encode()).hexdigest()[:16]
    return cache_dir() / "remote-output" / name


def joined(url: str, *names: str) -> str:
    """The address of something in a folder."""
    return posixpath.join(url, *names)


def exists(url: str) -> bool:
    """Whether there is something at an address. Raises UsageError, InputError."""
    with _errors(url):
        return bool(_filesystem(url).exists(url))


def version(url: str) -> str:
    """What changes with the content of something at an address. Raises UsageError, InputError."""
    with _errors(url):
        filesystem = _filesystem(url)
        filesystem.invalidate_cache()
        return str(filesystem.checksum(url))


def size(url: str) -> int | None:
    """Bytes at an address; None where there is nothing. Raises UsageError, InputError."""
    with _errors(url), contextlib.suppress(FileNotFoundError):
        return int(_filesystem(url).size(url))
    return None


def read(url: str) -> bytes | None:
    """The content of a small file; None where there is none. Raises UsageError, InputError."""
    with _errors(url), contextlib.suppress(FileNotFoundError):
        return bytes(_filesystem(url).cat_file(url))
    return None


def upload(folder: Path, url: str, beat: Beat = no_beat, last: Sequence[str] = ()) -> None:
    """Copy all files of a folder, and of folders in it, into one in a store.

    last: the names of those to come last.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path.name in last):
        target = joined(url, path.relative_to(folder).as_posix())
        with _errors(target):
            _filesystem(url).put_file(str(path), target, callback=_told(beat))


def download(url: str, folder: Path, beat: Beat = no_beat) -> None:
    """Copy all files of a folder in a store into one that is made here."""
    folder.mkdir()
    with _errors(url):
        filesystem = _filesystem(url)
        for source in filesystem.find(url):
            target = str(folder / posixpath.basename(source))
            filesystem.get_file(source, target, callback=_told(beat))


def remove(url: str) -> None:
    """Remove a folder in a store, if there is one."""
    with _errors(url), contextlib.suppress(FileNotFoundError):
        _filesystem(url).rm(url, recursive=True)


@contextlib.contextmanager
def local_copy(url: str, beat: Beat = no_beat) -> Iterator[Path]:
    """A clip in a store as a file here, for as long as the context lasts.

    All processes of a machine share one copy. It stays until another clip is copied, so that a
    run that goes on finds it. Raises UsageError, InputError.
    """
    name = hashlib.sha256(f"{url} {version(url)}".encode()).hexdigest()[:16]
    path = cache_dir() / "remote" / name / posixpath.basename(url)
    while True:
        with _folder_lock(path.parent, fcntl.LOCK_SH, beat):
            if path.exists():
                yield path
                return
        with _folder_lock(path.parent, fcntl.LOCK_EX, beat):
            if not path.exists():  # Nobody else was faster.
                _remove_unused(path.parent)
                _fetch(url, path, beat)


def _fetch(url: str, path: Path, beat: Beat) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        part = Path(scratch) / path.name
        with _errors(url):
            _filesystem(url).get_file(url, str(part), callback=_told(beat))
        # The folder's name contains its version: a new copy is the same clip.
        os.utime(part, ns=(0, 0))
        part.rename(path)


def _remove_unused(wanted: Path) -> None:
    for other in wanted.parent.iterdir():
        with contextlib.suppress(OSError):
            if other != wanted:
                with _folder_lock(other, fcntl.LOCK_EX):
                    shutil.rmtree(other)


@contextlib.contextmanager
def _folder_lock(folder: Path, kind: int, beat: Beat | None = None) -> Iterator[None]:
    """beat: called while another process has the lock; None raises BlockingIOError then."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if beat is None:
                    raise
                beat()
                time.sleep(_POLL_SECONDS)
                continue
            except OSError as error:
                note(f"{folder.parent}: its file system cannot lock files ({error.strerror})")
            break
        yield
    finally:
        os.close(descriptor)


def _told(beat: Beat) -> Any:
    """A callback of fsspec that counts every copied block as progress."""
    from fsspec.callbacks import Callback

    return Callback(hooks={"beat": lambda *_, **__: beat()})


def _filesystem(url: str) -> Any:
    scheme = url.partition("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except ImportError as error:
        package = PACKAGES[scheme]
        raise UsageError(
            f"{scheme}:// needs the package {package}: pip install {package}"
        ) from error


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        yield
    except (InputError, UsageError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"{url}: no such object or bucket") from error
    except PermissionError as error:
        raise InputError(
            f"{url}: access is denied; the store's credentials come from the environment"
        ) from error
    except Exception as error:  # Of any of the packages below.
        if type(error).__name__ in _NO_CREDENTIALS:
            raise InputError(
                f"{url}: no credentials were found; they come from the environment, a file in the "
                "home folder or the machine"
            ) from error
        if is_disk_full(error, cache_dir()):
            raise InputError(f"{cache_dir()}: disk full: no room for a copy of {url}") from error
        raise InputError(
            f"{url}: unexpected answer of the store ({type(error).__name__})"
        ) from error
