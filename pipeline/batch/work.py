"""The work of the child process of a batch, which imports the heavy libraries."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.batch.progress import BatchProgress
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import PipelineError, UsageError, as_pipeline_error
from pipeline.core.memory import keep_memory
from pipeline.core.position import Position, Step
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.turns import Turns
from pipeline.execution.at_once import most_processes

if TYPE_CHECKING:
    from pipeline.execution.segment_processes import SegmentProcesses
    from pipeline.inference.models import Models
    from pipeline.run.precision_audit import Int8Audits

MOST_CLIPS_AT_ONCE = 64
_CLIPS_AT_ONCE = 3
"""In one process: one is prepared, the frames of one run, and one is finished."""

_BEAT_SECONDS = 0.25
_beginning = threading.Lock()
"""Two threads that import the same libraries for the first time are in each other's way."""


class ProcessClips:
    """Processes clips, with the model kept loaded; the frames of one follow those of another.

    While some threads prepare or finish their clips, the frames of one clip at a time run. Where
    there are processes side by side, they are kept, and those of several short clips run.

    num_clips: that there are. scratch: a folder of the parent, which outlives a process that is
    killed; None for the system's.
    """

    def __init__(self, num_clips: int = 1, scratch: Path | None = None) -> None:
        self._num_clips = num_clips
        self._scratch = scratch
        self._models: Models | None = None
        self._turns: Turns | None = None
        self._audits: Int8Audits | None = None
        self._processes: SegmentProcesses | None = None

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> dict[str, Any]:
        with _beginning:
            from pipeline.execution.launch import open_executor
            from pipeline.execution.segment_processes import SegmentProcesses
            from pipeline.inference.models import Models
            from pipeline.run.precision_audit import Int8Audits
            from pipeline.run.process import process_video

            if self._models is None:
                keep_memory()
                self._turns, self._audits = Turns(), Int8Audits(of_batch=True)
                self._models = Models()
                self._processes = SegmentProcesses(self._num_clips, self._scratch)
        models, audits = self._models, self._audits
        with open_executor(
            config.cluster, models, position, self._turns, self._processes
        ) as executor:
            return process_video(config, on_progress, position, models, executor, audits)

    def end(self) -> None:
        """Clean up after the last clip."""
        if self._processes is not None:
            self._processes.close()
        end_processing()


@dataclass(frozen=True, slots=True)
class ProcessTogether:
    """Processes many clips at the same time on a cluster, because one alone is too little work.

    configs: those of the clips, all for the same cluster. Returns the report or the error of each
    clip; None for clips that were not started because of a UsageError.
    """

    configs: Sequence[ProcessConfig]

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> list[dict[str, Any] | PipelineError | None]:
        from pipeline.execution.launch import open_executor
        from pipeline.inference.models import Models
        from pipeline.run.precision_audit import Int8Audits
        from pipeline.run.process import process_video

        audits = Int8Audits(of_batch=True)
        paths = [clip.origin.file for clip in self.configs]
        models, progress = Models(), BatchProgress([p for p in paths if p], on_progress)
        positions = [Position() for _ in self.configs]

        def process(number: int) -> dict[str, Any] | PipelineError:
            clip, place = self.configs[number], positions[number]
            try:
                tell = functools.partial(progress.tell, number)
                return process_video(clip, tell, place, models, executor, audits)
            except PipelineError as error:
                return error
            except Exception as error:
                return as_pipeline_error(error)
            finally:
                progress.finished(number)

        results: list[Future[dict[str, Any] | PipelineError]] = []
        under_way: set[Future[dict[str, Any] | PipelineError]] = set()
        heartbeat, wrong_use = 0, False
        with contextlib.ExitStack() as stack:
            stack.callback(end_processing)
            executor = stack.enter_context(open_executor(config.cluster, models, position))
            # Running clips wait for actors that end now: do not wait for their threads.
            threads = ThreadPoolExecutor(MOST_CLIPS_AT_ONCE, thread_name_prefix="clip")
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            while under_way or (len(results) < len(self.configs) and not wrong_use):
                # Nodes may join at any time.
                while (
                    len(results) < len(self.configs)
                    and not wrong_use
                    and len(under_way) < clips_together(len(self.configs), executor.capacity)
                ):
                    results.append(threads.submit(process, len(results)))
                    under_way.add(results[-1])
                done, under_way = wait(under_way, _BEAT_SECONDS, FIRST_COMPLETED)
                wrong_use = wrong_use or any(isinstance(f.result(), UsageError) for f in done)
                before, heartbeat = heartbeat, sum(place.heartbeat for place in positions)
                if done or heartbeat != before:
                    position.encoding.enter(Step.WAIT_CLUSTER)
            begun = [result.result() for result in results]
        return [*begun, *[None] * (len(self.configs) - len(begun))]


def clips_at_once(config: ProcessConfig) -> int:
    """The number of clips that the child process works on.

    Where there are processes side by side, one for each, one that is prepared and one that is
    finished.
    """
    if config.cluster is not None:
        return 1
    num_processes = most_processes(config)
    return _CLIPS_AT_ONCE if num_processes == 1 else 2 + num_processes


def clips_together(num_clips: int, num_workers: int) -> int:
    """The number of clips at once: a clip of one segment keeps one actor busy."""
    return max(1, min(MOST_CLIPS_AT_ONCE, num_clips, num_workers + 1))


def end_processing() -> None:
    """Clean up after the last clip."""
    from pipeline.core.cache import remove_temporary_folder

    remove_temporary_folder()


def look_at_pictures(
    paths: Sequence[Path], config: ProcessConfig, on_progress: ProgressCallback, position: Position
) -> list[tuple[int, int]]:
    """The size of the model's input, width and height, for each picture; zeros if not known."""
    found = []
    for number, path in enumerate(paths, 1):
        position.encoding.enter(Step.PREPARE)
        found.append(_input_wh(path, config))
        on_progress(Progress("look at pictures", number, len(paths), unit="picture"))
    return found


def _input_wh(path: Path, config: ProcessConfig) -> tuple[int, int]:
    from pipeline.batch.footage import read_size_wh
    from pipeline.model.letterbox import input_size_wh

    try:
        return input_size_wh(read_size_wh(path, config.limits), config.imgsz)
    except Exception:  # The reason is reported when the picture is processed.
        return (0, 0)
