"""What YOLOv5 is trained to make small: box, objectness and class errors of its raw heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MAX_RATIO = 4.0
"""An anchor answers for boxes up to this many times wider, narrower, higher or lower."""

_BALANCE = (4.0, 1.0, 0.4)


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part counts."""

    box: float = 0.05
    objectness: float = 1.0
    classes: float = 0.0625


@dataclass(frozen=True, slots=True)
class Assigned:
    """Which predictions of one head answer for which boxes, M pairs.

    picture, anchor, row, column: int64 (M,), the prediction.
    box: float32 (M, 4), centre relative to the cell's corner and size, in cells.
    class_id: int64 (M,).
    """

    picture: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    class_id: Tensor


def assign(targets: Tensor, anchors: Tensor, stride: int, grid_hw: tuple[int, int]) -> Assigned:
    """YOLOv5's rule: anchors of a similar shape, in the box's cell and its two nearest.

    targets: float32 (N, 6): picture, class, centre x, y, width, height in pixels.
    anchors: float32 (A, 2), width and height in cells.
    """
    boxes = targets[:, 2:6] / stride
    ratio = boxes[:, None, 2:] / anchors[None]
    fits = torch.maximum(ratio, 1 / ratio).amax(dim=2) < MAX_RATIO
    which, anchor = fits.nonzero(as_tuple=True)
    boxes, targets = boxes[which], targets[which]
    centre = boxes[:, :2]
    limit = torch.tensor([grid_hw[1], grid_hw[0]], dtype=torch.float32)
    near_start = (centre % 1 < 0.5) & (centre > 1)
    near_end = ((limit - centre) % 1 < 0.5) & (limit - centre > 1)
    own = torch.ones(len(boxes), dtype=torch.bool)
    chosen = torch.stack((own, near_start[:, 0], near_start[:, 1], near_end[:, 0], near_end[:, 1]))
    steps = torch.tensor([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]])
    step, pair = chosen.nonzero(as_tuple=True)
    cell = centre[pair].floor().long() + steps[step]
    cell = torch.minimum(cell.clamp(min=0), limit.long() - 1)
    return Assigned(
        picture=targets[pair, 0].long(),
        anchor=anchor[pair],
        row=cell[:, 1],
        column=cell[:, 0],
        box=torch.cat((centre[pair] - cell, boxes[pair, 2:]), dim=1),
        class_id=targets[pair, 1].long(),
    )


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """CIoU of boxes (M, 4) as centre and size: IoU less distance and difference in shape."""
    a_half, b_half = a[:, 2:] / 2, b[:, 2:] / 2
    a_low, a_high = a[:, :2] - a_half, a[:, :2] + a_half
    b_low, b_high = b[:, :2] - b_half, b[:, :2] + b_half
    overlap = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - overlap + 1e-7
    iou = overlap / union
    around = torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)
    diagonal = around.square().sum(1) + 1e-7
    distance = (a[:, :2] - b[:, :2]).square().sum(1) / diagonal
    turn = torch.atan(b[:, 2] / (b[:, 3] + 1e-7)) - torch.atan(a[:, 2] / (a[:, 3] + 1e-7))
    shape = 4 / math.pi**2 * turn.square()
    with torch.no_grad():
        share = shape / (1 - iou + shape + 1e-7)
    return iou - distance - share * shape


def detection_loss(
    heads: Sequence[Tensor],
    targets: Tensor,
    anchors: Tensor,
    strides: Sequence[int],
    weights: LossWeights,
) -> tuple[Tensor, Tensor]:
    """(loss to minimise, its three parts unweighted: box, objectness, classes), per picture.

    heads: raw, (N, A * (5 + classes), rows, columns) per stride; targets: as for `assign`;
    anchors: float32 (heads, A, 2), in cells.
    """
    box_loss = objectness_loss = class_loss = torch.zeros(())
    for head, level_anchors, stride, balance in zip(heads, anchors, strides, _BALANCE, strict=True):
        num_pictures, _, *grid = head.shape
        num_anchors = len(level_anchors)
        raw = head.float().permute(0, 2, 3, 1).reshape(num_pictures, *grid, num_anchors, -1)
        pairs = assign(targets, level_anchors, stride, (grid[0], grid[1]))
        wanted = torch.zeros(raw.shape[:-1])
        if len(pairs.class_id):
            place = (pairs.picture, pairs.row, pairs.column, pairs.anchor)
            found = raw[place]
            centre = found[:, :2].sigmoid() * 2 - 0.5
            size = (found[:, 2:4].sigmoid() * 2).square() * level_anchors[pairs.anchor]
            overlap = complete_iou(torch.cat((centre, size), dim=1), pairs.box)
            box_loss = box_loss + (1 - overlap).mean()
            # Where a prediction answers for several boxes, the best overlap counts.
            flat = torch.tensor(0)
            for part, length in zip(place, wanted.shape, strict=True):
                flat = flat * length + part
            score = overlap.detach().clamp(min=0)
            wanted.view(-1).scatter_reduce_(0, flat, score, "amax")
            one_hot = functional.one_hot(pairs.class_id, raw.shape[-1] - 5).float()
            class_loss = class_loss + functional.binary_cross_entropy_with_logits(
                found[:, 5:], one_hot
            )
        objectness = functional.binary_cross_entropy_with_logits(raw[..., 4], wanted)
        objectness_loss = objectness_loss + balance * objectness
    total = (
        weights.box * box_loss + weights.objectness * objectness_loss + weights.classes * class_loss
    )
    return total, torch.stack((box_loss, objectness_loss, class_loss)).detach()
