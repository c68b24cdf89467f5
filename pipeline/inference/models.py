"""The models that were used last, prepared and compiled, kept for the next clip or segment."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import openvino as ov

from pipeline.core.closing import Closing
from pipeline.core.config import InferOptions
from pipeline.core.files import file_stamp
from pipeline.core.progress import ProgressCallback
from pipeline.inference.engine import Engine
from pipeline.inference.openvino import load_engine
from pipeline.model.letterbox import input_size_wh
from pipeline.model.prepare import PreparedModel, prepare_model

if TYPE_CHECKING:
    from pipeline.model.quantize import Calibration

_MOST_MODELS = 4
"""Footage of a few sizes takes turns in a batch; an engine takes some 100 MB."""

Value = TypeVar("Value")


@dataclass(eq=False, slots=True)
class _Loaded:
    """An engine, and the graph that it was made of: no other one can get its id meanwhile."""

    model: ov.Model
    engine: Engine
    num_users: int = 0
    is_dropped: bool = False

    def close_if_unused(self) -> None:
        if self.is_dropped and not self.num_users:
            self.engine.close()


def _drop(loaded: _Loaded) -> None:
    loaded.is_dropped = True
    loaded.close_if_unused()


class _Latest(Generic[Value]):
    """The values that were asked for last, by their keys. drop: is called with each of others."""

    def __init__(self, drop: Callable[[Value], object] = lambda value: None) -> None:
        self._drop = drop
        self._values: dict[Hashable, Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        if key not in self._values and len(self._values) == _MOST_MODELS:
            self._drop(self._values.pop(next(iter(self._values))))  # Its memory first.
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        return value

    def clear(self) -> None:
        while self._values:
            self._drop(self._values.popitem()[1])


class Models(Closing):
    """Gives what it gave before where the same is asked for again; any thread may ask.

    A context manager, which closes the engines; those in use are closed when they are not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepared: _Latest[PreparedModel] = _Latest()
        self._quantized: _Latest[PreparedModel] = _Latest()
        # In INT8 each size has an engine in float beside it, for the comparison.
        self._engines: dict[bool, _Latest[_Loaded]] = {
            is_int8: _Latest(_drop) for is_int8 in (False, True)
        }

    def close(self) -> None:
        with self._lock:
            for engines in self._engines.values():
                engines.clear()

    def prepare(
        self,
        weights: Path,
        source_wh: tuple[int, int],
        imgsz: int,
        on_progress: ProgressCallback,
        *,
        nms_free: bool = False,
    ) -> PreparedModel:
        """As `prepare_model`; a file that was written to since is another one."""
        stamp = tuple(file_stamp(weights)) if weights.is_file() else None
        key = (weights, stamp, input_size_wh(source_wh, imgsz), nms_free)
        with self._lock:
            prepared = self._prepared.get(
                key,
                lambda: prepare_model(weights, source_wh, imgsz, on_progress, nms_free=nms_free),
            )
        return dataclasses.replace(prepared, source_wh=source_wh)

    def quantize(
        self, prepared: PreparedModel, calibration: Calibration, on_progress: ProgressCallback
    ) -> PreparedModel:
        """As `quantize.quantize`, one at a time."""
        # Only here: a run in float need not load it.
        from pipeline.model.quantize import quantize

        key = (
            *(prepared.weights_sha256, prepared.head.needs_nms, prepared.input_wh),
            calibration.key,
        )
        with self._lock:
            quantized = self._quantized.get(
                key, lambda: quantize(prepared, calibration, on_progress)
            )
        return dataclasses.replace(quantized, source_wh=prepared.source_wh)

    @contextmanager
    def engine(self, prepared: PreparedModel, options: InferOptions) -> Iterator[Engine]:
        """As `load_engine`; the engine stays open for as long as it is used here."""
        with self._lock:
            loaded = self._engines[prepared.quantization is not None].get(
                (id(prepared.model), options),
                lambda: _Loaded(prepared.model, load_engine(prepared, options)),
            )
            loaded.num_users += 1
        try:
            yield loaded.engine
        finally:
            with self._lock:
                loaded.num_users -= 1
                loaded.close_if_unused()
