"""Every family of models on photographs: the boxes are those of ultralytics' modules."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.core.agreement import Agreement
from pipeline.core.progress import no_progress
from pipeline.media.pictures import read_picture
from pipeline.model.compiled import Compiled, compile_for
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.prepare import prepare_model
from pipeline.model.preprocess import Preprocessor
from pipeline.model.pytorch import read_pytorch
from tests.families import (
    EXACTLY,
    agreement_after_nms,
    all_boxes,
    assert_same_boxes,
    box_errors,
    checkpoint_of,
    decoded_by_ultralytics,
    folded,
    images_of,
    random_model,
    raw_heads,
)

PICTURES = Path("../shared/coco128/images")
NUM_PICTURES, IMGSZ = 20, 192
MOST_ERROR = 2.0
"""How much larger the error of a float32 graph may be than that of PyTorch in float32."""
CONFIGS = (
    *("yolov5nu", "yolov8n", "yolov8s", "yolov8n-p6", "yolov9t", "yolov10n"),
    *("yolo11n", "yolo12n", "yolo26n"),
)


def model_inputs() -> list[NDArray[np.uint8]]:
    """Square ones, (side, side, 3), of photographs."""
    found = []
    for path in sorted(PICTURES.iterdir())[:NUM_PICTURES]:
        frame = read_picture(path)
        box = letterbox((frame.image.width, frame.image.height), (IMGSZ, IMGSZ))
        found.append(np.full((IMGSZ, IMGSZ, 3), PADDING_VALUE, np.uint8))
        Preprocessor(box)(frame, found[-1])
    return found


@pytest.mark.conformance
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not PICTURES.is_dir(), reason=f"{PICTURES} is not here")
@pytest.mark.parametrize("config", CONFIGS)
def test_boxes_on_photographs_are_those_of_the_original(
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """In float64, every cell; in float32, with an error like that of the original in float32.

    Random weights of many layers amplify rounding: single cells of the original too differ
    between float32 and float64 by more than the bound.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures = model_inputs()
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    model = random_model(f"{config}.yaml", images=images)
    weights = checkpoint_of(model, tmp_path / "model.pt")
    model.half().float()  # As it was saved.
    branches = (False, True) if hasattr(model.model[-1], "one2one_cv2") else (False,)
    for nms_free in branches:
        model.end2end = nms_free
        exact, exactly_folded = copy.deepcopy(model).double(), folded(model).double()
        prepared = prepare_model(weights, (IMGSZ, IMGSZ), IMGSZ, no_progress, nms_free=nms_free)
        layers = read_pytorch(weights, nms_free=nms_free)[0].double()
        after_nms, ours, theirs = Agreement(), [], []
        compiled = Compiled(functools.partial(compile_for, prepared.model, "CPU", EXACTLY))
        with compiled:
            for picture in pictures:
                in_float64 = raw_heads(layers, images_of(picture, torch.float64))
                xyxy, _ = all_boxes(prepared.head, in_float64)
                assert_same_boxes(xyxy, decoded_by_ultralytics(exactly_folded, picture)[0])
                outputs = [output[0].copy() for output in compiled.infer(picture[None])]
                xyxy, scores = all_boxes(prepared.head, outputs)
                expected_xyxy, expected_scores = decoded_by_ultralytics(exact, picture)
                np.testing.assert_allclose(scores, expected_scores, atol=5e-3)
                ours.append(box_errors(xyxy, expected_xyxy))
                in_float32, _ = decoded_by_ultralytics(model, picture)
                theirs.append(box_errors(in_float32, expected_xyxy))
                after_nms += agreement_after_nms(model, prepared.head, outputs, picture)
        branch = "nms_free" if nms_free else "nms"
        found, original = (np.concatenate(errors) for errors in (ours, theirs))
        shares = f"{(found <= 1).mean():.4f}, original {(original <= 1).mean():.4f}"
        record_property(branch, f"within the bound of float64 {shares}; {after_nms}")
        for share in (0.5, 0.99):
            assert np.quantile(found, share) < MOST_ERROR * np.quantile(original, share)
        assert after_nms.num_boxes > NUM_PICTURES
        assert after_nms.same
