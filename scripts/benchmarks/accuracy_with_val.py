"""The mAP of a model by `evaluate` and by the `val` of ultralytics, in the same letterbox.

    scripts/benchmarks/accuracy_with_val.py --peers PYTHON --data FOLDER MODEL...

FOLDER has images/ and labels/ as for `pipeline evaluate`. Both programs are given the pictures in
squares of the model's input, padded beforehand, and keep boxes by the same thresholds: 0.001 for
the confidence, 0.7 for the IoU of NMS, 300 boxes. `val` computes its own average precision; its
boxes are also judged by the evaluator of this project, and so are those of this project.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions, InferOptions
from pipeline.core.picture_paths import list_pictures
from pipeline.core.progress import no_progress
from pipeline.inference.detect_each import detect_each
from pipeline.inference.openvino import load_engine
from pipeline.measure.coco import MOST_DETECTIONS, Label, Truth, average_precision
from pipeline.media.pictures import read_picture
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.prepare import prepare_model
from pipeline.model.weights import find_weights

_CONFIDENCE, _IOU = 0.001, 0.7

_VAL = """
import json, sys
from ultralytics import YOLO
model, data, imgsz, conf, iou, folder = json.loads(sys.argv[1])
options = dict(imgsz=imgsz, conf=conf, iou=iou, rect=False, batch=1, workers=0, plots=False)
found = YOLO(model, task="detect").val(
    data=data, device="cpu", save_json=True, project=folder, name="val", verbose=False, **options
)
print("RESULT", json.dumps([found.box.map50, found.box.map, str(found.save_dir)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--imgsz", type=int, default=640)
    arguments = parser.parse_args()
    print("| model | boxes of | average precision by | mAP@0.5 | mAP@0.5:0.95 |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        squares = Path(folder) / "data"
        truth = write_squares(arguments.data, squares, arguments.imgsz)
        sizes_wh = dict.fromkeys(truth, (arguments.imgsz, arguments.imgsz))
        for model in arguments.models:
            by_val, theirs = found_by_val(model, squares, arguments)
            ours = found_here(model, list(truth), arguments.imgsz)
            for program, judge, precision in (
                ("`val`", "`val`", by_val),
                ("`val`", "`evaluate`", average_precision(truth, theirs, sizes_wh)),
                ("this project", "`evaluate`", average_precision(truth, ours, sizes_wh)),
            ):
                values = " | ".join(f"{value:.4f}" for value in precision)
                print(f"| {model.name} | {program} | {judge} | {values} |", flush=True)


def write_squares(data: Path, squares: Path, side: int) -> Truth:
    """Pictures and labels in the letterbox of a square input; returns the labels of each."""
    truth: Truth = {}
    for name in ("images", "labels"):
        (squares / name).mkdir(parents=True)
    for number, path in enumerate(list_pictures(data / "images")):
        picture = cv2.imread(str(path))
        assert picture is not None
        height, width = picture.shape[:2]
        box = letterbox((width, height), (side, side))
        (x, y), (w, h) = box.offset_xy, box.content_wh
        square = np.full((side, side, 3), PADDING_VALUE, np.uint8)
        square[y : y + h, x : x + w] = cv2.resize(picture, (w, h), interpolation=cv2.INTER_LINEAR)
        written = squares / "images" / f"{number:04}.png"
        cv2.imwrite(str(written), square)
        truth[written] = [
            (label[0], *((np.array(label[1:]) * (w, h, w, h) + (x, y, 0, 0)) / side).tolist())
            for label in labels_of(data / "labels" / f"{path.stem}.txt")
        ]
        lines = (" ".join(map(str, label)) + "\n" for label in truth[written])
        (squares / "labels" / f"{number:04}.txt").write_text("".join(lines))
    return truth


def labels_of(path: Path) -> list[Label]:
    lines = path.read_text().splitlines() if path.is_file() else []
    rows = (line.split() for line in lines)
    return [(int(n), float(x), float(y), float(w), float(h)) for n, x, y, w, h in rows]


def found_here(model: Path, pictures: list[Path], side: int) -> dict[Path, Detections]:
    """The boxes of this project."""
    detect = DetectOptions(
        confidence_threshold=_CONFIDENCE, iou_threshold=_IOU, max_detections=MOST_DETECTIONS
    )
    prepared = prepare_model(find_weights(model, no_progress), (side, side), side, no_progress)
    with load_engine(prepared, InferOptions(precision="f32")) as engine:
        frames = map(read_picture, pictures)
        found = detect_each(frames, prepared, engine, detect, multi_label=True)
    return dict(zip(pictures, found, strict=True))


def found_by_val(
    model: Path, squares: Path, arguments: argparse.Namespace
) -> tuple[tuple[float, float], dict[Path, Detections]]:
    """What `val` prints, and its boxes."""
    names = "".join(f"  {n}: class {n}\n" for n in range(80))
    description = squares / "data.yaml"
    description.write_text(f"path: {squares}\ntrain: images\nval: images\nnames:\n{names}")
    words = [str(model.resolve()), str(description), arguments.imgsz, _CONFIDENCE, _IOU]
    given = json.dumps([*words, str(squares.parent / "runs")])
    ended = subprocess.run(  # noqa: S603
        [arguments.peers, "-c", _VAL, given], check=True, stdout=subprocess.PIPE, text=True
    )
    _, _, line = ended.stdout.rpartition("RESULT ")
    map_50, map_50_95, folder = json.loads(line)
    of_pictures: dict[Path, list[Any]] = defaultdict(list)
    for box in json.loads((Path(folder) / "predictions.json").read_text()):
        of_pictures[squares / "images" / box["file_name"]].append(box)
    found = {path: detections_of(of_pictures[path]) for path in list_pictures(squares / "images")}
    return (map_50, map_50_95), found


def detections_of(boxes: list[Any]) -> Detections:
    xywh = np.array([box["bbox"] for box in boxes], np.float32).reshape(-1, 4)
    return Detections(
        np.hstack((xywh[:, :2], xywh[:, :2] + xywh[:, 2:])),
        np.array([box["score"] for box in boxes], np.float32),
        np.array([box["category_id"] - 1 for box in boxes], np.int64),  # Theirs count from 1.
    )


if __name__ == "__main__":
    main()
