"""Facts in the header of an MP4 or Matroska file that PyAV does not give: crop, encryption, role.

Reads only what it must, within fixed bounds; whatever is damaged or too large is left out.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer

_MOST_HEADER_BYTES = 64 << 20
_MOST_ELEMENTS = 10_000
_DOLBY_VISION_ENTRIES = (b"dvh1", b"dvhe", b"dav1", b"dva1", b"dvav")
_DOLBY_VISION_RECORDS = (b"dvcC", b"dvvC", b"dvwC")
_DAMAGED = (ValueError, struct.error, ZeroDivisionError, OverflowError)
"""What reading sizes and numbers that make no sense raises."""


@dataclass(frozen=True, slots=True)
class Crop:
    """Pixels of the coded picture that are not shown, at each side."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0


@dataclass(frozen=True, slots=True)
class TrackHeader:
    """Facts of one track.

    size_wh: of its pictures; None where it is not said. crop: None where they are shown whole.
    encrypted: its samples are. auxiliary: it holds no picture of its own but alpha or depth of
    another one. needs_dolby_vision: its colours are not those of any other standard. handler: what
    MP4 says of its kind; empty where it is not said.
    """

    size_wh: tuple[int, int] | None = None
    crop: Crop | None = None
    encrypted: bool = False
    auxiliary: bool = False
    needs_dolby_vision: bool = False
    handler: bytes = b""


UNKNOWN = TrackHeader()
"""Of a track of which the header says nothing, or nothing that can be read."""


def read_track_headers(path: Path, container: InputContainer) -> dict[int, TrackHeader]:
    """The tracks of an MP4 or Matroska file, by the indices of FFmpeg's streams."""
    names = container.format.name.split(",")
    try:
        found = path.stat()
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        if "mp4" in names:
            by_id = _mp4_tracks_by_id(path, stamp)
            return {s.index: by_id[s.id] for s in container.streams if s.id in by_id}
        if "matroska" in names:
            with path.open("rb") as file:
                return dict(enumerate(_matroska_tracks(file)))
    except (OSError, *_DAMAGED):
        pass  # FFmpeg reads what it can of a damaged header, and says what it could not.
    return {}


@functools.lru_cache(maxsize=16)
def _mp4_tracks_by_id(path: Path, stamp: tuple[int, ...]) -> dict[int, TrackHeader]:
    """Read once for as long as the file is the same: it is opened repeatedly."""
    del stamp
    with path.open("rb") as file:
        return dict(_mp4_tracks(file))


def _mp4_tracks(file: BinaryIO) -> Iterator[tuple[int, TrackHeader]]:
    """ISO/IEC 14496-12: moov / trak / (tkhd, mdia / (hdlr, minf / stbl / stsd))."""
    moov = _mp4_moov(file)
    for kind, track in _boxes(moov):
        if kind != b"trak":
            continue
        tkhd, hdlr = _inside(track, b"tkhd"), _inside(track, b"mdia", b"hdlr")
        entries = _inside(track, b"mdia", b"minf", b"stbl", b"stsd")
        if len(tkhd) < 24 or len(hdlr) < 12 or len(entries) < 8:
            continue
        (track_id,) = struct.unpack_from(">I", tkhd, 20 if tkhd[0] == 1 else 12)
        entry_kind, entry = next(_boxes(entries[8:]), (b"", b""))
        size_wh, crop, handler = None, None, bytes(hdlr[8:12])
        if handler in (b"vide", b"auxv", b"pict") and len(entry) > 78:
            width, height = struct.unpack_from(">HH", entry, 24)
            size_wh = (width, height) if width and height else None
            crop = _clean_aperture(_inside(entry[78:], b"clap"), (width, height))
        encrypted = entry_kind in (b"encv", b"enca")
        needs_dolby_vision = entry_kind in _DOLBY_VISION_ENTRIES
        for kind, record in _boxes(entry[78:]) if size_wh else ():
            needs_dolby_vision |= kind in _DOLBY_VISION_RECORDS and _stands_alone(record)
        yield (
            track_id,
            TrackHeader(size_wh, crop, encrypted, handler == b"auxv", needs_dolby_vision, handler),
        )


def _stands_alone(record: bytes) -> bool:
    """Whether a Dolby Vision configuration says that no other decoder shows its base right.

    The 4 bits of dv_bl_signal_compatibility_id in the fifth byte are 0, as in profile 5.
    """
    return len(record) > 4 and not record[4] >> 4


def lacks_mp4_index(path: Path) -> bool:
    """Whether a file begins as an MP4 does and has no moov box."""
    with path.open("rb") as file:
        if file.read(12)[4:8] not in (b"ftyp", b"mdat", b"wide"):
            return False
        file.seek(0)
        try:
            return not _mp4_moov(file)
        except _DAMAGED:
            return False


