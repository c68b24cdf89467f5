"""A run in its work folder: what it keeps when it fails, and what its error says of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.core.config import ProcessConfig
from pipeline.core.disk_space import disk_full, is_disk_full, num_bytes_in
from pipeline.core.errors import (
    InputError,
    Interrupted,
    KeptByAnotherRun,
    PipelineError,
    SourceChanged,
    as_pipeline_error,
)
from pipeline.core.notes import collected_notes, note
from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import are, counted
from pipeline.core.watched import watched_source
from pipeline.execution.journal import Journal, open_journal, what_is_kept
from pipeline.run.context import RunContext

Result = TypeVar("Result")


def run_journaled(
    config: ProcessConfig,
    on_progress: ProgressCallback,
    position: Position,
    require_free: Callable[[], object],
    work: Callable[[RunContext, list[str]], Result],
) -> Result:
    """Do the work of a run with the journal of its output folder.

    require_free: raises InputError if the output may not be written. work: is called with the
    run, and with a list of its notes. Raises PipelineError, Interrupted for a KeyboardInterrupt;
    the finished segments are then kept.
    """
    frames = _LatestFrames(on_progress)
    try:
        with (
            collected_notes() as notes,
            open_journal(config.output_dir, config.source) as journal,
        ):
            if not journal.publishing and _is_there(config):
                require_free()
            run = RunContext(config, journal, position, frames, watched_source(config))
            try:
                return work(run, notes)
            except (PipelineError, OSError) as cause:
                error = cause if isinstance(cause, PipelineError) else as_pipeline_error(cause)
                if error.step is not None:
                    error.file = config.source_name
                if is_disk_full(error, config.output_dir):
                    error = _disk_full(config, journal, frames.latest)
                if isinstance(error, SourceChanged):
                    journal.discard()  # They belong to the clip before its change.
                # This command would not resume those.
                if not isinstance(error, KeptByAnotherRun) and (kept := what_is_kept(journal)):
                    error.args = (f"{error.args[0]}; {kept}",)
                if error is cause:
                    raise
                raise error from cause
            except KeyboardInterrupt as error:
                kept = what_is_kept(journal) or "no output was written"
                raise Interrupted(f"interrupted; {kept}") from error
    except OSError as error:
        raise InputError(f"{error.filename or config.output_dir}: {error.strerror}") from error


def _is_there(config: ProcessConfig) -> bool:
    """Whether the input exists; what opens one that does not says so, before any other fault."""
    try:
        config.origin.stamp()
    except OSError:
        return False
    return True


class _LatestFrames:
    """Forwards progress, and keeps the latest value of the stage "frames"."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self.latest: Progress | None = None
        self._on_progress = on_progress

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "frames":
            self.latest = progress
        self._on_progress(progress)


def _disk_full(config: ProcessConfig, journal: Journal, frames: Progress | None) -> InputError:
    """The space needed is estimated from the frames so far, else from the size of the source.

    The segments and the result are on the disk at the same time.
    """
    kept, passing = journal.num_bytes, num_bytes_in([journal.making, journal.finished])
    if frames is not None and frames.done:
        whole = (kept + num_bytes_in([journal.making])) / frames.done
        whole *= max(frames.done, frames.total or 0)
    else:
        source = config.origin.file
        whole = source.stat().st_size if source is not None and source.exists() else passing
    return disk_full(config.output_dir, max(2 * whole - kept, passing), passing)


def require_permission_to_discard(config: ProcessConfig, journal: Journal, key: str) -> None:
    """Raise InputError if segments of another run are kept and may not be discarded."""
    kept = journal.num_kept_otherwise(key)
    if not kept:
        return
    segments = f"{counted(kept, 'segment')} of an interrupted run with another input, other "
    if not config.overwrite:
        raise KeptByAnotherRun(
            f"{config.output_dir}: {segments}options or versions "
            f"{are(kept)} kept: repeat the command of that run to "
            "resume it, or add --overwrite to discard it"
        )
    note(f"{segments}options or versions discarded, as --overwrite asks for")
