"""One segment after the other in this process, with all of its cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.core.config import InferOptions
from pipeline.core.machine import available_cores
from pipeline.core.position import Position, Step
from pipeline.execution.executor import Done
from pipeline.frames.segment import OpenClip, process_segment
from pipeline.frames.task import SegmentTask
from pipeline.inference.models import Models


class LocalExecutor:
    """position: receives the current step and frame."""

    capacity = 1

    def __init__(self, models: Models, position: Position) -> None:
        self._models = models
        self._position = position
        self.cores = available_cores()

    def facts(self) -> dict[str, Any]:
        return {"executor": "local"}

    def prepare(self, clip: OpenClip, infer: InferOptions) -> None:
        with self._models.engine(clip.prepared, infer):
            pass  # It is kept.

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Iterator[Done]:
        for task in tasks:
            self._position.encoding.enter(Step.PREPARE)
            with self._models.engine(clip.prepared, task.settings.infer) as engine:
                manifest = process_segment(clip, engine, task, self._position, lambda: on_frames(1))
            yield task, manifest
