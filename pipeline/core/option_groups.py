"""The options of each step, one dataclass for each group. All are immutable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pipeline.core.files import file_sha256
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
_MOST_REQUESTS = 1024

_DEVICE = Option("--device", "OpenVINO device", metavar="NAME", parse=str.upper)
_HINT = Option(
    "--hint",
    "performance hint",
    choices=("THROUGHPUT", "LATENCY", "CUMULATIVE_THROUGHPUT", "NONE"),
)
_PRECISION = Option(
    "--precision",
    "precision of inference (default: auto)",
    choices=("auto", "f32", "bf16", "int8"),
)
_STREAMS = Option(
    "--streams",
    "inference streams, at most one per core",
    metavar="N",
    lowest=1,
    highest=_MOST_REQUESTS,
)
_REQUESTS = Option(
    "--requests", "inference requests", metavar="N", lowest=1, highest=_MOST_REQUESTS
)
_BATCH = Option("--batch", "frames per request", metavar="N", lowest=1, highest=64)


@dataclass(frozen=True, kw_only=True, slots=True)
class InferOptions:
    """How the model runs.

    engine: "openvino", or "pytorch", which runs the checkpoint itself, one frame at a time; all
        other options are for OpenVINO.
    device: an OpenVINO device name ("CPU", "GPU.0", "AUTO", ...).
    hint: OpenVINO's performance hint; "NONE" sets none.
    precision: "auto" selects bf16 if this processor is faster in it, else f32; "int8" is the
        quantised model.
    num_streams, num_threads: None leaves the number to OpenVINO.
    num_requests: None selects enough for one to wait for each stream.
    pinning: whether threads are pinned to cores; None leaves that to OpenVINO.
    """

    engine: Annotated[str, Option(choices=("openvino", "pytorch"))] = "openvino"
    device: Annotated[str, _DEVICE] = "CPU"
    hint: Annotated[str, _HINT] = "THROUGHPUT"
    precision: Annotated[str, _PRECISION] = "auto"
    batch: Annotated[int, _BATCH] = 1
    num_streams: Annotated[int | None, _STREAMS] = None
    num_requests: Annotated[int | None, _REQUESTS] = None
    num_threads: Annotated[int | None, Option(name="threads", lowest=1, highest=_MOST_REQUESTS)] = (
        None
    )
    pinning: bool | None = None

    def __post_init__(self) -> None:
        validate(self)
        require(self.device != "", "--device: the name is empty")
        require(
            self.engine == "openvino" or (self.batch == 1 and self.precision in ("auto", "f32")),
            "PyTorch runs one frame at a time, in f32",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoOptions:
    """Select the tuned configuration of this machine, else a rule; overridden by values here."""

    device: Annotated[str | None, _DEVICE] = None
    hint: Annotated[str | None, _HINT] = None
    precision: Annotated[str | None, _PRECISION] = None
    num_streams: Annotated[int | None, _STREAMS] = None
    num_requests: Annotated[int | None, _REQUESTS] = None
    batch: Annotated[int | None, _BATCH] = None

    def __post_init__(self) -> None:
        validate(self)
        self.over(InferOptions())  # Validates them together.

    def over(self, selected: InferOptions) -> InferOptions:
        """The selected options, with the values here in place of theirs."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            selected, **{key: value for key, value in asked.items() if value is not None}
        )


