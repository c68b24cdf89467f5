"""The schemas in docs/schemas, and what of a value contradicts them."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def schema(name: str) -> dict[str, Any]:
    """The schema of detections, report or batch."""
    return dict(json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8")))


def schema_errors(name: str, value: object) -> list[str]:
    """One line for each contradiction of a value that was read from JSON."""
    return [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(value)]


@functools.cache
def _validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(schema(name))
