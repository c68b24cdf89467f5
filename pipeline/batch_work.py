"""What the workers of a batch do; all that is heavy is imported there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import ProcessConfig
from pipeline.position import Position, Step
from pipeline.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    from pipeline.model.loaded import Models


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
