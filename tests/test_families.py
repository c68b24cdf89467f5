"""YOLOv8 and later: from exported files and checkpoints to the boxes of the original modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from pipeline.core.errors import UsageError
from pipeline.core.progress import no_progress
from pipeline.model.compiled import Compiled, compile_for, core
from pipeline.model.prepare import prepare_model
from pipeline.model.pytorch import read_pytorch
from pipeline.model.quantize import Calibration, quantize
from pipeline.model.weights import find_weights
from tests.conftest import noise
from tests.families import (
    DEEP,
    EXACTLY,
    NAMES,
    SMALL,
    agreement_after_nms,
    all_boxes,
    assert_same_boxes,
    checkpoint_of,
    decoded_by_ultralytics,
    exported,
    images_of,
    random_model,
    raw_heads,
)

EXPORTED = Path("../shared/models/yolo11n_int8_openvino_model")
needs_export = pytest.mark.skipif(not EXPORTED.is_dir(), reason=f"{EXPORTED} is not here")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def as_xyxy(xywh: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hstack((xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2))


def infer(model: ov.Model, model_input: NDArray[Any]) -> list[NDArray[np.float32]]:
    with Compiled(lambda: compile_for(model, "CPU", EXACTLY)) as compiled:
        return [output[0] for output in compiled.infer(model_input)]


@needs_export
def test_the_published_export_gives_its_own_boxes_from_its_raw_heads() -> None:
    weights = find_weights(EXPORTED, no_progress)
    prepared = prepare_model(weights, (640, 640), 640, no_progress)
    assert prepared.head.class_names[:2] == ("person", "bicycle")
    picture = noise((640, 640))[None]
    xyxy, scores = all_boxes(prepared.head, infer(prepared.model, picture))
    image = picture.transpose(0, 3, 1, 2).astype(np.float32) / 255
    (decoded,) = infer(core().read_model(weights), image)
    np.testing.assert_allclose(scores, decoded[4:].T, atol=1e-4)
    assert_same_boxes(xyxy, as_xyxy(decoded[:4].T))


@needs_export
def test_an_export_for_one_size_takes_pictures_of_others() -> None:
    weights = find_weights(EXPORTED, no_progress)
    prepared = prepare_model(weights, (768, 432), 320, no_progress)
    assert prepared.input_wh == (320, 192)
    assert [list(output.shape) for output in prepared.model.outputs] == [
        [1, 192 // stride, 320 // stride, values] for stride in (8, 16, 32) for values in (80, 64)
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamic", [pytest.param(True, marks=pytest.mark.slow), False])
def test_an_export_with_attention_gives_the_boxes_of_the_original_at_every_size(
    tmp_path: Path, dynamic: bool
) -> None:
    model = random_model("yolo11n.yaml", scale=SMALL)
    weights = exported(model, tmp_path / "exported", 128, dynamic=dynamic)
    for source_wh in ((128, 128), (192, 96)):
        prepared = prepare_model(weights, source_wh, max(source_wh), no_progress)
        assert (prepared.input_wh, prepared.head.class_names) == (source_wh, tuple(NAMES.values()))
        assert prepared.head.needs_nms
        picture = noise(source_wh)
        xyxy, scores = all_boxes(prepared.head, infer(prepared.model, picture[None]))
        expected_xyxy, expected_scores = decoded_by_ultralytics(model, picture)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
        assert_same_boxes(xyxy, expected_xyxy)
        assert (scores > 0.3).any()
        assert scores.min() < 0.1


SLOW = pytest.mark.slow
FAMILIES = [
    pytest.param("yolov5nu.yaml", SMALL, marks=SLOW),
    pytest.param("yolov8n.yaml", SMALL, marks=SLOW),
    pytest.param("yolov8s.yaml", DEEP, marks=SLOW),
    pytest.param("yolov8n-p6.yaml", SMALL, marks=SLOW),
    pytest.param("yolov8n-p2.yaml", SMALL, marks=SLOW),
    pytest.param("yolov9t.yaml", SMALL, marks=SLOW),
    pytest.param("yolov10n.yaml", SMALL, marks=SLOW),
    pytest.param("yolov10s.yaml", SMALL, marks=SLOW),
    pytest.param("yolo11n.yaml", None, marks=SLOW),
    pytest.param("yolo12n.yaml", None, marks=SLOW),
    ("yolo26n.yaml", SMALL),
]


@pytest.mark.parametrize(("config", "scale"), FAMILIES)
def test_a_checkpoint_of_each_family_gives_the_boxes_of_the_original(
    tmp_path: Path, config: str, scale: list[float] | None
) -> None:
    model = random_model(config, scale=scale)
    weights = checkpoint_of(model, tmp_path / "model.pt")
    model.half().float()  # As it was saved.
    assert_boxes_of_the_original(model, weights, nms_free=False)
    if hasattr(model.model[-1], "one2one_cv2"):
        model.end2end = True
        assert_boxes_of_the_original(model, weights, nms_free=True)
    else:
        with pytest.raises(UsageError, match=r"^--nms-free: model.pt has no branch"):
            prepare_model(weights, (160, 128), 160, no_progress, nms_free=True)


def assert_boxes_of_the_original(model: Any, weights: Path, *, nms_free: bool) -> None:
    prepared = prepare_model(weights, (160, 128), 160, no_progress, nms_free=nms_free)
    in_pytorch, _ = read_pytorch(weights, nms_free=nms_free)
    assert prepared.head.needs_nms == (not nms_free)
    assert prepared.head.class_names == tuple(NAMES.values())
    picture = noise(prepared.input_wh)
    expected_xyxy, expected_scores = decoded_by_ultralytics(model, picture)
    baseline = raw_heads(in_pytorch, images_of(picture))
    for outputs in (infer(prepared.model, picture[None]), baseline):
        xyxy, scores = all_boxes(prepared.head, outputs)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-3)
        assert_same_boxes(xyxy, expected_xyxy)
        assert agreement_after_nms(model, prepared.head, outputs, picture).share == 1
    assert expected_scores.std() > 0.01


@needs_export
def test_an_export_in_int8_is_used_as_it_is() -> None:
    weights = find_weights(EXPORTED, no_progress)
    prepared = prepare_model(weights, (96, 64), 96, no_progress)
    assert prepared.quantization is not None
    assert prepared.quantization.calibrated_on is None
    nothing = Calibration("none", "no pictures", lambda: iter(()))
    assert quantize(prepared, nothing, no_progress) is prepared
