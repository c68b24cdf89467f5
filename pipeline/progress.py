"""How long work tells its caller how far it is, without knowing who looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One report: `done` of `total` units (None where the total is unknown) of a stage."""

    stage: str
    done: int
    total: int | None
    unit: str = "frame"


ProgressCallback = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """For callers who do not look."""
