"""COCO's format of object detection: annotations/instances_default.json for all clips.

https://cocodataset.org/#format-data, with the fields for videos that TAO and BDD100K use:
`videos`, and in each image `video_id` and `frame_id`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from pipeline.run.exports.classes import classes_of
from pipeline.run.exports.clip import ExportedClip


def write_coco(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write a folder with videos, images, categories and annotations; all ids count from 1.

    Readers expect the file in a folder annotations/, and the pictures in images/ beside that.
    A category's id is its class_id plus 1: many readers take 0 for the background. Each annotation
    has `score` and, where the box has one, `track_id`, unique over all clips.
    """
    classes = classes_of(clips)
    path = target / "annotations" / "instances_default.json"
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8") as out:
        out.write('{"info": ' + _json({"description": "detections by pipeline"}) + ",\n")
        categories = ({"id": i + 1, "name": name} for name, i in classes.items())
        _write_list(out, "categories", categories, ",\n")
        _write_list(out, "videos", _videos(clips), ",\n")
        _write_list(out, "images", _images(clips), ",\n")
        _write_list(out, "annotations", _annotations(clips, classes), "}\n")


def _videos(clips: Sequence[ExportedClip]) -> Iterator[dict[str, object]]:
    for number, clip in enumerate(clips, 1):
        width, height = clip.size_wh
        yield {
            "id": number,
            "name": clip.name,
            "width": width,
            "height": height,
            "fps": float(clip.frame_rate),
            "num_frames": clip.num_frames,
        }


def _images(clips: Sequence[ExportedClip]) -> Iterator[dict[str, object]]:
    number = 0
    for video, clip in enumerate(clips, 1):
        width, height = clip.size_wh
        for frame in clip.frames():
            number += 1
            yield {
                "id": number,
                "file_name": f"{clip.picture_name(frame.frame_index)}.jpg",
                "width": width,
                "height": height,
                "video_id": video,
                "frame_id": frame.frame_index,
                "pts_seconds": frame.pts_seconds,
            }


def _annotations(
    clips: Sequence[ExportedClip], classes: dict[str, int]
) -> Iterator[dict[str, object]]:
    image = number = first_track = 0
    for clip in clips:
        last_track = -1
        for frame in clip.frames():
            image += 1
            for box in frame.boxes:
                number += 1
                left, top, right, bottom = box.xyxy
                width, height = round(right - left, 2), round(bottom - top, 2)
                annotation = {
                    "id": number,
                    "image_id": image,
                    "category_id": classes[box.class_name] + 1,
                    "bbox": [left, top, width, height],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                    "score": box.confidence,
                }
                if box.track_id is not None:
                    annotation["track_id"] = first_track + box.track_id
                    last_track = max(last_track, box.track_id)
                yield annotation
        first_track += last_track + 1


def _write_list(out: TextIO, name: str, records: Iterable[dict[str, object]], after: str) -> None:
    out.write(f'"{name}": [')
    separator = "\n"
    for record in records:
        out.write(separator + _json(record))
        separator = ",\n"
    out.write("\n]" + after)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
