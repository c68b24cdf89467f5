"""A float graph -> INT8 by NNCF's post-training quantisation, calibrated on pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pipeline.core.cache import NotKept, publish, save_ir, seal
from pipeline.core.errors import InputError, ModelError, UsageError, reason_of
from pipeline.core.hidden_package import hidden_package
from pipeline.core.machine import package_version
from pipeline.core.notes import note
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.media.frame import Frame
from pipeline.model.graph import reshaped
from pipeline.model.last_layers import convolutions_before
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.prepare import (
    PreparedModel,
    prepare_model,
    read_cached_ir,
)
from pipeline.model.preprocess import Preprocessor
from pipeline.model.quantization import Quantization, read_accuracy
from pipeline.model.yolov5_graph import OBJECTNESS

NUM_PICTURES = 100
"""The most pictures of a folder or of clips; more made no measurable difference."""

CALIBRATION_SIDE = 320
"""The sides in pixels of the input that every model is quantised at, if it has no fixed one. One
quantised model is used for all sizes; the time that it takes grows with this area."""

_IR_NAME = "model.xml"

CALIBRATION_VERSION = 3
"""Raise it with each change of which pictures calibrate, how they are decoded and preprocessed, or
how the graph is quantised: models in the cache are then rebuilt."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Pictures for the calibration, which measures the value ranges of the layers.

    key: identifies these pictures; origin: their name in the report.
    """

    key: str
    origin: str
    frames: Callable[[], Iterator[Frame]]


def quantize(
    prepared: PreparedModel, calibration: Calibration, on_progress: ProgressCallback
) -> PreparedModel:
    """A prepared model in INT8, from the cache if it was quantised before.

    It is quantised at one size of the input, and so is the same for frames of every size. A model
    whose file is in INT8 stays as it is. Raises ModelError, InputError, UsageError.
    """
    if prepared.quantization is not None:
        return prepared
    side = CALIBRATION_SIDE
    basis = prepare_model(
        *(prepared.weights, (side, side), side, on_progress), nms_free=not prepared.head.needs_nms
    )
    folder = basis.compiled_cache_dir.parent / f"int8-{_key(calibration, basis)}"
    ir = folder / _IR_NAME
    model = read_cached_ir(ir)
    if model is None:
        model = _quantize(basis, calibration, on_progress)
        try:
            publish(ir, lambda path: _save(model, path))
            model = read_cached_ir(ir) or model  # As later runs have it.
        except NotKept as error:
            note(str(error))
    if prepared.input_wh != basis.input_wh:
        width, height = prepared.input_wh
        model = reshaped(model, [1, height, width, 3])
    return dataclasses.replace(
        prepared,
        model=model,
        compiled_cache_dir=folder / "compiled",
        quantization=Quantization(
            calibrated_on=calibration.origin, folder=folder, accuracy=read_accuracy(folder)
        ),
    )


def _save(model: ov.Model, ir: Path) -> None:
    save_ir(model, ir)
    seal(ir, ir.with_suffix(".bin"))


def _quantize(
    basis: PreparedModel, calibration: Calibration, on_progress: ProgressCallback
) -> ov.Model:
    inputs = _model_inputs(calibration, basis.input_wh)
    total, done = len(inputs), 0

    def report(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        nonlocal done
        done = min(done + 1, total)
        on_progress(Progress("quantize", done, total, unit="image"))
        return pixels

    on_progress(Progress("quantize", 0, total, unit="image"))
    # NNCF imports PyTorch for models of its kind, which takes as long as half of a quantisation.
    with hidden_package("torch"), _without_garbage_collection():
        nncf = import_nncf()
        try:
            model = _quantized_by(nncf, basis, nncf.Dataset(inputs, report), total)
        except Exception as error:  # NNCF raises any exception for graphs it does not support.
            reason = reason_of(error)
            raise ModelError(f"{basis.weights}: cannot be quantised ({reason})") from error
    on_progress(Progress("quantize", total, total, unit="image"))
    return model


def _quantized_by(nncf: Any, basis: PreparedModel, dataset: Any, num_pictures: int) -> ov.Model:
    in_float = nncf.IgnoredScope(
        names=sorted(_left_in_float(basis)), patterns=[f"{OBJECTNESS}_.*"], validate=False
    )
    with contextlib.redirect_stdout(io.StringIO()):  # It draws progress bars of its own.
        return nncf.quantize(
            basis.model,
            dataset,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=num_pictures,
            ignored_scope=in_float,
        )


def _left_in_float(basis: PreparedModel) -> set[str]:
    """The convolutions that the head wants in float: see docs/models.md."""
    depth = basis.head.num_float_layers
    if not depth:
        return set()
    return set[str]().union(*(convolutions_before(out, depth) for out in basis.model.outputs))


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """NNCF makes millions of objects that stay: the collector would look at them repeatedly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _nncf_version() -> str:
    try:
        return package_version("nncf")
    except PackageNotFoundError as error:
        raise UsageError("INT8 needs the extra int8: pip install nncf") from error


def import_nncf() -> Any:
    os.environ.setdefault("NNCF_CI", "1")  # Otherwise it sends usage statistics.
    try:
        import nncf
    except ImportError as error:
        raise UsageError(f"INT8 needs the extra int8 ({error}): pip install nncf") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _model_inputs(calibration: Calibration, input_wh: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """uint8 (1, height, width, 3) for every picture."""
    inputs = []
    for frame in calibration.frames():
        pixels = np.full((1, input_wh[1], input_wh[0], 3), PADDING_VALUE, np.uint8)
        box = letterbox((frame.image.width, frame.image.height), input_wh)
        Preprocessor(box)(frame, pixels[0])
        inputs.append(pixels)
    if not inputs:
        raise InputError(f"{calibration.origin} contains no pictures for the calibration")
    return inputs


def _key(calibration: Calibration, basis: PreparedModel) -> str:
    known = f"{calibration.key} {basis.input_wh} {CALIBRATION_VERSION} {_nncf_version()}"
    return hashlib.sha256(known.encode()).hexdigest()[:16]
