"""The seams of the loop: any source of detections, any renderer."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.core.boxes import Detections
from pipeline.core.config import EncodeOptions
from pipeline.core.detection_lines import DetectionLine
from pipeline.frames.decode import VideoReader
from pipeline.frames.encode import VideoEncoder
from pipeline.frames.loop import Results, run_frames
from pipeline.frames.sampling import DetectedFrame
from pipeline.frames.snapshots import Snapshots
from pipeline.frames.stats import RunStats
from tests.conftest import gray, video_times, write_clip

NAMES = ("left", "right")
NUM_FRAMES = 12


class FromElsewhere:
    """A box that moves a pixel a frame; no model is needed for it."""

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[DetectedFrame]:
        for frame in self._reader.frames():
            yield DetectedFrame(frame, box_of(frame.index), inferred=frame.index % 2 == 0)


def box_of(index: int) -> Detections:
    return Detections(
        np.array([[index, 0, index + 8, 8]], np.float32),
        np.array([0.5], np.float32),
        np.array([index % 2], np.int64),
    )


def unchanged(image: av.VideoFrame, detections: Detections) -> av.VideoFrame:
    return image


def test_detections_of_another_source_are_written_and_frames_rendered_otherwise(
    tmp_path: Path,
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(40)] * NUM_FRAMES)
    out, lines, stats = tmp_path / "out.mp4", io.StringIO(), RunStats()
    told: list[None] = []
    with contextlib.closing(VideoReader(clip)) as reader:
        encoder = VideoEncoder(out, reader.info, EncodeOptions())
        results = Results(unchanged, encoder, Snapshots(()), lines, NAMES, says_interpolated=True)
        end_seconds = run_frames(
            FromElsewhere(reader), results, stats, 0, lambda: told.append(None)
        )
        encoder.close()
    assert end_seconds == float(NUM_FRAMES * Fraction(1, 25))
    assert len(told) == stats.num_frames == NUM_FRAMES
    assert len(video_times(out)) == NUM_FRAMES
    found = [DetectionLine.from_json(line) for line in lines.getvalue().splitlines()]
    assert [line.frame_index for line in found] == list(range(NUM_FRAMES))
    assert [line.interpolated for line in found] == [i % 2 == 1 for i in range(NUM_FRAMES)]
    for index, line in enumerate(found):
        expected = box_of(index)
        assert line.detections.xyxy.tolist() == expected.xyxy.tolist()
        assert line.detections.class_id.tolist() == expected.class_id.tolist()
    # Nothing is drawn.
    with av.open(str(out)) as container:
        for image in container.decode(video=0):
            assert np.abs(image.to_ndarray(format="gray").astype(int) - 40).max() < 8
