"""Mean average precision of a model on labelled pictures, through the pipeline's own steps."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.boxes import Detections
from pipeline.core.cache import NotKept
from pipeline.core.config import DetectOptions, InferOptions, ModelName
from pipeline.core.errors import InputError, UsageError
from pipeline.core.machine import available_cores
from pipeline.core.notes import note
from pipeline.core.picture_paths import list_pictures
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.core.text import counted
from pipeline.core.typed import converted
from pipeline.frames.calibration import calibration_of_folder, default_calibration
from pipeline.inference.detect_each import detect_each
from pipeline.inference.openvino import load_engine
from pipeline.inference.possible import require_possible
from pipeline.measure.coco import MOST_DETECTIONS, Label, average_precision
from pipeline.media.pictures import read_picture
from pipeline.model.letterbox import input_size_wh
from pipeline.model.prepare import PreparedModel, note_model, prepare_model
from pipeline.model.quantization import Quantization, record_accuracy
from pipeline.model.quantize import Calibration, quantize
from pipeline.model.weights import find_weights

# The settings of YOLOv5's val.py.
_DETECT = DetectOptions(
    confidence_threshold=0.001, iou_threshold=0.6, max_detections=MOST_DETECTIONS
)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """COCO's mean average precision, over all classes that occur in the labels."""

    map_50: float
    map_50_95: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model is, by the precision that it really ran in."""

    num_images: int
    num_boxes: int
    accuracy: dict[str, Accuracy]


def evaluate(  # noqa: PLR0913 - all but the first by name, each an option of the command.
    data: Path,
    *,
    weights: ModelName | Path | None = None,
    imgsz: int = 640,
    nms_free: bool = False,
    infer: InferOptions | None = None,
    calibration: Path | None = None,
    on_progress: ProgressCallback = no_progress,
) -> Evaluation:
    """Judge a model on data/images and data/labels (class cx cy w h, normalised to 0..1).

    INT8 is calibrated on the pictures of the folder `calibration`, by default on those of every
    run, and judged beside float32 and bf16, where the device has that; what was found is kept for
    the reports of later runs. Raises InputError if there is nothing to judge on, UsageError for
    options that do not go together or if a package is not installed, ModelError.
    """
    data = converted("data", data, Path)
    weights = converted("weights", weights, ModelName | Path | None)
    imgsz = converted("imgsz", imgsz, int)
    nms_free = converted("nms_free", nms_free, bool)
    infer = converted("infer", infer, InferOptions | None)
    calibration = converted("calibration", calibration, Path | None)
    if imgsz < 32 or imgsz % 32:
        raise UsageError(f"--imgsz must be a multiple of 32, not {imgsz}")
    infer = infer or InferOptions()
    require_possible(infer, available_cores())
    if calibration is not None and infer.precision != "int8":
        raise UsageError("--calibration needs --precision int8")
    truth = _read_truth(data)
    judged = _Judged(truth, find_weights(weights, on_progress), imgsz, on_progress, nms_free)
    verdicts = _verdicts(judged, infer, calibration_of_folder(calibration) if calibration else None)
    result = Evaluation(
        num_images=len(truth),
        num_boxes=sum(len(labels) for labels in truth.values()),
        accuracy={precision: verdict.accuracy for precision, verdict in verdicts.items()},
    )
    for verdict in verdicts.values():
        if verdict.quantization:
            _record(verdict.quantization, data, result)
    return result


def _read_truth(data: Path) -> dict[Path, list[Label]]:
    """The labels of each picture, which may be none. Raises InputError."""
    if not (data / "images").is_dir():
        raise InputError(f"{data}: has no folder images/ (with labels/ beside it)")
    pictures = list_pictures(data / "images")
    truth = {path: _read_labels(data / "labels" / f"{path.stem}.txt") for path in pictures}
    if not any(len(labels) for labels in truth.values()):
        raise InputError(
            f"{data / 'labels'}: no label for any of {counted(len(pictures), 'picture')}"
        )
    return truth


def _verdicts(
    judged: _Judged, infer: InferOptions, calibration: Calibration | None
) -> dict[str, _Verdict]:
    """By the precisions that the model ran in; beside INT8 also those in float."""
    verdicts: dict[str, _Verdict] = {}
    for asked in ("f32", "bf16", "int8") if infer.precision == "int8" else (infer.precision,):
        options = dataclasses.replace(infer, precision=asked)
        verdict = judged.judge(options, calibration, but_in=verdicts.keys())
        if verdict is None:
            note(f"{infer.device} does not run in {asked}, which is left out")
        else:
            verdicts[verdict.precision] = verdict
            if verdict.precision == "int8":  # Then its file may be, and there is no other.
                break
    return verdicts


def _record(quantization: Quantization, data: Path, result: Evaluation) -> None:
    """Keep an evaluation of a model in INT8 for the reports of later runs."""
    try:
        record_accuracy(quantization, {"data": data.name, **dataclasses.asdict(result)})
    except NotKept as error:
        note(str(error))


def _read_labels(path: Path) -> list[Label]:
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


@dataclass(frozen=True, slots=True)
class _Verdict:
    """precision: what the model really ran in; quantization: None if that was float."""

    precision: str
    quantization: Quantization | None
    accuracy: Accuracy


class _Judged:
    """Labelled pictures, and what it takes to detect things on them."""

    def __init__(
        self,
        truth: dict[Path, list[Label]],
        weights: Path,
        imgsz: int,
        on_progress: ProgressCallback,
        nms_free: bool,
    ) -> None:
        self._nms_free = nms_free
        self._weights = weights
        self._truth = truth
        self._imgsz = imgsz
        self._on_progress = on_progress
        self._sizes_wh: dict[Path, tuple[int, int]] = {}
        # Those that take the same model input go together, so that each is compiled once.
        self._groups: dict[tuple[int, int], list[Path]] = defaultdict(list)
        # Decoded once more for each precision: all of them in memory would not fit everywhere.
        for path in truth:
            image = read_picture(path).image
            self._sizes_wh[path] = (image.width, image.height)
            self._groups[input_size_wh(self._sizes_wh[path], imgsz)].append(path)

    def judge(
        self, infer: InferOptions, calibration: Calibration | None, *, but_in: Collection[str]
    ) -> _Verdict | None:
        """None if the model would run in a precision that has been judged already.

        calibration: for INT8; None takes the default pictures.
        """
        found: dict[Path, Detections] = {}
        for group in self._groups.values():
            prepared = self._prepare(self._sizes_wh[group[0]], infer, calibration)
            with load_engine(prepared, infer) as engine:
                precision = engine.facts()["precision"]
                if precision in but_in:
                    return None
                pictures = map(read_picture, group)
                boxes = detect_each(pictures, prepared, engine, _DETECT, multi_label=True)
                found.update(zip(group, boxes, strict=True))
            self._on_progress(
                Progress(f"evaluate {infer.precision}", len(found), len(self._truth), unit="image")
            )
        return _Verdict(
            precision=precision,
            quantization=prepared.quantization,
            accuracy=Accuracy(*average_precision(self._truth, found, self._sizes_wh)),
        )

    def _prepare(
        self, size_wh: tuple[int, int], infer: InferOptions, calibration: Calibration | None
    ) -> PreparedModel:
        prepared = prepare_model(
            *(self._weights, size_wh, self._imgsz, self._on_progress), nms_free=self._nms_free
        )
        note_model(prepared, self._imgsz)
        if infer.precision != "int8" or prepared.quantization is not None:
            return prepared
        calibration = calibration or default_calibration(prepared.head.class_names)
        return quantize(prepared, calibration, self._on_progress)
