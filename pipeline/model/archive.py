"""The archive that torch.save writes -> plain values, tensors and layers. Nothing in it is called.

A pickle is a program for a stack machine whose instructions import names and call them. This
machine implements only the instructions that a checkpoint needs; names stay text, and calls are
looked up in the caller's tables. Every size is checked before memory is allocated.
"""

from __future__ import annotations

import itertools
import math
import mmap
import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_PICKLE_BYTES = 4 << 20
_MOST_ENTRIES = 20_000
_MOST_DIMENSIONS = 8
_LONGEST_SHOWN_NAME = 100

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "torch.FloatStorage": np.dtype(np.float32),
    "torch.HalfStorage": np.dtype(np.float16),
    "torch.BFloat16Storage": np.dtype(np.uint16),
    "torch.DoubleStorage": np.dtype(np.float64),
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.ShortStorage": np.dtype(np.int16),
    "torch.CharStorage": np.dtype(np.int8),
    "torch.ByteStorage": np.dtype(np.uint8),
    "torch.BoolStorage": np.dtype(np.bool_),
}
_BFLOAT16 = "torch.BFloat16Storage"
_CALLS = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
    "__builtin__.set",
    "builtins.set",
)
Array = NDArray[Any]


class Refused(Exception):
    """The archive contains something that a checkpoint does not need; the message is one line."""


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


@dataclass(frozen=True, slots=True)
class _Name:
    """The name in a GLOBAL instruction, as text only."""

    text: str


def read_archive(path: Path, layers: frozenset[str], ignored: frozenset[str]) -> object:
    """The object given to torch.save; floating point tensors are float32.

    layers: names of the classes whose objects may be in it, a `Layer` each. ignored: names whose
    objects are left out, an `Ignored` each.
    Raises Refused; for damaged files ValueError, OSError, zipfile.BadZipFile and many others.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # A directory of millions of entries would take gigabytes, and is read first.
        if _has_more(content, b"PK\x01\x02", _MOST_ENTRIES):
            raise Refused(f"it has more than {_MOST_ENTRIES} entries")
        with zipfile.ZipFile(file) as archive:
            root = _checked_root(archive, len(content))
            data = archive.read(f"{root}/data.pkl")
            tensors = _Tensors(archive, root, len(content))
            return _Machine(layers, ignored, tensors).run(data)


def _has_more(content: mmap.mmap, marker: bytes, number: int) -> bool:
    found = re.finditer(re.escape(marker), content)
    return sum(1 for _ in itertools.islice(found, number + 1)) > number


def _checked_root(archive: zipfile.ZipFile, num_bytes: int) -> str:
    """The top folder. Raises Refused for an archive that torch.save did not write."""
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or len(set(names)) != len(names):
        raise Refused(f"it has {len(pickles)} pickles or a name twice, not one of each")
    root = pickles[0].partition("/")[0]
    if any(name.startswith((f"{root}/code/", f"{root}/constants.pkl")) for name in names):
        raise Refused("it is TorchScript, a program: give the checkpoint it was made from")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Refused("its entries are compressed, which torch.save does not do")
    if sum(entry.file_size for entry in entries) > num_bytes:
        raise Refused("its entries claim more bytes than it has")
    if archive.getinfo(pickles[0]).file_size > _MOST_PICKLE_BYTES:
        raise Refused(f"its pickle has more than {_MOST_PICKLE_BYTES} bytes")
    if f"{root}/byteorder" in names and archive.read(f"{root}/byteorder") != b"little":
        raise Refused("it was written on a machine of another byte order")
    return root


@dataclass(frozen=True, slots=True)
class _Storage:
    """The numbers that one or more tensors are views of."""

    kind: str
    values: Array


class _Tensors:
    """Reads tensors of an archive, in total at most the size of its data."""

    def __init__(self, archive: zipfile.ZipFile, root: str, num_bytes: int) -> None:
        self._archive, self._root = archive, root
        self._storages: dict[str, _Storage] = {}
        self._numbers_left = num_bytes

    def storage(self, identity: object) -> _Storage:
        """What a persistent id stands for: ("storage", type, entry, place, numbers)."""
        match identity:
            case ("storage", _Name(kind), str(entry), _, int(number)) if kind in _DTYPES:
                dtype = _DTYPES[kind]
            case _:
                raise Refused("it refers to something that is not a storage of numbers")
        if entry not in self._storages:
            about = self._archive.getinfo(f"{self._root}/data/{entry}")
            if number * dtype.itemsize != about.file_size:
                raise Refused(
                    f"storage {entry[:20]} claims {number} numbers in {about.file_size} bytes"
                )
            values = np.frombuffer(self._archive.read(about), dtype)
            self._storages[entry] = _Storage(kind, values)
        storage = self._storages[entry]
        if (storage.kind, len(storage.values)) != (kind, number):
            raise Refused(f"storage {entry[:20]} is described in two ways")
        return storage

    def tensor(self, *arguments: object) -> Array:
        """A view of a storage; floating point as float32, in memory of its own."""
        match arguments[:4]:
            case (_Storage(kind, values), int(offset), tuple(size), tuple(stride)):
                numbers = [*size, *stride, offset]
            case _:
                raise Refused("a tensor in it is not described as one")
        if any(type(number) is not int or number < 0 for number in numbers):
            raise Refused("a tensor in it has a size that is not a positive number")
        if len(size) != len(stride) or len(size) > _MOST_DIMENSIONS:
            raise Refused("a tensor in it has sizes and strides that do not fit each other")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count > len(values) or (count and last >= len(values)):
            raise Refused(
                f"a tensor in it claims the shape {list(size)} in a storage of {len(values)}"
            )
        # Many tensors may look at one storage; in float32 each takes memory of its own.
        self._numbers_left -= count
        if self._numbers_left < 0:
            raise Refused("its tensors claim more numbers than it has bytes")
        if not count:
            return np.zeros(size, np.float32)
        steps = [step * values.itemsize for step in stride]
        tensor = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
        if kind == _BFLOAT16:
            return (tensor.astype(np.uint32) << 16).view(np.float32)
        return tensor.astype(np.float32 if values.dtype.kind == "f" else values.dtype)


class _Machine:
    """Interprets one pickle, with a limited set of instructions."""

    def __init__(self, layers: frozenset[str], ignored: frozenset[str], tensors: _Tensors) -> None:
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
        known = (self._layers, self._ignored, _CALLS, _DTYPES)
        if not any(dotted in names for names in known):
            shown = dotted[:_LONGEST_SHOWN_NAME]
            raise Refused(
                f"it asks for {shown if shown.isprintable() else repr(shown)}, which a YOLOv5 "
                "detection model does not need"
            )
        self.push(_Name(dotted))

    def call(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Name or type(arguments) is not tuple:
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
        if type(cls) is not _Name or cls.text not in {*self._layers, *self._ignored}:
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


def _constant(make: Callable[[], object]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(make())


def _tuple_of(number: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.tuple_of(number)


_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda *_: None),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"),
        _Machine.push,
    ),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_TUPLE": _constant(tuple),
    "EMPTY_LIST": _constant(list),
    "EMPTY_DICT": _constant(dict),
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_since_mark,
    **{f"TUPLE{number}": _tuple_of(number) for number in (1, 2, 3)},
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.new_object,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
