"""The options of redaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.options import Option, changed, require, validate
from pipeline.core.typed import is_integer

COVER_STYLES = ("blur", "pixelate", "fill")


@dataclass(frozen=True, kw_only=True, slots=True)
class RedactOptions:
    """What is covered in the annotated file, and how.

    covered: classes, by name or number; None covers nothing.
    cover_style: "blur" and "pixelate" show the means of a few blocks of a cover, "fill" is black.
    hold_seconds: how long a thing is covered before its first and after its last find.
    cover_margin: by which share of its sides a box is enlarged on each side.
    """

    covered: Annotated[
        tuple[str, ...] | None,
        Option(
            "--redact",
            "cover these classes beyond recognition: names or numbers; put -- between them and a "
            "clip",
            metavar="CLASS",
        ),
    ] = None
    cover_style: Annotated[
        str, Option("--redact-style", "how --redact covers", choices=COVER_STYLES)
    ] = COVER_STYLES[0]
    hold_seconds: Annotated[
        float,
        Option(
            "--redact-hold",
            "cover an object for S seconds before its first and after its last detection",
            metavar="S",
            lowest=0,
            highest=60,
        ),
    ] = 0.5
    cover_margin: Annotated[
        float,
        Option(
            "--redact-margin",
            "enlarge covers on each side by this share of the width or height of the box",
            metavar="P",
            lowest=0,
            highest=10,
        ),
    ] = 0.15

    def __post_init__(self) -> None:
        if isinstance(self.covered, (list, tuple)):
            names = (str(int(n)) if is_integer(n) else n for n in self.covered)
            object.__setattr__(self, "covered", tuple(names))
        validate(self)
        require(self.covered != (), "--redact is empty: name at least one class")
        require("" not in (self.covered or ()), "--redact: a name is empty")
        require(
            self.covered is not None or not list(changed(self)),
            "--redact-style, --redact-hold and --redact-margin need --redact",
        )
