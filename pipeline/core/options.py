"""What an option is. It is declared once, in the annotation of the field that has its value:

    crf: Annotated[int | None, Option("--crf", "quality", metavar="N", lowest=0)] = None

The parser, the checks, the command that repeats a run and the keys of results derive from that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from fractions import Fraction
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pipeline.core.errors import UsageError
from pipeline.core.typed import convert_fields

Number = int | float | Fraction


@dataclass(frozen=True, slots=True)
class Option:
    """One option, of a command and of Python.

    flag: on the command line; None for an option that only Python offers. The first of several
        fields with one flag takes its values. The flag of a field that
        is True by default sets it to False.
    help: one sentence; the parser adds the default.
    metavar: the value in the help text.
    parse: text -> value, raises ValueError; None derives it from the type of the field.
    choices: the values that are valid; None for all.
    lowest, highest: the limits of a number, or of each number of a tuple; both are valid.
    name: in messages, of an option without a flag; None takes it from the field.
    more: the pattern of further values, if there can be several; the field then takes their list.
    optional: the value of a flag without one; the next word is a value only if it is a choice, or,
        where all values are valid, a number.
    decides_result: whether another value can give another result. It is then in the keys.
    """

    flag: str | None = None
    help: str = ""
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] | None = None
    lowest: Number | None = None
    highest: Number | None = None
    name: str | None = None
    decides_result: bool = True
    more: str | None = None
    optional: str | None = None

    def require_valid(self, name: str, value: Any) -> None:
        """Raise UsageError for a value that is not valid; None is.

        name: of the field.
        """
        if value is None:
            return
        name = self.name_of(name)
        if self.choices is not None and value not in self.choices:
            raise UsageError(f"{name} {value!r} is not one of {', '.join(self.choices)}")
        numbers = value if isinstance(value, tuple) else (value,)
        too_low = self.lowest is not None and min(numbers) < self.lowest
        too_high = self.highest is not None and max(numbers) > self.highest
        if too_low or too_high:
            raise UsageError(f"{name} must {self._range(len(numbers))}, not {as_text(value)}")

    def name_of(self, field: str) -> str:
        """The name in messages of the option of a field."""
        return self.flag or self.name or field

    def _range(self, num_numbers: int) -> str:
        lowest, highest = (as_text((bound,) * num_numbers) for bound in (self.lowest, self.highest))
        if self.highest is None:
            return f"be {lowest} or more"
        return f"lie between {lowest} and {highest}"


def require(condition: bool, message: str) -> None:
    """Raise UsageError with this message unless the condition holds."""
    if not condition:
        raise UsageError(message)


def declared(kind: Any) -> dict[str, Option]:
    """The options of a dataclass (or of an instance), by the names of its fields."""
    return _declared(kind if isinstance(kind, type) else type(kind))


@functools.cache
def _declared(kind: Any) -> dict[str, Option]:
    return {
        name: entry
        for name, hint in get_type_hints(kind, include_extras=True).items()
        if get_origin(hint) is Annotated
        for entry in get_args(hint)
        if isinstance(entry, Option)
    }


def validate(options: Any) -> None:
    """Convert the fields of a frozen dataclass to their types and require their limits.

    Raises UsageError with the name of the first option that is not valid.
    """
    known = declared(options)
    convert_fields(options, lambda name: known[name].name_of(name) if name in known else name)
    for name, option in known.items():
        option.require_valid(name, getattr(options, name))


def changed(options: Any) -> Iterator[tuple[str, Option, Any]]:
    """Name, option and value of each option that does not have its default value."""
    for field in fields(options):
        option, value = declared(options).get(field.name), getattr(options, field.name)
        has_default = field.default is not MISSING and not is_dataclass(value)
        if option is not None and has_default and value != field.default:
            yield field.name, option, value


def deciding(options: Any) -> dict[str, Any]:
    """The values that decide the result, by field, also those of dataclasses within.

    A field decides unless its option says otherwise.
    """
    found: dict[str, Any] = {}
    for field in fields(options):
        option = declared(options).get(field.name)
        if option is None or option.decides_result:
            value = getattr(options, field.name)
            found[field.name] = deciding(value) if is_dataclass(value) else value
    return found


def as_text(value: object) -> str:
    """A value as it is given on the command line."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
