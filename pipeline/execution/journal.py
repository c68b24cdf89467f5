"""The journal of the finished segments of a run, in its work folder.

Imports nothing heavy: the parent uses it to clean up after the child process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.core.files import file_sha256, flush_to_disk
from pipeline.core.text import are, counted
from pipeline.core.work_folder import (
    KEY_NAME,
    MARK_NAME,
    SPOOL_NAME,
    is_held,
    locked_work_folder,
    work_folder,
)

_JOURNAL_NAME, _PUBLISHING_NAME = "journal.jsonl", "publishing"


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
        self._successor: dict[str, object] | None = None

    @property
    def num_done(self) -> int:
        """The number of finished segments."""
        return len(self._done)

    @property
    def num_bytes(self) -> int:
        """The size of the files of the finished segments."""
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
        """Resume an interrupted run with the same key, or start without segments.

        Segments of a run with another key are discarded when the first segment of this one is
        added. Returns the encoder threads of the resumed run: the remaining segments must be
        encoded in the same way.
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
        self._successor = {"key": key, "encoder_threads": encoder_threads}
        if self.num_kept_otherwise(key):
            self._done = {}
        else:
            self._succeed()
        return encoder_threads

    def _succeed(self) -> None:
        """Discard the segments of another run, if a new one has started."""
        if self._successor is None:
            return
        settings, self._successor = self._successor, None
        self.clear(but=(self.making, self.finished))
        (self.folder / KEY_NAME).write_text(json.dumps(settings), encoding="utf-8")
        if self._outlasts_power_cuts:
            flush_to_disk(self.folder / KEY_NAME)

    def matches(self, key: str) -> bool:
        """Whether the segments are those of a run with this key."""
        return self._kept_threads(key) is not None

    def num_kept_otherwise(self, key: str) -> int:
        """The number of finished segments of a run with another key, which can resume from them."""
        settings = self._settings()
        return self.num_done if settings is not None and settings[0] != key else 0

    def _kept_threads(self, key: str) -> int | None:
        settings = self._settings()
        return settings[1] if settings is not None and settings[0] == key else None

    def _settings(self) -> tuple[str, int] | None:
        """The key and the encoder threads of the stored run; None if missing or damaged."""
        try:
            settings = json.loads((self.folder / KEY_NAME).read_text(encoding="utf-8"))
            return str(settings["key"]), int(settings["encoder_threads"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def clear(self, but: Sequence[Path] = ()) -> None:
        """Remove everything in the folder but the spool, which the run may be reading."""
        # First, so that the files of a journal always exist.
        (self.folder / _JOURNAL_NAME).unlink(missing_ok=True)
        for entry in self.folder.iterdir():
            if entry not in (self.spool, self.folder / MARK_NAME, *but):
                _remove(entry)
        self._done = {}

    def discard(self) -> None:
        """Remove what this run and those before it with the same key have done."""
        if self._successor is None:
            self.clear()

    def has(self, number: int) -> bool:
        """Whether a segment is finished and its files are undamaged."""
        hashes = self._done.get(number)
        if hashes is None:
            return False
        try:
            return all(file_sha256(self.folder / name) == sha for name, sha in hashes.items())
        except OSError:
            return False

    def add(self, number: int, parts: Sequence[Path]) -> None:
        """Record a finished segment and move its files into the folder."""
        self._succeed()
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
        try:
            self._append(line)
            self._done[number] = hashes
        except BaseException:  # An interrupt comes before the line is written, or after that.
            self._done = dict(_entries(self.folder / _JOURNAL_NAME))
            raise

    def _append(self, line: str) -> None:
        with (self.folder / _JOURNAL_NAME).open("ab") as journal:
            # An incomplete last line must not join with this one.
            journal.write(b"\n" * (journal.tell() > 0) + line.encode())
            journal.flush()
            if self._outlasts_power_cuts:
                os.fsync(journal.fileno())


@contextmanager
def open_journal(output_dir: Path, source: object = None) -> Iterator[Journal]:
    """The journal of the run that writes to a folder, which is created if need be.

    source: of the run; it may be the spool in the work folder. Afterwards nothing is left of a run
    that has nothing to go on from. Raises InputError if the folder cannot be written, FolderInUse
    if another run is at work in it.
    """
    owns_spool = source == work_folder(output_dir) / SPOOL_NAME
    created = not output_dir.exists()
    with _opened(output_dir, owns_spool=owns_spool, created=created) as journal:
        yield journal


@contextmanager
def _opened(output_dir: Path, *, owns_spool: bool, created: bool) -> Iterator[Journal]:
    with locked_work_folder(output_dir, owns_spool=owns_spool) as folder:
        journal = Journal(folder)
        try:
            yield journal
        finally:
            passing = [journal.making, journal.finished]
            if not is_held(journal.spool):
                passing.append(journal.spool)
            for path in passing:
                _remove(path)
            if not Journal(folder).num_done:
                journal.clear()
                if not journal.spool.exists():
                    _remove(folder)
            if created:  # While it is locked: another run may have made it anew.
                with suppress(OSError):  # It is not empty, as it should be.
                    output_dir.rmdir()


def is_publishing(output_dir: Path) -> bool:
    """Whether a run into a folder was cut while it moved its files to their final names."""
    try:
        return Journal(work_folder(output_dir)).publishing
    except InputError:
        return False


def tidy(output_dir: Path, *, created: bool) -> str:
    """Remove the files of a killed run, unless it has finished segments.

    created: whether that run created the output folder. Returns a text about kept segments.
    """
    if not output_dir.is_dir():
        return ""
    with (
        suppress(InputError),
        _opened(output_dir, owns_spool=True, created=created) as journal,
    ):
        return what_is_kept(journal)
    return ""


def what_is_kept(journal: Journal) -> str:
    """A text about the kept segments for the user; empty if there are none."""
    if not journal.num_done:
        return ""
    done = counted(journal.num_done, "segment")
    if journal.num_segments:
        done = f"{journal.num_done} of {counted(journal.num_segments, 'segment')}"
    return f"{done} {are(journal.num_done)} kept: rerun the command to resume"


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
