"""Trains nano models of ultralytics on the scene, by its own trainer, and exports them in its ways.

    python scripts/training/synthetic_data.py dataset FOLDER --pictures 640 --size 256x256
    PEERS/bin/python scripts/training/train_ultralytics.py FOLDER --minutes 15

The peers' interpreter has `ultralytics`, `nncf` and `onnx`; nothing of this project is needed.
Writes NAME.pt and its exports NAME_static_openvino_model/, NAME_dynamic_openvino_model/,
NAME_int8_openvino_model/ and NAME.onnx into FOLDER. The models are small proofs of the way from
trainer to file, not good detectors; `scripts/benchmarks/agreement_with_predict.py` compares them.
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
    """From random weights, for a time, to the checkpoint of the last epoch."""
    model = YOLO(f"{name}.yaml")
    model.train(
        data=str(arguments.folder / "dataset.yaml"),
        time=arguments.minutes / 60,
        imgsz=arguments.imgsz,
        batch=8,
        device="cpu",
        workers=0,
        pretrained=False,
        optimizer="AdamW",
        lr0=2e-3,
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
    """Export a checkpoint in one way, for inputs of 640x640."""
    # The exporter names its output after the checkpoint, and changes the model.
    copy = checkpoint.with_name(f"{checkpoint.stem}_{way}.pt")
    shutil.copy(checkpoint, copy)
    data = {"data": str(checkpoint.parent / "dataset.yaml")} if way == "int8" else {}
    written = Path(YOLO(copy).export(imgsz=640, device="cpu", **options, **data))
    copy.unlink()
    target = checkpoint.with_suffix(".onnx")
    if way != "onnx":
        target = checkpoint.with_name(f"{checkpoint.stem}_{way}_openvino_model")
        shutil.rmtree(target, ignore_errors=True)
    written.rename(target)


if __name__ == "__main__":
    main()
