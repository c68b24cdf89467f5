"""The exported frames as JPEG pictures, where the format of a data set has its pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError
from pipeline.frames.source import open_source
from pipeline.run.exports.clip import ExportedClip, source_file

_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]

PictureName = Callable[[ExportedClip, int], str]

PICTURE_NAMES: dict[str, PictureName] = {
    "coco": lambda clip, index: f"images/{clip.picture_name(index)}.jpg",
    "mot": lambda clip, index: f"{clip.key}/img1/{index + 1:06d}.jpg",
    "yolo": lambda clip, index: f"images/{clip.picture_name(index)}.jpg",
}
"""Format -> the path of the picture of a frame below the folder of its export."""


def find_sources(clips: Sequence[ExportedClip], at: Path) -> list[Path]:
    """The file of each clip: `at` itself, or the one of its name in that folder or below it.

    Raises InputError if one is missing, or is not the file that was processed, and for a result
    that is redacted: what it covers is in the clip.
    """
    found = []
    for clip in clips:
        if clip.is_redacted:
            raise InputError(
                f"{clip.detections}: is redacted, and pictures of its clip would show what it "
                "covers: leave --images out"
            )
        found.append(source_file(clip.source_name, clip.fingerprint, at))
    return found


def write_pictures(
    clips: Sequence[ExportedClip], sources: Sequence[Path], targets: dict[str, Path]
) -> None:
    """Write the exported frames of each clip, upright and as decoded.

    targets: format -> the folder of its export. Raises InputError.
    """
    for clip, path in zip(clips, sources, strict=True):
        config = ProcessConfig(
            source=path,
            output_dir=path.parent,
            deinterlace=clip.deinterlace,
            start=clip.start,
            end=clip.end,
        )
        with contextlib.closing(open_source(config, cores=2)) as source:
            for frame in source.frames():
                if frame.index >= clip.num_frames:
                    break
                if frame.index % clip.every_nth == 0:
                    names = [
                        folder / PICTURE_NAMES[name](clip, frame.index)
                        for name, folder in targets.items()
                    ]
                    pixels = frame.image.to_ndarray(format="bgr24")
                    _write(cv2.imencode(".jpg", pixels, _QUALITY)[1].tobytes(), names)


def _write(content: bytes, names: Sequence[Path]) -> None:
    for name in names:
        name.parent.mkdir(parents=True, exist_ok=True)
    names[0].write_bytes(content)
    for name in names[1:]:
        try:
            os.link(names[0], name)
        except OSError:  # A file system without links.
            name.write_bytes(content)
