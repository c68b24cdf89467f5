"""What the phases of a run share."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pipeline.core.config import ProcessConfig
from pipeline.core.position import Beat, Position, Step
from pipeline.core.progress import ProgressCallback
from pipeline.core.watched import Watched
from pipeline.execution.journal import Journal


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run while it lasts.

    watched: what the frames come from, which must not change meanwhile.
    """

    config: ProcessConfig
    journal: Journal
    position: Position
    on_progress: ProgressCallback
    watched: Watched

    def beat(self, step: Step) -> Beat:
        """A function to call while a step without frames makes progress."""
        return functools.partial(self.position.encoding.enter, step)
