"""Mean average precision of a model on labelled pictures, through the pipeline's own steps."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipeline.config import InferOptions
from pipeline.detections import Detections
from pipeline.errors import InputError, UsageError
from pipeline.frames import Frame
from pipeline.infer import Heads, InferPool, compile_model, resolved_precision
from pipeline.letterbox import input_size_wh, letterbox
from pipeline.model.prepare import prepare_model
from pipeline.model.weights import find_weights
from pipeline.postprocess import detections_from, select_candidates
from pipeline.preprocess import Preprocessor
from pipeline.progress import Progress, ProgressCallback, no_progress

# The settings of YOLOv5's val.py.
_CONFIDENCE_THRESHOLD = 0.001
_IOU_THRESHOLD = 0.6
_MAX_DETECTIONS = 300

_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """COCO's average precision, over all classes that occur in the labels."""

    num_images: int
    num_boxes: int
    precision: str
    map_50: float
    map_50_95: float


def evaluate(
    data: Path,
    *,
    weights: Path | None = None,
    imgsz: int = 640,
    infer: InferOptions | None = None,
    on_progress: ProgressCallback = no_progress,
) -> Evaluation:
    """Judge a model on data/images and data/labels (class cx cy w h, normalised to 0..1).

    Raises InputError if there is nothing to judge on, UsageError if the package that computes
    the precision is not installed, ModelError.
    """
    if imgsz < 32 or imgsz % 32:
        raise UsageError(f"imgsz must be a multiple of 32, not {imgsz}")
    infer = infer or InferOptions()
    pictures = _pictures(data)
    truth = {path: _read_labels(data / "labels" / f"{path.stem}.txt") for path in pictures}
    if not any(len(labels) for labels in truth.values()):
        raise InputError(f"{data / 'labels'}: no label for any of {len(pictures)} pictures")
    sizes_wh: dict[Path, tuple[int, int]] = {}
    found: dict[Path, Detections] = {}
    model_file = find_weights(weights, on_progress)
    for group in _by_input_size(pictures, imgsz):
        found.update(_detect(group, model_file, imgsz, infer, sizes_wh, on_progress))
        on_progress(Progress("evaluate", len(found), len(pictures), unit="image"))
    map_50, map_50_95 = _average_precision(truth, found, sizes_wh)
    return Evaluation(
        num_images=len(pictures),
        num_boxes=sum(len(labels) for labels in truth.values()),
        precision=resolved_precision(infer.precision),
        map_50=map_50,
        map_50_95=map_50_95,
    )


def read_picture(path: Path, index: int = 0) -> Frame:
    """A picture as a frame of RGB planes, upright. Raises InputError."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"{path}: not a picture that can be read")
    image = av.VideoFrame.from_ndarray(pixels.astype(np.uint8, copy=False), format="bgr24")
    return Frame(index=index, pts=index, duration=1, time_base=Fraction(1), image=image)


def _pictures(data: Path) -> list[Path]:
    folder = data / "images"
    if not folder.is_dir():
        raise InputError(f"{data}: has no folder images/ (with labels/ beside it)")
    pictures = sorted(p for p in folder.iterdir() if p.suffix.lower() in _PICTURE_SUFFIXES)
    if not pictures:
        raise InputError(f"{folder}: holds no picture")
    return pictures


def _read_labels(path: Path) -> list[tuple[int, float, float, float, float]]:
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text") from error
    labels = []
    for line in lines:
        if line.strip():
            try:
                class_id, cx, cy, w, h = line.split()[:5]
                labels.append((int(class_id), float(cx), float(cy), float(w), float(h)))
            except ValueError as error:
                raise InputError(f"{path}: expected 'class cx cy w h', found {line!r}") from error
    return labels


def _by_input_size(pictures: list[Path], imgsz: int) -> list[list[Path]]:
    """Pictures that take the same model input together, so that each is compiled once."""
    groups: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in pictures:
        image = read_picture(path).image
        groups[input_size_wh((image.width, image.height), imgsz)].append(path)
    return list(groups.values())


def _detect(
    group: list[Path],
    weights: Path,
    imgsz: int,
    infer: InferOptions,
    sizes_wh: dict[Path, tuple[int, int]],
    on_progress: ProgressCallback,
) -> dict[Path, Detections]:
    first = read_picture(group[0]).image
    prepared = prepare_model(weights, (first.width, first.height), imgsz, on_progress)
    compiled = compile_model(prepared.model, infer, prepared.compiled_cache_dir)
    found: dict[Path, Detections] = {}
    errors: list[BaseException] = []

    def done(frame: Frame, heads: Heads, _: float) -> None:
        path = group[frame.index]
        found[path] = detections_from(
            select_candidates(heads, prepared.layout, _CONFIDENCE_THRESHOLD),
            letterbox(sizes_wh[path], prepared.input_wh),
            confidence_threshold=_CONFIDENCE_THRESHOLD,
            iou_threshold=_IOU_THRESHOLD,
            max_detections=_MAX_DETECTIONS,
            multi_label=True,
        )

    pool: InferPool[Frame] = InferPool(compiled, infer.num_requests, done, errors.append)
    for index, path in enumerate(group):
        frame = read_picture(path, index)
        sizes_wh[path] = (frame.image.width, frame.image.height)
        request = pool.wait_for_request()
        pool.clear_input(request)
        Preprocessor(letterbox(sizes_wh[path], prepared.input_wh))(frame, pool.input_of(request))
        pool.submit(request, frame)
    pool.drain()
    if errors:
        raise errors[0]
    return found


def _average_precision(
    truth: dict[Path, list[tuple[int, float, float, float, float]]],
    found: dict[Path, Detections],
    sizes_wh: dict[Path, tuple[int, int]],
) -> tuple[float, float]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise UsageError("evaluate needs its extra: pip install 'pipeline[evaluate]'") from error
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id, path in enumerate(sorted(truth), start=1):
        width, height = sizes_wh[path]
        for class_id, cx, cy, w, h in truth[path]:
            box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        detections = found[path]
        for (x0, y0, x1, y1), confidence, class_id in zip(
            detections.xyxy.tolist(),
            detections.confidence.tolist(),
            detections.class_id.tolist(),
            strict=True,
        ):
            results.append(
                {
                    "image_id": image_id,
                    "category_id": class_id,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": confidence,
                }
            )
    if not results:
        return 0.0, 0.0
    classes = sorted({annotation["category_id"] for annotation in annotations})
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = COCO(
            {
                "images": [{"id": i} for i in range(1, len(truth) + 1)],
                "categories": [{"id": class_id, "name": str(class_id)} for class_id in classes],
                "annotations": annotations,
            }
        )
        judged = COCOeval_faster(labelled, labelled.loadRes(results), "bbox")
        judged.params.maxDets = [1, 10, _MAX_DETECTIONS]
        judged.params.catIds = classes
        judged.evaluate()
        judged.accumulate()
    # precision: (IoU thresholds, recalls, classes, areas, maxDets); -1 where a class is absent.
    precision = judged.eval["precision"][:, :, :, 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    return float(np.nanmean(precision[0])), float(np.nanmean(precision))
