"""The options that say which boxes are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipeline.core.errors import UsageError
from pipeline.core.options import Option, require, validate
from pipeline.core.roi import roi_text
from pipeline.core.typed import is_integer

if TYPE_CHECKING:  # It loads NumPy, which starts threads.
    from pipeline.core.region import Region, Window

_DEFAULT_CONFIDENCE, _DEFAULT_IOU = 0.25, 0.45
WEAK_CONFIDENCE = 0.1
"""A tracker follows a thing that it has found with boxes down to this confidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectOptions:
    """Which boxes are kept; the defaults are those of YOLOv5's detect.py.

    Classes are given by name or number.

    confidence_threshold: also the words of --conf, as in ("person=0.4", "0.25").
    class_thresholds: (class, threshold) of those classes that have one of their own.
    iou_threshold: None is 0.45; for models without NMS nothing else is valid.
    agnostic_nms: let a box suppress boxes of other classes too.
    classes: the classes to keep, numbers also as integers; None keeps all.
    roi: numbers, or a file with an outline; kept as text. None keeps boxes everywhere.
    """

    confidence_threshold: Annotated[
        float,
        Option(
            "--conf",
            "minimum confidence, for all or for single classes: person=0.4 car=0.6 0.25",
            metavar="[CLASS=]P",
            more=r"(.+=)?\d*\.?\d+",
        ),
    ] = _DEFAULT_CONFIDENCE
    class_thresholds: Annotated[tuple[tuple[str, float], ...], Option("--conf")] = ()
    iou_threshold: Annotated[
        float | None,
        Option("--iou", "IoU above which NMS drops a box (default: 0.45)", metavar="P"),
    ] = None
    agnostic_nms: Annotated[
        bool, Option("--agnostic-nms", "NMS across classes: a box drops those of other classes too")
    ] = False
    classes: Annotated[
        tuple[str, ...] | None,
        Option(
            "--classes",
            "keep only these classes: names or numbers; put -- between them and a clip",
            metavar="CLASS",
        ),
    ] = None
    max_detections: Annotated[
        int, Option("--max-det", "maximum number of boxes per frame", metavar="N", lowest=1)
    ] = 1000
    roi: Annotated[
        str | tuple[float, ...] | Path | None,
        Option(
            "--roi",
            "keep only boxes whose centre lies in a rectangle x,y,w,h, in a polygon x,y,x,y,x,y, "
            "or in the polygon of a JSON or YAML file; in pixels, or shares of the frame from 0 "
            "to 1",
            metavar="X,Y,W,H|FILE",
        ),
    ] = None
    roi_crop: Annotated[
        bool,
        Option(
            "--roi-crop",
            "infer only the rectangle around --roi, at the full size of the model's input",
        ),
    ] = False

    def __post_init__(self) -> None:
        if isinstance(self.classes, (list, tuple)):
            names = (str(int(n)) if is_integer(n) else n for n in self.classes)
            object.__setattr__(self, "classes", tuple(names))
        words: Any = self.confidence_threshold
        if isinstance(words, (list, tuple)) and all(isinstance(word, str) for word in words):
            rest, named = _read_words(words)
            object.__setattr__(self, "confidence_threshold", rest)
            object.__setattr__(self, "class_thresholds", (*self.class_thresholds, *named))
        validate(self)
        if self.roi is not None:
            object.__setattr__(self, "roi", roi_text(self.roi))
        require(
            not self.roi_crop or self.roi is not None, "--roi-crop needs --roi, which it crops to"
        )
        # The last of a class counts; sorted, so that equal requests are equal.
        by_name = sorted(dict(self.class_thresholds).items())
        object.__setattr__(self, "class_thresholds", tuple(by_name))
        for name, threshold in (("", self.confidence_threshold), *self.class_thresholds):
            require(
                0.0 < threshold < 1.0,
                f"--conf{name and f' of {name!r}'} must be more than 0 and less than 1, "
                f"not {threshold}",
            )
        require(
            0.0 < self.nms_iou <= 1.0,
            f"--iou must be more than 0 and at most 1, not {self.iou_threshold}",
        )
        require(self.classes != (), "--classes is empty: name at least one class")
        require("" not in (self.classes or ()), "--classes: a name is empty")
        require("" not in dict(self.class_thresholds), "--conf: the name of a class is empty")

    def region(self, frame_wh: tuple[int, int]) -> Region | None:
        """Where boxes are kept in a frame of this size; None for everywhere. Raises InputError."""
        if self.roi is None:
            return None
        from pipeline.core.region import region_of

        return region_of(str(self.roi), frame_wh)

    def window(self, frame_wh: tuple[int, int]) -> Window | None:
        """What is seen of a frame of this size; None for all of it. Raises InputError."""
        region = self.region(frame_wh) if self.roi_crop else None
        return None if region is None else region.window

    @property
    def nms_iou(self) -> float:
        """The IoU threshold of NMS."""
        return _DEFAULT_IOU if self.iou_threshold is None else self.iou_threshold

    @property
    def least_confidence(self) -> float:
        """The lowest of all thresholds."""
        return min(self.confidence_threshold, *dict(self.class_thresholds).values(), 1.0)

    def down_to(self, confidence: float) -> DetectOptions:
        """The same with no threshold above this one."""
        return replace(
            self,
            confidence_threshold=min(self.confidence_threshold, confidence),
            class_thresholds=tuple((n, min(t, confidence)) for n, t in self.class_thresholds),
        )


def _read_words(words: Iterable[str]) -> tuple[float, list[tuple[str, float]]]:
    """The threshold of all classes, and those of single ones. Raises UsageError."""
    rest, named = _DEFAULT_CONFIDENCE, []
    for word in words:
        name, equals, number = word.rpartition("=")
        try:
            if equals:
                named.append((name, float(number)))
            else:
                rest = float(number)
        except ValueError:
            raise UsageError(
                f"--conf {word!r} is neither P nor CLASS=P, as in 0.25 or person=0.4"
            ) from None
    return rest, named
