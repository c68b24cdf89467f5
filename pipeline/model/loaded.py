"""The models that were used last, prepared and compiled, kept for the next clip or segment."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

import openvino as ov

from pipeline.config import InferOptions, ProcessConfig
from pipeline.engine import Engine
from pipeline.infer import load_engine
from pipeline.letterbox import input_size_wh
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.progress import ProgressCallback

_MOST_MODELS = 4
"""Footage of a few sizes takes turns in a batch; an engine takes some 100 MB."""

Value = TypeVar("Value")


class _Latest(Generic[Value]):
    """The values that were asked for last, by their keys."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        if key not in self._values and len(self._values) == _MOST_MODELS:
            del self._values[next(iter(self._values))]  # Its memory first.
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        return value


class Models:
    """Gives what it gave before where the same is asked for again; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepared: _Latest[PreparedModel] = _Latest()
        self._quantized: _Latest[PreparedModel] = _Latest()
        self._engines: _Latest[tuple[ov.Model, Engine]] = _Latest()

    def prepare(
        self, weights: Path, source_wh: tuple[int, int], imgsz: int, on_progress: ProgressCallback
    ) -> PreparedModel:
        """As `prepare_model`; a file that was written to since is another one."""
        found = weights.stat() if weights.is_file() else None
        stamp = found and (found.st_size, found.st_mtime_ns)
        key = (weights, stamp, input_size_wh(source_wh, imgsz))
        with self._lock:
            prepared = self._prepared.get(
                key, lambda: prepare_model(weights, source_wh, imgsz, on_progress)
            )
        return dataclasses.replace(prepared, source_wh=source_wh)

    def quantize(
        self, config: ProcessConfig, prepared: PreparedModel, on_progress: ProgressCallback
    ) -> PreparedModel:
        """As `quantize.quantize`, calibrated as a run is asked to be: one at a time."""
        # Only here: a run in float need not load it.
        from pipeline.model.quantize import calibration_of_folder, calibration_of_source, quantize

        with self._lock:
            if config.calibration is not None:
                calibration = calibration_of_folder(config.calibration)
            else:
                calibration = calibration_of_source(
                    config.source, prepared.source_wh, config.limits
                )
            key = (prepared.weights_sha256, prepared.input_wh, calibration.key, config.imgsz)
            quantized = self._quantized.get(
                key, lambda: quantize(prepared, config.imgsz, calibration, on_progress)
            )
        return dataclasses.replace(quantized, source_wh=prepared.source_wh)

    def engine(self, prepared: PreparedModel, options: InferOptions) -> Engine:
        """As `load_engine`."""
        with self._lock:
            # The graph is kept with it: no other one can get its id meanwhile.
            _, engine = self._engines.get(
                (id(prepared.model), options),
                lambda: (prepared.model, load_engine(prepared, options)),
            )
        return engine
