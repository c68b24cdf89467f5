"""Names of classes -> text that OpenCV draws as it is meant to be read.

OpenCV 5 has glyphs of Latin, Greek, Cyrillic, Hebrew, Arabic, Chinese, Japanese and Korean, and
puts one after the other from left to right: it neither joins letters nor turns their order around.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

FONT = cv2.FONT_HERSHEY_SIMPLEX
"""OpenCV 5 draws it with a font of outlines."""
_LONGEST_NAME = 200
"""Longer ones do not fit on a label."""
_REPLACEMENT = "?"
_SIDE_PX = 64


def drawable_name(name: str, class_id: int) -> str:
    """The name of a class as it is drawn.

    Characters without a glyph, and letters that would have to be joined, are replaced; a name of
    which no letter is left becomes the number of its class. Hebrew is written from its end.
    """
    text = unicodedata.normalize("NFC", name[:_LONGEST_NAME])
    if all(unicodedata.bidirectional(char) in ("R", "NSM", "WS") for char in text):
        shown = "".join(_drawn(char, from_the_right=True) for char in reversed(text))
    else:
        shown = "".join(map(_drawn, text))
    is_lost = shown != name and not shown.strip(f"{_REPLACEMENT} ")
    return f"class {class_id}" if is_lost else shown


def _drawn(char: str, *, from_the_right: bool = False) -> str:
    """What is drawn for a character: nothing for one that is invisible, and for an accent alone."""
    if char.isascii() and char.isprintable():
        return char
    category = unicodedata.category(char)
    if category == "Cf" or category.startswith("M"):
        return ""
    if category == "Zs":
        return " "
    # Arabic letters and digits, and Hebrew among other letters.
    is_turned = unicodedata.bidirectional(char) in ("AL", "AN", "R") and not from_the_right
    if not is_turned and not category.startswith("C"):
        for form in (char, unicodedata.normalize("NFKD", char)[0]):
            if _has_glyph(form):
                return form
    return _REPLACEMENT


@lru_cache(maxsize=4096)
def _has_glyph(char: str) -> bool:
    drawn = _picture(char)
    return bool(drawn.any()) and not np.array_equal(drawn, _picture(_REPLACEMENT))


def _picture(char: str) -> NDArray[np.uint8]:
    picture = np.zeros((_SIDE_PX, _SIDE_PX), np.uint8)
    cv2.putText(picture, char, (8, _SIDE_PX - 20), FONT, 1.0, 255)
    return picture
