"""What is to be seen in a synthetic clip, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.core.config import SyntheticOptions
from pipeline.core.errors import UsageError
from pipeline.synthetic.scene import Scene, Truth
from pipeline.synthetic.sprites import CLASS_NAMES


def truth_records(options: SyntheticOptions) -> Iterator[dict[str, Any]]:
    """One record per frame, like the lines of detections.jsonl; confidence is 1.

    Each detection also has a "track_id". Raises UsageError for a repeated picture, of which
    nothing is known.
    """
    scene = _scene_of(options)
    for index in range(options.num_frames):
        yield truth_record(index, float(index / options.frame_rate), scene.truth(index))


def truth_record(index: int, pts_seconds: float, truth: Truth) -> dict[str, Any]:
    """One of these records."""
    return {
        "frame_index": index,
        "pts_seconds": round(pts_seconds, 6),
        "detections": [
            {
                "class_id": class_id,
                "class_name": CLASS_NAMES[class_id],
                "confidence": 1.0,
                "xyxy": xyxy,
                "track_id": track_id,
            }
            for xyxy, class_id, track_id in zip(
                truth.xyxy.tolist(), truth.class_id.tolist(), truth.track_id.tolist(), strict=True
            )
        ],
    }


def _scene_of(options: SyntheticOptions) -> Scene:
    if options.image is not None:
        raise UsageError("a repeated picture has no truth: leave out image")
    return Scene(options.size_wh, options.seed)
