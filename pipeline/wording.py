"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 stream", "2 streams"; the plural is the noun with an s unless given."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
