"""Mean average precision as COCO defines it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.errors import UsageError

Label = tuple[int, float, float, float, float]
"""Class and box: centre, width and height, as shares of the picture."""
Truth = dict[Path, list[Label]]

MOST_DETECTIONS = 300
"""Per picture, as in YOLOv5's val.py."""


def average_precision(
    truth: Truth, found: dict[Path, Detections], sizes_wh: dict[Path, tuple[int, int]]
) -> tuple[float, float]:
    """mAP@0.5 and mAP@0.5:0.95 of the boxes found on labelled pictures.

    sizes_wh: of the pictures, in pixels. Raises UsageError if the evaluator is not installed.
    """
    coco = _import_coco()
    paths = sorted(truth)
    annotations = [
        annotation
        for image_id, path in enumerate(paths, start=1)
        for annotation in _annotations(image_id, truth[path], sizes_wh[path])
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    results = [
        result
        for image_id, path in enumerate(paths, start=1)
        for result in _results(image_id, found[path])
    ]
    if not results:
        return 0.0, 0.0
    precision = _precision(coco, annotations, results, len(paths))
    return float(np.nanmean(precision[0])), float(np.nanmean(precision))


def _precision(
    coco: Any,
    annotations: list[dict[str, Any]],
    results: list[dict[str, Any]],
    num_pictures: int,
) -> NDArray[np.float64]:
    """Precision by IoU threshold, recall and class; NaN for a class that is absent."""
    classes = sorted({annotation["category_id"] for annotation in annotations})
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = coco.COCO(
            {
                "images": [{"id": i} for i in range(1, num_pictures + 1)],
                "categories": [{"id": class_id, "name": str(class_id)} for class_id in classes],
                "annotations": annotations,
            }
        )
        judged = coco.COCOeval_faster(labelled, labelled.loadRes(results), "bbox")
        judged.params.maxDets = [1, 10, MOST_DETECTIONS]
        judged.params.catIds = classes
        judged.evaluate()
        judged.accumulate()
    # precision: (IoU thresholds, recalls, classes, areas, maxDets); -1 where a class is absent.
    precision = judged.eval["precision"][:, :, :, 0, -1]
    return np.where(precision < 0, np.nan, precision)


def _import_coco() -> Any:
    try:
        import faster_coco_eval
    except ImportError as error:
        raise UsageError(
            "evaluate needs the extra evaluate: pip install faster-coco-eval"
        ) from error
    return faster_coco_eval


def _annotations(
    image_id: int, labels: list[Label], size_wh: tuple[int, int]
) -> Iterator[dict[str, Any]]:
    width, height = size_wh
    for class_id, cx, cy, w, h in labels:
        box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
        yield {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }


def _results(image_id: int, detections: Detections) -> Iterator[dict[str, Any]]:
    for (x0, y0, x1, y1), confidence, class_id in zip(
        detections.xyxy.tolist(),
        detections.confidence.tolist(),
        detections.class_id.tolist(),
        strict=True,
    ):
        yield {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": confidence,
        }
