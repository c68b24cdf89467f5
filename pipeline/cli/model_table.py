"""Models -> the lines or the JSON that `models` shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.config import ModelName
from pipeline.core.errors import ModelError
from pipeline.core.progress import no_progress
from pipeline.model.described import ModelFacts, describe_model
from pipeline.model.weights import find_weights, placed_official

_MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that was asked for: its facts, or why it cannot be used."""

    asked: str
    facts: ModelFacts | None = None
    error: str | None = None


def described(models: Sequence[ModelName | Path]) -> list[Entry]:
    """The models that were asked for; without any, those that are known and here."""
    known: list[ModelName] = ["official", "demo"] if placed_official() else ["demo"]
    return [_entry(model) for model in models or known]


def _entry(model: ModelName | Path) -> Entry:
    try:
        facts = describe_model(find_weights(model, no_progress), no_progress)
    except ModelError as error:
        return Entry(str(model), error=" ".join(str(error).split()))
    return Entry(str(model), facts)


def json_text(entries: Sequence[Entry]) -> str:
    """A list with one object for each model: its facts, or an error."""
    return json.dumps([_record(entry) for entry in entries], indent=2)


def _record(entry: Entry) -> dict[str, Any]:
    facts = dataclasses.asdict(entry.facts) if entry.facts else {"error": entry.error}
    return {"model": entry.asked, **facts}


def table_lines(entries: Sequence[Entry]) -> Iterator[str]:
    """A few lines for each model."""
    for entry in entries:
        yield entry.asked
        if entry.facts is None:
            yield f"  cannot be used: {entry.error}"
            continue
        for name, value in _rows(entry.facts):
            yield f"  {name:<14} {value}"


def _rows(facts: ModelFacts) -> Iterator[tuple[str, str]]:
    yield "file", f"{facts.file} ({facts.form})"
    yield "family", f"{facts.family}, {facts.task}"
    names, more = facts.class_names[:_MOST_NAMES], len(facts.class_names) - _MOST_NAMES
    shown = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    yield "classes", f"{len(facts.class_names)}: {shown}"
    yield "input", _input(facts)
    yield "parameters", f"{facts.parameters / 1e6:.2f} million, {_precision(facts)}"
    yield "output", "raw heads: boxes that pass are decoded" if facts.raw_heads else "decoded boxes"
    yield "NMS", _nms(facts)
    applied = [
        name
        for name, applies in (
            ("uint8 input", facts.uint8_input),
            ("first convolution on pairs", facts.paired_convolution),
            ("late decoding", facts.raw_heads),
            ("--precision int8", facts.can_be_int8),
        )
        if applies
    ]
    yield "optimisations", ", ".join(applied)


def _input(facts: ModelFacts) -> str:
    if facts.input_wh:
        return "{}x{} only".format(*facts.input_wh)
    return f"any size, in multiples of {facts.input_multiple}"


def _nms(facts: ModelFacts) -> str:
    if not facts.needs_nms:
        return "not needed"
    return "yes; not with --nms-free" if facts.nms_free else "yes"


def _precision(facts: ModelFacts) -> str:
    return "INT8 as exported" if facts.is_int8 else "float"
