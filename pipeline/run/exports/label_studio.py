"""Label Studio: tasks with predictions for videos, and the labelling interface for them.

https://labelstud.io/guide/predictions and https://labelstud.io/tags/videorectangle
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from pipeline.run.exports.classes import classes_of
from pipeline.run.exports.clip import ExportedClip
from pipeline.run.exports.tracks import Track, TrackBox, tracks_of


def write_label_studio(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write a folder with tasks.json, one task for each clip, and interface.xml.

    `data.video` is the name of the clip: replace it with the address where Label Studio finds it.
    Frames count from 1 there; boxes are shares of the frame in percent. A track ends at the last
    box before a gap, and begins again behind it.
    """
    target.mkdir(parents=True)
    with (target / "tasks.json").open("w", encoding="utf-8") as out:
        separator = "["
        for number, clip in enumerate(clips, 1):
            prediction = json.dumps({"model_version": clip.model}, ensure_ascii=False)[1:-1]
            data = json.dumps({"id": number, "data": {"video": clip.name}}, ensure_ascii=False)
            out.write(f'{separator}\n{data[:-1]}, "predictions": [{{{prediction}, "result": [')
            separator = ","
            between = "\n"
            for index, track in enumerate(tracks_of(clip)):
                out.write(between + json.dumps(_region(clip, track, index), ensure_ascii=False))
                between = ",\n"
            out.write("\n]}]}")
        out.write("\n]\n")
    (target / "interface.xml").write_text(_interface(clips), encoding="utf-8")


def _region(clip: ExportedClip, track: Track, number: int) -> dict[str, Any]:
    following = [*(box.frame_index for box in track.boxes[1:]), None]
    return {
        "id": f"track{number}",
        "type": "videorectangle",
        "from_name": "box",
        "to_name": "video",
        "score": max(box.confidence for box in track.boxes),
        "meta": {"track_id": track.track_id},
        "value": {
            "framesCount": clip.num_frames,
            "duration": clip.num_frames / float(clip.frame_rate),
            "labels": [track.class_name],
            "sequence": [
                _keyframe(clip, box, goes_on=after == box.frame_index + clip.every_nth)
                for box, after in zip(track.boxes, following, strict=True)
            ],
        },
    }


def _keyframe(clip: ExportedClip, box: TrackBox, *, goes_on: bool) -> dict[str, Any]:
    width, height = clip.size_wh
    left, top, right, bottom = box.xyxy
    return {
        "frame": box.frame_index + 1,
        "time": box.pts_seconds,
        "enabled": goes_on,
        "rotation": 0,
        "x": round(100 * left / width, 6),
        "y": round(100 * top / height, 6),
        "width": round(100 * (right - left) / width, 6),
        "height": round(100 * (bottom - top) / height, 6),
    }


def _interface(clips: Sequence[ExportedClip]) -> str:
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes_of(clips))
    return (
        '<View>\n  <Video name="video" value="$video"/>\n'
        f'  <VideoRectangle name="box" toName="video"/>\n'
        f'  <Labels name="label" toName="video">\n{labels}  </Labels>\n</View>\n'
    )
