"""Declared options -> arguments of a parser, and back to values."""

from __future__ import annotations

import argparse
import re
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pipeline.core import option_texts
from pipeline.core.options import Option, as_text, declared
from pipeline.core.typed import type_hints

Value = TypeVar("Value")

SCENE_FIELDS = ("size_wh", "frame_rate", "seed", "image")
"""The options of the synthetic scene on the command line, besides the number of its frames."""

_DECLARED: Any = object()


def add_options(
    group: Any, kind: Any, *names: str, default: Any = _DECLARED, help_text: str | None = None
) -> None:
    """Add the options of these fields of a dataclass to a parser or a group; of all without names.

    default, help_text: of all of them, in place of the declared ones.
    """
    options, hints = declared(kind), type_hints(kind)
    defaults = {field.name: field.default for field in fields(kind)}
    flags: set[str | None] = {None}
    for name in names or options:
        if (flag := options[name].flag) not in flags:
            flags.add(flag)
            value = defaults[name] if default is _DECLARED else default
            if value is None and hints[name] is bool:
                form = {"action": Switch, "usual": bool(defaults[name]), "default": None}
                both = (flag, str(flag).replace("--no-", "--"))
                group.add_argument(*both, dest=name, help=options[name].help, **form)
                continue
            form = _form(options[name], _without_none(hints[name]), value)
            group.add_argument(flag, dest=name, help=help_text or options[name].help, **form)


class Switch(argparse.Action):
    """Two flags of one option: the declared one, and the one that brings the usual value back."""

    def __init__(self, *, usual: bool, **form: Any) -> None:
        super().__init__(**form, nargs=0)
        self._usual = usual

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: object, flag: object = None
    ) -> None:
        is_declared = flag == self.option_strings[0]
        setattr(namespace, self.dest, self._usual != is_declared)


class Words(argparse.Action):
    """Collects the values of an option that is given several times, as text.

    more: what further values behind it look like.
    """

    def __init__(self, *, more: str, **form: Any) -> None:
        super().__init__(**form)
        self.more = re.compile(more)

    def __call__(
        self, parser: object, namespace: argparse.Namespace, value: object, flag: object = None
    ) -> None:
        found = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*(found if isinstance(found, list) else []), value])


def given(kind: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of those options of a dataclass that the command has, also of groups within."""
    found: dict[str, Any] = {
        name: getattr(arguments, name)
        for name, option in declared(kind).items()
        if option.flag is not None and hasattr(arguments, name)
    }
    for name, hint in type_hints(kind).items():
        group: Any = hint
        if is_dataclass(hint) and declared(hint):
            found[name] = group(**given(group, arguments))
    return found


def reader(parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """One that raises ArgumentTypeError, of which argparse shows the text, for ValueError."""

    def read(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


read_path = reader(option_texts.read_path)


def read_name(text: str) -> str:
    """A path or an address. Raises ArgumentTypeError for an empty one."""
    read_path(text)
    return text


def read_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT. Raises ArgumentTypeError."""
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT") from None


def _read_fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        reason = f"{text!r} is not a frame rate like 30 or 30000/1001"
        raise argparse.ArgumentTypeError(reason) from None


_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    Path: read_path,
    Fraction: _read_fraction,
    tuple[int, int]: read_size,
}


def _form(option: Option, kind: Any, default: Any) -> dict[str, Any]:
    """The arguments of `add_argument` for an option with values of a type."""
    if kind is bool:
        return {"action": "store_false" if default else "store_true"}
    if option.more:
        form = {"action": Words, "more": option.more}
        return {**form, "metavar": option.metavar, "default": default}
    if kind == tuple[str, ...]:
        return {"nargs": "+", "metavar": option.metavar, "default": default}
    optional = {"nargs": "?", "const": option.optional} if option.optional else {}
    return {
        **optional,
        "type": reader(option.parse) if option.parse else _READERS[kind],
        "choices": option.choices,
        "metavar": option.metavar,
        # argparse reads a default that is text, and shows it in the help.
        "default": as_text(default) if isinstance(default, (tuple, Fraction)) else default,
    }


def _without_none(hint: Any) -> Any:
    """The type in `X | None`; other types unchanged."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(kind for kind in get_args(hint) if kind is not types.NoneType)
    return hint
