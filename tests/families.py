"""Models of every family with random weights, as ultralytics builds, saves and exports them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import pipeline.model.pytorch  # noqa: F401  Before ultralytics: it sets where that writes.

from ultralytics.nn import tasks  # isort: skip

ultralytics: Any = tasks  # Which has no types.

NAMES = {0: "cat", 1: "dog", 2: "tall ship"}
SMALL = [0.34, 0.125, 1024]


def random_model(
    config: str, *, names: dict[int, str] = NAMES, scale: list[float] | None = None
) -> Any:
    """A model of one of ultralytics' configurations, in evaluation mode.

    Its batch statistics are those of noise, so that values neither vanish nor explode, and the
    biases of its classes let some cells pass a threshold. scale: depth, width, most channels.
    """
    torch.manual_seed(0)
    content = ultralytics.yaml_model_load(config)
    if scale is not None:
        content["scales"] = {content["scale"]: scale}
    model = ultralytics.DetectionModel(content, ch=3, nc=len(names), verbose=False)
    model.names = names
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # The mean of all batches.
            module.reset_running_stats()
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 128, 128))
        detect = model.model[-1]
        for name, bias in (("cv2", 1.0), ("cv3", -2.5)):
            for branch in (name, f"one2one_{name}"):
                for level in getattr(detect, branch, None) or ():
                    nn.init.normal_(level[-1].weight, 0.0, 0.25 if name == "cv3" else 0.1)
                    nn.init.normal_(level[-1].bias, bias, 0.5)
    return model.eval().requires_grad_(False)


def checkpoint_of(model: Any, path: Path) -> Path:
    """The file that ultralytics' trainer would leave."""
    torch.save({"model": None, "ema": copy.deepcopy(model).half(), "epoch": -1}, path)
    return path


def exported(
    model: Any, folder: Path, side: int, *, dynamic: bool = False, **metadata: Any
) -> Path:
    """The folder that ultralytics' exporter would leave: IR and metadata.yaml."""
    image = torch.zeros(1, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporting = _exporting(model, dynamic)
        exporting(image)  # The centres of the cells are made for the first picture.
        graph = ov.convert_model(
            exporting, input=None if dynamic else [image.shape], example_input=image
        )
    folder.mkdir()
    ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    content = {"stride": 32, "task": "detect", "imgsz": [side, side], "names": model.names}
    lines = (f"{key}: {value!r}\n" for key, value in {**content, **metadata}.items())
    (folder / "metadata.yaml").write_text("".join(lines))
    return folder / "model.xml"


def _exporting(model: Any, dynamic: bool) -> Any:
    exporting = copy.deepcopy(model).fuse(verbose=False).float()
    exporting.model[-1].export = True
    exporting.model[-1].dynamic = dynamic
    return exporting


def decoded_by_ultralytics(model: Any, picture: NDArray[np.uint8]) -> Tensor:
    """What the original modules make of a picture (height, width, 3), before NMS."""
    with torch.no_grad():
        images = torch.from_numpy(picture)[None].permute(0, 3, 1, 2) / 255
        found: Tensor = model(images)[0][0]
        return found
