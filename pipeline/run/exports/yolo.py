"""The data set format of ultralytics: labels/*.txt and data.yaml.

https://docs.ultralytics.com/datasets/detect/: `class cx cy w h` per box, as shares of the frame.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.run.exports.classes import classes_of
from pipeline.run.exports.clip import ExportedClip


def write_yolo(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write a folder with data.yaml and a label file per frame, empty for one without boxes.

    The pictures belong into its folder images/, under the names of the label files. Confidence,
    time and track have no place in this format.
    """
    classes = classes_of(clips)
    labels = target / "labels"
    labels.mkdir(parents=True)
    for clip in clips:
        width, height = clip.size_wh
        for frame in clip.frames():
            rows = []
            for box in frame.boxes:
                left, top, right, bottom = box.xyxy
                cx, cy = (left + right) / 2 / width, (top + bottom) / 2 / height
                w, h = (right - left) / width, (bottom - top) / height
                rows.append(f"{classes[box.class_name]} {cx:.8f} {cy:.8f} {w:.8f} {h:.8f}\n")
            path = labels / f"{clip.picture_name(frame.frame_index)}.txt"
            path.write_text("".join(rows), encoding="utf-8")
    # A JSON text is a YAML scalar too, whatever characters the name has.
    names = [f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for name, i in classes.items()]
    # Without a `path`, which ultralytics would take from the working folder: paths begin here.
    yaml = "train: images\nval: images\nnames:\n" + "".join(names)
    (target / "data.yaml").write_text(yaml, encoding="utf-8")
