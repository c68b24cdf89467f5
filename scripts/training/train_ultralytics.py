"""Trains nano models of ultralytics on the scene, by its own trainer, and exports them in its ways.

    python scripts/training/synthetic_data.py dataset FOLDER --pictures 640 --size 256x256
    PEERS/bin/python scripts/training/train_ultralytics.py FOLDER --minutes 15

The peers' interpreter has `ultralytics`, `nncf` and `onnx`; nothing of this project is needed.
Writes NAME.pt into FOLDER, and its exports into static/, dynamic/, int8/ and onnx/ there. The
models prove the way from trainer to file and are no good detectors; repeated, it trains on;
`scripts/benchmarks/agreement_with_predict.py` compares what is found with them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from ultralytics.models import YOLO

EXPORTS: dict[str, dict[str, Any]] = {
    "static": {"format": "openvino"},
    "dynamic": {"format": "openvino", "dynamic": True},
    "int8": {"format": "openvino", "int8": True, "fraction": 0.1},
    "onnx": {"format": "onnx"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with dataset.yaml")
    parser.add_argument("--models", nargs="+", default=["yolo11n", "yolo26n"])
    parser.add_argument("--minutes", type=float, default=15.0, help="of training for each model")
    parser.add_argument("--imgsz", type=int, default=256, help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--steps", nargs="+", choices=("train", "export"), default=["train", "export"]
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name in arguments.models:
        checkpoint = arguments.folder / f"{name}.pt"
        if "train" in arguments.steps:
            train(name, checkpoint, arguments)
        if "export" in arguments.steps:
            for way, options in EXPORTS.items():
                export(checkpoint, way, options)


def train(name: str, checkpoint: Path, arguments: argparse.Namespace) -> None:
    """For a time, from the checkpoint that is there or random weights, to one of the last epoch."""
    model = YOLO(checkpoint if checkpoint.exists() else f"{name}.yaml")
    model.train(
        data=str(arguments.folder / "dataset.yaml"),
        time=arguments.minutes / 60,
        imgsz=arguments.imgsz,
        batch=8,
        nbs=8,  # A step of the optimiser after each batch, not after 64 pictures.
        device="cpu",
        workers=0,
        optimizer="AdamW",
        lr0=1e-3,
        warmup_epochs=0.5,
        mosaic=0.0,
        amp=False,
        val=False,
        plots=False,
        project=str(arguments.folder.resolve() / "runs"),
        name=name,
        exist_ok=True,
        seed=0,
    )
    shutil.copy(arguments.folder / "runs" / name / "weights" / "last.pt", checkpoint)


def export(checkpoint: Path, way: str, options: dict[str, Any]) -> None:
    """Export a checkpoint in one way, for inputs of 640x640, into a folder of that name."""
    folder = checkpoint.parent / way
    folder.mkdir(exist_ok=True)
    copy = Path(shutil.copy(checkpoint, folder))  # The exporter writes beside its model.
    data = {"data": str(checkpoint.parent / "dataset.yaml")} if options.get("int8") else {}
    print(YOLO(copy).export(imgsz=640, device="cpu", **options, **data), flush=True)
    copy.unlink()


if __name__ == "__main__":
    main()
