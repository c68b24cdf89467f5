"""What is to be seen in a synthetic clip, frame by frame, in two common forms."""

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


def coco_truth(options: SyntheticOptions) -> dict[str, Any]:
    """The whole clip as the content of a COCO detection JSON file.

    Image ids are frame indices plus 1, category ids are class ids; each annotation also has a
    "track_id". Raises UsageError like truth_records.
    """
    width, height = options.size_wh
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in truth_records(options):
        index = record["frame_index"]
        images.append(
            {
                "id": index + 1,
                "file_name": f"{index:06d}.png",
                "width": width,
                "height": height,
                "frame_index": index,
            }
        )
        for detection in record["detections"]:
            x0, y0, x1, y1 = detection["xyxy"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": detection["class_id"],
                    "track_id": detection["track_id"],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"synthetic scene, seed {options.seed}"},
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES)],
        "annotations": annotations,
    }


def _scene_of(options: SyntheticOptions) -> Scene:
    if options.image is not None:
        raise UsageError("a repeated picture has no truth: leave out image")
    return Scene(options.size_wh, options.seed)
