"""A model file -> the IR for one input shape, converted once and cached."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.frontend import FrontEndManager

from pipeline.core.cache import (
    NotKept,
    cache_dir,
    is_whole,
    note_damage,
    publish,
    save_ir,
    seal,
    temporary_folder,
)
from pipeline.core.errors import ModelError, reason_of
from pipeline.core.notes import note
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.model import graph
from pipeline.model.compiled import core
from pipeline.model.heads import HeadConvolution, HeadLayout
from pipeline.model.layers import build_graph
from pipeline.model.letterbox import input_size_wh
from pipeline.model.parts import parts_sha256, require_plain_graph, require_sizes
from pipeline.model.postprocess import Candidates, select_candidates

_SUFFIXES = (".pt", ".onnx", ".xml")
_CONVOLUTIONS_SUFFIX = ".npz"
_FRAMEWORKS = {".onnx": "onnx", ".xml": "ir"}

CONVERSION_VERSION = 1
"""Raise it with each change of what a conversion writes: graphs in the cache are then rebuilt."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """A graph in INT8.

    folder: its folder in the cache; accuracy: the result of an evaluation, or None.
    """

    calibrated_on: str
    folder: Path
    accuracy: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A graph of fixed input shape that ends at its heads, with its properties.

    source_wh: the size of the frames it was prepared for; input_wh: of the graph's input.
    convolutions: what makes predictions of the heads where they come out in parts.
    weights_sha256: of the file; for an IR of its parts, see `parts_sha256`.
    compiled_cache_dir: where OpenVINO may keep what it compiled from the graph.
    quantization: None for a graph in float.
    """

    model: ov.Model
    layout: HeadLayout
    source_wh: tuple[int, int]
    input_wh: tuple[int, int]
    weights: Path
    weights_sha256: str
    compiled_cache_dir: Path
    convolutions: tuple[HeadConvolution, ...] = ()
    quantization: Quantization | None = None

    def select_candidates(
        self, heads: Sequence[NDArray[np.float32]], confidence_threshold: float
    ) -> Candidates | None:
        """The predictions of one frame that can reach the threshold; see `postprocess`."""
        return select_candidates(heads, self.layout, confidence_threshold, self.convolutions)


def prepare_model(
    weights: Path, source_wh: tuple[int, int], imgsz: int, on_progress: ProgressCallback
) -> PreparedModel:
    """The model for frames of a size, from the cache if it was converted before.

    A graph of fixed input size keeps it; every other takes the smallest rectangle that fits
    the frames at imgsz. If the cache folder cannot be written, nothing is cached, with a note.
    Raises ModelError if it is not a YOLOv5 detection model.
    """
    if weights.suffix not in _SUFFIXES:
        raise ModelError(f"{weights}: expected a model file ending in {', '.join(_SUFFIXES)}")
    require_sizes(weights)
    sha256 = parts_sha256(weights)
    key = _conversion_key(weights, sha256)
    try:
        folder = cache_dir() / "models" / key
        return _prepare(weights, sha256, folder, source_wh, imgsz, on_progress)
    except NotKept as error:
        note(str(error))
        folder = temporary_folder() / key
        return _prepare(weights, sha256, folder, source_wh, imgsz, on_progress)


def _prepare(
    weights: Path,
    sha256: str,
    folder: Path,
    source_wh: tuple[int, int],
    imgsz: int,
    on_progress: ProgressCallback,
) -> PreparedModel:
    input_wh = input_size_wh(source_wh, imgsz)
    ir = folder / f"{input_wh[0]}x{input_wh[1]}.xml"
    model = read_cached_ir(ir)
    convolutions = _read_convolutions(ir) if model else None
    if model is None or convolutions is None:
        model, convolutions = _convert(weights, input_wh, on_progress)
        publish(ir, lambda path: _save(model, convolutions, path))
        # What OpenVINO compiles and keeps is for the graph as it was read.
        model = read_cached_ir(ir) or model
        on_progress(Progress("convert", 3, 3, unit="step"))
    return PreparedModel(
        model=model,
        layout=graph.stored_layout(model, weights),
        source_wh=source_wh,
        input_wh=graph.fixed_input_wh(model) or input_wh,
        weights=weights,
        weights_sha256=sha256,
        compiled_cache_dir=folder / "compiled",
        convolutions=convolutions,
    )


