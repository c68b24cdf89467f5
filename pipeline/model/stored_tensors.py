"""The tensors in an archive that torch.save wrote; every size is checked before memory is taken."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_DIMENSIONS = 8

DTYPES: Mapping[str, np.dtype[Any]] = {
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
Array = NDArray[Any]


class Refused(Exception):
    """The archive contains something that a checkpoint does not need; the message is one line."""


class UnknownClass(Refused):
    """The archive asks for a class that is not known; name: the class, which may be any text."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Name:
    """The name in a GLOBAL instruction, as text only."""

    text: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """The numbers that one or more tensors are views of."""

    kind: str
    values: Array


class Tensors:
    """Reads tensors of an archive, in total at most the size of its data."""

    def __init__(self, archive: zipfile.ZipFile, root: str, num_bytes: int) -> None:
        self._archive, self._root = archive, root
        self._storages: dict[str, _Storage] = {}
        self._numbers_left = num_bytes

    def storage(self, identity: object) -> _Storage:
        """What a persistent id stands for: ("storage", type, entry, place, numbers)."""
        match identity:
            case ("storage", Name(kind), str(entry), _, int(number)) if kind in DTYPES:
                dtype = DTYPES[kind]
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
