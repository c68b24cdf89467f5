"""The batch output format of MegaDetector, version 1.6.

https://github.com/agentmorris/MegaDetector/tree/main/megadetector/api/batch_processing#megadetector-batch-output-format
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.detection_lines import DetectedFrame
from pipeline.run.exports.classes import classes_of
from pipeline.run.exports.clip import ExportedClip


def write_megadetector(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write one JSON file. Categories are class_id plus 1 as text; boxes are shares of the frame,
    with their left upper corner. Tracks have no place in this format.
    """
    classes = classes_of(clips)
    categories = {str(number + 1): name for name, number in classes.items()}
    info = {
        "format_version": "1.6",
        "detector": ", ".join(dict.fromkeys(clip.model for clip in clips)),
        "detection_completion_time": max((clip.created for clip in clips), default=""),
    }
    with target.open("w", encoding="utf-8") as out:
        out.write(f'{{"info": {_json(info)},\n"detection_categories": {_json(categories)},\n')
        out.write('"images": [')
        separator = "\n"
        for clip in clips:
            out.write(separator + _json(_file_fields(clip))[:-1] + ', "detections": [')
            separator, between = ",\n", "\n"
            for frame in clip.frames():
                for record in _records(clip, frame, classes):
                    out.write(between + _json(record))
                    between = ",\n"
            out.write("]}")
        out.write("\n]}\n")


def _file_fields(clip: ExportedClip) -> dict[str, object]:
    if clip.is_picture:
        return {"file": clip.name}
    return {
        "file": clip.name,
        "frame_rate": float(clip.frame_rate),
        "frames_processed": list(range(0, clip.num_frames, clip.every_nth)),
    }


def _records(
    clip: ExportedClip, frame: DetectedFrame, classes: dict[str, int]
) -> list[dict[str, object]]:
    width, height = clip.size_wh
    where = {} if clip.is_picture else {"frame_number": frame.frame_index}
    return [
        {
            "category": str(classes[class_name] + 1),
            "conf": confidence,
            "bbox": [
                round(left / width, 7),
                round(top / height, 7),
                round((right - left) / width, 7),
                round((bottom - top) / height, 7),
            ],
            **where,
        }
        for _, class_name, confidence, (left, top, right, bottom), _ in frame.boxes
    ]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
