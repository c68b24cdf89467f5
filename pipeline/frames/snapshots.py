"""Annotated frames with finds for the report, kept as they pass."""

from __future__ import annotations

import base64
import math
from bisect import bisect_right
from collections.abc import Sequence

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.frames.report_pictures import STEPS, Picture, Sight, select_pictures
from pipeline.frames.task import SegmentTask
from pipeline.media.frame import VideoInfo
from pipeline.media.hdr import is_hdr
from pipeline.model.tone_map import ToneMap

_MOST_MOMENTS = 4
_MOST_SIGHTS = 32
_MOST_PER_MOMENT = 2
"""A short clip has few pictures: each takes as long as drawing ten frames."""
_WIDTH_PX = 560
_UNKNOWN_LENGTH_SECONDS = (0.0, 10.0, 40.0, 160.0)

Small = tuple[float, NDArray[np.uint8]]
"""The time at which a frame is shown, and its pixels, scaled down."""


def moment_starts(duration_seconds: float | None) -> tuple[float, ...]:
    """Where each moment of a clip begins, in seconds from its start: at most four, one a second."""
    if duration_seconds is None:
        return _UNKNOWN_LENGTH_SECONDS
    number = max(1, min(_MOST_MOMENTS, math.ceil(duration_seconds)))
    return tuple(part / number * duration_seconds for part in range(number))


class Snapshots:
    """The best frame for each class and moment among those that pass, or else the first one.

    moments: where they begin, in seconds on the clip's timeline; without any, no frame is kept.
    class_names: by class_id.
    """

    def __init__(self, moments: Sequence[float], class_names: Sequence[str] = ()) -> None:
        self._moments, self._class_names = moments, class_names
        self._best: dict[tuple[int, int], tuple[float, Small]] = {}
        self._first: Small | None = None

    def look(self, seconds: float, image: av.VideoFrame, detections: Detections) -> None:
        """Keep an annotated frame, shown at that time, if it shows a class better than others."""
        if not self._moments:
            return
        moment = max(0, bisect_right(self._moments, seconds) - 1)
        better = self._better(moment, detections)
        if self._first is not None and not better:
            return
        small = (seconds, _small(image))
        self._first = self._first or small
        for class_id, confidence in better:
            self._best[class_id, moment] = (confidence, small)

    def pictures(self) -> list[Picture]:
        """Those to be shown of the frames that passed."""
        if self._first is None:
            return []
        frames = dict([self._first])
        sights: dict[float, list[Sight]] = {self._first[0]: []}
        for (class_id, moment), (confidence, (seconds, image)) in self._best.items():
            frames[seconds] = image
            sight = Sight(self._class_names[class_id], moment, confidence)
            sights.setdefault(seconds, []).append(sight)
        pictures = [Picture(at, tuple(found), "") for at, found in sights.items()]
        chosen = select_pictures(pictures, _MOST_PER_MOMENT * len(self._moments))
        return [Picture(p.seconds, p.sights, _jpeg_url(frames[p.seconds])) for p in chosen]

    def _better(self, moment: int, detections: Detections) -> list[tuple[int, float]]:
        """The classes that a frame shows best so far, with the confidences of their best boxes."""
        best: dict[int, float] = {}
        for class_id, confidence in zip(
            detections.class_id.tolist(), detections.confidence.tolist(), strict=True
        ):
            best.setdefault(class_id, round(confidence, 4))  # The most confident comes first.
        return [
            (class_id, confidence)
            for class_id, confidence in best.items()
            if self._is_better(class_id, moment, confidence)
        ]

    def _is_better(self, class_id: int, moment: int, confidence: float) -> bool:
        known = self._best.get((class_id, moment))
        if known is None:
            return len(self._best) < _MOST_SIGHTS
        return int(confidence * STEPS) > int(known[0] * STEPS)


def snapshots_of(task: SegmentTask, info: VideoInfo, class_names: Sequence[str]) -> Snapshots:
    """The pictures of a segment for the report, none of which has been taken yet."""
    config = task.settings.config
    if not config.video:
        return Snapshots(())
    known = [info.duration_seconds] if info.duration_seconds else []
    if config.num_frames is not None and info.frame_rate:
        known.append(float(config.num_frames / info.frame_rate))
    begin_seconds = float(info.start_pts * info.time_base)
    moments = [begin_seconds + start for start in moment_starts(min(known, default=None))]
    return Snapshots(moments, class_names)


def _small(image: av.VideoFrame) -> NDArray[np.uint8]:
    """BGR, (height, width, 3), as wide as the report shows it."""
    width = min(_WIDTH_PX, image.width)
    height = max(1, round(image.height * width / image.width))
    if is_hdr(int(image.color_trc)):
        rgb = ToneMap()(image, (width, height))
        return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)
    return np.asarray(image.to_ndarray(format="bgr24", width=width, height=height), np.uint8)


def _jpeg_url(bgr: NDArray[np.uint8]) -> str:
    _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 85])
    encoded = base64.b64encode(np.asarray(jpeg).tobytes()).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"
