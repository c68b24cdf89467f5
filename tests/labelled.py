"""Labelled pictures of lights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2

from tests.conftest import (
    TINY_INPUT_WH,
    with_light,
)

Label = Callable[[int, int], str]


def exact(x: int, y: int) -> str:
    """The box of a bright cell, as YOLO writes it."""
    width, height = TINY_INPUT_WH
    return f"0 {(x + 0.5) * 8 / width} {(y + 0.5) * 8 / height} {8 / width} {8 / height}\n"


def make_data(folder: Path, label: Label = exact, num_pictures: int = 10) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for i in range(num_pictures):
        x, y = i % 16, i * 5 % 12
        cv2.imwrite(str(folder / "images" / f"{i:02}.png"), with_light((x, y)))
        (folder / "labels" / f"{i:02}.txt").write_text(label(x, y))
    return folder
