"""What the workers of a batch do; all that is heavy is imported there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import ProcessConfig
from pipeline.errors import PipelineError, as_pipeline_error
from pipeline.position import Position, Step
from pipeline.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from pipeline.model.loaded import Models

_BEAT_SECONDS = 1.0


class ProcessClips:
    """Processes one clip after the other; the model is kept from one to the next."""

    def __init__(self) -> None:
        self._models: Models | None = None

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> dict[str, Any]:
        from pipeline.model.loaded import Models
        from pipeline.run import process_video

        if self._models is None:
            self._models = Models()
        return process_video(config, on_progress, position, self._models)


@dataclass(frozen=True, slots=True)
class ProcessTogether:
    """Processes many clips at the same time on a cluster, of which one alone has too little work.

    configs: of the clips, all on the same cluster. expected: how many frames each will have; None
    where that is not known. Returns the report of each clip, or what it failed with.
    """

    configs: Sequence[ProcessConfig]
    expected: Sequence[int | None]

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> list[dict[str, Any] | PipelineError]:
        from pipeline.executors import open_executor
        from pipeline.model.loaded import Models
        from pipeline.run import process_video
        from pipeline.sizing import clips_together

        models, progress = Models(), _Together(self.expected, on_progress)

        def process(number: int) -> dict[str, Any] | PipelineError:
            clip = self.configs[number]
            try:
                return process_video(clip, progress.of(number), Position(), models, executor)
            except PipelineError as error:
                return error
            except Exception as error:
                return as_pipeline_error(error)
            finally:
                progress.finished(number)

        with open_executor(config.cluster, models, position) as executor:
            at_once = clips_together(len(self.configs), executor.places)
            threads = ThreadPoolExecutor(at_once, thread_name_prefix="clip")
            try:
                results = [threads.submit(process, n) for n in range(len(self.configs))]
                left: set[Future[dict[str, Any] | PipelineError]] = set(results)
                while left:
                    position.encoding.enter(Step.WAIT_INFERENCE)
                    left = wait(left, _BEAT_SECONDS).not_done
                return [result.result() for result in results]
            finally:
                # Those under way wait for workers that end now: the process does not wait for them.
                threads.shutdown(wait=False, cancel_futures=True)


class _Together:
    """The progress of many clips as one; any thread may tell of its own."""

    def __init__(self, expected: Sequence[int | None], on_progress: ProgressCallback) -> None:
        self._totals = [count or 0 for count in expected]
        self._done = [0] * len(expected)
        self._on_progress = on_progress
        self._lock = threading.Lock()

    def of(self, number: int) -> ProgressCallback:
        """What a clip tells of its progress to."""

        def tell(progress: Progress) -> None:
            if progress.stage != "frames":
                return  # How a model is prepared shows in the first of its clips' frames.
            with self._lock:
                self._done[number] = progress.done
                self._totals[number] = max(progress.done, progress.total or 0)
                self._tell()

        return tell

    def finished(self, number: int) -> None:
        """There will be no more frames of a clip."""
        with self._lock:
            self._totals[number] = self._done[number]
            self._tell()

    def _tell(self) -> None:
        self._on_progress(Progress("frames", sum(self._done), sum(self._totals)))


def end_processing() -> None:
    """To be called when the last clip is done."""
    from pipeline.model.cache import remove_temporary_folder

    remove_temporary_folder()


def expected_frames(
    clips: Sequence[Path], config: ProcessConfig, on_progress: ProgressCallback, position: Position
) -> list[int | None]:
    """How many frames each clip will have, from what its container says; None where unknown."""
    counts = []
    for number, path in enumerate(clips, 1):
        position.encoding.enter(Step.PREPARE)
        counts.append(_expected_frames(path, config))
        on_progress(Progress("look at clips", number, len(clips), unit="clip"))
    return counts


def _expected_frames(path: Path, config: ProcessConfig) -> int | None:
    from pipeline.footage import read_header

    try:
        claimed = read_header(path, config.limits).num_frames
    except Exception:  # Why it cannot be read is told when it is processed.
        return None
    return claimed if config.num_frames is None else min(claimed, config.num_frames)
