"""Segments processed on this machine: one after the other in this process, or side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterable
from typing import Any

from pipeline.core.config import InferOptions, ProcessConfig, RemoteOptions
from pipeline.core.errors import UsageError
from pipeline.core.machine import available_cores
from pipeline.core.position import Position, Step
from pipeline.execution.executor import Done
from pipeline.execution.processes import SideBySide, core_shares
from pipeline.execution.remote_tasks import remote_tasks, take_over
from pipeline.execution.segment_process import ProcessSegments
from pipeline.execution.segment_worker import Attempt, RemoteTask
from pipeline.frames.segment import OpenClip, process_segment
from pipeline.frames.task import SegmentTask
from pipeline.inference.models import Models


class LocalExecutor:
    """position: receives the current step and frame."""

    capacity = 1

    def __init__(self, models: Models, position: Position) -> None:
        self._models = models
        self._position = position
        self._at_once = 1

    @property
    def cores(self) -> int:
        return max(1, available_cores() // self._at_once)

    def facts(self) -> dict[str, Any]:
        return {"executor": "local"}

    def prepare(
        self, clip: OpenClip, config: ProcessConfig, infer: InferOptions, num_segments: int
    ) -> None:
        self._at_once = segments_at_once(config, num_segments)
        if self._at_once > 1 and infer.engine != "openvino":
            raise UsageError("PyTorch processes one segment at a time: --segments-at-once 1")
        if self._at_once == 1:
            with self._models.engine(clip.prepared, infer):
                pass  # It is kept.

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Generator[Done, None, None]:
        if self._at_once > 1:
            yield from self._side_by_side(clip, list(tasks), on_frames)
            return
        for task in tasks:
            self._position.encoding.enter(Step.PREPARE)
            with self._models.engine(clip.prepared, task.settings.infer) as engine:
                manifest = process_segment(clip, engine, task, self._position, lambda: on_frames(1))
            yield task, manifest

    def _side_by_side(
        self, clip: OpenClip, tasks: list[SegmentTask], on_frames: Callable[[int], object]
    ) -> Generator[Done, None, None]:
        if not tasks:
            return
        tasks = [_without_address(task) for task in tasks]
        travelling = remote_tasks(clip, tasks, self._beat)
        work, shares = ProcessSegments(self.cores), core_shares(self._at_once)
        config = tasks[0].settings.config
        with SideBySide[RemoteTask, Attempt](work, shares, config, self._beat) as processes:
            arguments = [remote for _, remote in travelling]
            for number, attempt in processes.results(arguments, on_frames):
                yield tasks[number], take_over(attempt, tasks[number], None, self._beat)

    def _beat(self) -> None:
        self._position.encoding.enter(Step.WAIT_CLUSTER)


def segments_at_once(config: ProcessConfig, num_segments: int) -> int:
    """How many segments of a clip are processed at once on this machine."""
    if config.num_frames is not None and config.synthetic is None:
        return 1  # How many frames of a segment to take, only those before it can tell.
    asked = config.segments_at_once
    return max(1, min(asked or 1, num_segments, available_cores()))


def _without_address(task: SegmentTask) -> SegmentTask:
    """A task for the copies that this machine has of a clip and output in a store."""
    config = dataclasses.replace(task.settings.config, remote=RemoteOptions())
    return dataclasses.replace(task, settings=dataclasses.replace(task.settings, config=config))
