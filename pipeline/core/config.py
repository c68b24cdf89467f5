"""One run: its source, its output folder and all options. Validated once, immutable.

Values are converted to their declared types: paths may be given as text, tuples as lists. All
classes raise UsageError for an invalid value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pipeline.core.detect_options import DetectOptions
from pipeline.core.encode_options import DEFAULT_DRAWING, DrawOptions, EncodeOptions
from pipeline.core.errors import UsageError
from pipeline.core.infer_options import AutoOptions, InferOptions
from pipeline.core.option_groups import (
    DEFAULT_LIMITS,
    NUM_FRAMES,
    ClusterOptions,
    LimitOptions,
    RemoteOptions,
    SyntheticOptions,
)
from pipeline.core.option_rules import LEAST_AGREEMENT, require_valid_together
from pipeline.core.option_texts import (
    CLIP,
    IMGSZ,
    CalibrationName,
    read_calibration,
    read_imgsz,
    read_number_or_auto,
    read_path,
    read_tile,
)
from pipeline.core.options import Option, validate
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.redact_options import RedactOptions
from pipeline.core.slices import Slice, read_moment
from pipeline.core.source import ClipFile, Source

if TYPE_CHECKING:
    from pipeline.core.region import Window

__all__ = [
    "CLIP",
    "DEFAULT_DRAWING",
    "DEFAULT_LIMITS",
    "MODEL_NAMES",
    "MOST_ATTEMPTS",
    "STANDARD_INPUT",
    "SYNTHETIC",
    "AutoOptions",
    "CalibrationName",
    "ClusterOptions",
    "DetectOptions",
    "DrawOptions",
    "EncodeOptions",
    "InferOptions",
    "LimitOptions",
    "ModelName",
    "ProcessConfig",
    "RedactOptions",
    "RemoteOptions",
    "SyntheticOptions",
]

ModelName = Literal["official", "demo"]
"""official: yolov5n.pt v7.0, for photographs. demo: the bundled model, for the synthetic scene."""
MODEL_NAMES: tuple[ModelName, ...] = get_args(ModelName)

SYNTHETIC = "synthetic"
STANDARD_INPUT = "-"

TRACKERS = ("botsort", "bytetrack", "ocsort")
"""The trackers of the library that need no pixels; the default comes first: see performance.md."""

MOST_ATTEMPTS = 3
"""How many actors may be lost while processing one segment before the run fails."""

_NOT_IN_KEYS = Option(decides_result=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessConfig:
    """One run: a source, an output folder, and the options of each step.

    source: a clip's path, a folder of pictures with a frame rate, or the description of a
        synthetic clip.
    output_dir: the folder for annotated.mp4, detections.jsonl and the report.
    weights: a checkpoint (.pt), an exported .onnx or IR .xml, the folder with an IR, or a model by
        name; None selects the demo model for the synthetic scene and the official one for
        everything else.
    tile: the side in pixels of the tiles of a frame that are inferred each on its own; 0 is imgsz,
        None is the whole frame only.
    nms_free: take the branch of the model that gives one box for each object, where a checkpoint
        has two; models without one are refused.
    calibration: what INT8 is calibrated on: None selects the pictures that are the same for every
        clip, "clip" frames of the source.
    calibration_clips: the clips that "clip" stands for; without any, the source.
    video: whether the annotated file is drawn and encoded; if not, detections and report are the
        result.
    num_frames: process only this many frames; None processes all.
    start, end: process the frames from start on and before end only, by their times in the clip:
        seconds, "hh:mm:ss.ms", or the index of a frame, "120f". Kept as text.
    every: infer every Nth frame and the last one; interpolate the boxes of the frames between.
    adaptive: infer the frames where boxes change; interpolate the boxes of the others.
    track: the tracker that gives boxes the ids of their tracks; None for none.
    deinterlace: "auto" deinterlaces interlaced clips, "off" does not.
    reuse_duplicates: reuse the boxes of the frame before for an identical frame.
    segment_seconds: a segment begins with a key frame, and its first and last frames are inferred.
    cores: how many cores of this machine the run uses; None takes all.
    segments_at_once: processes that work on segments side by side; None selects the number.
    cluster: where segments are processed; None for this machine.
    remote: the addresses of source and output_dir if these are local copies.

    All fields are in the keys of results, except those with `decides_result=False`.
    """

    # The keys contain what is in source, weights and calibration, and the segments.
    source: Annotated[Path | PictureSequence | SyntheticOptions, _NOT_IN_KEYS]
    output_dir: Annotated[Path, _NOT_IN_KEYS]
    overwrite: Annotated[
        bool,
        Option(
            "--overwrite",
            "replace existing results; with many clips, only those of another file, model or "
            "options",
            decides_result=False,
        ),
    ] = False
    weights: Annotated[
        ModelName | Path | None,
        Option(
            "--weights",
            "a YOLO model: .pt, .onnx, .xml, or the folder of an OpenVINO export (default: the "
            "value of PIPELINE_WEIGHTS)",
            metavar="PATH",
            parse=read_path,
            decides_result=False,
        ),
    ] = None
    imgsz: Annotated[
        int,
        Option("--imgsz", "longer side of the model input", metavar="PX", parse=read_imgsz),
    ] = 640
    tile: Annotated[
        int | None,
        Option(
            "--tile",
            "find small objects in large frames: infer overlapping square tiles of each frame, PX "
            "pixels wide, and the whole frame (default: --imgsz)",
            metavar="PX",
            parse=read_tile,
            optional=IMGSZ,
            highest=32768,
        ),
    ] = None
    nms_free: Annotated[
        bool,
        Option(
            "--nms-free",
            "use the branch without NMS of a model with two (YOLOv10, YOLO26); refused for a model "
            "that needs NMS",
        ),
    ] = False
    infer: Annotated[InferOptions | AutoOptions, _NOT_IN_KEYS] = field(default_factory=AutoOptions)
    detect: DetectOptions = field(default_factory=DetectOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    draw: DrawOptions = DEFAULT_DRAWING
    redact: RedactOptions = field(default_factory=RedactOptions)
    limits: Annotated[LimitOptions, _NOT_IN_KEYS] = field(default_factory=LimitOptions)
    calibration: Annotated[
        CalibrationName | Path | None,
        Option(
            "--calibration",
            "what INT8 is calibrated on: 'clip' for frames of all clips given, or a folder of "
            "pictures (default: pictures that are the same for every clip)",
            metavar="clip|FOLDER",
            parse=read_calibration,
            decides_result=False,
        ),
    ] = None
    calibration_clips: Annotated[tuple[Path, ...], _NOT_IN_KEYS] = ()
    video: Annotated[
        bool,
        Option("--no-video", "write detections and report only: nothing is drawn or encoded"),
    ] = True
    num_frames: Annotated[int | None, NUM_FRAMES] = None
    start: Annotated[
        str | float | None,
        Option(
            "--start",
            "begin with the first frame at or after TIME: seconds, mm:ss, hh:mm:ss.ms, or a frame "
            "(120f, where 0f is the first)",
            metavar="TIME",
        ),
    ] = None
    end: Annotated[
        str | float | None,
        Option("--end", "end before the first frame at or after TIME", metavar="TIME"),
    ] = None
    every: Annotated[
        int,
        Option(
            "--every",
            "infer every Nth frame and interpolate the boxes of the frames between",
            metavar="N",
            lowest=1,
            highest=60,
        ),
    ] = 1
    adaptive: Annotated[
        bool,
        Option(
            "--adaptive",
            "infer the frames where boxes change and interpolate the boxes of the others; one in "
            "50 of these is inferred too, to report how well the interpolated boxes agree",
        ),
    ] = False
    track: Annotated[
        str | None,
        Option(
            "--track",
            f"give each object an id that it keeps: {', '.join(TRACKERS[:-1])} or {TRACKERS[-1]} "
            f"(default: {TRACKERS[0]}); needs the extra 'track'",
            metavar="NAME",
            choices=TRACKERS,
            optional=TRACKERS[0],
        ),
    ] = None
    least_agreement: Annotated[
        float,
        Option(
            "--least-agreement",
            "warn if the share of boxes that agree with those of inferred frames (--adaptive) or "
            "of float (--precision int8) is significantly below P",
            metavar="P",
            decides_result=False,
        ),
    ] = LEAST_AGREEMENT
    deinterlace: Annotated[
        str,
        Option(
            "--deinterlace",
            "auto: deinterlace interlaced clips; off: do not",
            choices=("auto", "off"),
        ),
    ] = "off"
    reuse_duplicates: Annotated[
        bool, Option("--no-reuse", "also infer frames that are identical to the previous one")
    ] = True
    segment_seconds: Annotated[
        float,
        Option(
            "--segment-seconds",
            "approximate length of a segment; resuming an interrupted run repeats at most one "
            "segment",
            metavar="S",
            decides_result=False,
        ),
    ] = 60.0
    cores: Annotated[
        int | None,
        Option(
            "--cores",
            "keep everything that runs to N cores, those that are least busy; Linux only (default: "
            "all that this process may use)",
            metavar="N",
            lowest=1,
            highest=4096,
            decides_result=False,
        ),
    ] = None
    segments_at_once: Annotated[
        int | None,
        Option(
            "--segments-at-once",
            "segments that are processed side by side on this machine, each by a process of its "
            "own with its share of the cores (default: auto)",
            metavar="N|auto",
            parse=read_number_or_auto,
            lowest=1,
            highest=1024,
            decides_result=False,
        ),
    ] = None
    stall_seconds: Annotated[
        float,
        Option(
            "--stall-seconds",
            "fail if for S seconds no frame is finished, no CPU time is used and nothing is read "
            "or written, or if one step on one frame uses S seconds of CPU time in one thread",
            metavar="S",
            lowest=1,
            highest=86_400,
            decides_result=False,
        ),
    ] = 60.0
    cluster: Annotated[ClusterOptions | None, _NOT_IN_KEYS] = None
    remote: Annotated[RemoteOptions, _NOT_IN_KEYS] = field(default_factory=RemoteOptions)

    @property
    def source_name(self) -> str:
        """The source in messages."""
        local = self.origin.file or (self.pictures and self.pictures.folder) or "synthetic"
        return self.remote.source_url or str(local)

    @property
    def origin(self) -> Source:
        """The source, with what is asked of every kind of it."""
        return ClipFile(self.source) if isinstance(self.source, Path) else self.source

    @property
    def clip(self) -> Path | None:
        """The source if it is a file; else None."""
        return self.source if isinstance(self.source, Path) else None

    @property
    def pictures(self) -> PictureSequence | None:
        """The source if it is a folder of pictures; else None."""
        return self.source if isinstance(self.source, PictureSequence) else None

    @property
    def synthetic(self) -> SyntheticOptions | None:
        """The source if it is a synthetic clip; else None."""
        return self.source if isinstance(self.source, SyntheticOptions) else None

    @property
    def scene(self) -> SyntheticOptions | None:
        """The source if it is the synthetic scene, which has ground truth; else None."""
        synthetic = self.synthetic
        return synthetic if synthetic and synthetic.image is None else None

    @property
    def slice(self) -> Slice | None:
        """The part of the source that is asked for; None for all of it."""
        if self.start is None and self.end is None:
            return None
        start, end = (None if m is None else read_moment(m) for m in (self.start, self.end))
        return Slice(start, end)

    @property
    def ends_early(self) -> bool:
        """Whether it can end before its source does: because of num_frames.

        How many frames of a segment are taken then, only those before it can tell.
        """
        scene, wanted = self.synthetic, self.num_frames
        return wanted is not None and (scene is None or wanted < scene.num_frames)

    def windows(self, frame_wh: tuple[int, int]) -> tuple[Window, ...]:
        """What is inferred of a frame of this size, each on its own; the last one is all of it.

        Raises InputError for a region outside the frame.
        """
        from pipeline.core.region import Window  # It loads NumPy, which starts threads.
        from pipeline.core.tiles import tiles_of

        seen = self.detect.window(frame_wh) or Window(0, 0, frame_wh)
        return (seen,) if self.tile is None else tiles_of(seen, self.tile)

    @property
    def keeps_weak(self) -> bool:
        """Whether boxes of less confidence than asked for are kept beside the others."""
        return self.track is not None or self.redact.covered is not None

    @property
    def infers_some(self) -> bool:
        """Whether the boxes of some frames come from other frames."""
        return self.every > 1 or self.adaptive

    @property
    def default_model(self) -> ModelName:
        """The model if `weights` is None."""
        return "demo" if self.scene else "official"

    def __post_init__(self) -> None:
        validate(self)
        self._normalise_slice()
        if self.tile == 0:
            object.__setattr__(self, "tile", self.imgsz)
        require_valid_together(self)

    def _normalise_slice(self) -> None:
        """Write start and end in one way each, so that equal requests are equal."""
        for name, value in (("start", self.start), ("end", self.end)):
            try:
                text = None if value is None else str(read_moment(value))
            except ValueError as error:
                raise UsageError(f"--{name} {error}") from None
            object.__setattr__(self, name, text)
