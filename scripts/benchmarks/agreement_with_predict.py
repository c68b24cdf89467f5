"""Boxes of this project and of `yolo predict` on the same pictures, from the same model files.

    scripts/benchmarks/agreement_with_predict.py --peers PYTHON --data FOLDER MODEL...

FOLDER has images/ and labels/ as for `pipeline evaluate`, best of square pictures: their input is
then the same on both sides. The peers' interpreter has `ultralytics` and what it needs to read the
models. Counted are boxes above the threshold by a margin, because nearer to it they come and go,
that have a partner of the same class at IoU 0.9 or more, of ours and of theirs; and the mAP of ours
on the labels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.agreement import Share, agreement
from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions, InferOptions
from pipeline.core.picture_paths import list_pictures
from pipeline.core.progress import no_progress
from pipeline.inference.detect_each import detect_each
from pipeline.inference.openvino import load_engine
from pipeline.measure.evaluate import evaluate
from pipeline.media.pictures import read_picture
from pipeline.model.prepare import prepare_model
from pipeline.model.weights import find_weights

_PREDICT = """
import json, sys
from pathlib import Path
from ultralytics import YOLO
model, pictures, conf, iou, imgsz, out = json.loads(sys.argv[1])
model = YOLO(model, task="detect")
found = []
for path in pictures:
    options = dict(conf=conf, iou=iou, imgsz=imgsz, verbose=False, device="cpu")
    boxes = model.predict(path, **options)[0].boxes
    found.append([boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.int().tolist()])
names = {int(number): name for number, name in model.names.items()}
Path(out).write_text(json.dumps({"names": names, "found": found}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--data", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--conf", type=float, default=0.25)
    parser.add_argument("--margin", type=float, default=0.05, help="over --conf, of what counts")
    parser.add_argument("--iou", type=float, default=0.45)
    parser.add_argument("--imgsz", type=int, default=640)
    arguments = parser.parse_args()
    detect = DetectOptions(confidence_threshold=arguments.conf, iou_threshold=arguments.iou)
    pictures = list_pictures(arguments.data / "images")
    print("| model | names | ours with a partner | theirs with a partner | mAP@0.5, @0.5:0.95 |")
    print("| --- | --- | --- | --- | --- |")
    for model in arguments.models:
        weights = find_weights(model, no_progress)
        names, ours = found_here(weights, pictures, detect, arguments.imgsz)
        their_names, theirs = found_by_predict(model, pictures, arguments)
        compared = agreement(ours, theirs, sure_confidence=arguments.conf + arguments.margin)
        same = "same" if names == their_names else "other"
        exact = InferOptions(precision="f32")
        accuracy = evaluate(arguments.data, weights=weights, imgsz=arguments.imgsz, infer=exact)
        scores = next(iter(accuracy.accuracy.values()))
        shares = (f"{_text(share)}" for share in (compared.ours, compared.theirs))
        cells = (model, same, *shares, f"{scores.map_50:.3f}, {scores.map_50_95:.3f}")
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _text(share: Share) -> str:
    return f"{share.value:.4f} of {share.num_boxes}"


def found_here(
    weights: Path, pictures: list[Path], detect: DetectOptions, imgsz: int
) -> tuple[tuple[str, ...], list[Detections]]:
    """The names of the classes, and the boxes of each picture; all are of one size."""
    image = read_picture(pictures[0]).image
    prepared = prepare_model(weights, (image.width, image.height), imgsz, no_progress)
    with load_engine(prepared, InferOptions(precision="f32")) as engine:
        found = detect_each(map(read_picture, pictures), prepared, engine, detect)
    return prepared.head.class_names, found


def found_by_predict(
    model: Path, pictures: list[Path], arguments: argparse.Namespace
) -> tuple[tuple[str, ...], list[Detections]]:
    """The same of `yolo predict`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        asked = [str(model), [str(path) for path in pictures], arguments.conf, arguments.iou]
        words = json.dumps([*asked, arguments.imgsz, str(out)])
        subprocess.run([arguments.peers, "-c", _PREDICT, words], check=True)  # noqa: S603
        found: dict[str, Any] = json.loads(out.read_text())
    boxes = [
        Detections(
            np.array(xyxy, np.float32).reshape(-1, 4),
            np.array(confidence, np.float32),
            np.array(class_id, np.int64),
        )
        for xyxy, confidence, class_id in found["found"]
    ]
    return tuple(found["names"].values()), boxes


if __name__ == "__main__":
    main()
