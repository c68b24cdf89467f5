"""Reads an export with the libraries of other tools; writes the boxes that each of them found.

Runs in an environment of its own, see CONTRIBUTING.md. Usage: foreign_readers.py FOLDER KEY, where
KEY is the name of a clip in the export. Output: a JSON object, format -> list of
[frame index, class name, left, top, right, bottom].
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import datumaro
import polars
from label_studio_sdk.label_interface import LabelInterface
from megadetector.postprocessing.validate_batch_results import (
    ValidateBatchResultsOptions,
    validate_batch_results,
)
from pycocotools.coco import COCO


def read_with_datumaro(path: Path, kind: str) -> list[list[Any]]:
    dataset = datumaro.Dataset.import_from(str(path), kind)
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    found = []
    for item in dataset:
        index = int(re.findall(r"\d+", item.id)[-1]) - (kind == "mot_seq")
        for box in item.annotations:
            if not box.attributes.get("outside"):
                left, top, width, height = box.get_bbox()
                found.append([index, names[box.label], left, top, left + width, top + height])
    return found


def read_with_pycocotools(path: Path) -> list[list[Any]]:
    coco = COCO(str(path))
    found = []
    for annotation in coco.loadAnns(coco.getAnnIds()):
        left, top, width, height = annotation["bbox"]
        [image] = coco.loadImgs(annotation["image_id"])
        [category] = coco.loadCats(annotation["category_id"])
        box = [left, top, left + width, top + height]
        found.append([image["frame_id"], category["name"], *box])
    return found


def require_valid_megadetector(path: Path) -> None:
    options = ValidateBatchResultsOptions()
    options.check_image_existence = False
    options.raise_errors = True
    validate_batch_results(str(path), options)


def require_valid_label_studio(folder: Path) -> None:
    interface = LabelInterface((folder / "interface.xml").read_text(encoding="utf-8"))
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        for prediction in task["predictions"]:
            if errors := interface.validate_prediction(prediction, return_errors=True):
                raise SystemExit(f"Label Studio: {errors}")


def main(folder: Path, key: str) -> None:
    require_valid_megadetector(folder / "megadetector.json")
    require_valid_label_studio(folder / "labelstudio")
    edges = ["frame_index", "class_name", "left", "top", "right", "bottom"]
    mot = folder / "mot" / key
    table = next(path for path in (mot / "gt" / "gt.txt", mot / "det" / "det.txt") if path.exists())
    found = {
        "coco, datumaro": read_with_datumaro(folder / "coco", "coco"),
        "coco, pycocotools": read_with_pycocotools(
            folder / "coco" / "annotations" / "instances_default.json"
        ),
        "csv, polars": [
            list(row)
            for row in polars.read_csv(folder / "detections.csv", infer_schema_length=None)
            .select(edges)
            .iter_rows()
        ],
        "cvat, datumaro": read_with_datumaro(folder / "cvat" / f"{key}.xml", "cvat"),
        "mot, datumaro": read_with_datumaro(table, "mot_seq"),
        "yolo, datumaro": read_with_datumaro(folder / "yolo", "yolo"),
    }
    sys.stdout.write(f"\nFOUND {json.dumps(found)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