def _mp4_moov(file: BinaryIO) -> bytes:
    """The body of the moov box, which may follow all media; empty if there is none."""
    for _ in range(_MOST_ELEMENTS):
        head = file.read(8)
        if len(head) < 8:
            break
        size, kind = struct.unpack(">I4s", head)
        body = size - 8
        if size == 1:
            body = struct.unpack(">Q", file.read(8))[0] - 16
        if kind == b"moov" and size != 0:
            return file.read(body) if body <= _MOST_HEADER_BYTES else b""
        if size == 0 or body < 0:
            break
        file.seek(body, 1)
    return b""


def _boxes(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    while offset + 8 <= len(body):
        size, kind = struct.unpack_from(">I4s", body, offset)
        if size < 8:
            return
        yield kind, body[offset + 8 : offset + size]
        offset += size


def _inside(body: bytes, *kinds: bytes) -> bytes:
    """The body of the first box of each kind inside the one before; empty if one is missing."""
    for kind in kinds:
        body = next((inner for found, inner in _boxes(body) if found == kind), b"")
    return body


def _clean_aperture(clap: bytes, size_wh: tuple[int, int]) -> Crop | None:
    """ISO/IEC 14496-12, 12.1.4.2: a size, and how far its centre lies from the picture's."""
    if len(clap) < 32:
        return None
    numbers = struct.unpack_from(">IIIIiIiI", clap)
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    width, height, off_x, off_y = (Fraction(above, below) for above, below in pairs)
    left = round((size_wh[0] - width) / 2 + off_x)
    top = round((size_wh[1] - height) / 2 + off_y)
    crop = Crop(left, top, size_wh[0] - left - round(width), size_wh[1] - top - round(height))
    sides = (crop.left, crop.top, crop.right, crop.bottom)
    if min(sides) < 0 or max(sides) == 0 or width < 1 or height < 1:
        return None
    return crop


_SEGMENT, _TRACKS, _TRACK_ENTRY = 0x18538067, 0x1654AE6B, 0xAE
_VIDEO, _ENCODINGS, _ENCODING, _ENCRYPTION = 0xE0, 0x6D80, 0x6240, 0x5035
_WIDTH, _HEIGHT = 0xB0, 0xBA
_CROP_BOTTOM, _CROP_TOP, _CROP_LEFT, _CROP_RIGHT = 0x54AA, 0x54BB, 0x54CC, 0x54DD
_ADDITION_MAPPING, _ADDITION_TYPE, _ADDITION_EXTRA = 0x41E4, 0x41E7, 0x41ED
_CLUSTER = 0x1F43B675


def _matroska_tracks(file: BinaryIO) -> Iterator[TrackHeader]:
    """RFC 9559: Segment / Tracks / TrackEntry. FFmpeg makes a stream of each, in this order."""
    for kind, entry in _elements(_matroska_header(file)):
        if kind != _TRACK_ENTRY:
            continue
        fields = dict(_elements(entry))
        video = dict(_elements(fields.get(_VIDEO, b"")))
        width, height, *sides = (
            int.from_bytes(video.get(number, b"")[:8], "big")
            for number in (_WIDTH, _HEIGHT, _CROP_LEFT, _CROP_TOP, _CROP_RIGHT, _CROP_BOTTOM)
        )
        encodings = _elements(fields.get(_ENCODINGS, b""))
        encrypted = any(
            inner == _ENCRYPTION
            for kind, encoding in encodings
            if kind == _ENCODING
            for inner, _ in _elements(encoding)
        )
        size_wh = (width, height) if width and height else None
        yield TrackHeader(
            size_wh,
            Crop(*sides) if any(sides) else None,
            encrypted,
            needs_dolby_vision=any(map(_is_dolby_vision_alone, _elements(entry))),
        )


def _is_dolby_vision_alone(element: tuple[int, bytes]) -> bool:
    if element[0] != _ADDITION_MAPPING:
        return False
    fields = dict(_elements(element[1]))
    kind = fields.get(_ADDITION_TYPE, b"").lstrip(b"\0")
    return kind in _DOLBY_VISION_RECORDS and _stands_alone(fields.get(_ADDITION_EXTRA, b""))


def _matroska_header(file: BinaryIO) -> bytes:
    """The body of the Tracks element, which precedes all media; empty if there is none."""
    for _ in range(_MOST_ELEMENTS):
        kind, size = _number(file, keeps_marker=True), _number(file, keeps_marker=False)
        if kind is None or size is None or kind == _CLUSTER:
            break
        if kind == _TRACKS:
            return file.read(size) if size <= _MOST_HEADER_BYTES else b""
        if kind != _SEGMENT:
            file.seek(size, 1)
    return b""


def _number(file: BinaryIO, *, keeps_marker: bool) -> int | None:
    """A variable-length number of EBML (RFC 8794); None at the end."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1), "big")
    return value if keeps_marker else value & ~(1 << (7 * length))


def _elements(body: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(body) and body[offset]:
        length = 9 - body[offset].bit_length()
        kind = int.from_bytes(body[offset : offset + length], "big")
        offset += length
        if offset >= len(body) or not body[offset]:
            return
        length = 9 - body[offset].bit_length()
        size = int.from_bytes(body[offset : offset + length], "big") & ~(1 << (7 * length))
        offset += length
        yield kind, body[offset : offset + size]
        offset += size
