"""Values of callers -> values of the declared types, or an error of one line."""

from __future__ import annotations

import functools
import math
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import fields
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.core.errors import UsageError

_NAMES: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a finite number",
    Fraction: "a number or a Fraction",
    Path: "a path",
    type(None): "None",
}


def convert_fields(options: Any, name_of: Callable[[str], str] = str) -> None:
    """Convert each field of a frozen dataclass to its declared type.

    Paths may be given as text, fractions as numbers, tuples as any sequence. Raises UsageError.

    name_of: the name of a field in messages.
    """
    kind: Any = type(options)
    hints = type_hints(kind)
    for field in fields(options):
        value = getattr(options, field.name)
        if value is field.default:  # A batch makes options for every clip.
            continue
        found = converted(name_of(field.name), value, hints[field.name])
        if found is not value:
            object.__setattr__(options, field.name, found)


def converted(name: str, value: Any, kind: Any) -> Any:
    """The value converted to a declared type. Raises UsageError with the given name."""
    try:
        return _convert(value, kind)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} must be {_named(kind)}, not {_shown(value)}") from None


def is_integer(value: object) -> bool:
    """Whether a value is an integer, also of NumPy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@functools.cache
def type_hints(kind: Any) -> dict[str, Any]:
    """The types of the fields of a class; they are read from text, once."""
    return get_type_hints(kind)


def _convert(value: Any, kind: Any) -> Any:
    """Raises TypeError, ValueError or OverflowError."""
    origin: Any = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _convert_to_any(value, get_args(kind))
    if origin is Literal:
        return _require(value, isinstance(value, str) and value in get_args(kind))
    if origin is tuple:
        return _convert_tuple(value, get_args(kind))
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if kind is int:
        return int(_require(value, is_integer(value)))
    if kind in (float, Fraction):
        number = float(_require(value, is_number and math.isfinite(value)))
        exact = isinstance(value, (Integral, Fraction))
        return number if kind is float else Fraction(value if exact else repr(number))
    if kind is Path:
        return Path(_require(value, isinstance(value, (str, os.PathLike)) and value != ""))
    return _require(value, isinstance(value, kind))


def _convert_to_any(value: Any, kinds: tuple[Any, ...]) -> Any:
    """Convert to the first possible type: a Literal comes before a Path."""
    for kind in kinds:
        try:
            return _convert(value, kind)
        except (TypeError, ValueError, OverflowError):
            continue
    raise TypeError


def _convert_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    _require(value, isinstance(value, Sequence) and not isinstance(value, (str, bytes)))
    values = tuple(value)
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = (kinds[0],) * len(values)
    return tuple(_convert(entry, kind) for entry, kind in zip(values, kinds, strict=True))


def _require(value: Any, is_right: bool) -> Any:
    if not is_right:
        raise TypeError
    return value


def _named(kind: Any) -> str:
    origin: Any = get_origin(kind)
    kinds = get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(entry) for entry in kinds)
    if origin is Literal:
        return " or ".join(repr(entry) for entry in kinds)
    if origin is tuple:
        if len(kinds) == 2 and kinds[1] is ...:
            return f"a sequence of {_named(kinds[0])}"
        return f"({', '.join(map(_named, kinds))})"
    return _NAMES.get(kind) or str(kind.__name__)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
