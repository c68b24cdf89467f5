"""Frames of noise to be redacted, and what is to be seen of the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.media.frame import plane_rows


def noise_frame(pixel_format: str, size_wh: tuple[int, int] = (131, 97)) -> av.VideoFrame:
    """All samples at random: what is covered, and what is not, shows in each."""
    random = np.random.default_rng(5)
    frame = av.VideoFrame(*size_wh, pixel_format)
    for plane in frame.planes:
        rows = plane_rows(plane)
        if frame.format.components[0].bits > 8:
            samples = rows.view(np.uint16)
            samples[...] = random.integers(0, 1024, samples.shape)
        else:
            rows[...] = random.integers(0, 256, rows.shape)
    return frame


def samples_of(frame: av.VideoFrame) -> list[NDArray[Any]]:
    """The samples (rows, columns) of each plane, without the padding of its rows."""
    kind = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return [plane_rows(plane).view(kind)[:, : plane.width].copy() for plane in frame.planes]


COVERS = np.array([[0, 10, 40, 60], [100, 64, 131, 97], [60, 20, 68, 28]])


def brightest(path: Path) -> int:
    """The brightest pixel of a clip in all of its frames."""
    with av.open(str(path)) as container:
        return max(int(f.to_ndarray(format="gray").max()) for f in container.decode(video=0))
