"""Text that may come from a hostile file -> text that is safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with every character escaped that a terminal might obey, or that is none."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
