"""Text for people: escaped, with numbers and durations formatted."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters and invalid characters escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """ "1 stream", "2,000 streams"; the plural is the noun with an s unless given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def are(number: int) -> str:
    """The verb after so many: "is" for one, else "are"."""
    return "is" if number == 1 else "are"


def duration(seconds: float) -> str:
    """ "2.88 s", "12.5 min", "1,234.5 h": in a suitable unit."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.1f} h"
