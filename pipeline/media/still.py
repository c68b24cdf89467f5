"""A still picture as input and as result: told from a clip, written, and read back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import EncodeError, UsageError, reason_of
from pipeline.media.frame import VideoInfo, plane_rows

_FORMATS = ("gif", "apng", "fits", "ico")
"""FFmpeg's demuxers that read a picture or a film of pictures, beside all named *_pipe."""
_BRANDS = ("avif", "heic", "heix", "mif1")
_JPEG_QUALITY = 95
_SAMPLING = {
    "yuvj444p": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "yuvj422p": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
}
"""How finely colour is kept in a JPEG, by the pixels of the one it is made of; else 4:2:0."""


def is_picture(container: InputContainer, num_packets: int | None) -> bool:
    """Whether an open file is one still picture, rather than a clip or a film of pictures.

    num_packets: of its frames; None where they were not read.
    """
    name = container.format.name
    brand = container.metadata.get("major_brand", "")
    return num_packets == 1 and (name.endswith("_pipe") or name in _FORMATS or brand in _BRANDS)


def require_picture_options(config: ProcessConfig) -> None:
    """Raise UsageError for options that only clips have."""
    if config.adaptive:
        raise UsageError(
            f"{config.source_name} is a picture: --adaptive is for clips; leave it out"
        )
    if config.track is not None:
        raise UsageError(f"{config.source_name} is a picture: --track is for clips; leave it out")
    asked = config.encode
    if asked.codec != "h264" or asked.crf is not None or asked.preset is not None:
        raise UsageError(
            f"{config.source_name} is a picture, and so is its result: --codec, --crf and "
            "--preset are for clips; leave them out"
        )


class Streamless:
    """What encoders have in common that write no track: nothing is open, held back, or timed."""

    worker_threads: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.num_frames = 0

    def some_times(self) -> list[tuple[int, int]]:
        return []

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is open."""

    def abandon(self) -> None:
        """Nothing is open."""


class PictureEncoder(Streamless):
    """Writes the one frame of a picture, as `VideoEncoder` does those of a clip.

    JPEG of quality 95, or PNG, by the end of the path. Raises EncodeError.
    """

    def __init__(self, path: Path, info: VideoInfo) -> None:
        super().__init__()
        self._path = path
        self._options: list[int] = []
        if path.suffix == ".jpg":
            sampling = _SAMPLING.get(info.pix_fmt, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)
            self._options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
            self._options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]

    def encode(self, image: av.VideoFrame, pts: int, duration: int, time_base: Fraction) -> None:
        """Take the picture, as bgr24; it has no place in time."""
        pixels = plane_rows(image.planes[0])[:, : image.width * 3]
        pixels = np.ascontiguousarray(pixels).reshape(image.height, image.width, 3)
        try:
            _, content = cv2.imencode(self._path.suffix, pixels, self._options)
            self._path.write_bytes(np.asarray(content).tobytes())
        except cv2.error as error:
            raise EncodeError(f"the picture could not be encoded ({reason_of(error)})") from error
        self.num_frames += 1


def verify_picture(path: Path, info: VideoInfo) -> None:
    """Read a finished picture back. Raises EncodeError if it is not whole, or of another size."""
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or pixels.shape[1::-1] != info.size_wh:
        raise EncodeError(f"{path.name} cannot be read back as the picture that was encoded")


def picture_settings(info: VideoInfo) -> dict[str, str | int]:
    """How a picture is written, for the report."""
    if info.annotated_suffix == ".jpg":
        return {"codec": "jpeg", "encoder": "opencv", "quality": _JPEG_QUALITY, "threads": 1}
    return {"codec": "png", "encoder": "opencv", "threads": 1}
