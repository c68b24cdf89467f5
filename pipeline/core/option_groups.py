"""The options of the synthetic clip, of limits, cluster and object store, a dataclass for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pipeline.core.files import file_sha256
from pipeline.core.options import Option, require, validate

_LONGEST_SIDE_PX = 32768
_MOST_CORES = 1024

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
            highest=_MOST_CORES,
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
