"""A model file -> the IR for one input shape, converted once and then taken from the cache."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import openvino as ov
from openvino.frontend import FrontEndManager

from pipeline.errors import ModelError, reason_of
from pipeline.heads import HeadLayout
from pipeline.letterbox import input_size_wh
from pipeline.model import graph
from pipeline.model.weights import cache_dir, file_sha256
from pipeline.progress import Progress, ProgressCallback

_SUFFIXES = (".pt", ".onnx", ".xml")
_FRAMEWORKS = {".onnx": "onnx", ".xml": "ir"}
_ONNX_NAME, _LAYOUT_NAME = "model.onnx", "layout.json"
_CONVERTING = ("checkpoint.py", "export.py", "graph.py", "../heads.py")
_SHAPING_PACKAGES = ("openvino", "torch", "ultralytics")


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A raw-head graph of fixed input shape, and what is known about it.

    compiled_cache_dir: where OpenVINO may keep what it compiled from the graph.
    """

    model: ov.Model
    layout: HeadLayout
    input_wh: tuple[int, int]
    weights: Path
    weights_sha256: str
    compiled_cache_dir: Path


def prepare_model(
    weights: Path, source_wh: tuple[int, int], imgsz: int, on_progress: ProgressCallback
) -> PreparedModel:
    """The model for frames of a size, from the cache if it was converted before.

    A graph of fixed input size keeps it; every other takes the smallest rectangle that fits
    the frames at imgsz. Raises ModelError for what is not a YOLOv5 detection model.
    """
    if weights.suffix not in _SUFFIXES:
        raise ModelError(f"{weights}: expected a model file ending in {', '.join(_SUFFIXES)}")
    sha256 = file_sha256(weights)
    folder = cache_dir() / "models" / _conversion_key(weights, sha256)
    input_wh = input_size_wh(source_wh, imgsz)
    ir = folder / f"{input_wh[0]}x{input_wh[1]}.xml"
    model = _read_cached(ir)
    if model is None:
        model = _convert(weights, folder, input_wh, on_progress)
        _publish(ir, lambda path: ov.save_model(model, path, compress_to_fp16=False))
        on_progress(Progress("convert", 3, 3, unit="step"))
    return PreparedModel(
        model=model,
        layout=graph.stored_layout(model, weights),
        input_wh=graph.fixed_input_wh(model) or input_wh,
        weights=weights,
        weights_sha256=sha256,
        compiled_cache_dir=folder / "compiled",
    )


def _convert(
    weights: Path, folder: Path, input_wh: tuple[int, int], on_progress: ProgressCallback
) -> ov.Model:
    """The finished graph; of its own input size if that is fixed, else of input_wh."""
    if weights.suffix == ".pt":
        model, layout = _export(weights, folder, on_progress)
    else:
        model = _read(weights)
        if graph.has_stored_layout(model):
            layout, fixed_wh = graph.stored_layout(model, weights), graph.fixed_input_wh(model)
            if fixed_wh is None:
                raise ModelError(f"{weights}: its input has no fixed size")
            graph.check_heads(model, layout, fixed_wh)
            return model
        model, layout = graph.cut_at_heads(model, weights)
    on_progress(Progress("convert", 2, 3, unit="step"))
    try:
        return graph.finish(model, layout, graph.fixed_input_wh(model) or input_wh)
    except RuntimeError as error:
        raise ModelError(f"{weights}: cannot be made to take {input_wh} ({error})") from error


def _export(
    weights: Path, folder: Path, on_progress: ProgressCallback
) -> tuple[ov.Model, HeadLayout]:
    """A checkpoint's graph of any input size, ending at its raw heads."""
    on_progress(Progress("convert", 0, 3, unit="step"))
    try:
        return _read_export(folder)
    except (ModelError, OSError, ValueError, KeyError, TypeError):
        # Not exported yet, or damaged. Only here: torch takes seconds to import.
        from pipeline.model.export import export_onnx

    layouts: list[HeadLayout] = []
    _publish(folder / _ONNX_NAME, lambda path: layouts.append(export_onnx(weights, path)))
    _publish(folder / _LAYOUT_NAME, lambda path: path.write_text(layouts[0].to_json()))
    on_progress(Progress("convert", 1, 3, unit="step"))
    return _read_export(folder)


def _read_export(folder: Path) -> tuple[ov.Model, HeadLayout]:
    layout = HeadLayout.from_json((folder / _LAYOUT_NAME).read_text(encoding="utf-8"))
    return _read(folder / _ONNX_NAME), layout


def _read(path: Path) -> ov.Model:
    """Read a graph with the reader of its format; OpenVINO's own choice tries them all, aloud."""
    try:
        frontend = FrontEndManager().load_by_framework(_FRAMEWORKS[path.suffix])
        model = ov.Model(frontend.convert(frontend.load(str(path))))
    except Exception as error:  # Garbage makes the readers fail in any way they like.
        reason = reason_of(error)
        raise ModelError(f"{path}: not a model that OpenVINO reads ({reason})") from error
    if not model.inputs:
        raise ModelError(f"{path}: not a model that OpenVINO reads (it is empty)")
    return model


def _read_cached(ir: Path) -> ov.Model | None:
    """The cached IR, or None where there is none that is whole."""
    if not ir.is_file():
        return None
    try:
        model = ov.Core().read_model(ir)
        graph.stored_layout(model, ir)
        return model
    except (RuntimeError, ModelError):
        return None


def _conversion_key(weights: Path, sha256: str) -> str:
    """Everything that shapes the converted graph: the file, our code, and the libraries."""
    digest = hashlib.sha256(f"{weights.suffix} {sha256}".encode())
    for name in _CONVERTING:
        digest.update((Path(__file__).parent / name).read_bytes())
    for package in _SHAPING_PACKAGES:
        digest.update(f"{package} {version(package)}".encode())
    return digest.hexdigest()[:16]


def _publish(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file, and what belongs to it, under its name only when it is whole.

    An IR is two files of one stem: the weights take their place before the graph that names
    them, so that whoever finds the graph finds both.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            write(Path(name) / target.name)
            for part in sorted(Path(name).iterdir()):  # .bin before .xml
                part.replace(target.parent / part.name)
    except OSError as error:
        raise ModelError(
            f"{target.parent}: the converted model cannot be kept there ({error.strerror}); "
            "make it writable, or name another cache folder with XDG_CACHE_HOME"
        ) from error
