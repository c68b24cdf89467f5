"""A checkpoint -> ONNX. Importing this module imports torch and onnx."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from pipeline.errors import ModelError
from pipeline.heads import HeadLayout
from pipeline.model.checkpoint import YOLOv5, read_checkpoint

_OPSET = 17


def export_onnx(checkpoint: Path, target: Path) -> HeadLayout:
    """Write the graph from float NCHW images to the raw heads, of any size and batch.

    Raises ModelError if the checkpoint is refused or its layers cannot be exported, and OSError
    if the target cannot be written.
    """
    model, layout = read_checkpoint(checkpoint)
    try:
        write_onnx(model, target)
    except OSError:
        raise
    except Exception as error:  # Layers of a crafted or odd checkpoint fail in any way.
        raise ModelError(f"{checkpoint}: its layers cannot be exported ({error})") from error
    return layout


def write_onnx(model: YOLOv5, target: Path) -> None:
    """Export with symbolic height, width and batch: one file serves every input shape."""
    with warnings.catch_warnings():
        # The exporter that traces is called old; it is the one that needs no other package
        # and leaves Resize with factors instead of fixed sizes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, 64, 64),),
            str(target),
            input_names=["images"],
            output_names=["head_8", "head_16", "head_32"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}},
            opset_version=_OPSET,
            dynamo=False,
        )
