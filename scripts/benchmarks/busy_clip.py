"""A busy clip, made of labelled pictures: a pan over a wall of them, some twenty boxes a frame."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

PICTURES = Path("../shared/coco128/images")

_SIZE_WH, _FRAME_RATE, _NUM_FRAMES = (1024, 576), 25, 300
_TILE_WH = (192, 144)
_WALL_COLUMNS, _WALL_ROWS = 16, 10
_STEP_XY = (6, 3)


def busy_clip(pictures: Path, target: Path, num_frames: int = _NUM_FRAMES) -> Path:
    """Write the clip as H.264 of a camera's quality; the same pictures give the same frames."""
    width, height = _SIZE_WH
    wall = _wall(sorted(pictures.glob("*.jpg")))
    most_x, most_y = wall.shape[1] - width, wall.shape[0] - height
    with av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=_FRAME_RATE, options={"crf": "20"})
        stream.width, stream.height = _SIZE_WH
        stream.pix_fmt = "yuv420p"
        for index in range(num_frames):
            x = _to_and_fro(index * _STEP_XY[0], most_x)
            y = _to_and_fro(index * _STEP_XY[1], most_y)
            view = np.ascontiguousarray(wall[y : y + height, x : x + width])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        out.mux(stream.encode(None))
    return target


def _wall(pictures: list[Path]) -> NDArray[np.uint8]:
    """The pictures side by side, row by row, again and again until the wall is full."""
    width, height = _TILE_WH
    tiles = itertools.cycle([_tile(path) for path in pictures])
    rows = [
        np.concatenate([next(tiles) for _ in range(_WALL_COLUMNS)], axis=1)
        for _ in range(_WALL_ROWS)
    ]
    wall = np.concatenate(rows)
    assert wall.shape == (_WALL_ROWS * height, _WALL_COLUMNS * width, 3)
    return wall


def _tile(path: Path) -> NDArray[np.uint8]:
    width, height = _TILE_WH
    with av.open(str(path)) as picture:
        image = next(picture.decode(video=0))
        pixels = image.to_ndarray(format="rgb24", width=width, height=height)
    return np.asarray(pixels, np.uint8)


def _to_and_fro(distance: int, most: int) -> int:
    """A place between 0 and `most`, after going so far there and back."""
    around = distance % (2 * most)
    return min(around, 2 * most - around)
