"""The pictures that INT8 is calibrated on by default: crops of photographs in installed packages.

They are the same for every clip and every model, whatever was processed before. The packages are
those that the extra int8 brings; without one of them there is no set, rather than another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.text import counted
from pipeline.media.frame import Frame
from pipeline.media.pictures import read_pixels
from pipeline.model.letterbox import PADDING_VALUE
from pipeline.model.quantize import CALIBRATION_SIDE, Calibration

NUM_CROPS = 60

_PHOTOGRAPHS = (
    ("ultralytics", "assets/bus.jpg"),
    ("ultralytics", "assets/zidane.jpg"),
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)
_SEED = 0
_SCALES = (0.3, 1.0)
_GAMMAS = (0.6, 1.6)

Image = NDArray[np.uint8]


def calibration_of_photographs() -> Calibration:
    """Crops of photographs. Raises UsageError if a package that has one is not installed."""
    paths = [_photograph(package, name) for package, name in _PHOTOGRAPHS]
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return Calibration(
        key=f"{NUM_CROPS} crops {digest.hexdigest()}",
        origin=f"{NUM_CROPS} crops of {counted(len(paths), 'photograph')}",
        frames=lambda: _frames(paths),
    )


def _photograph(package: str, name: str) -> Path:
    spec = find_spec(package)  # Imports nothing.
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, name)).is_file():
            return path
    raise UsageError(
        f"INT8 is calibrated on photographs, of which {Path(name).name} of the package {package} "
        "is missing: install the extra int8, or calibrate on others with --calibration clip or "
        "--calibration FOLDER"
    )


def _frames(paths: Sequence[Path]) -> Iterator[Frame]:
    images = [read_pixels(path) for path in paths]
    for index, pixels in enumerate(crops(images, NUM_CROPS, CALIBRATION_SIDE)):
        image = av.VideoFrame.from_ndarray(pixels, format="bgr24")
        yield Frame(index=index, pts=index, duration=1, time_base=Fraction(1), image=image)


def crops(images: Sequence[Image], count: int, side_px: int) -> Iterator[Image]:
    """Square pictures of parts of the images, padded, the same ones each time.

    Every third one is a mosaic of four parts. images: uint8 (height, width, 3).
    """
    random = np.random.default_rng(_SEED)
    number = 0

    def part(size_px: int) -> Image:
        nonlocal number
        image = images[number % len(images)]
        number += 1
        return _padded(_part(image, random), size_px)

    for index in range(count):
        if index % 3 < 2:
            yield part(side_px)
        else:
            half = side_px // 2
            rows = [np.hstack([part(half), part(half)]) for _ in range(2)]
            yield np.vstack(rows)


def _part(image: Image, random: np.random.Generator) -> Image:
    """A part of a random scale at a random place, perhaps mirrored, of a random brightness."""
    scale, left, top, mirrored, brightness = random.random(5)
    scale = _between(_SCALES, scale)
    height, width = image.shape[:2]
    rows, columns = max(8, int(scale * height)), max(8, int(scale * width))
    y, x = int(top * (height - rows + 1)), int(left * (width - columns + 1))
    found = image[y : y + rows, x : x + columns]
    if mirrored < 0.5:
        found = found[:, ::-1]
    levels = 255 * (np.arange(256) / 255) ** _between(_GAMMAS, brightness)
    return np.ascontiguousarray(levels.round().astype(np.uint8)[found])


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def _padded(image: Image, side_px: int) -> Image:
    height, width = image.shape[:2]
    scale = side_px / max(height, width)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    padded = np.full((side_px, side_px, 3), PADDING_VALUE, np.uint8)
    x, y = (side_px - size_wh[0]) // 2, (side_px - size_wh[1]) // 2
    padded[y : y + size_wh[1], x : x + size_wh[0]] = cv2.resize(image, size_wh)
    return padded
