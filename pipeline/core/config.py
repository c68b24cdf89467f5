"""The options of a run: validated once, immutable.

Values are converted to their declared types: paths may be given as text, tuples as lists. All
classes raise UsageError for an invalid value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

from pipeline.core.errors import UsageError
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.typed import convert_fields, is_integer

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
HINTS = ("THROUGHPUT", "LATENCY", "CUMULATIVE_THROUGHPUT", "NONE")
PRECISIONS = ("auto", "f32", "bf16", "int8")
DEINTERLACE = ("auto", "off")
ENGINES = ("openvino", "pytorch")

ModelName = Literal["official", "demo"]
"""official: yolov5n.pt v7.0, for photographs. demo: the bundled model, for the synthetic scene."""
MODEL_NAMES: tuple[ModelName, ...] = get_args(ModelName)

MOST_ATTEMPTS = 3
"""How many actors may be lost while processing one segment before the run fails."""

_MOST_REQUESTS = 1024
_MOST_BATCH = 64
_MOST_EVERY = 60
_MOST_STALL_SECONDS = 86_400
_LONGEST_SIDE_PX = 32768


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class InferOptions:
    """How the model runs.

    engine: "openvino", or "pytorch", which runs the checkpoint itself, one frame at a time; all
        other options are for OpenVINO.
    device: an OpenVINO device name ("CPU", "GPU.0", "AUTO", ...).
    hint: OpenVINO's performance hint; "NONE" sets none.
    precision: "auto" selects bf16 if this processor is faster in it, else f32; "int8" is the
        quantised model.
    batch: frames per request.
    num_streams, num_threads: None leaves the number to OpenVINO.
    num_requests: None selects enough for one to wait for each stream.
    pinning: whether threads are pinned to cores; None leaves that to OpenVINO.
    """

    engine: str = "openvino"
    device: str = "CPU"
    hint: str = "THROUGHPUT"
    precision: str = "auto"
    batch: int = 1
    num_streams: int | None = None
    num_requests: int | None = None
    num_threads: int | None = None
    pinning: bool | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        _require(self.device != "", "device: the name is empty")
        _require(self.hint in HINTS, f"hint {self.hint!r} is not one of {', '.join(HINTS)}")
        _require(
            self.precision in PRECISIONS,
            f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}",
        )
        _require(
            self.engine in ENGINES, f"engine {self.engine!r} is not one of {', '.join(ENGINES)}"
        )
        _require(
            1 <= self.batch <= _MOST_BATCH,
            f"batch must lie between 1 and {_MOST_BATCH}, not {self.batch}",
        )
        _require(
            self.engine == "openvino" or (self.batch == 1 and self.precision in ("auto", "f32")),
            "PyTorch runs one frame at a time, in f32",
        )
        for name, value in (
            ("streams", self.num_streams),
            ("requests", self.num_requests),
            ("threads", self.num_threads),
        ):
            _require(
                value is None or 1 <= value <= _MOST_REQUESTS,
                f"{name} must lie between 1 and {_MOST_REQUESTS}, not {value}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoOptions:
    """Select the tuned configuration of this machine, else a rule; overridden by values here."""

    device: str | None = None
    hint: str | None = None
    precision: str | None = None
    batch: int | None = None
    num_streams: int | None = None
    num_requests: int | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        self.over(InferOptions())  # Validates.

    def over(self, selected: InferOptions) -> InferOptions:
        """The selected options, with the values here in place of theirs."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            selected, **{key: value for key, value in asked.items() if value is not None}
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectOptions:
    """Which boxes are kept; the defaults are those of YOLOv5's detect.py.

    classes: names or numbers (also as integers) of the classes to keep; None keeps all.
    """

    confidence_threshold: float = 0.25
    iou_threshold: float = 0.45
    classes: tuple[str, ...] | None = None
    max_detections: int = 1000

    def __post_init__(self) -> None:
        if isinstance(self.classes, (list, tuple)):
            names = (str(int(n)) if is_integer(n) else n for n in self.classes)
            object.__setattr__(self, "classes", tuple(names))
        convert_fields(self)
        _require(
            0.0 < self.confidence_threshold < 1.0,
            f"confidence must lie between 0 and 1, not {self.confidence_threshold}",
        )
        _require(
            0.0 < self.iou_threshold <= 1.0,
            f"IoU threshold must lie between 0 and 1, not {self.iou_threshold}",
        )
        _require(
            self.max_detections >= 1,
            f"max-det must be 1 or more, not {self.max_detections}",
        )
        _require(self.classes != (), "classes is empty: name at least one class")
        _require("" not in (self.classes or ()), "classes: a name is empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeOptions:
    """How the annotated clip is encoded; None selects the default of the codec.

    threads: threads of the encoder; None selects them for the machine.
    """

    codec: str = "h264"
    crf: int | None = None
    preset: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        _require(self.codec in CODECS, f"codec {self.codec!r} is not one of {', '.join(CODECS)}")
        most_crf, presets = MOST_CRF[self.codec], PRESETS[self.codec]
        _require(
            self.crf is None or 0 <= self.crf <= most_crf,
            f"crf must lie between 0 and {most_crf} for {self.codec}, not {self.crf}",
        )
        _require(
            self.preset is None or self.preset in presets,
            f"preset {self.preset!r} is not a preset of {self.codec}: {', '.join(presets)}",
        )
        _require(
            self.threads is None or 1 <= self.threads <= _MOST_REQUESTS,
            f"encoder threads must lie between 1 and {_MOST_REQUESTS}, not {self.threads}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticOptions:
    """A synthetic clip.

    image: repeat this picture instead of drawing the scene.
    """

    num_frames: int = 1024
    size_wh: tuple[int, int] = (640, 480)
    frame_rate: Fraction = Fraction(30)
    seed: int = 0
    image: Path | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        _require(self.num_frames >= 1, f"frames must be 1 or more, not {self.num_frames}")
        width, height = self.size_wh
        _require(
            min(self.size_wh) >= 16 and max(self.size_wh) <= _LONGEST_SIDE_PX,
            f"size must lie between 16x16 and {_LONGEST_SIDE_PX}x{_LONGEST_SIDE_PX}, "
            f"not {width}x{height}",
        )
        _require(
            Fraction(1, 1000) <= self.frame_rate <= 1000,
            f"frame rate must lie between 1/1000 and 1000, not {self.frame_rate}",
        )
        _require(self.seed >= 0, f"seed must be 0 or more, not {self.seed}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitOptions:
    """Limits beyond which footage is refused.

    max_size_wh: frame size in pixels, in either orientation.
    max_streams: streams of all kinds in one file.
    max_frame_rate: frames per second, as the file claims.
    max_memory_mb: memory for the decoded frames in flight, in 10^6 bytes.
    """

    max_size_wh: tuple[int, int] = (8192, 4320)
    max_streams: int = 64
    max_frame_rate: Fraction = Fraction(1000)
    max_memory_mb: int = 4096

    def __post_init__(self) -> None:
        convert_fields(self)
        _require(
            min(self.max_size_wh) >= 1 and max(self.max_size_wh) <= _LONGEST_SIDE_PX,
            f"max-size must lie between 1x1 and {_LONGEST_SIDE_PX}x{_LONGEST_SIDE_PX}, "
            f"not {self.max_size_wh[0]}x{self.max_size_wh[1]}",
        )
        _require(self.max_streams >= 1, f"max-streams must be 1 or more, not {self.max_streams}")
        _require(
            self.max_frame_rate > 0, f"max-frame-rate must be above 0, not {self.max_frame_rate}"
        )
        _require(self.max_memory_mb >= 1, f"max-memory must be 1 or more, not {self.max_memory_mb}")


DEFAULT_LIMITS = LimitOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """Process segments on a Ray cluster.

    address: the address of the head node; "local" starts a cluster on this machine; None uses the
        running one, or starts one.
    cores_per_actor: cores that process one segment; None selects 4, or all of the smallest node.
    show_logs: whether the output of the actors is shown on the terminal.
    """

    address: str | None = None
    cores_per_actor: int | None = None
    show_logs: bool = False

    def __post_init__(self) -> None:
        convert_fields(self)
        _require(
            self.cores_per_actor is None or 1 <= self.cores_per_actor <= _MOST_REQUESTS,
            f"cores-per-actor must lie between 1 and {_MOST_REQUESTS}, not {self.cores_per_actor}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteOptions:
    """Addresses of the clip and of the output folder in an object store.

    None for a path. source_version: the version of the clip in the store, set by the run. See
    `run.remote`.
    """

    source_url: str | None = None
    output_url: str | None = None
    source_version: str | None = None

    def __post_init__(self) -> None:
        convert_fields(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessConfig:
    """One run: a source, an output folder, and the options of each step.

    source: a clip's path, a folder of pictures with a frame rate, or the description of a
        synthetic clip.
    output_dir: the folder for annotated.mp4, detections.jsonl and the report.
    weights: a checkpoint (.pt), an exported .onnx or an IR .xml, or a model by name; None selects
        the demo model for the synthetic scene and the official one for everything else.
    imgsz: the longer side of the model input in pixels; a multiple of 32.
    calibration: a folder of pictures for the INT8 calibration; None selects frames of the source.
    video: whether the annotated file is drawn and encoded; if not, detections and report are the
        result.
    num_frames: process only this many frames; None processes all. Not for the synthetic clip.
    every: infer every Nth frame and the last one; interpolate the boxes of the frames between.
    deinterlace: "auto" deinterlaces interlaced clips, "off" does not.
    reuse_duplicates: reuse the boxes of the frame before for an identical frame.
    segment_seconds: approximate length of a segment, the unit of resuming; it begins with a key
        frame, and its first and last frames are inferred.
    stall_seconds: the run fails as hung after this time without progress, or after this much CPU
        time of one thread in one step on one frame.
    cluster: where segments are processed; None for this process.
    remote: the addresses of source and output_dir if these are local copies.
    """

    source: Path | PictureSequence | SyntheticOptions
    output_dir: Path
    overwrite: bool = False
    weights: ModelName | Path | None = None
    imgsz: int = 640
    infer: InferOptions | AutoOptions = field(default_factory=AutoOptions)
    detect: DetectOptions = field(default_factory=DetectOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    calibration: Path | None = None
    video: bool = True
    num_frames: int | None = None
    every: int = 1
    deinterlace: str = "off"
    reuse_duplicates: bool = True
    segment_seconds: float = 60.0
    stall_seconds: float = 60.0
    cluster: ClusterOptions | None = None
    remote: RemoteOptions = field(default_factory=RemoteOptions)

    @property
    def source_name(self) -> str:
        """The source in messages."""
        local = self.source_file or (self.pictures and self.pictures.folder) or "synthetic"
        return self.remote.source_url or str(local)

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
    def source_file(self) -> Path | None:
        """The file that frames come from; None for many, and for the synthetic scene."""
        if isinstance(self.source, SyntheticOptions):
            return self.source.image
        return self.source if isinstance(self.source, Path) else None

    @property
    def default_model(self) -> ModelName:
        """The model if `weights` is None."""
        return "demo" if self.scene else "official"

    def __post_init__(self) -> None:
        convert_fields(self)
        _require(
            self.imgsz >= 32 and self.imgsz % 32 == 0,
            f"imgsz must be a multiple of 32, not {self.imgsz}",
        )
        _require(
            self.num_frames is None or self.num_frames >= 1,
            f"frames must be 1 or more, not {self.num_frames}",
        )
        _require(
            1 <= self.every <= _MOST_EVERY,
            f"every must lie between 1 and {_MOST_EVERY}, not {self.every}",
        )
        _require(
            self.deinterlace in DEINTERLACE,
            f"deinterlace {self.deinterlace!r} is not one of {', '.join(DEINTERLACE)}",
        )
        _require(
            self.segment_seconds > 0,
            f"segment-seconds must be more than 0, not {self.segment_seconds}",
        )
        _require(
            1 <= self.stall_seconds <= _MOST_STALL_SECONDS,
            f"stall-seconds must lie between 1 and {_MOST_STALL_SECONDS}, not {self.stall_seconds}",
        )
        _require(
            self.calibration is None or self.infer.precision == "int8",
            "a calibration folder needs --precision int8",
        )
        _require(
            self.video or self.encode == EncodeOptions(),
            "--codec, --crf and --preset are for the annotated file, which --no-video leaves out",
        )


SYNTHETIC = "synthetic"


STANDARD_INPUT = "-"
