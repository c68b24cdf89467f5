"""A few annotated frames, spread over the clip, kept for the report as they pass by."""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Iterable

import av
import cv2
import numpy as np

from pipeline.frames.task import SegmentTask
from pipeline.media.frame import Segment, VideoInfo

_MOST_PICTURES = 4
_WIDTH_PX = 560
_UNKNOWN_LENGTH_SECONDS = (0.0, 10.0, 40.0, 160.0)


def places_seconds(duration_seconds: float | None) -> tuple[float, ...]:
    """The times of the snapshots, in seconds from the start of the clip: at most one a second."""
    if duration_seconds is None:
        return _UNKNOWN_LENGTH_SECONDS
    number = min(_MOST_PICTURES, math.ceil(duration_seconds))
    return tuple((part + 0.5) / number * duration_seconds for part in range(number))


class Snapshots:
    """Pictures of the frames that show at some times on the clip's own timeline."""

    def __init__(self, places_seconds: Iterable[float]) -> None:
        self.pictures: list[str] = []
        self._places = deque(sorted(places_seconds))

    def look(self, end_seconds: float, image: av.VideoFrame) -> None:
        """Keep the frame that shows until then, as a data: URL of a JPEG picture, if one is due."""
        if not self._places or end_seconds <= self._places[0]:
            return
        while self._places and end_seconds > self._places[0]:
            self._places.popleft()
        width = min(_WIDTH_PX, image.width)
        height = max(1, round(image.height * width / image.width))
        pixels = image.to_ndarray(format="bgr24", width=width, height=height)
        _, jpeg = cv2.imencode(".jpg", pixels)
        encoded = base64.b64encode(np.asarray(jpeg).tobytes()).decode("ascii")
        self.pictures.append(f"data:image/jpeg;base64,{encoded}")


def snapshots_of(task: SegmentTask, info: VideoInfo) -> Snapshots:
    """The pictures of a segment for the report, none of which has been taken yet."""
    config = task.settings.config
    if not config.video:
        return Snapshots(())
    return Snapshots(_snapshot_seconds(task.segment, info, config.num_frames))


def _snapshot_seconds(segment: Segment, info: VideoInfo, num_frames: int | None) -> list[float]:
    """Where in a segment to take pictures for the report, in seconds on the clip's timeline."""
    known = [info.duration_seconds] if info.duration_seconds else []
    if num_frames is not None and info.frame_rate:
        known.append(float(num_frames / info.frame_rate))
    begin_seconds = float(info.start_pts * info.time_base)
    places = [begin_seconds + s for s in places_seconds(min(known, default=None))]
    start = 0.0 if segment.start_pts is None else float(segment.start_pts * info.time_base)
    end = None if segment.end_pts is None else float(segment.end_pts * info.time_base)
    return [s for s in places if s >= start and (end is None or s < end)]
