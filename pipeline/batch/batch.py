"""Many clips, on a cluster at the same time; a clip that fails does not stop the others.

Imports nothing heavy: a child process does the work.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pipeline.batch.clips import Clip
from pipeline.batch.progress import BatchProgress
from pipeline.batch.work import ProcessTogether, look_at_pictures
from pipeline.core.config import CLIP, ProcessConfig
from pipeline.core.errors import (
    FolderInUse,
    InputError,
    Interrupted,
    PipelineError,
    UsageError,
    WorkerDied,
)
from pipeline.core.picture_paths import PICTURE_SUFFIXES
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import are, counted
from pipeline.execution.child import Work
from pipeline.execution.journal import tidy
from pipeline.run.identity import model_sha256, result_key
from pipeline.run.outputs import finished_report

_WAIT_SECONDS = 0.5

Result = TypeVar("Result")
Status = Literal["done", "skipped", "failed", "not reached"]
"""skipped: a finished result of the same input, model and options exists."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a result; footage_seconds is None if the frame rate is unknown.

    annotated: the name of the annotated file; None without one.
    """

    annotated: str | None
    num_frames: int
    footage_seconds: float | None
    wall_seconds: float

    @classmethod
    def of(cls, report: dict[str, Any]) -> Figures:
        speed, frames = report["speed"], report["output"]["num_frames"]
        real_time = speed["times_real_time"]
        name = report["output"]["file"]
        return cls(
            name, frames, real_time and real_time * speed["wall_seconds"], speed["wall_seconds"]
        )


@dataclass(frozen=True, slots=True)
class ClipResult:
    """The outcome of a clip.

    error: why it failed. figures: of its result, if there is one. notes: those of its run.
    """

    clip: Clip
    status: Status = "not reached"
    error: PipelineError | None = None
    figures: Figures | None = None
    notes: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why the clip failed, in one line without its name; empty if it did not fail.

        Files in its output folder appear without that folder, so that clips that fail for the
        same reason have the same text.
        """
        if self.error is None:
            return ""
        reason = str(self.error).removeprefix(f"{self.clip.path}: ")
        return " ".join(reason.replace(f"{self.clip.output_dir}{os.sep}", "").split())


class ClipProcess(Protocol):
    """As `supervise.ChildProcess`."""

    def run(self, config: ProcessConfig, on_progress: ProgressCallback) -> dict[str, Any]: ...

    def run_each(
        self, configs: Iterable[ProcessConfig], on_progress: Callable[[int, Progress], None]
    ) -> Iterator[tuple[int, dict[str, Any] | PipelineError]]: ...

    def require_not_stopped(self) -> None: ...


class Supervise(Protocol):
    """As `supervise.supervise`."""

    def __call__(
        self, work: Work[Result], config: ProcessConfig, on_progress: ProgressCallback
    ) -> Result: ...