def _read_output_size(text: str) -> tuple[int, int] | int:
    width, x, height = text.partition("x")
    try:
        return (int(width), int(height)) if x else int(width)
    except ValueError:
        raise ValueError(f"{text!r} is neither WIDTHxHEIGHT nor a height") from None


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
            parse=_read_output_size,
            lowest=16,
            highest=_LONGEST_SIDE_PX,
        ),
    ] = None
    drop_audio: Annotated[
        bool, Option("--drop-audio", "leave the sound out of the annotated clip")
    ] = False
    threads: Annotated[
        int | None, Option(name="encoder threads", lowest=1, highest=_MOST_REQUESTS)
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
            "width of the lines of boxes, in pixels; even on clips (default: by the size of the "
            "frames)",
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


_NUM_SCENE_FRAMES = 1024
NUM_FRAMES = Option(
    "--frames",
    "process the first N frames only (default: all); the length of the synthetic scene "
    f"(default: {_NUM_SCENE_FRAMES})",
    metavar="N",
    lowest=1,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticOptions:
    """A synthetic clip.

    image: repeat this picture instead of drawing the scene.
    """

    num_frames: Annotated[int, NUM_FRAMES] = _NUM_SCENE_FRAMES
    size_wh: Annotated[
        tuple[int, int],
        Option(
            "--size",
            "frame size (default: 640x480)",
            metavar="WxH",
            lowest=16,
            highest=_LONGEST_SIDE_PX,
        ),
    ] = (640, 480)
    frame_rate: Annotated[
        Fraction,
        Option(
            "--frame-rate",
            "frames per second (default: 30); with a folder of pictures: process them as one "
            "clip, in the order of the numbers in their names",
            metavar="R",
            lowest=Fraction(1, 1000),
            highest=1000,
        ),
    ] = Fraction(30)
    seed: Annotated[
        int, Option("--seed", "seed of the scene (default: 0)", metavar="N", lowest=0)
    ] = 0
    image: Annotated[
        Path | None, Option("--image", "repeat this picture instead", metavar="FILE")
    ] = None

    def __post_init__(self) -> None:
        validate(self)

    # The members of `Source`.

    @property
    def file(self) -> Path | None:
        return self.image

    def stamp(self) -> Any:
        return [asdict(self), file_sha256(self.image) if self.image else None]

    def content(self, beat: Callable[[], object]) -> Any:
        return self.stamp()

    def num_bytes(self) -> int | None:
        return None

    def absolute(self) -> SyntheticOptions:
        return replace(self, image=self.image.absolute()) if self.image else self


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitOptions:
    """Limits beyond which footage is refused.

    max_size_wh: frame size in pixels, in either orientation.
    max_streams: streams of all kinds in one file.
    max_frame_rate: frames per second, as the file claims.
    max_memory_mb: memory for the decoded frames in flight, in 10^6 bytes.
    """

    max_size_wh: Annotated[
        tuple[int, int],
        Option("--max-input-size", "frame size", metavar="WxH", lowest=1, highest=_LONGEST_SIDE_PX),
    ] = (8192, 4320)
    max_streams: Annotated[
        int, Option("--max-streams", "streams in a file", metavar="N", lowest=1)
    ] = 64
    max_frame_rate: Annotated[
        Fraction, Option("--max-frame-rate", "frames per second", metavar="R")
    ] = Fraction(1000)
    max_memory_mb: Annotated[
        int, Option("--max-memory", "memory for decoded frames", metavar="MB", lowest=1)
    ] = 4096

    def __post_init__(self) -> None:
        validate(self)
        require(
            self.max_frame_rate > 0, f"--max-frame-rate must be above 0, not {self.max_frame_rate}"
        )


DEFAULT_LIMITS = LimitOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """Process segments on a Ray cluster.

    cores_per_actor: None selects 4, or all cores of the smallest node.
    show_logs: whether the output of the actors is shown on the terminal.
    """

    address: Annotated[
        str | None,
        Option(
            "--address",
            "address of the cluster, or 'local' to start one (default: the running one, or local)",
            metavar="HOST:PORT",
        ),
    ] = None
    cores_per_actor: Annotated[
        int | None,
        Option(
            "--cores-per-actor",
            "cores that process one segment (default: 4, or all cores of the smallest node)",
            metavar="N",
            lowest=1,
            highest=_MOST_REQUESTS,
        ),
    ] = None
    show_logs: Annotated[bool, Option("--debug")] = False

    def __post_init__(self) -> None:
        validate(self)


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
        validate(self)
