"""A model file -> the IR for one input shape, converted once and cached."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
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
from pipeline.core.errors import ModelError, UsageError, reason_of
from pipeline.core.machine import package_version
from pipeline.core.notes import note
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.model import graph
from pipeline.model.compiled import core
from pipeline.model.decoded import DecodedHead
from pipeline.model.heads import Head
from pipeline.model.layers import build_graph
from pipeline.model.letterbox import input_size_wh, rounded_up
from pipeline.model.parts import parts_sha256, require_plain_graph, require_sizes
from pipeline.model.quantization import Quantization, read_accuracy
from pipeline.model.stored_head import (
    Layout,
    check_finished,
    cut_at_heads,
    finish,
    has_stored_layout,
    needs_arrays,
    store_layout,
    stored_head,
    stored_layout,
)

_SUFFIXES = (".pt", ".onnx", ".xml")
_ARRAYS_SUFFIX = ".npz"
_ANY_SIZE_NAME = "any_size.xml"
_FRAMEWORKS = {".onnx": "onnx", ".xml": "ir"}

CONVERSION_VERSION = 4
"""Raise it with each change of what a conversion writes: graphs in the cache are then rebuilt."""


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A graph of fixed input shape that ends at its heads, with its properties.

    source_wh: the size of the frames it was prepared for; input_wh: of the graph's input.
    head: what its outputs stand for.
    weights_sha256: of the file; for an IR of its parts, see `parts_sha256`.
    compiled_cache_dir: where OpenVINO may keep what it compiled from the graph.
    quantization: None for a graph in float.
    """

    model: ov.Model
    head: Head
    source_wh: tuple[int, int]
    input_wh: tuple[int, int]
    weights: Path
    weights_sha256: str
    compiled_cache_dir: Path
    quantization: Quantization | None = None


def prepare_model(
    weights: Path,
    source_wh: tuple[int, int],
    imgsz: int,
    on_progress: ProgressCallback,
    *,
    nms_free: bool = False,
) -> PreparedModel:
    """The model for frames of a size, from the cache if it was converted before.

    A graph of fixed input size keeps it; every other takes the smallest rectangle that fits
    the frames at imgsz. If the cache folder cannot be written, nothing is cached, with a note.
    nms_free: of a checkpoint with two branches, take the one that needs no NMS. Raises ModelError
    if it is no detection model of a supported family, UsageError if it needs NMS all the same.
    """
    if weights.suffix not in _SUFFIXES:
        raise ModelError(f"{weights}: expected a model file ending in {', '.join(_SUFFIXES)}")
    require_sizes(weights)
    sha256 = parts_sha256(weights)
    key = _conversion_key(weights, sha256, nms_free)
    wanted = _Wanted(weights, sha256, input_size_wh(source_wh, imgsz), nms_free)
    try:
        prepared = _prepare(wanted, cache_dir() / "models" / key, source_wh, on_progress)
    except NotKept as error:
        note(str(error))
        prepared = _prepare(wanted, temporary_folder() / key, source_wh, on_progress)
    if nms_free and prepared.head.needs_nms:
        raise UsageError(
            f"--nms-free: {weights.name} has no branch that needs no NMS; leave the option out"
        )
    return prepared


