"""Files, folders and patterns -> clips, each with its own output folder.

Imports nothing heavy, and opens no clip.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pipeline.core.errors import UsageError
from pipeline.core.notes import note
from pipeline.core.picture_paths import PICTURE_SUFFIXES
from pipeline.core.text import counted
from pipeline.run.outputs import (
    ANNOTATED_NAMES,
    BATCH_JSON_NAME,
    BATCH_PAGE_NAME,
    CROPS_NAME,
    HIGHLIGHTS_NAME,
    REPORT_JSON_NAME,
)

# fmt: off
VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".av1", ".avi", ".dv", ".flv", ".h264", ".hevc", ".ivf", ".m2ts",
    ".m4v", ".mj2", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".obu", ".ogg", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
)
# fmt: on
"""The suffixes of clips in folders and patterns, in lower case."""

_PATTERN = re.compile(r"[*?[]")
_DIGEST_LENGTHS = (8, 16, 64)

EMPTY_NAME = "an input is an empty name: is a shell variable unset?"


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip and its output folder."""

    path: Path
    output_dir: Path


def names_many(text: str) -> bool:
    """Whether an input is a folder or a pattern rather than one file."""
    return Path(text).is_dir() or _is_pattern(text)


def find_clips(inputs: Sequence[str], output_dir: Path) -> list[Clip]:
    """The clips that the inputs name, each file once, in their order.

    inputs: files of any name; folders, of which all video files are taken, also those of folders
        in them; patterns with *, ? and [], where ** stands for folders at any depth. Of a folder
        or a pattern without a video file, all pictures are taken; beside one, none.
    output_dir: each clip has a folder below it, with the path of the clip below the current
        folder; for a clip elsewhere that path begins with the folder that was named, or that the
        named file is in. What lies in output_dir, hidden files, and results of this tool are
        found by name only.
    No two folders are the same, or one inside the other, also where case does not count. Raises
    UsageError for a folder or a pattern without a clip.
    """
    found: dict[str, tuple[Path, PurePath]] = {}
    for text in inputs:
        anchor, paths = _named_by(text, output_dir)
        for path in paths:
            real = os.path.realpath(path)
            # The file itself takes precedence over a link to it.
            if real not in found or os.path.abspath(path) == real:  # noqa: PTH100
                found[real] = path, _place(path, anchor)
    places = _told_apart({real: place for real, (_, place) in found.items()})
    return [Clip(path, output_dir / places[real]) for real, (path, _) in found.items()]


def _named_by(text: str, output_dir: Path) -> tuple[Path, list[Path]]:
    """The clips of one input, and the folder where the search begins."""
    if not text:
        raise UsageError(EMPTY_NAME)
    path, output = Path(text), Path(os.path.realpath(output_dir))
    if path.is_dir():
        anchor, paths = path, list(_in_folder(path, output))
    elif _is_pattern(text):
        anchor, paths = _matching(path, output)
    else:
        return path.parent, [path]
    if not paths:
        endings = ", ".join((*VIDEO_SUFFIXES, *PICTURE_SUFFIXES))
        raise UsageError(
            f"{text}: contains no clip and no picture; searched for names ending in {endings}"
            if path.is_dir()
            else f"{text}: matches no clip and no picture; searched {anchor} for names ending in "
            f"{endings}"
        )
    clips = [path for path in paths if not _is_picture(path)]
    if clips and len(clips) < len(paths):
        note(
            f"{text}: {counted(len(paths) - len(clips), 'picture')} beside clips left out; to "
            "process them, give the pictures or a pattern that matches only them"
        )
    return anchor, clips or paths


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


def _is_pattern(text: str) -> bool:
    # The name of a file may contain brackets.
    return bool(_PATTERN.search(text)) and not Path(text).exists()


def _in_folder(folder: Path, output: Path) -> Iterator[Path]:
    """The video files and pictures of a folder and those in it, also through links, each once."""
    seen = {os.path.realpath(folder)}
    if not output.is_relative_to(*seen) or str(output) in seen:
        output = Path(os.devnull)  # Not below this folder: nothing is to be left out.

    def is_new(path: str) -> bool:
        real = os.path.realpath(path)
        if real in seen or real == str(output):
            return False
        seen.add(real)
        return True

    for place, folders, names in os.walk(folder, followlinks=True, onerror=_note_unreadable):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and is_new(os.path.join(place, name))  # noqa: PTH118
        ]
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and _is_footage(path):
                yield path


def _note_unreadable(error: OSError) -> None:
    note(f"{error.filename}: cannot be read ({error.strerror}), clips in it are left out")


def _matching(pattern: Path, output: Path) -> tuple[Path, list[Path]]:
    """The folder that a pattern begins with, and the clips that match the rest."""
    first = next(i for i, part in enumerate(pattern.parts) if _PATTERN.search(part))
    anchor, rest = Path(*pattern.parts[:first]), pattern.parts[first:]
    wants_hidden = any(part.startswith(".") for part in rest)
    outside = not Path(os.path.realpath(anchor)).is_relative_to(output)
    paths: list[Path] = []
    try:
        for match in sorted(anchor.glob(str(Path(*rest)))):
            below = match.relative_to(anchor).parts
            if not wants_hidden and any(part.startswith(".") for part in below):
                continue
            if outside and Path(os.path.realpath(match)).is_relative_to(output):
                continue
            if match.is_dir():
                paths += _in_folder(match, output)
            elif _is_footage(match):
                paths.append(match)
    except ValueError as error:
        raise UsageError(f"{pattern}: not a pattern ({error})") from error
    return anchor, paths


def _is_footage(path: Path) -> bool:
    """Whether a file has the name of a clip or picture and is not a result of this program."""
    if path.suffix.lower() not in (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES):
        return False
    if path.parent.name in (HIGHLIGHTS_NAME, CROPS_NAME):
        return not path.parent.with_name(REPORT_JSON_NAME).exists()
    return path.name not in ANNOTATED_NAMES or not path.with_name(REPORT_JSON_NAME).exists()


def _place(path: Path, anchor: Path) -> PurePath:
    """The path of a clip's output below the output folder; independent of other clips."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()  # noqa: PTH100
    if absolute.is_relative_to(here):
        return absolute.relative_to(here)
    top = Path(os.path.abspath(anchor)).parent  # noqa: PTH100
    return absolute.relative_to(top)


def _told_apart(places: dict[str, PurePath]) -> dict[str, PurePath]:
    """The output paths by the clips' real paths; a digest is appended where two would clash."""
    taken: set[tuple[str, ...]] = {(BATCH_JSON_NAME,), (BATCH_PAGE_NAME,)}
    above: set[tuple[str, ...]] = set()
    apart = {}
    # The deepest first: then none is in the way of one that goes into a folder of its name.
    for real, place in sorted(
        places.items(), key=lambda item: (-len(item[1].parts), str(item[1]), item[0])
    ):
        free, folded = next(
            (candidate, folded)
            for candidate in _candidates(place, real)
            if (folded := _folded(candidate)) not in taken and folded not in above
        )
        apart[real] = free
        taken.add(folded)
        above.update(_folded(parent) for parent in free.parents)
    return apart


def _candidates(place: PurePath, real: str) -> Iterable[PurePath]:
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()
    yield place
    for length in _DIGEST_LENGTHS:
        yield place.with_name(f"{place.name}-{digest[:length]}")


def _folded(place: PurePath) -> tuple[str, ...]:
    """The parts of a path as a case-insensitive file system compares them."""
    return tuple(
        unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
        for part in place.parts
    )
