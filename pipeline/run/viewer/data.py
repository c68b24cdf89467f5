"""Detection lines -> the scripts in viewer_data/, which the page loads one by one.

A page that was opened from a file may load scripts, but may not read other files. Each of them
calls a function of the page with one value, a JSON text: browsers read that faster than a literal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.core.detection_lines import DetectedBox, DetectedFrame
from pipeline.frames.annotate import class_color
from pipeline.run.viewer.appearances import Appearance, Appearances
from pipeline.run.viewer.overview import Overview

INDEX_NAME = "index.js"

MOST_FRAMES, MOST_BOXES = 2000, 20_000
"""Of a chunk, which the page loads at once: about half a megabyte."""
_NO_TRACK = -1
_INDEX_CALL, _CALL_END = "viewerIndex(JSON.parse('", "'))\n"


class ViewerData:
    """Writes the boxes of frames that follow each other in chunks, and an index of all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._appearances, self._overview = Appearances(), Overview()
        self._ticks: list[int] = []  # Microseconds from each frame to the next.
        self._last_tick = 0
        self._chunks: list[int] = []
        self._class_names: dict[int, str] = {}
        self._class_counts: dict[int, int] = {}
        self._is_tracked = False
        self._open: list[DetectedFrame] = []
        self._num_open_boxes = 0

    def add(self, frame: DetectedFrame) -> None:
        """Take the next frame."""
        tick = round(frame.pts_seconds * 1e6)
        self._ticks.append(tick - self._last_tick)
        self._last_tick = tick
        self._appearances.add(frame)
        self._overview.add(frame)
        for box in frame.boxes:
            self._class_names.setdefault(box.class_id, box.class_name)
            self._class_counts[box.class_id] = self._class_counts.get(box.class_id, 0) + 1
            self._is_tracked = self._is_tracked or box.track_id is not None
        self._open.append(frame)
        self._num_open_boxes += len(frame.boxes)
        if len(self._open) >= MOST_FRAMES or self._num_open_boxes >= MOST_BOXES:
            self._write_chunk()

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the index. facts: of the clip, for the page."""
        if self._open:
            self._write_chunk()
        ids = sorted(self._class_names, key=lambda class_id: -self._class_counts[class_id])
        index = {
            **facts,
            "classes": [
                {
                    "id": class_id,
                    "name": self._class_names[class_id],
                    "color": _css_color(class_id),
                    "boxes": self._class_counts[class_id],
                }
                for class_id in ids
            ],
            "tracked": self._is_tracked,
            "ticks": self._ticks,
            "chunks": self._chunks,
            "overview": self._overview.as_record(),
            "appearances": _columns(self._appearances.in_order()),
        }
        text = _INDEX_CALL + quoted(index) + _CALL_END
        (self._folder / INDEX_NAME).write_text(text, encoding="ascii")

    def _write_chunk(self) -> None:
        frames, number = self._open, len(self._chunks)
        boxes = [box for frame in frames for box in frame.boxes]
        chunk: dict[str, Any] = {
            "counts": [len(frame.boxes) for frame in frames],
            "classes": [box.class_id for box in boxes],
            "confidences": [_per_mille(box) for box in boxes],
            "tenths": [tenth for box in boxes for tenth in _tenths(box)],
        }
        if self._is_tracked:
            chunk["tracks"] = [_track(box.track_id) for box in boxes]
        if any(frame.interpolated for frame in frames):
            chunk["interpolated"] = [int(bool(frame.interpolated)) for frame in frames]
        text = f"viewerChunk({number}, JSON.parse('{quoted(chunk)}'))\n"
        (self._folder / chunk_name(number)).write_text(text, encoding="ascii")
        self._chunks.append(len(frames))
        self._open, self._num_open_boxes = [], 0


def chunk_name(number: int) -> str:
    """The file of a chunk."""
    return f"{number:05d}.js"


def read_index(folder: Path) -> dict[str, Any]:
    """The index in a folder. Raises OSError, ValueError if there is none."""
    text = (folder / INDEX_NAME).read_text(encoding="ascii")
    if not (text.startswith(_INDEX_CALL) and text.endswith(_CALL_END)):
        raise ValueError("another version")
    inside = text[len(_INDEX_CALL) : -len(_CALL_END)]
    return dict(json.loads(inside.replace("\\'", "'").replace("\\\\", "\\")))


def quoted(value: Any) -> str:
    """The inside of a JavaScript string in single quotes that holds a value as JSON."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _columns(appearances: list[Appearance]) -> dict[str, list[int]]:
    """Appearances as one list of numbers per field."""
    return {
        "class_id": [a.class_id for a in appearances],
        "track": [_track(a.track_id) for a in appearances],
        "first": [a.first_frame for a in appearances],
        "last": [a.last_frame for a in appearances],
        "best": [a.best_frame for a in appearances],
        "confidence": [_per_mille(a.best) for a in appearances],
        "most": [a.most for a in appearances],
        "tenths": [tenth for a in appearances for tenth in _tenths(a.best)],
    }


def _track(track_id: int | None) -> int:
    return _NO_TRACK if track_id is None else track_id


def _per_mille(box: DetectedBox) -> int:
    return round(box.confidence * 1000)


def _tenths(box: DetectedBox) -> list[int]:
    """The edges in tenths of a pixel."""
    return [round(edge * 10) for edge in box.xyxy]


def _css_color(class_id: int) -> str:
    """The colour in which boxes of a class are drawn into the clip."""
    blue, green, red = class_color(class_id, None)
    return f"#{red:02x}{green:02x}{blue:02x}"
