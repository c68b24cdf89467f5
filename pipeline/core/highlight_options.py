"""The options of highlights and crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.options import Option, require, validate

HIGHLIGHT_FORMS = ("each", "one")
PADDING_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class HighlightOptions:
    """What is cut out of a finished result.

    padding_seconds: what highlights show before and after a find; None cuts none.
    form: "each" is a clip for each stretch with finds, "one" is one clip of all of them.
    from_source: whether packets of the source are copied, in place of the annotated clip.
    crops: whether the best picture of each thing is cut out.
    """

    padding_seconds: Annotated[
        float | None,
        Option(
            "--highlights",
            "make clips of the frames with boxes (with --events: of the events), with this many "
            f"seconds before and after (default: {PADDING_SECONDS:g})",
            metavar="SECONDS",
            optional=f"{PADDING_SECONDS:g}",
            parse=float,
            lowest=0,
            highest=3600,
        ),
    ] = None
    form: Annotated[
        str,
        Option(
            "--highlights-as",
            "each: a clip for each stretch; one: one clip of all stretches",
            choices=HIGHLIGHT_FORMS,
        ),
    ] = HIGHLIGHT_FORMS[0]
    from_source: Annotated[
        bool,
        Option(
            "--from-source",
            "copy highlights from the source, without boxes; each then begins at the key frame "
            "before its stretch",
        ),
    ] = False
    crops: Annotated[
        bool,
        Option(
            "--crops",
            "cut the best picture of each track out of the source, as JPEG (without --track: of "
            "each class, each time that it appears)",
        ),
    ] = False

    def __post_init__(self) -> None:
        validate(self)
        require(
            self.padding_seconds is not None
            or (self.form == HIGHLIGHT_FORMS[0] and not self.from_source),
            "--highlights-as and --from-source need --highlights",
        )
        require(
            not self.from_source or self.form == HIGHLIGHT_FORMS[0],
            "--from-source makes a clip for each stretch: leave --highlights-as out",
        )
