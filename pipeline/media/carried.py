"""What of a clip goes along with the picture."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.config import ProcessConfig


@dataclass(frozen=True, slots=True)
class Carried:
    """What of a clip goes along with the picture.

    sound: whether its sound does. others: whether its tags, chapters and all other streams do,
    which can say where and by whom it was recorded, or show it once more.
    """

    sound: bool = True
    others: bool = True


CARRY_ALL = Carried()


def carried_of(config: ProcessConfig) -> Carried:
    """What a run carries."""
    return Carried(not config.encode.drop_audio, config.redact.covered is None)
