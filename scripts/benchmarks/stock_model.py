"""The model as YOLOv5's own exporter leaves it, to compare with: float input, decoded output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.model.pytorch import YOLO, read_pytorch
from pipeline.model.yolov5 import HeadLayout


class DecodedYOLOv5(nn.Module):
    """float32 (1, 3, height, width) in 0..1 -> (1, boxes, 5 + classes), boxes as cx cy w h."""

    def __init__(self, model: YOLO, layout: HeadLayout) -> None:
        super().__init__()
        self._model = model
        self._layout = layout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        layout, decoded = self._layout, []
        for head, stride, anchors in zip(
            self._model(images), layout.strides, layout.anchors_px, strict=True
        ):
            rows, columns = head.shape[2:]
            values = head.view(1, layout.num_anchors, layout.num_values, rows, columns)
            values = values.permute(0, 1, 3, 4, 2).sigmoid()
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            grid = torch.stack((x, y), 2).float() - 0.5
            size = torch.tensor(anchors).view(1, layout.num_anchors, 1, 1, 2)
            centre = (values[..., 0:2] * 2 + grid) * stride
            extent = (values[..., 2:4] * 2) ** 2 * size
            boxes = torch.cat((centre, extent, values[..., 4:]), 4)
            decoded.append(boxes.view(1, -1, layout.num_values))
        return torch.cat(decoded, 1)


def stock_model(checkpoint: Path, input_wh: tuple[int, int]) -> ov.Model:
    """The decoded model of a checkpoint for one input size, as OpenVINO converts it."""
    model, layout = read_pytorch(checkpoint)
    assert isinstance(layout, HeadLayout)
    example = torch.zeros(1, 3, input_wh[1], input_wh[0])
    decoded = DecodedYOLOv5(model, layout).eval()
    return ov.convert_model(decoded, example_input=example, input=[example.shape])


def plain_nms(
    prediction: NDArray[np.float32], confidence: float, iou: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Decoded boxes (boxes, 5 + classes) -> xyxy, confidence and class of those that stay."""
    import cv2

    prediction = prediction[prediction[:, 4] > confidence]
    scores = prediction[:, 5:] * prediction[:, 4:5]
    class_id = scores.argmax(1)
    best = scores.max(1)
    keep = best > confidence
    boxes, best, class_id = prediction[keep, :4], best[keep], class_id[keep]
    corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)
    xywh = np.concatenate((corners[:, :2], boxes[:, 2:]), 1)
    kept = cv2.dnn.NMSBoxesBatched(xywh.tolist(), best.tolist(), class_id.tolist(), confidence, iou)
    index = np.asarray(kept, np.intp).reshape(-1)
    return corners[index].astype(np.float32), best[index], class_id[index]
