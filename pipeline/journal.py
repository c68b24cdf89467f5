"""The folder of a run under way: one run at a time, and a journal of what is done in it.

Imports nothing heavy: it is also what tidies up when the process that worked has died.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.checksum import file_sha256, flush_to_disk
from pipeline.errors import InputError

WORK_NAME = ".partial"
SPOOL_NAME = "stdin"
_JOURNAL_NAME, _KEY_NAME, _PUBLISHING_NAME = "journal.jsonl", "key", "publishing"


class Journal:
    """Which segments are done, in a folder that only one run may use.

    A segment is done when its files are on the disk under their names and a line here says so.
    making, finished: where segments, and the whole, are until they are that; spool: where standard
    input is kept as a file. Nothing in them outlasts the run. Raises OSError where the folder
    cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.making, self.finished = folder / "making", folder / "finished"
        self.spool = folder / SPOOL_NAME
        self.num_segments = 0
        self._done = dict(_entries(folder / _JOURNAL_NAME))

    @property
    def num_done(self) -> int:
        """How many segments there are to go on from."""
        return len(self._done)

    @property
    def num_bytes(self) -> int:
        """How large the files are that there are to go on from."""
        paths = [self.folder / name for hashes in self._done.values() for name in hashes]
        return sum(path.stat().st_size for path in paths if path.exists())

    @property
    def _outlasts_power_cuts(self) -> bool:
        """Of a short clip too little is lost to wait for the disk; the hashes tell what is."""
        return self.num_segments > 1

    @property
    def publishing(self) -> bool:
        """Whether a run was cut while it moved its finished files to their final names."""
        return (self.folder / _PUBLISHING_NAME).exists()

    def begin_publishing(self) -> None:
        (self.folder / _PUBLISHING_NAME).touch()

    def begin(self, key: str, num_segments: int, encoder_threads: int) -> int:
        """Go on with what an interrupted run with the same key left; else begin with nothing.

        Returns the encoder threads of the run that is gone on with: what follows must be encoded
        as what there is.
        """
        self.num_segments = num_segments
        threads = self._begin(key, encoder_threads)
        for passing in (self.making, self.finished):
            passing.mkdir(exist_ok=True)
        return threads

    def _begin(self, key: str, encoder_threads: int) -> int:
        kept = self._kept_threads(key)
        if kept is not None:
            return kept
        self.clear()
        settings = {"key": key, "encoder_threads": encoder_threads}
        (self.folder / _KEY_NAME).write_text(json.dumps(settings), encoding="utf-8")
        flush_to_disk(self.folder / _KEY_NAME)
        return encoder_threads

    def matches(self, key: str) -> bool:
        """Whether what is in the folder was made by a run with this key."""
        return self._kept_threads(key) is not None

    def _kept_threads(self, key: str) -> int | None:
        try:
            settings = json.loads((self.folder / _KEY_NAME).read_text(encoding="utf-8"))
            return int(settings["encoder_threads"]) if settings["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self) -> None:
        """Let go of everything in the folder but the spool, which the run may be reading."""
        # First, so that a journal is never without what it tells of.
        (self.folder / _JOURNAL_NAME).unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        for entry in self.folder.iterdir():
            if entry != self.spool:
                _remove(entry)
        self._done = {}

    def has(self, number: int) -> bool:
        """Whether a segment is done, and its files are still what they were then."""
        hashes = self._done.get(number)
        if hashes is None:
            return False
        try:
            return all(file_sha256(self.folder / name) == sha for name, sha in hashes.items())
        except OSError:
            return False

    def add(self, number: int, parts: Sequence[Path]) -> None:
        """Record that a segment is done: its files move from where they were made to here."""
        hashes = {}
        for stale in self.folder.glob(f"{number:04d}.*"):
            stale.unlink()  # Damaged, or of another attempt.
        for part in parts:
            if self._outlasts_power_cuts:
                flush_to_disk(part)
            hashes[part.name] = file_sha256(part)
            part.replace(self.folder / part.name)
        if self._outlasts_power_cuts:
            flush_to_disk(self.folder)
        line = json.dumps({"segment": number, "sha256": hashes})
        with (self.folder / _JOURNAL_NAME).open("ab") as journal:
            # A line that was cut short must not swallow this one.
            journal.write(b"\n" * (journal.tell() > 0) + line.encode())
            journal.flush()
            if self._outlasts_power_cuts:
                os.fsync(journal.fileno())
        self._done[number] = hashes


@contextmanager
def open_journal(output_dir: Path) -> Iterator[Journal]:
    """The journal of the run that writes to a folder, which is created if need be.

    Afterwards nothing is left of a run that has nothing to go on from. Raises InputError if the
    folder cannot be written, or another run is at work in it.
    """
    created = not output_dir.exists()
    with locked_work_folder(output_dir) as folder:
        journal = Journal(folder)
        try:
            yield journal
        finally:
            for passing in (journal.making, journal.finished, journal.spool):
                _remove(passing)
            if not Journal(folder).num_done:
                shutil.rmtree(folder, ignore_errors=True)
            if created:
                with suppress(OSError):  # It is not empty, as it should be.
                    output_dir.rmdir()


@contextmanager
def locked_work_folder(output_dir: Path) -> Iterator[Path]:
    """The folder of the journal, made if need be, while no other run may use it.

    Raises InputError as `open_journal` does.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(output_dir, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{output_dir}: cannot write there ({error.strerror})") from error
    try:
        _lock(lock, output_dir)
        folder = output_dir / WORK_NAME
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{output_dir}: cannot write there ({error.strerror})") from error
        yield folder
    finally:
        os.close(lock)


def tidy(output_dir: Path, *, created: bool) -> str:
    """Remove what a run that was killed has left, unless another one can go on from it.

    created: whether the folder itself was made by that run. Returns what is kept, in words.
    """
    if not output_dir.is_dir():
        return ""
    with suppress(InputError), open_journal(output_dir) as journal:
        if journal.num_done:
            return what_is_kept(journal)
    if created:
        with suppress(OSError):
            output_dir.rmdir()
    return ""


def what_is_kept(journal: Journal) -> str:
    """In words, for the user; empty if there is nothing."""
    if not journal.num_done:
        return ""
    of_all = f" of {journal.num_segments}" if journal.num_segments else ""
    segments = "segment is" if journal.num_done == 1 and not of_all else "segments are"
    return f"{journal.num_done}{of_all} {segments} kept: the same command goes on from there"


def _lock(descriptor: int, output_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{output_dir}: another run is writing there") from error
    except OSError:
        return  # Not every network file system locks folders; then nothing can be told.


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _entries(journal: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a journal that are whole."""
    try:
        lines = journal.read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
            yield int(entry["segment"]), {str(k): str(v) for k, v in entry["sha256"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # Cut short: that segment is not done.