class Batch:
    """The clips of one command and their outcomes.

    config: for all clips, except source and output_dir. on_result: called with the outcome of each
    clip, once, as soon as there is one. wall_seconds: the time of `process`.
    """

    def __init__(
        self,
        config: ProcessConfig,
        clips: Sequence[Clip],
        on_result: Callable[[ClipResult], object] = lambda _: None,
    ) -> None:
        self.wall_seconds = 0.0
        self._on_result = on_result
        if config.calibration == CLIP and len(clips) > 1:
            paths = tuple(clip.path for clip in clips)
            config = dataclasses.replace(config, calibration_clips=paths)
        self._config = config
        self._results = {clip: ClipResult(clip) for clip in clips}
        self._model = ""
        self._elsewhere: list[Clip] = []

    @property
    def results(self) -> list[ClipResult]:
        return list(self._results.values())

    def number_of(self, status: Status) -> int:
        return sum(result.status == status for result in self._results.values())

    @property
    def notes(self) -> list[str]:
        """The notes of this run; a note on several clips appears once."""
        clips: dict[str, list[Clip]] = {}
        for result in self._results.values():
            for text in result.notes:
                clips.setdefault(text, []).append(result.clip)
        return [
            f"{of[0].path}: {text}" if len(of) == 1 else f"{text} ({counted(len(of), 'clip')})"
            for text, of in clips.items()
        ]

    def clips_left(self, on_progress: ProgressCallback) -> list[Clip]:
        """The clips without a finished result of the same input, model and options.

        The others are skipped. Raises ModelError if there is no model.
        """
        self._model = model_sha256(self._config, on_progress)
        return [clip for clip in self._results if not self._is_finished(clip, "skipped")]

    def _is_finished(self, clip: Clip, status: Status) -> bool:
        """Whether a finished result of the same input, model and options exists.

        Its status is then this one.
        """
        try:
            key = result_key(self._config_of(clip), self._model)
        except (OSError, InputError):  # Missing files are reported when the clip is processed.
            return False
        report = finished_report(clip.output_dir, key)
        if report is not None:
            self._record(ClipResult(clip, status, figures=Figures.of(report)))
        return report is not None

    def _record(self, result: ClipResult) -> None:
        self._results[result.clip] = result
        self._on_result(result)

    def process(
        self,
        clips: Sequence[Clip],
        worker: ClipProcess,
        supervise: Supervise,
        on_progress: ProgressCallback,
    ) -> None:
        """Process clips of the batch.

        supervise: runs work on all clips together in a child process. Raises UsageError and
        Interrupted, which end the batch; `results` has the outcomes so far.
        """
        started = time.perf_counter()
        missing = _missing_parents(clip.output_dir for clip in clips)
        try:
            if self._config.cluster is not None:
                try:
                    self._process_together(clips, supervise, on_progress)
                except WorkerDied:
                    # One of the clips caused it; taken one by one, the clip itself reports it.
                    clips = [c for c in clips if self._results[c].status == "not reached"]
                    self._process_in_turn(clips, worker, on_progress)
            else:
                clips = self._in_order(clips, supervise, on_progress)
                worker.require_not_stopped()
                self._process_in_turn(clips, worker, on_progress)
            self._wait_for_others(worker, on_progress)
        except Interrupted as error:
            finished = self.number_of("done") + self.number_of("skipped")
            of_all = f"{finished} of {counted(len(self._results), 'clip')}"
            error.args = (
                f"interrupted; {of_all} {are(finished)} done: rerun the command to resume",
            )
            raise
        finally:
            for folder in missing:
                with contextlib.suppress(OSError):  # It is not empty, as it should be.
                    folder.rmdir()
            self.wall_seconds = time.perf_counter() - started

    def _in_order(
        self, clips: Sequence[Clip], supervise: Supervise, on_progress: ProgressCallback
    ) -> list[Clip]:
        """Pictures that take the same input of the model follow each other: it is loaded once."""
        paths = [clip.path for clip in clips if clip.path.suffix.lower() in PICTURE_SUFFIXES]
        if not paths:
            return list(clips)
        look = functools.partial(look_at_pictures, paths)
        try:
            sizes = dict(zip(paths, supervise(look, self._config, on_progress), strict=True))
        except WorkerDied:
            return list(clips)  # One of the pictures caused it, and reports it itself.
        return sorted(clips, key=lambda clip: sizes.get(clip.path, (0, 0)))

    def _process_in_turn(
        self, clips: Sequence[Clip], worker: ClipProcess, on_progress: ProgressCallback
    ) -> None:
        progress = BatchProgress([clip.path for clip in clips], on_progress)
        configs = (self._config_of(clip) for clip in clips)
        for number, outcome in worker.run_each(configs, progress.tell):
            progress.finished(number)
            if isinstance(outcome, UsageError):
                raise outcome
            self._note(clips[number], outcome)

    def _wait_for_others(self, worker: ClipProcess, on_progress: ProgressCallback) -> None:
        """Wait for clips that other runs are processing, and process those they do not finish."""
        while self._elsewhere:
            clips, self._elsewhere = self._elsewhere, []
            for clip in clips:
                if not self._is_finished(clip, "skipped"):
                    self._process_clip(clip, worker, on_progress)
            total = len(self._results)
            done = total - len(self._elsewhere)
            on_progress(Progress("wait for other runs", done, total, unit="clip"))
            if self._elsewhere:
                time.sleep(_WAIT_SECONDS)
                worker.require_not_stopped()

    def _process_together(
        self,
        clips: Sequence[Clip],
        supervise: Supervise,
        on_progress: ProgressCallback,
    ) -> None:
        created = [not clip.output_dir.exists() for clip in clips]
        work = ProcessTogether([self._config_of(clip) for clip in clips])
        try:
            outcomes = supervise(work, self._config, on_progress)
        except PipelineError:
            for clip, is_new in zip(clips, created, strict=True):
                tidy(clip.output_dir, created=is_new)
            for clip in clips:
                self._is_finished(clip, "done")
            raise
        wrong_use = None
        for clip, outcome in zip(clips, outcomes, strict=True):
            if isinstance(outcome, UsageError):
                wrong_use = wrong_use or outcome
            elif outcome is not None:
                self._note(clip, outcome)
        if wrong_use is not None:
            raise wrong_use

    def _process_clip(self, clip: Clip, worker: ClipProcess, on_progress: ProgressCallback) -> None:
        try:
            self._note(clip, worker.run(self._config_of(clip), on_progress))
        except (Interrupted, UsageError):
            raise
        except PipelineError as error:
            self._note(clip, error)

    def _note(self, clip: Clip, outcome: dict[str, Any] | PipelineError) -> None:
        """Record the outcome of a clip."""
        if isinstance(outcome, FolderInUse):
            self._elsewhere.append(clip)
        elif isinstance(outcome, PipelineError):
            # Another run may have finished it in the meantime.
            if not self._is_finished(clip, "skipped"):
                before = finished_report(clip.output_dir)
                figures = Figures.of(before) if before else None
                self._record(ClipResult(clip, "failed", outcome, figures))
        else:
            notes = tuple(outcome["output"].get("notes", ()))
            self._record(ClipResult(clip, "done", figures=Figures.of(outcome), notes=notes))

    def _config_of(self, clip: Clip) -> ProcessConfig:
        return dataclasses.replace(self._config, source=clip.path, output_dir=clip.output_dir)


def _missing_parents(folders: Iterable[Path]) -> list[Path]:
    """The parent folders of these that do not exist, deepest first."""
    parents = {parent for folder in folders for parent in folder.parents}
    missing = [parent for parent in parents if not parent.exists()]
    return sorted(missing, key=lambda parent: -len(parent.parts))
