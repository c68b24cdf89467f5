"""The work of the child process of a batch, which imports the heavy libraries."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import PipelineError, UsageError, as_pipeline_error
from pipeline.core.picture_paths import PICTURE_SUFFIXES
from pipeline.core.position import Position, Step
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import counted

if TYPE_CHECKING:
    from pipeline.inference.models import Models

MOST_CLIPS_AT_ONCE = 64
_BEAT_SECONDS = 0.25


class ProcessClips:
    """Processes one clip after the other, with the model kept loaded."""

    def __init__(self) -> None:
        self._models: Models | None = None

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> dict[str, Any]:
        from pipeline.inference.models import Models
        from pipeline.run.process import process_video

        if self._models is None:
            self._models = Models()
        return process_video(config, on_progress, position, self._models)


@dataclass(frozen=True, slots=True)
class ProcessTogether:
    """Processes many clips at the same time on a cluster, because one alone is too little work.

    configs: those of the clips, all for the same cluster. expected: the number of frames of each
    clip; None if unknown. Returns the report or the error of each clip; None for clips that were
    not started because of a UsageError.
    """

    configs: Sequence[ProcessConfig]
    expected: Sequence[int | None]

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> list[dict[str, Any] | PipelineError | None]:
        from pipeline.execution.launch import open_executor
        from pipeline.inference.models import Models
        from pipeline.run.process import process_video

        models, progress = Models(), _Together(self.expected, on_progress)
        positions = [Position() for _ in self.configs]

        def process(number: int) -> dict[str, Any] | PipelineError:
            clip, place = self.configs[number], positions[number]
            try:
                return process_video(clip, progress.of(number), place, models, executor)
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


def clips_together(num_clips: int, num_workers: int) -> int:
    """The number of clips at once: a clip of one segment keeps one actor busy."""
    return max(1, min(MOST_CLIPS_AT_ONCE, num_clips, num_workers + 1))


class _Together:
    """Combines the progress of many clips; thread-safe."""

    def __init__(self, expected: Sequence[int | None], on_progress: ProgressCallback) -> None:
        self._totals = [count or 0 for count in expected]
        self._done = [0] * len(expected)
        self._num_finished = 0
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def of(self, number: int) -> ProgressCallback:
        """The progress callback of one clip."""

        def tell(progress: Progress) -> None:
            if progress.stage != "frames":
                return  # The preparation of a model is not shown.
            with self._lock:
                self._done[number] = progress.done
                self._totals[number] = max(progress.done, progress.total or 0)
                self._tell()

        return tell

    def finished(self, number: int) -> None:
        """Record that a clip has no more frames."""
        with self._lock:
            self._totals[number] = self._done[number]
            self._num_finished += 1
            self._tell()

    def _tell(self) -> None:
        subject = f"{self._num_finished} of {counted(len(self._totals), 'clip')} finished"
        self._on_progress(Progress("frames", sum(self._done), sum(self._totals), subject=subject))


def end_processing() -> None:
    """Clean up after the last clip."""
    from pipeline.core.cache import remove_temporary_folder

    remove_temporary_folder()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the header of a clip or picture claims.

    num_frames: None where it is not known. input_wh: of the model, for a picture; None for a clip,
    and where it is not known.
    """

    num_frames: int | None = None
    input_wh: tuple[int, int] | None = None


def look_at_clips(
    clips: Sequence[Path], config: ProcessConfig, on_progress: ProgressCallback, position: Position
) -> list[Expected]:
    """What is to be expected of each clip."""
    found = []
    for number, path in enumerate(clips, 1):
        position.encoding.enter(Step.PREPARE)
        found.append(_expected(path, config))
        on_progress(Progress("look at clips", number, len(clips), unit="clip"))
    return found


def _expected(path: Path, config: ProcessConfig) -> Expected:
    from pipeline.batch.footage import read_header, read_size_wh
    from pipeline.model.letterbox import input_size_wh

    try:
        if path.suffix.lower() in PICTURE_SUFFIXES:
            return Expected(1, input_size_wh(read_size_wh(path, config.limits), config.imgsz))
        claimed = read_header(path, config.limits).num_frames
    except Exception:  # The reason is reported when the clip is processed.
        return Expected()
    return Expected(claimed if config.num_frames is None else min(claimed, config.num_frames))
