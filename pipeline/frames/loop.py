"""The way of the frames: detected, rendered, encoded, and written down, one after the other.

Decoding and inference run on threads of their own: see `detect`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TextIO

import av

from pipeline.core.boxes import Detections
from pipeline.core.detection_lines import DetectionLine
from pipeline.core.errors import located
from pipeline.core.position import Step
from pipeline.frames.annotated_file import FrameEncoder
from pipeline.frames.redact import Redactor
from pipeline.frames.sampling import DetectedFrame, DetectionSource
from pipeline.frames.snapshots import Snapshots
from pipeline.frames.stats import RunStats


class Renderer(Protocol):
    """Makes the picture of the result from a decoded one and its detections."""

    def __call__(self, image: av.VideoFrame, detections: Detections) -> av.VideoFrame: ...


@dataclass(frozen=True, slots=True)
class Results:
    """Where the results of frames go.

    lines: receives a detection line for each frame; None for none. class_names: by class_id.
    says_interpolated: whether lines say which frames were inferred. weak_lines: receives a line
    for each frame with the boxes that only a tracker needs; None for none. redactor: covers frames
    before anything is drawn on them; None where nothing is redacted.
    """

    render: Renderer
    encoder: FrameEncoder
    snapshots: Snapshots
    lines: TextIO | None
    class_names: Sequence[str]
    says_interpolated: bool
    weak_lines: TextIO | None = None
    redactor: Redactor | None = None

    def picture(self, detected: DetectedFrame, detections: Detections) -> av.VideoFrame:
        """The picture of the result. detections: those of the frame, as they are written."""
        image = detected.frame.image
        if self.redactor is not None:
            image = self.redactor(image, detected.covers)
            detections = self.redactor.others(detections)
        return self.render(image, detections)

    def write(self, detected: DetectedFrame) -> None:
        """Write the detection lines of a frame."""
        if self.lines is not None:
            self.lines.write(self._line(detected))
        if self.weak_lines is not None:
            weak = Detections.empty() if detected.weak is None else detected.weak
            self.weak_lines.write(self._line(replace(detected, detections=weak)))

    def _line(self, detected: DetectedFrame) -> str:
        line = detection_line(detected, says_interpolated=self.says_interpolated)
        return line.to_json(self.class_names) + "\n"


def detection_line(
    detected: DetectedFrame, first_index: int = 0, *, says_interpolated: bool
) -> DetectionLine:
    """What is written of a frame; its index counts from first_index."""
    frame = detected.frame
    return DetectionLine(
        first_index + frame.index,
        frame.source_pts,
        frame.pts_seconds,
        detected.detections,
        not detected.inferred if says_interpolated else None,
    )


def run_frames(
    source: DetectionSource,
    results: Results,
    stats: RunStats,
    first_index: int,
    on_frame: Callable[[], object],
) -> float:
    """Take every frame through all steps; returns when the encoder has taken the last.

    first_index: the place of the first frame in the clip, by which messages name frames.
    on_frame: called once per finished frame.

    Returns when the last frame ends, in seconds on the clip's timeline; 0 without frames. Raises a
    PipelineError that names the step and the frame.
    """
    clocks = stats.consumer
    place = clocks.place
    started, end_seconds = time.perf_counter(), 0.0
    try:
        for detected in source:
            frame = detected.frame
            end_seconds = float((frame.pts + frame.duration) * frame.time_base)
            # Frames that are not inferred are behind the one that arrived last.
            place.frame_index = first_index + frame.index
            with clocks.annotate:
                # What is drawn is what is written: the lines can be drawn again.
                detections = detected.detections.rounded()
                image = results.picture(detected, detections)
                results.snapshots.look(frame.pts_seconds, image, detections)
            with clocks.encode:
                results.encoder.encode(image, frame.pts, frame.duration, frame.time_base)
            with clocks.write:
                results.write(detected)
                stats.note_frame(detections.class_id, time.perf_counter() - started)
                on_frame()
        with clocks.encode:
            results.encoder.flush()
    except Exception as error:
        step = Step.INFER if place.step.waits else place.step
        placed = located(error, step.label, place.frame_index)
        if placed is error:
            raise
        raise placed from error
    return end_seconds
