"""The classes of all exported clips, under one numbering."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.run.exports.clip import ExportedClip


def classes_of(clips: Sequence[ExportedClip]) -> dict[str, int]:
    """The names of all clips' classes -> their numbers from 0.

    Clips of one model have the class_ids of that model; further names of other models follow.
    """
    numbers: dict[str, int] = {}
    for clip in clips:
        for name in clip.class_names:
            numbers.setdefault(name, len(numbers))
    return numbers
