"""What --tile finds of small things in large frames, and what it costs.

    python scripts/benchmarks/tiles.py coco128 [--picture-px 320] [--tile none 640 1280]

Labelled pictures, scaled down so that their longer side has so many pixels, are pasted into frames
of 3840x2160, at places that a seed decides. Prints the mean average precision over all boxes, and
over those that are small as COCO defines it (less than 32x32 pixels), how many boxes too many there
are per labelled thing that was found, and the CPU time per frame.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections, iou_matrix
from pipeline.core.config import AutoOptions, DetectOptions, ProcessConfig
from pipeline.core.detection_lines import DetectionLine
from pipeline.core.picture_sequence import PictureSequence
from pipeline.inference.models import Models
from pipeline.measure.coco import Label, Truth, average_precision
from pipeline.run.process import process_video

FRAME_WH = (3840, 2160)
GREY = 114
SMALL_PX = 32 * 32
LEAST_CONFIDENCE = 0.01
SURE = 0.25


@dataclass
class Canvas:
    """A frame with pictures in it."""

    pixels: NDArray[np.uint8] = field(
        default_factory=lambda: np.full((FRAME_WH[1], FRAME_WH[0], 3), GREY, np.uint8)
    )
    labels: list[Label] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure --tile on pictures pasted into 4K.")
    parser.add_argument("data", type=Path, help="a folder with images/ and labels/")
    parser.add_argument("--picture-px", type=int, nargs="+", default=[480, 320, 160])
    parser.add_argument("--tile", nargs="+", default=["none", "640", "1280"])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--precision")
    arguments = parser.parse_args()
    print(f"{'pictures':>8}{'tile':>6}{'mAP50':>8}{'mAP':>8}{'small50':>9}{'small':>8}", end="")
    print(f"{'extra':>8}{'boxes':>7}{'CPU ms':>8}{'NMS ms':>8}")
    for picture_px in arguments.picture_px:
        canvases = pasted(arguments.data, picture_px)
        for tile in arguments.tile:
            measure(canvases, picture_px, tile, arguments)


def pasted(data: Path, picture_px: int) -> list[Canvas]:
    """All pictures, each at a place of its own."""
    paths = sorted((data / "images").iterdir())
    generator = np.random.default_rng(0)
    paths = [paths[i] for i in generator.permutation(len(paths))]
    cell_px = picture_px * 5 // 4
    columns, rows = (side // cell_px for side in FRAME_WH)
    canvases: list[Canvas] = []
    for number, path in enumerate(paths):
        cell = number % (columns * rows)
        if cell == 0:
            canvases.append(Canvas())
        image = cv2.imread(str(path))
        assert image is not None
        scale = picture_px / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width, _ = image.shape
        left = cell % columns * cell_px + int(generator.integers(cell_px - width))
        top = cell // columns * cell_px + int(generator.integers(cell_px - height))
        canvases[-1].pixels[top : top + height, left : left + width] = image
        labels = data / "labels" / f"{path.stem}.txt"  # Pictures without things have none.
        for line in labels.read_text().splitlines() if labels.is_file() else ():
            class_id, cx, cy, w, h = map(float, line.split())
            centre = (left + cx * width) / FRAME_WH[0], (top + cy * height) / FRAME_WH[1]
            size = w * width / FRAME_WH[0], h * height / FRAME_WH[1]
            canvases[-1].labels.append((int(class_id), *centre, *size))
    return canvases


def measure(
    canvases: list[Canvas], picture_px: int, tile: str, arguments: argparse.Namespace
) -> None:
    with tempfile.TemporaryDirectory() as folder, Models() as models:
        frames = Path(folder) / "frames"
        frames.mkdir()
        for number, canvas in enumerate(canvases):
            cv2.imwrite(str(frames / f"{number}.png"), canvas.pixels)
        report = process_video(
            ProcessConfig(
                source=PictureSequence(folder=frames, frame_rate=Fraction(1)),
                output_dir=Path(folder) / "out",
                weights=arguments.weights,
                infer=AutoOptions(precision=arguments.precision),
                detect=DetectOptions(confidence_threshold=LEAST_CONFIDENCE, max_detections=3000),
                tile=None if tile == "none" else int(tile),
                video=False,
            ),
            models=models,
        )
        lines = (Path(folder) / "out" / "detections.jsonl").read_text().splitlines()
        found = {
            Path(str(i)): DetectionLine.from_json(line).detections for i, line in enumerate(lines)
        }
    truth: Truth = {Path(str(i)): canvas.labels for i, canvas in enumerate(canvases)}
    sizes = dict.fromkeys(truth, FRAME_WH)
    whole = average_precision(truth, found, sizes)
    small = average_precision(
        {path: [label for label in labels if is_small(label)] for path, labels in truth.items()},
        {path: without_large(boxes, truth[path]) for path, boxes in found.items()},
        sizes,
    )
    sure = {path: boxes.above(SURE) for path, boxes in found.items()}
    num_boxes = sum(map(len, sure.values()))
    counts = [boxes_per_thing(boxes, truth[path]) for path, boxes in sure.items()]
    per_thing = np.concatenate([count[count > 0] for count in counts])
    cpu = {step["step"]: step["cpu_ms"] for step in report["steps"]}
    print(f"{picture_px:>8}{tile:>6}{whole[0]:>8.3f}{whole[1]:>8.3f}", end="")
    print(f"{small[0]:>9.3f}{small[1]:>8.3f}{per_thing.mean() - 1:>8.3f}", end="")
    print(f"{num_boxes:>7}{sum(cpu.values()):>8.0f}{cpu['postprocess']:>8.0f}", flush=True)


def is_small(label: Label) -> bool:
    return label[3] * label[4] * FRAME_WH[0] * FRAME_WH[1] < SMALL_PX


def without_large(boxes: Detections, labels: list[Label]) -> Detections:
    """Without the boxes of things that are not small, and those that are large themselves."""
    large = corners([label for label in labels if not is_small(label)])
    matched = (iou_matrix(boxes.xyxy, large) >= 0.5).any(axis=1)
    area = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).prod(axis=1)
    return boxes.where(~matched & (area < SMALL_PX))


def boxes_per_thing(boxes: Detections, labels: list[Label]) -> NDArray[np.intp]:
    """How many boxes show each thing or a piece of it: of its class, and mostly within it."""
    things = corners(labels)
    class_ids = np.array([label[0] for label in labels], np.int64)
    top_left = np.maximum(boxes.xyxy[:, None, :2], things[None, :, :2])
    bottom_right = np.minimum(boxes.xyxy[:, None, 2:], things[None, :, 2:])
    common = (bottom_right - top_left).clip(0).prod(axis=2)
    area = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).prod(axis=1)
    iou = iou_matrix(boxes.xyxy, things)
    shows = (common > 0.7 * area[:, None]) | (iou >= 0.5)
    iou[~shows | (boxes.class_id[:, None] != class_ids)] = 0
    return np.bincount(iou.argmax(axis=1)[iou.max(axis=1, initial=0) > 0], minlength=len(things))


def corners(labels: list[Label]) -> NDArray[np.float32]:
    """Left, top, right and bottom of the labelled things, in pixels of the frame, (N, 4)."""
    sides = [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for _, cx, cy, w, h in labels]
    return np.array(sides, np.float32).reshape(-1, 4) * np.array(FRAME_WH * 2, np.float32)


if __name__ == "__main__":
    main()
