"""The model that was used last, prepared and compiled, kept for the next clip or segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.config import InferOptions
from pipeline.engine import Engine
from pipeline.infer import load_engine
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.progress import ProgressCallback


class Models:
    """Gives what it gave before where the same is asked for again: one model and one engine."""

    def __init__(self) -> None:
        self._prepared: tuple[Any, PreparedModel] | None = None
        self._engine: tuple[PreparedModel, InferOptions, Engine] | None = None

    def prepare(
        self, weights: Path, source_wh: tuple[int, int], imgsz: int, on_progress: ProgressCallback
    ) -> PreparedModel:
        """As `prepare_model`; a file that was written to since is another one."""
        found = weights.stat() if weights.is_file() else None
        key = (weights, found and (found.st_size, found.st_mtime_ns), source_wh, imgsz)
        if self._prepared is None or self._prepared[0] != key:
            self._prepared = key, prepare_model(weights, source_wh, imgsz, on_progress)
        return self._prepared[1]

    def engine(self, prepared: PreparedModel, options: InferOptions) -> Engine:
        """As `load_engine`."""
        if self._engine is None or self._engine[0] is not prepared or self._engine[1] != options:
            self._engine = None  # Its memory first.
            self._engine = prepared, options, load_engine(prepared, options)
        return self._engine[2]
