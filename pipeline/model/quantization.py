"""That a graph is in INT8: how it came to be, and how accurate it was found to be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.cache import publish
from pipeline.core.notes import note

_ACCURACY_NAME = "accuracy.json"


@dataclass(frozen=True, slots=True)
class Quantization:
    """A graph in INT8.

    calibrated_on: the pictures; None if its file was in INT8, so that there is none in float.
    folder: its folder in the cache; accuracy: the result of an evaluation, or None.
    """

    calibrated_on: str | None
    folder: Path
    accuracy: dict[str, Any] | None


def record_accuracy(quantization: Quantization, accuracy: dict[str, Any]) -> None:
    """Store the result of an evaluation beside the model, for the reports of later runs.

    Raises NotKept if the cache folder cannot be written.
    """
    text = json.dumps(accuracy, indent=2) + "\n"
    publish(quantization.folder / _ACCURACY_NAME, lambda path: path.write_text(text))


def read_accuracy(folder: Path) -> dict[str, Any] | None:
    """What `record_accuracy` stored; None if there is nothing, or nothing whole, with a note."""
    if not (folder / _ACCURACY_NAME).exists():
        return None
    try:
        kept = dict(json.loads((folder / _ACCURACY_NAME).read_text(encoding="utf-8")))
        for found in kept["accuracy"].values():
            float(found["map_50_95"])
        if {"data", "num_images"} <= kept.keys():
            return kept
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    note(f"{_ACCURACY_NAME}, the result of an evaluation in {folder}, is damaged: evaluate again")
    return None
