"""Makes a checkpoint to train on from a model that ultralytics exported to OpenVINO in INT8.

    PEERS/bin/python scripts/training/from_int8.py EXPORT.xml yolo11n PICTURES CHECKPOINT.pt

The exporter fuses batch normalisation into convolutions, and training needs it: what each
convolution gives for pictures like those to train on sets it again. Layers of
another shape than those of the export keep random weights, so that yolo26n can begin with the
layers that it shares with yolo11n.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn
from ultralytics.models import YOLO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("name", help="of the configuration: yolo11n")
    parser.add_argument("pictures", type=Path, help="a folder of some like those to train on")
    parser.add_argument("checkpoint", type=Path, help="to write")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = YOLO(f"{arguments.name}.yaml")
    num_taken, num_all = take_weights(model.model, arguments.export)
    normalize(model.model, batch_of(arguments.pictures))
    model.save(arguments.checkpoint)
    print(f"{num_taken} of {num_all} convolutions are those of {arguments.export}")


def take_weights(model: Any, export: Path) -> tuple[int, int]:
    """Copy weights and biases of all convolutions of the same name and shape."""
    stored = dict(weights_of(export))
    num_taken = num_all = 0
    conv: Any
    for name, conv in model.named_modules():
        if not isinstance(conv, nn.Conv2d):
            continue
        num_all += 1
        weight, bias = stored.get(name, (None, None))
        if weight is None or weight.size != conv.weight.numel():
            continue
        num_taken += 1
        conv.weight.data = torch.from_numpy(weight.reshape(conv.weight.shape))
        norm = getattr(model.get_submodule(name.rpartition(".")[0]), "bn", None)
        biased: Any = norm if conv.bias is None else conv
        if bias is not None and biased is not None:
            biased.bias.data = torch.from_numpy(bias)
            biased.is_taken = True
    return num_taken, num_all


def weights_of(export: Path) -> Any:
    """The name of each convolution in the checkpoint, its weights and bias as float32."""
    core = ov.Core()
    for op in core.read_model(export).get_ops():
        if op.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        name = op.get_friendly_name().removeprefix("__module.").partition("/")[0]
        (after,) = (port.get_node() for port in op.output(0).get_target_inputs())
        bias = constant_of(after.input(1)) if after.get_type_name() == "Add" else None
        yield name, (constant_of(op.input(1)), None if bias is None else bias.reshape(-1))


def constant_of(port: Any) -> Any:
    """The value of a constant that is converted and scaled in the graph."""
    value = ov.Model([port.get_source_output()], [], "constant")
    return np.array(ov.compile_model(value, "CPU")([])[0], np.float32)


def normalize(model: Any, batch: Tensor) -> None:
    """Set each batch normalisation so that it passes on what its convolution gives, plus a bias."""

    def look(norm: Any, given: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(given[0], dim=(0, 2, 3))
        norm.running_mean, norm.running_var = mean.clone(), variance.clone()
        if hasattr(norm, "is_taken"):
            norm.weight.data = (variance + norm.eps).sqrt()
            norm.bias.data = norm.bias.data + mean
            del norm.is_taken

    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    with torch.no_grad():
        model.eval()(batch)
    for hook in hooks:
        hook.remove()


def batch_of(folder: Path) -> Tensor:
    """16 of its pictures, which are of one size."""
    paths = sorted(folder.iterdir())
    pictures: list[Any] = [cv2.imread(str(path)) for path in paths[:: max(1, len(paths) // 16)]]
    return torch.from_numpy(np.stack(pictures)[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
