"""The options of the annotated file: how it is encoded, and what is drawn on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pipeline.core.option_texts import read_output_size
from pipeline.core.options import Option, require, validate

_X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
MOST_CRF = {"h264": 51, "hevc": 51, "av1": 63, "vp9": 63}
PRESETS: dict[str, tuple[str, ...]] = {
    "h264": _X26X_PRESETS,
    "hevc": _X26X_PRESETS,
    "av1": tuple(map(str, range(14))),
    "vp9": tuple(map(str, range(9))),
}
"""The presets of each encoder, from fastest to slowest, or numbers."""
CODECS = tuple(PRESETS)

_LONGEST_SIDE_PX = 32768
_MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeOptions:
    """How the annotated clip is encoded; None selects the default of the codec.

    drop_audio: leave the sound of the source out.
    output_size: width and height, or the height alone, to which larger frames are scaled down, in
        their proportions; None keeps the size of the source. Boxes stay in pixels of the source.
    threads: threads of the encoder; None selects them for the machine.
    """

    codec: Annotated[str, Option("--codec", "video codec", choices=CODECS)] = "h264"
    crf: Annotated[
        int | None,
        Option(
            "--crf",
            "quality, lower is better: 0 to 51 for h264 and hevc, 0 to 63 for av1 and vp9 "
            "(default: depends on the codec)",
            metavar="N",
        ),
    ] = None
    preset: Annotated[
        str | None,
        Option(
            "--preset",
            "speed of the encoder: ultrafast to placebo for h264 and hevc, 0 to 13 for av1, 0 to "
            "8 for vp9 (default: depends on the codec)",
            metavar="NAME",
        ),
    ] = None
    output_size: Annotated[
        tuple[int, int] | int | None,
        Option(
            "--output-size",
            "scale the annotated clip down to fit into this size, or to this height; boxes in "
            "detections.jsonl stay in pixels of the source",
            metavar="WxH",
            parse=read_output_size,
            lowest=16,
            highest=_LONGEST_SIDE_PX,
        ),
    ] = None
    drop_audio: Annotated[
        bool, Option("--drop-audio", "leave the sound out of the annotated clip")
    ] = False
    threads: Annotated[
        int | None, Option(name="encoder threads", lowest=1, highest=_MOST_THREADS)
    ] = None

    def __post_init__(self) -> None:
        validate(self)
        most_crf, presets = MOST_CRF[self.codec], PRESETS[self.codec]
        require(
            self.crf is None or 0 <= self.crf <= most_crf,
            f"--crf must lie between 0 and {most_crf} for {self.codec}, not {self.crf}",
        )
        require(
            self.preset is None or self.preset in presets,
            f"--preset {self.preset!r} is not a preset of {self.codec}: {', '.join(presets)}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawOptions:
    """What is drawn on the annotated file; the names are those of `yolo predict`.

    line_width: of boxes, in pixels of the annotated file, on clips rounded up to an even number;
        None selects it by the size of the frames.
    show_labels: whether boxes have labels. show_conf: whether labels have confidences.
    """

    line_width: Annotated[
        int | None,
        Option(
            "--line-width",
            "width of the lines of boxes, in pixels; must be even for clips (default: depends on "
            "the size of the frames)",
            metavar="N",
            lowest=1,
            highest=_LONGEST_SIDE_PX,
        ),
    ] = None
    show_labels: Annotated[bool, Option("--no-labels", "draw boxes without labels")] = True
    show_conf: Annotated[bool, Option("--no-confidence", "draw labels without confidences")] = True

    def __post_init__(self) -> None:
        validate(self)


DEFAULT_DRAWING = DrawOptions()
