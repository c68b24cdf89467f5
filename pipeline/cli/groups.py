"""Options that several commands take."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import Any

from pipeline.cli import json_lines
from pipeline.cli.options import SCENE_FIELDS, add_options, read_path
from pipeline.core.config import (
    MODEL_NAMES,
    AutoOptions,
    LimitOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.inference.configurations import AUTO

OUTPUT_FOLDER = "output"


def add_limits(command: argparse.ArgumentParser) -> Any:
    """The limits of every command that reads footage; returns their group."""
    limits = command.add_argument_group("limits", "Footage beyond these limits is refused.")
    add_options(limits, LimitOptions)
    return limits


def add_synthetic(command: argparse.ArgumentParser) -> None:
    synthetic = command.add_argument_group(
        "synthetic scene", "For the synthetic scene only, except --frame-rate."
    )
    # None shows that an option was not given.
    add_options(synthetic, SyntheticOptions, *SCENE_FIELDS, default=None)


def add_cores(command: argparse.ArgumentParser) -> None:
    add_options(command, ProcessConfig, "cores")


def add_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--quiet",
        action="store_true",
        help="show the result, errors and warnings only"
        if command.prog.endswith("evaluate")
        else "show errors and warnings only, no progress and no summary",
    )
    command.add_argument(
        json_lines.FLAG,
        choices=("text", "json"),
        default="text",
        help="how progress, notes and errors are written to stderr: for people, or as one JSON "
        "object a line",
    )


def add_weights_options(command: argparse.ArgumentParser) -> Any:
    """The options of every command that needs a model; returns their group."""
    add_debug(command)
    add_quiet(command)
    model = command.add_argument_group("model")
    which = model.add_mutually_exclusive_group()
    add_options(which, ProcessConfig, "weights")
    which.add_argument(
        "--model",
        dest="weights",
        type=read_model,
        metavar="NAME|PATH",
        help="official: YOLOv5n as published; demo: the bundled model for the synthetic scene; or "
        "a path as for --weights (default: official for footage, demo for the synthetic scene)",
    )
    add_options(model, ProcessConfig, "imgsz", "nms_free")
    return model


def add_model_options(command: argparse.ArgumentParser) -> None:
    model = add_weights_options(command)
    model.add_argument(
        "--config",
        default=AUTO,
        metavar="NAME",
        help="throughput configuration, see 'pipeline configs'; sets device, hint, streams, "
        "requests and batch, int8 also the precision",
    )
    add_options(model, AutoOptions, "device", "hint")
    add_precision(model)
    add_options(model, AutoOptions, "num_streams", "num_requests", "batch")


def add_precision(model: Any) -> None:
    add_options(model, AutoOptions, "precision")
    add_options(model, ProcessConfig, "calibration")


def read_model(text: str) -> str | Path:
    """One of the names, or a path. Raises ArgumentTypeError for a name that is none."""
    if text in MODEL_NAMES:
        return text
    path = read_path(text)
    if path.suffix or len(path.parts) > 1 or path.exists():
        return path
    alike = difflib.get_close_matches(text, MODEL_NAMES, 1)
    meant = f"; did you mean {alike[0]}?" if alike else ""
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither a file or folder nor one of {', '.join(MODEL_NAMES)}{meant}"
    )


def add_results(command: argparse.ArgumentParser) -> None:
    """The results of earlier runs that a command reads."""
    command.add_argument(
        "results",
        nargs="+",
        type=read_path,
        metavar="result",
        help="output folder of a run or of a batch, or a detections.jsonl or truth.jsonl with the "
        "report.json beside it",
    )
