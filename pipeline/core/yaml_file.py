"""Small YAML files from anywhere -> plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 20


def read_yaml(path: Path) -> Any:
    """The values of a YAML or JSON file of at most 1 MiB, without aliases.

    Raises ValueError with the reason in one line, OSError if it cannot be read.
    """
    # Imported here, because few commands need it.
    import yaml  # type: ignore[import-untyped]

    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"refused: more than {_MOST_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        # Aliases can make a short text into a large value.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("refused: it has aliases")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
