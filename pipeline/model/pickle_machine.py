"""A stack machine for the pickle of a checkpoint. Nothing in it is called.

A pickle is a program for such a machine whose instructions import names and call them. This one
implements only the instructions that a checkpoint needs; names stay text, and calls are looked up
in the caller's tables.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.model.stored_tensors import DTYPES, Array, Name, Refused, Tensors, UnknownClass

_LONGEST_SHOWN_NAME = 100
_CALLS = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
    "__builtin__.set",
    "builtins.set",
)


class Ignored:
    """Replaces objects of the training (metrics, options) that the model does not need."""


@dataclass(slots=True, eq=False)
class Layer:
    """One layer of the file.

    kind: the name of its class; tensors: parameters and buffers, floating point in float32;
    settings: all else, neither called nor checked.
    """

    kind: str
    tensors: dict[str, Array] = field(default_factory=dict)
    children: dict[str, Layer] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class Machine:
    """Interprets one pickle, with a limited set of instructions."""

    def __init__(self, layers: frozenset[str], ignored: frozenset[str], tensors: Tensors) -> None:
        self._layers, self._ignored, self._tensors = layers, ignored, tensors
        self._stack: list[Any] = []
        self._below_marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> object:
        for instruction, argument, _ in pickletools.genops(data):
            step = _INSTRUCTIONS.get(instruction.name)
            if step is None:
                raise Refused(
                    f"it uses the pickle instruction {instruction.name}, which a checkpoint "
                    "does not need"
                )
            step(self, argument)
        return self._stack.pop()

    def push(self, value: object) -> None:
        self._stack.append(value)

    def mark(self, _: object) -> None:
        self._below_marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below_marks.pop()
        return items

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def tuple_since_mark(self, _: object) -> None:
        self.push(tuple(self._since_mark()))

    def tuple_of(self, number: int) -> None:
        if len(self._stack) < number:
            raise Refused("its pickle takes more from the stack than there is")
        items = tuple(self._stack[-number:])
        self._stack[-number:] = [items]

    def append(self, _: object) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: object) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise Refused("it appends to something that is not a list")
        target.extend(items)

    def set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def set_items(self, _: object) -> None:
        self._update(self._since_mark())

    def _update(self, pairs: list[Any]) -> None:
        target, keys = self._stack[-1], pairs[::2]
        if type(target) not in (dict, OrderedDict):
            raise Refused("it puts an item into something that is not a dictionary")
        _require_plain_keys(keys)
        target.update(zip(keys, pairs[1::2], strict=True))

    def name(self, text: str) -> None:
        dotted = text.replace(" ", ".")
        known = (self._layers, self._ignored, _CALLS, DTYPES)
        if not any(dotted in names for names in known):
            shown = dotted[:_LONGEST_SHOWN_NAME]
            raise UnknownClass(
                f"it asks for {shown if shown.isprintable() else repr(shown)}, which a YOLO "
                "detection model does not need",
                dotted,
            )
        self.push(Name(dotted))

    def call(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise Refused("it calls something that is not a function")
        self.push(self._call(function.text, arguments))

    def _call(self, name: str, arguments: tuple[Any, ...]) -> object:
        if name in self._ignored:
            return Ignored()
        match name, arguments:
            case "torch._utils._rebuild_tensor_v2", _:
                return self._tensors.tensor(*arguments)
            case "torch._utils._rebuild_parameter", (np.ndarray() as tensor, *_):
                return tensor
            case "collections.OrderedDict", ():
                return OrderedDict()
            case (("__builtin__.set" | "builtins.set"), (list(items),)):
                _require_plain_keys(items)
                return set(items)
        raise Refused(f"it calls {name} in a way that a checkpoint does not")

    def new_object(self, _: object) -> None:
        arguments, cls = self._stack.pop(), self._stack.pop()
        if type(cls) is not Name or cls.text not in {*self._layers, *self._ignored}:
            raise Refused("it makes an object of something that is not a layer")
        if cls.text in self._ignored:
            self.push(Ignored())
            return
        if arguments != ():
            raise Refused(f"it makes a {cls.text} in a way that a checkpoint does not")
        self.push(Layer(cls.text))

    def build(self, _: object) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is Layer:
            _restore(target, state)
        elif type(target) not in (Ignored, OrderedDict):
            raise Refused("it changes something that is not a layer")

    def persistent(self, _: object) -> None:
        self.push(self._tensors.storage(self._stack.pop()))


def _restore(layer: Layer, state: object) -> None:
    """Set the parameters, buffers, layers and settings of a layer, without methods and hooks."""
    if type(state) is not dict:
        raise Refused("the state of a layer in it is not a dictionary")
    for name, value in state.items():
        if type(name) is not str:
            raise Refused("a layer in it has a setting without a name")
        if name in ("_parameters", "_buffers"):
            layer.tensors.update(_entries(name, value, np.ndarray))
        elif name == "_modules":
            layer.children.update(_entries(name, value, Layer))
        elif not name.startswith("_"):
            layer.settings[name] = value


def _entries(name: str, value: object, kind: type) -> dict[str, Any]:
    """The entries of a dictionary that may have entries of one kind only; without None."""
    if not isinstance(value, dict) or not all(
        type(key) is str and (entry is None or isinstance(entry, kind))
        for key, entry in value.items()
    ):
        raise Refused(f"the {name.strip('_')} of a layer in it are something else")
    return {key: entry for key, entry in value.items() if entry is not None}


def _require_plain_keys(keys: list[Any]) -> None:
    """Allow only keys whose comparison is certain to be fast and not recursive."""
    if not all(type(key) in (str, int, float, bool) for key in keys):
        raise Refused("it has a dictionary or a set with keys that are not text or numbers")


def _constant(make: Callable[[], object]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _tuple_of(number: int) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine.tuple_of(number)


_INSTRUCTIONS: Mapping[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda *_: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
        Machine.push,
    ),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_LIST": _constant(list),
    "EMPTY_DICT": _constant(dict),
    "MARK": Machine.mark,
    "TUPLE": Machine.tuple_since_mark,
    **{f"TUPLE{number}": _tuple_of(number) for number in (1, 2, 3)},
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Machine.get),
    "APPEND": Machine.append,
    "APPENDS": Machine.appends,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "GLOBAL": Machine.name,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.new_object,
    "BUILD": Machine.build,
    "BINPERSID": Machine.persistent,
}
