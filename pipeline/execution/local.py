"""Segments processed on this machine: one after the other in this process, or side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from pipeline.core.config import InferOptions, ProcessConfig, RemoteOptions
from pipeline.core.errors import UsageError
from pipeline.core.machine import available_cores
from pipeline.core.memory import release_memory
from pipeline.core.position import Position, Step
from pipeline.core.turns import Turns
from pipeline.execution.at_once import (
    INFERRING_ALL,
    INFERRING_SOME,
    num_at_once,
)
from pipeline.execution.executor import Done
from pipeline.execution.orders import Order
from pipeline.execution.remote_tasks import remote_tasks, take_over
from pipeline.execution.segment_processes import Group, SegmentProcesses
from pipeline.execution.segment_worker import Attempt, RemoteTask
from pipeline.frames.detect import most_in_flight
from pipeline.frames.render import PartLines, render_segment
from pipeline.frames.segment import OpenClip, process_segment, sampler_of
from pipeline.frames.task import Manifest, SegmentTask
from pipeline.inference.models import Models
from pipeline.media.frame import VideoInfo


class LocalExecutor:
    """position: receives the current step and frame.

    turns: of the clips that other threads work on; None if there are none. The frames of one follow
    those of another: a clip has its turn until the last of its frames was decoded.
    processes: for segments side by side. Where there are some, they do all clips of a batch: those
    of one segment whole, several at once.
    """

    capacity = 1

    def __init__(
        self,
        models: Models,
        position: Position,
        turns: Turns | None,
        processes: SegmentProcesses,
    ) -> None:
        self._models = models
        self._position = position
        self._turns = turns
        self._processes = processes
        self._group: Group | None = None
        self._needed_mb = 0
        self.cores = available_cores()
        self.at_once = 1
        self.waited_seconds = 0.0

    @property
    def most_at_once(self) -> int:
        return self.at_once

    def facts(self) -> dict[str, Any]:
        return {"executor": "local"}

    def prepare(
        self, clip: OpenClip, config: ProcessConfig, infer: InferOptions, num_segments: int
    ) -> None:
        if infer.engine == "openvino" and infer.device == "CPU":
            self._find_processes(clip.source.info, config, infer, num_segments)
        elif (config.segments_at_once or 1) > 1:
            raise UsageError(
                "--segments-at-once: processes side by side run the model in OpenVINO on the CPU; "
                "with another engine or device, leave it out"
            )
        if self._group is None:
            with self._models.engine(clip.prepared, infer):
                pass  # It is kept.

    def _find_processes(
        self, info: VideoInfo, config: ProcessConfig, infer: InferOptions, num_segments: int
    ) -> None:
        def frames_in_flight(at_once: int) -> int:
            # One stream per core, and a request that waits for each.
            num_requests = (infer.num_requests or 2 * self.cores) // at_once * infer.batch
            return most_in_flight(sampler_of(config, info), max(1, num_requests))

        # With --adaptive, each result decides the next frame: a process of one core waits for it.
        pays = INFERRING_SOME if config.every > 1 else INFERRING_ALL
        num_clips = self._processes.num_clips
        wanted = num_at_once(config, info, num_segments, pays, frames_in_flight, num_clips)
        self._group = self._processes.group(wanted, self.cores)
        if self._group is None:
            return
        num_all = self._processes.at_once
        self._needed_mb = frames_in_flight(num_all) * info.frame_bytes // 1_000_000
        self.at_once = 1 if config.ends_early else min(num_all, num_segments)
        if self.at_once == 1:
            self.cores = max(1, self.cores // num_all)

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Generator[Done, None, None]:
        if self._group is not None and self.at_once > 1:
            yield from self._side_by_side(self._group, clip, list(tasks), on_frames)
            return
        if self._group is not None:
            for task in tasks:  # How many frames the next one takes, only this one can tell.
                yield from self._side_by_side(self._group, clip, [task], on_frames)
            return
        with contextlib.ExitStack() as stack:
            end_turn: Callable[[], object] | None = None
            for task in tasks:
                if self._turns is not None and end_turn is None:
                    end_turn = stack.enter_context(self._turn(self._turns))
                self._position.encoding.enter(Step.PREPARE)
                if task.recorded is not None:
                    yield task, self._drawn(clip, task, on_frames)
                    continue
                with self._models.engine(clip.prepared, task.settings.infer) as engine:
                    manifest = process_segment(
                        clip, engine, task, self._position, lambda: on_frames(1), end_turn
                    )
                yield task, manifest
                if task.segment.end_pts is not None:  # Another one follows.
                    release_memory()

    def _drawn(
        self, clip: OpenClip, task: SegmentTask, on_frames: Callable[[int], object]
    ) -> Manifest:
        assert task.recorded is not None
        manifest = render_segment(
            clip.source,
            PartLines(task.recorded),
            task,
            self._position,
            lambda: on_frames(1),
            alone=self._turns is None,
        )
        if task.segment.end_pts is not None:  # Another one follows.
            release_memory()
        return manifest

    def _side_by_side(
        self,
        group: Group,
        clip: OpenClip,
        tasks: list[SegmentTask],
        on_frames: Callable[[int], object],
    ) -> Generator[Done, None, None]:
        tasks = [_for_a_share(task, self._processes.at_once) for task in tasks]
        if not tasks:
            return
        config = tasks[0].settings.config
        model = self._processes.shared_model(clip.prepared, config.imgsz)
        arguments = [remote for _, remote in remote_tasks(clip, tasks, self._beat, model)]
        order = Order[RemoteTask, Attempt](arguments, config, self._needed_mb)
        with contextlib.closing(group.take(order, on_frames, self._beat)) as results:
            for number, attempt in results:
                yield tasks[number], take_over(attempt, tasks[number], None, self._beat)
        self.waited_seconds += order.waited_seconds

    @contextlib.contextmanager
    def _turn(self, turns: Turns) -> Iterator[Callable[[], object]]:
        """Wait until the frames of no other clip run."""
        self._position.encoding.enter(Step.WAIT_TURN)
        began = time.perf_counter()
        with turns.taken() as end_turn:
            self.waited_seconds += time.perf_counter() - began
            yield end_turn

    def _beat(self) -> None:
        self._position.encoding.enter(Step.WAIT_CLUSTER)


def _for_a_share(task: SegmentTask, at_once: int) -> SegmentTask:
    """A task for one of so many processes, with the copies here of a clip and output in a store.

    The streams and requests that were selected for all cores are divided, too.
    """
    infer = task.settings.infer
    divided = {
        name: max(1, value // at_once)
        for name in ("num_streams", "num_requests")
        if (value := getattr(infer, name)) is not None
    }
    settings = dataclasses.replace(
        task.settings,
        config=dataclasses.replace(task.settings.config, remote=RemoteOptions()),
        infer=dataclasses.replace(infer, **divided),
    )
    return dataclasses.replace(task, settings=settings)