def _convert(
    weights: Path, input_wh: tuple[int, int], on_progress: ProgressCallback
) -> tuple[ov.Model, tuple[HeadConvolution, ...]]:
    """The finished graph; of its own input size if that is fixed, else of input_wh."""
    if weights.suffix == ".pt":
        on_progress(Progress("convert", 0, 3, unit="step"))
        model, layout = build_graph(weights)
        on_progress(Progress("convert", 1, 3, unit="step"))
    else:
        require_plain_graph(weights)
        model, layout = _read(weights), None
    on_progress(Progress("convert", 2, 3, unit="step"))
    try:
        graph.require_sane_shapes(model, weights)
        if layout is None and graph.has_stored_layout(model):
            return _finished_before(model, weights)
        if layout is None:
            model, layout = graph.cut_at_heads(model, weights)
        finished = graph.finish(model, layout, graph.fixed_input_wh(model) or input_wh)
        graph.require_sane_shapes(finished[0], weights)
        return finished
    except ModelError:
        raise
    except Exception as error:  # Unusual graphs can raise any exception.
        reason = reason_of(error)
        raise ModelError(f"{weights}: cannot be reshaped to {input_wh} ({reason})") from error


def _finished_before(
    model: ov.Model, weights: Path
) -> tuple[ov.Model, tuple[HeadConvolution, ...]]:
    """A graph that an earlier run finished, with what belongs to it."""
    layout, fixed_wh = graph.stored_layout(model, weights), graph.fixed_input_wh(model)
    if fixed_wh is None:
        raise ModelError(f"{weights}: its input has no fixed size")
    graph.check_heads(model, layout, fixed_wh)
    convolutions = _read_convolutions(weights) if graph.has_split_heads(model) else ()
    if convolutions is None:
        missing = weights.with_suffix(_CONVOLUTIONS_SUFFIX).name
        raise ModelError(f"{weights}: {missing}, which belongs to it, cannot be read")
    return model, convolutions


def _read(path: Path) -> ov.Model:
    """Read a graph with the reader of its format; OpenVINO would try all, with messages."""
    try:
        frontend = FrontEndManager().load_by_framework(_FRAMEWORKS[path.suffix])
        model = ov.Model(frontend.convert(frontend.load(str(path))))
    except Exception as error:  # Arbitrary bytes can make the readers raise any exception.
        reason = reason_of(error)
        raise ModelError(f"{path}: not a model that OpenVINO reads ({reason})") from error
    if not model.inputs:
        raise ModelError(f"{path}: not a model that OpenVINO reads (it is empty)")
    return model


def read_cached_ir(ir: Path) -> ov.Model | None:
    """The cached IR, or None if there is no undamaged one."""
    if not is_whole(ir):
        return None
    try:
        model = core().read_model(ir)
        graph.stored_layout(model, ir)
        return model
    except (RuntimeError, ModelError):
        note_damage(ir)
        return None


def save_prepared(prepared: PreparedModel, ir: Path) -> None:
    """Write the graph with what belongs to it, to be given as weights elsewhere.

    Raises OSError if it cannot be written.
    """
    _save(prepared.model, prepared.convolutions, ir)


def _save(model: ov.Model, convolutions: tuple[HeadConvolution, ...], ir: Path) -> None:
    save_ir(model, ir)
    arrays, beside = {}, ir.with_suffix(_CONVOLUTIONS_SUFFIX)
    for i, convolution in enumerate(convolutions):
        arrays[f"weight_{i}"], arrays[f"bias_{i}"] = convolution.weight, convolution.bias
    with beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    seal(ir, ir.with_suffix(".bin"), beside)


def _read_convolutions(ir: Path) -> tuple[HeadConvolution, ...] | None:
    """What `_save` wrote beside an IR; None if it is missing or damaged."""
    try:
        with (
            ir.with_suffix(_CONVOLUTIONS_SUFFIX).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return tuple(
                HeadConvolution(arrays[f"weight_{i}"], arrays[f"bias_{i}"])
                for i in range(len(arrays) // 2)
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _conversion_key(weights: Path, sha256: str) -> str:
    """Everything that shapes the converted graph: the file, our code, and OpenVINO."""
    known = f"{weights.suffix} {sha256} {CONVERSION_VERSION} openvino {version('openvino')}"
    return hashlib.sha256(known.encode()).hexdigest()[:16]