def note_model(prepared: PreparedModel, imgsz: int) -> None:
    """Note where the input is larger than imgsz, as the strides require, and a graph left whole."""
    if isinstance(prepared.head, DecodedHead):
        note(
            f"{prepared.weights.name} runs with the decoding and NMS that are in it: its raw heads "
            "were not found, so it is slower than one that ultralytics exports by default"
        )
    stride = max(prepared.head.strides)
    side, _ = rounded_up((imgsz, imgsz), stride)
    if imgsz < side == max(prepared.input_wh):
        note(
            f"--imgsz {imgsz} is rounded up to {side}: the input of this model is a multiple of "
            f"{stride}, its largest stride"
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A model file, and what it is to become: a graph for an input of this size or little more."""

    weights: Path
    sha256: str
    input_wh: tuple[int, int]
    nms_free: bool


def _prepare(
    wanted: _Wanted, folder: Path, source_wh: tuple[int, int], on_progress: ProgressCallback
) -> PreparedModel:
    input_wh = wanted.input_wh
    ir = folder / f"{input_wh[0]}x{input_wh[1]}.xml"
    model = read_cached_ir(ir)
    head = _stored_head(model, ir) if model else None
    if model is None or head is None:
        model, head = _convert(wanted, folder / _ANY_SIZE_NAME, on_progress)
        publish(ir, lambda path: _save(model, head, path))
        # What OpenVINO compiles and keeps is for the graph as it was read.
        model = read_cached_ir(ir) or model
        on_progress(Progress("convert", 3, 3, unit="step"))
    quantization = None
    if graph.is_quantized(model):
        quantization = Quantization(None, folder, read_accuracy(folder))
    return PreparedModel(
        model=model,
        head=head,
        source_wh=source_wh,
        input_wh=graph.fixed_input_wh(model) or input_wh,
        weights=wanted.weights,
        weights_sha256=wanted.sha256,
        compiled_cache_dir=folder / "compiled",
        quantization=quantization,
    )


def _convert(
    wanted: _Wanted, any_size: Path, on_progress: ProgressCallback
) -> tuple[ov.Model, Head]:
    """The finished graph; of its own input size if that is fixed.

    Else its sides are multiples of the largest stride. any_size: see `_graph_of`.
    """
    weights = wanted.weights
    layout: Layout | None = None
    if weights.suffix == ".pt":
        on_progress(Progress("convert", 0, 3, unit="step"))
        model, layout = _graph_of(wanted, any_size)
        on_progress(Progress("convert", 1, 3, unit="step"))
    else:
        require_plain_graph(weights)
        model = _read(weights)
    on_progress(Progress("convert", 2, 3, unit="step"))
    try:
        graph.require_sane_shapes(model, weights)
        if layout is None and has_stored_layout(model):
            return _finished_before(model, weights)
        if layout is None:
            model, layout = cut_at_heads(model, weights)
        input_wh = graph.fixed_input_wh(model) or rounded_up(wanted.input_wh, max(layout.strides))
        finished = finish(model, layout, input_wh)
        graph.require_sane_shapes(finished[0], weights)
        return finished
    except ModelError:
        raise
    except Exception as error:  # Unusual graphs can raise any exception.
        reason = reason_of(error)
        raise ModelError(
            f"{weights}: cannot be reshaped to {wanted.input_wh} ({reason})"
        ) from error


def _graph_of(wanted: _Wanted, ir: Path) -> tuple[ov.Model, Layout]:
    """The graph of a checkpoint, for any input size, from the cache if there is one.

    To read the checkpoint takes ten times as long as its IR, and footage comes in many sizes.
    """
    if (kept := read_cached_ir(ir)) is not None:
        return kept, stored_layout(kept, ir)
    model, layout = build_graph(wanted.weights, nms_free=wanted.nms_free)
    store_layout(model, layout)
    # Of a checkpoint that was replaced meanwhile, nothing is kept for all sizes.
    if parts_sha256(wanted.weights) == wanted.sha256:
        with contextlib.suppress(NotKept):
            publish(ir, lambda path: _save_sealed(model, path))
    return model, layout


def _save_sealed(model: ov.Model, ir: Path) -> None:
    save_ir(model, ir)
    seal(ir, ir.with_suffix(".bin"))


def _finished_before(model: ov.Model, weights: Path) -> tuple[ov.Model, Head]:
    """A graph that an earlier run finished, with its head."""
    layout, fixed_wh = stored_layout(model, weights), graph.fixed_input_wh(model)
    if fixed_wh is None:
        raise ModelError(f"{weights}: its input has no fixed size")
    check_finished(model, layout, fixed_wh)
    beside = weights.with_suffix(_ARRAYS_SUFFIX)
    if not beside.exists() and not needs_arrays(model, layout):
        return model, stored_head(model, {}, weights)
    head = _stored_head(model, weights)
    if head is None:
        missing = beside.name
        raise ModelError(f"{weights}: {missing}, which belongs to it, cannot be read")
    return model, head


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
        stored_layout(model, ir)
        return model
    except (RuntimeError, ModelError):
        note_damage(ir)
        return None


def save_prepared(prepared: PreparedModel, ir: Path) -> None:
    """Write the graph with what belongs to it, to be given as weights elsewhere.

    Raises OSError if it cannot be written.
    """
    _save(prepared.model, prepared.head, ir)


def _save(model: ov.Model, head: Head, ir: Path) -> None:
    save_ir(model, ir)
    beside = ir.with_suffix(_ARRAYS_SUFFIX)
    with beside.open("wb") as file:
        np.savez(file, **head.arrays())  # type: ignore[arg-type]
    seal(ir, ir.with_suffix(".bin"), beside)


def _stored_head(model: ov.Model, ir: Path) -> Head | None:
    """The head that `_save` wrote in and beside an IR; None if it is missing or damaged."""
    try:
        with (
            ir.with_suffix(_ARRAYS_SUFFIX).open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            return stored_head(model, arrays, ir)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _conversion_key(weights: Path, sha256: str, nms_free: bool) -> str:
    """Everything that shapes the converted graph: the file, our code, and OpenVINO."""
    known = f"{weights.suffix} {sha256} {CONVERSION_VERSION} openvino {package_version('openvino')}"
    if nms_free and weights.suffix == ".pt":  # Exported graphs have one branch.
        known += " without NMS"
    return hashlib.sha256(known.encode()).hexdigest()[:16]
