"""The obvious program, one step after the other on one frame after the other, to compare with.

    python scripts/benchmarks/serial_program.py CLIP OUTPUT CHECKPOINT INPUT PRECISION

OpenCV reads and writes, numpy prepares, the stock model runs synchronously. INPUT is "square"
for 640x640, the shape that YOLOv5's exporter gives by default, or "fitting" for the smallest
rectangle; PRECISION is "default" for what OpenVINO chooses, f32 or bf16. Prints the frames and
the seconds from the first frame read to the file closed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import openvino as ov
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from stock_model import plain_nms, stock_model

from pipeline.core.cache import cache_dir
from pipeline.model.letterbox import Letterbox, input_size_wh, letterbox


def prepare(bgr: NDArray[np.uint8], box: Letterbox) -> NDArray[np.float32]:
    """Letterbox, BGR -> RGB, HWC -> CHW, 0..255 -> 0..1."""
    resized = cv2.resize(bgr, box.content_wh, interpolation=cv2.INTER_LINEAR)
    (x, y), (w, h) = box.offset_xy, box.content_wh
    right, below = box.input_wh[0] - w - x, box.input_wh[1] - h - y
    padded = cv2.copyMakeBorder(
        resized, y, below, x, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)
    )
    chw = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1))
    return (chw.astype(np.float32) / 255.0)[None]


def draw(bgr: NDArray[np.uint8], box: list[float], text: str) -> None:
    x0, y0, x1, y1 = (round(value) for value in box)
    cv2.rectangle(bgr, (x0, y0), (x1, y1), (0, 160, 255), 2)
    cv2.putText(bgr, text, (x0, y0 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 160, 255), 1)


def run(
    clip: Path, output: Path, checkpoint: Path, shape: str, precision: str
) -> tuple[int, float]:
    """Annotate the clip; returns the number of frames and the seconds it took."""
    capture = cv2.VideoCapture(str(clip))
    size_wh = (
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )
    input_wh = (640, 640) if shape == "square" else input_size_wh(size_wh, 640)
    box = letterbox(size_wh, input_wh)
    ir = cache_dir() / "stock" / f"{checkpoint.stem}-{input_wh[0]}x{input_wh[1]}.xml"
    if not ir.exists():
        ir.parent.mkdir(parents=True, exist_ok=True)
        ov.save_model(stock_model(checkpoint, input_wh), ir, compress_to_fp16=False)
    config = {} if precision == "default" else {"INFERENCE_PRECISION_HINT": precision}
    model = ov.Core().compile_model(ir, "CPU", config)
    started, num_frames = time.perf_counter(), 0
    writer = cv2.VideoWriter(
        str(output), cv2.VideoWriter.fourcc(*"mp4v"), capture.get(cv2.CAP_PROP_FPS), size_wh
    )
    while True:
        found, image = capture.read()
        if not found:
            break
        bgr = np.asarray(image, np.uint8)
        prediction = model(prepare(bgr, box))[0][0]
        corners, confidence, class_id = plain_nms(prediction, 0.25, 0.45)
        corners = box.to_source(corners.astype(np.float32))
        for xyxy, value, number in zip(corners.tolist(), confidence, class_id, strict=True):
            draw(bgr, xyxy, f"{number} {value:.2f}")
        writer.write(bgr)
        num_frames += 1
    writer.release()
    return num_frames, time.perf_counter() - started


if __name__ == "__main__":
    _, source, target, model_file, input_shape, element_type = sys.argv
    frames, seconds = run(Path(source), Path(target), Path(model_file), input_shape, element_type)
    print(f"{frames} {seconds:.4f}")
