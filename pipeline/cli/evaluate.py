"""`evaluate`: accuracy on labelled pictures."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.arguments import infer_options
from pipeline.cli.groups import add_cores, add_model_options
from pipeline.cli.options import read_path
from pipeline.cli.terminal import progress_shown, show
from pipeline.core.config import CLIP, AutoOptions, InferOptions
from pipeline.core.errors import UsageError
from pipeline.core.text import counted


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure the accuracy on labelled pictures",
        description="Measure the mean average precision, as COCO defines it, on a folder with "
        "images/ and labels/ in YOLO format (class cx cy w h, normalised).",
        formatter_class=HelpFormatter,
    )
    command.add_argument(
        "--data",
        type=read_path,
        required=True,
        metavar="FOLDER",
        help="folder with images/ and labels/",
    )
    add_cores(command)
    add_model_options(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.measure.evaluate import evaluate

    if arguments.calibration == CLIP:
        raise UsageError(
            "evaluate has no clip to calibrate on: give --calibration a folder (./clip for one of "
            "that name)"
        )
    with progress_shown(arguments) as progress:
        result = evaluate(
            arguments.data,
            weights=arguments.weights,
            imgsz=arguments.imgsz,
            nms_free=arguments.nms_free,
            infer=_concrete(infer_options(arguments)),
            calibration=arguments.calibration,
            on_progress=progress,
        )
    images, boxes = counted(result.num_images, "image"), counted(result.num_boxes, "box", "boxes")
    show(f"{images}, {boxes}")
    for precision, found in result.accuracy.items():
        show(f"{precision:<5} mAP@0.5 {found.map_50:.4f}, mAP@0.5:0.95 {found.map_50_95:.4f}")


def _concrete(options: InferOptions | AutoOptions) -> InferOptions:
    """The options for pictures, for which nothing is tuned."""
    return options.over(InferOptions()) if isinstance(options, AutoOptions) else options
