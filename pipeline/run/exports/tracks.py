"""The boxes of a clip grouped by track, for formats that are written track by track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.core.errors import InputError
from pipeline.run.exports.clip import ExportedClip

_NO_TRACK = -1
_BOX = np.dtype(
    [
        ("track_id", "i8"),
        ("frame_index", "i8"),
        ("pts_seconds", "f8"),
        ("interpolated", "?"),
        ("class_number", "i4"),
        ("confidence", "f4"),
        ("xyxy", "f8", 4),
    ]
)
_ROWS_AT_ONCE = 65536


class TrackBox(NamedTuple):
    """A box of a track: the frame that it is in, its confidence and its pixels."""

    frame_index: int
    pts_seconds: float
    is_interpolated: bool
    confidence: float
    xyxy: tuple[float, float, float, float]


class Track(NamedTuple):
    """The boxes of one thing, in the order of their frames.

    track_id: None for a box without a track, which is alone in here. class_name: of most boxes.
    """

    track_id: int | None
    class_name: str
    boxes: list[TrackBox]


def tracks_of(clip: ExportedClip) -> Iterator[Track]:
    """The tracks of a clip by their ids, then each box without a track, in the order of frames.

    All boxes of the clip are in memory at once, in 65 bytes each. Raises InputError.
    """
    names: dict[str, int] = {}
    table = _table(clip, names)
    class_names = list(names)
    table = table[np.argsort(table["track_id"], kind="stable")]
    first = int(np.searchsorted(table["track_id"], 0))
    starts = np.flatnonzero(np.diff(table["track_id"][first:])) + 1
    for rows in np.split(table[first:], starts) if first < len(table) else ():
        yield _track(rows, class_names, int(rows["track_id"][0]))
    for row in range(first):
        yield _track(table[row : row + 1], class_names, None)


def _table(clip: ExportedClip, names: dict[str, int]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The boxes as rows; class names get their numbers in the order in which they are found."""
    parts, rows = [np.empty(0, _BOX)], []
    for frame in clip.frames():
        for box in frame.boxes:
            rows.append(
                (
                    _NO_TRACK if box.track_id is None else box.track_id,
                    frame.frame_index,
                    frame.pts_seconds,
                    bool(frame.interpolated),
                    names.setdefault(box.class_name, len(names)),
                    box.confidence,
                    box.xyxy,
                )
            )
        if len(rows) >= _ROWS_AT_ONCE:
            parts.append(_as_table(clip, rows))
            rows = []
    return np.concatenate([*parts, _as_table(clip, rows)])


def _as_table(
    clip: ExportedClip, rows: Sequence[tuple[object, ...]]
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    try:
        return np.array(rows, _BOX)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{clip.detections}: is damaged ({error!r})") from error


def _track(
    rows: np.ndarray[tuple[int], np.dtype[np.void]], names: list[str], track_id: int | None
) -> Track:
    class_number = int(np.bincount(rows["class_number"]).argmax())
    boxes = [
        TrackBox(frame, seconds, interpolated, round(confidence, 4), tuple(xyxy))
        for frame, seconds, interpolated, confidence, xyxy in zip(
            rows["frame_index"].tolist(),
            rows["pts_seconds"].tolist(),
            rows["interpolated"].tolist(),
            rows["confidence"].tolist(),
            rows["xyxy"].tolist(),
            strict=True,
        )
    ]
    return Track(track_id, names[class_number], boxes)
