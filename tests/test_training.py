"""The demo model's training: the right architecture, the right targets, a loss that falls."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detection_loss import LossWeights, assign, complete_iou, detection_loss
from synthetic_data import write_pictures
from torch import Tensor
from train_demo_model import batches, choose_anchors, learning_rate
from training_scenes import FIRST_TRAINING_SEED, TrainingScenes
from yolov5n import STRIDES, new_yolov5n, save_checkpoint

from pipeline.measure.evaluate import evaluate
from pipeline.model.pytorch import read_pytorch
from pipeline.model.yolov5 import HeadLayout
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.sprites import CLASS_NAMES
from tests.checkpoints import ANCHORS_PX
from tests.conftest import CHECKPOINT, needs_checkpoint

ANCHORS_CELLS = torch.tensor(ANCHORS_PX) / torch.tensor(STRIDES).view(-1, 1, 1)


def one_box(cx: float, cy: float, w: float, h: float, class_id: int = 1) -> Tensor:
    return torch.tensor([[0.0, class_id, cx, cy, w, h]])


def blank_heads(num_classes: int = 3, size_px: int = 64) -> list[Tensor]:
    """Heads that see nothing anywhere."""
    heads = []
    for stride in STRIDES:
        head = torch.zeros(1, 3 * (5 + num_classes), size_px // stride, size_px // stride)
        head[:, 4 :: 5 + num_classes] = -20.0
        heads.append(head)
    return heads


def test_a_saved_model_is_read_like_any_yolov5_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_yolov5n(CLASS_NAMES, ANCHORS_PX)
    save_checkpoint(tmp_path / "model.pt", model)
    found, layout = read_pytorch(tmp_path / "model.pt")
    assert isinstance(layout, HeadLayout)
    assert layout.class_names == CLASS_NAMES
    np.testing.assert_allclose(layout.anchors_px, ANCHORS_PX, rtol=1e-3)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(found(image), model.eval()(image), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=2e-2)
    assert (tmp_path / "model.pt").stat().st_size < 4_500_000
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_saved_model_names_its_classes_as_yolov5_does(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", new_yolov5n(("a", "b"), ANCHORS_PX))
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        [name] = [name for name in archive.namelist() if name.endswith("data.pkl")]
        content = archive.read(name)
    for original in (b"models.yolo", b"DetectionModel", b"models.common", b"SPPF"):
        assert original in content
    for own in (b"pipeline", b"ultralytics", b"yolov5n"):
        assert own not in content


@needs_checkpoint
def test_the_architecture_is_that_of_the_official_model() -> None:
    official, layout = read_pytorch(CHECKPOINT)
    assert isinstance(layout, HeadLayout)
    own = new_yolov5n(layout.class_names, layout.anchors_px)
    shapes = {
        name: tuple(value.shape) for name, value in own.state_dict().items() if ".bn." not in name
    }
    # The reader has folded the official model's batch normalisation into biases.
    expected = {
        name: tuple(value.shape)
        for name, value in official.state_dict().items()
        if not name.endswith("conv.bias")
    }
    assert shapes == expected
    assert [layer.f for layer in own.model] == [layer.f for layer in official.model]


@pytest.mark.parametrize(
    ("centre", "cells"),
    [
        ((22.0, 22.0), {(2, 2), (3, 2), (2, 3)}),
        ((18.0, 22.0), {(2, 2), (1, 2), (2, 3)}),
        ((2.0, 2.0), {(0, 0)}),
        ((62.0, 62.0), {(7, 7)}),
    ],
)
def test_a_box_belongs_to_its_cell_and_the_two_nearest(
    centre: tuple[float, float], cells: set[tuple[int, int]]
) -> None:
    pairs = assign(one_box(*centre, 16, 16), torch.tensor([[2.0, 2.0]]), 8, (8, 8))
    assert set(zip(pairs.column.tolist(), pairs.row.tolist(), strict=True)) == cells
    corner = torch.stack((pairs.column, pairs.row), dim=1)
    expected = torch.tensor(centre).expand(len(cells), 2)
    torch.testing.assert_close((pairs.box[:, :2] + corner) * 8, expected)
    assert (pairs.box[:, :2] >= -0.5).all()
    assert (pairs.box[:, :2] <= 1.5).all()


@pytest.mark.parametrize(("width", "num_pairs"), [(16, 3), (63, 3), (65, 0), (4.1, 3), (3.9, 0)])
def test_an_anchor_answers_for_boxes_up_to_four_times_larger_or_smaller(
    width: float, num_pairs: int
) -> None:
    pairs = assign(one_box(62, 62, width, 16), torch.tensor([[2.0, 2.0]]), 8, (16, 16))
    assert len(pairs.class_id) == num_pairs


def test_complete_iou_is_1_for_the_same_box_and_less_the_further_away() -> None:
    box = torch.tensor([[5.0, 5.0, 4.0, 2.0]])
    shifts = [complete_iou(box + torch.tensor([[d, 0, 0, 0]]), box).item() for d in (0, 1, 3, 9)]
    assert shifts[0] == pytest.approx(1)
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[-1] < 0
    inside = complete_iou(torch.tensor([[5.0, 5.0, 2.0, 1.0]]), box).item()
    assert inside == pytest.approx(0.25)


def test_a_perfect_prediction_has_no_loss() -> None:
    targets = one_box(20, 20, 16, 30)
    heads = blank_heads()
    for head, anchors, stride in zip(heads, ANCHORS_CELLS, STRIDES, strict=True):
        raw = head.view(1, 3, 8, *head.shape[2:])
        pairs = assign(targets, anchors, stride, (head.shape[2], head.shape[3]))
        for k in range(len(pairs.class_id)):
            place = raw[0, pairs.anchor[k], :, pairs.row[k], pairs.column[k]]
            place[:2] = torch.logit((pairs.box[k, :2] + 0.5) / 2)
            place[2:4] = torch.logit((pairs.box[k, 2:] / anchors[pairs.anchor[k]]).sqrt() / 2)
            place[4], place[5:] = 20, -20
            place[6] = 20
    loss, parts = detection_loss(heads, targets, ANCHORS_CELLS, STRIDES, LossWeights())
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert parts.tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    worse, _ = detection_loss(
        [head * 0.5 for head in heads], targets, ANCHORS_CELLS, STRIDES, LossWeights()
    )
    assert worse > loss


def test_a_picture_of_nothing_wants_nothing() -> None:
    nothing = torch.zeros(0, 6)
    loss, _ = detection_loss(blank_heads(), nothing, ANCHORS_CELLS, STRIDES, LossWeights())
    assert loss.item() == pytest.approx(0, abs=1e-4)


def test_the_learning_rate_rises_shortly_and_falls_to_little() -> None:
    rates = [learning_rate(step, 5000) for step in range(5000)]
    top = int(np.argmax(rates))
    assert 0 < top < 500
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < max(rates) / 20


def test_training_pictures_depend_on_seed_and_step_alone() -> None:
    played, fresh = TrainingScenes(0, 3), TrainingScenes(0, 3)
    for step in range(4):
        last = played.batch(step, (96, 64), 2)
    again = fresh.batch(3, (96, 64), 2)
    np.testing.assert_array_equal(last.rgb, again.rgb)
    np.testing.assert_array_equal(last.targets, again.targets)
    assert not np.array_equal(TrainingScenes(1, 3).batch(3, (96, 64), 2).rgb, again.rgb)


def test_training_pictures_come_with_boxes_inside_them() -> None:
    batch = TrainingScenes(0, 8).batch(5, (320, 320), 2)
    assert batch.rgb.shape == (16, 320, 320, 3)
    assert batch.rgb.dtype == np.uint8
    assert len(batch.targets) > 16
    assert set(batch.targets[:, 1]) <= set(range(len(CLASS_NAMES)))
    low = batch.targets[:, 2:4] - batch.targets[:, 4:] / 2
    high = batch.targets[:, 2:4] + batch.targets[:, 4:] / 2
    assert (low >= -1e-3).all()
    assert (high <= 320 + 1e-3).all()


def test_pictures_are_drawn_in_another_process_and_in_order() -> None:
    with batches(0, 3, 5) as coming:
        received = list(coming)
    expected = TrainingScenes(0, 16).batch(3, (320, 320), 2)
    assert len(received) == 2
    np.testing.assert_array_equal(received[0].rgb, expected.rgb)


def test_a_trainer_that_stops_early_leaves_no_process_behind() -> None:
    with batches(0, 0, 1000) as coming:
        next(coming)


def test_no_scene_is_both_trained_on_and_shown() -> None:
    assert FIRST_TRAINING_SEED > 2**32


def test_anchors_grow_from_head_to_head() -> None:
    anchors = choose_anchors(0, num_scenes=5)
    areas = [w * h for head in anchors for w, h in head]
    assert [len(head) for head in anchors] == [3, 3, 3]
    assert areas == sorted(areas)
    assert 10 < math.sqrt(areas[0]) < 40
    assert 100 < math.sqrt(areas[-1]) < 300


@pytest.mark.slow
def test_written_pictures_can_be_judged(tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    write_pictures(tmp_path, (128, 96), range(2), range(0, 60, 20))
    save_checkpoint(tmp_path / "model.pt", new_yolov5n(CLASS_NAMES, ANCHORS_PX))
    result = evaluate(tmp_path, weights=tmp_path / "model.pt", imgsz=128)
    assert result.num_images == 6
    expected = sum(len(Scene((128, 96), seed).truth(i)) for seed in range(2) for i in (0, 20, 40))
    assert result.num_boxes == expected
