"""Runs that do not come to their end, however long those wait that are to end them."""

from __future__ import annotations

import functools
import time
from typing import Any

from pipeline.cli import process as command
from pipeline.core.config import ProcessConfig
from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback

_process = command.process_in_child


def process_at_most(
    num_frames: int, config: ProcessConfig, on_progress: ProgressCallback, position: Position
) -> dict[str, Any]:
    """As `process`, but with so many frames done it goes on no more: those are not kept yet."""

    def tell(progress: Progress) -> None:
        on_progress(progress)
        while progress.stage == "frames" and progress.done >= num_frames:
            time.sleep(0.05)

    return _process(config, tell, position)


def hold_at(num_frames: int) -> None:
    """Have the command of this process go on no more with so many frames done."""
    command.process_in_child = functools.partial(process_at_most, num_frames)


def hold_clip(name: str) -> None:
    """Have the clip of this name never begin in this process, nor in forks of it."""
    from pipeline.run import process

    whole = process.process_video

    def held(config: ProcessConfig, *arguments: Any) -> dict[str, Any]:
        while config.origin.file is not None and config.origin.file.name == name:
            time.sleep(0.05)
        return whole(config, *arguments)

    setattr(process, "process_video", held)  # noqa: B010
