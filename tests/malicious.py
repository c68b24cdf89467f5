"""Checkpoints that try to run code, and checkpoints that try to take all memory or time.

`ATTACKS` write a file that creates the canary if anything in it is run; `LIVE` are the pickles
among them that really do it in an ordinary reader. `BOMBS` write a file that is small itself.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.checkpoints import DetectionModel, save, small_yolov5, three_convolutions

Payload = Callable[[Path], bytes]
Attack = Callable[[Path, Path], None]
Bomb = Callable[[Path], None]

MANY = 10**12


# Pieces of pickles.


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    """Dotted names are followed from protocol 4 on."""
    return b"\x80\x04" + text(module) + text(attribute) + b"\x93"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def many(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + many(*arguments) + b"R"


def made(cls: bytes, *arguments: bytes) -> bytes:
    """By NEWOBJ."""
    return cls + many(*arguments) + b"\x81"


def made_with_keywords(cls: bytes, *arguments: bytes) -> bytes:
    """By NEWOBJ_EX."""
    return cls + many(*arguments) + b"}\x92"


def table(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def line(value: bytes) -> bytes:
    """A whole pickle."""
    return b"\x80\x02" + value + b"."


def shell(canary: Path) -> bytes:
    return text(f"touch '{canary}'")


def code(canary: Path) -> bytes:
    return text(f"open({str(canary)!r}, 'w').close()")


SYSTEM, EVAL = name("os", "system"), name("builtins", "eval")


# Whole files.


def zipped(path: Path, data: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A pickle in the wrapping of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", "little")
        for key, numbers in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", numbers)
        archive.writestr("archive/version", "3\n")
    return path


def bare(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def in_a_whole_checkpoint(path: Path, data: bytes) -> Path:
    """A checkpoint that can be used, with one more entry."""
    value = data[2 if data[:1] == b"\x80" else 0 : -1]
    with zipfile.ZipFile(path, "w") as target:
        for entry, content in _whole_checkpoint().items():
            if entry.endswith("/data.pkl"):
                assert content.endswith(b"u.")
                content = content[:-2] + text("extra") + value + b"u."
            target.writestr(entry, content)
    return path


@cache
def _whole_checkpoint() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        whole = save(Path(folder) / "whole.pt", three_convolutions(2))
        with zipfile.ZipFile(whole) as archive:
            return {entry: archive.read(entry) for entry in archive.namelist()}


WRAPPINGS = {"zipped": zipped, "bare": bare, "in a whole checkpoint": in_a_whole_checkpoint}


# Pickles that run code in an ordinary reader.


def _partial(canary: Path) -> bytes:
    return call(call(name("functools", "partial"), SYSTEM, shell(canary)))


def _by_map(make: Callable[..., bytes], canary: Path) -> bytes:
    codes = b"](" + code(canary) + b"e"
    return make(name("builtins", "tuple"), make(name("builtins", "map"), EVAL, codes))


def _setstate(canary: Path) -> bytes:
    holder = made(name("argparse", "Namespace"))
    return holder + table(__setstate__=SYSTEM) + b"b" + shell(canary) + b"b"


def _setattr_of_slots(canary: Path) -> bytes:
    holder = made(name("argparse", "Namespace"))
    return holder + many(b"N", table(__setstate__=SYSTEM)) + b"b" + shell(canary) + b"b"


def _memo(canary: Path) -> bytes:
    kept = SYSTEM + b"r" + struct.pack("<I", 77_777) + b"0"
    return kept + b"j" + struct.pack("<I", 77_777) + many(shell(canary)) + b"R"


def _pickle_in_a_pickle(canary: Path) -> bytes:
    inner = line(call(SYSTEM, shell(canary)))
    as_bytes = call(name("_codecs", "encode"), text(inner.decode("latin-1")), text("latin1"))
    return call(name("pickle", "loads"), as_bytes)


def _storage_from_bytes(canary: Path) -> bytes:
    inner = line(call(SYSTEM, shell(canary)))
    as_bytes = call(name("_codecs", "encode"), text(inner.decode("latin-1")), text("latin1"))
    return call(name("torch.storage", "_load_from_bytes"), as_bytes)


def _getattr(canary: Path) -> bytes:
    module = call(name("builtins", "__import__"), text("os"))
    return call(call(name("builtins", "getattr"), module, text("system")), shell(canary))


def _attrgetter(canary: Path) -> bytes:
    module = call(name("importlib", "import_module"), text("os"))
    getter = call(name("operator", "attrgetter"), text("system"))
    return call(call(getter, module), shell(canary))


def _methodcaller(canary: Path) -> bytes:
    module = call(name("importlib", "import_module"), text("os"))
    return call(call(name("operator", "methodcaller"), text("system"), shell(canary)), module)


def _by_inst(canary: Path) -> bytes:
    return b"(" + shell(canary) + b"ios\nsystem\n"


def _by_obj(canary: Path) -> bytes:
    return b"(" + SYSTEM + shell(canary) + b"o"


def _of_a_list(canary: Path) -> bytes:
    command = b"](" + text("touch") + text(str(canary)) + b"e"
    return call(name("subprocess", "check_output"), command)


def _hidden(canary: Path) -> bytes:
    return many(b"N", b"](" + many(many(call(SYSTEM, shell(canary)))) + b"e")


def _key_of_a_dictionary(canary: Path) -> bytes:
    return b"}" + call(SYSTEM, shell(canary)) + b"Ns"


LIVE: dict[str, Payload] = {
    "GLOBAL, REDUCE": lambda c: call(SYSTEM, shell(c)),
    "posix.system": lambda c: call(name("posix", "system"), shell(c)),
    "eval": lambda c: call(EVAL, code(c)),
    "exec by its old name": lambda c: call(name("__builtin__", "exec"), code(c)),
    "open for writing": lambda c: call(name("io", "open"), text(str(c)), text("w")),
    "pathlib.Path.touch": lambda c: call(
        stack_name("pathlib", "Path.touch"), call(name("pathlib", "PosixPath"), text(str(c)))
    ),
    "subprocess": _of_a_list,
    "timeit": lambda c: call(
        name("timeit", "timeit"), code(c), text("pass"), b"N", b"K\x01"
    ).replace(b"NK\x01", name("time", "perf_counter") + b"K\x01"),
    "numpy runstring": lambda c: call(
        name("numpy.testing._private.utils", "runstring"), code(c), b"}"
    ),
    "pydoc.pipepager": lambda c: call(name("pydoc", "pipepager"), text(""), shell(c)),
    "INST": _by_inst,
    "OBJ": _by_obj,
    "STACK_GLOBAL": lambda c: call(stack_name("os", "system"), shell(c)),
    "dotted STACK_GLOBAL": lambda c: call(stack_name("torch", "os.system"), shell(c)),
    "dotted into torch.nn": lambda c: call(
        stack_name("torch.nn.modules.module", "torch.os.system"), shell(c)
    ),
    "NEWOBJ": partial(_by_map, made),
    "NEWOBJ_EX": partial(_by_map, made_with_keywords),
    "BUILD, __setstate__ in __dict__": _setstate,
    "BUILD, __setstate__ in slots": _setattr_of_slots,
    "functools.partial": _partial,
    "memo": _memo,
    "getattr": _getattr,
    "attrgetter": _attrgetter,
    "methodcaller": _methodcaller,
    "pickle in a pickle": _pickle_in_a_pickle,
    "torch.storage._load_from_bytes": _storage_from_bytes,
    "in tuples and lists": _hidden,
    "as the key of a dictionary": _key_of_a_dictionary,
}


# Pickles that need a reader with more to it: PyTorch's, or one with persistent ids or extensions.


def _extension(code_of_it: int, opcode: bytes, canary: Path) -> bytes:
    register = call(
        name("copyreg", "add_extension"), text("os"), text("system"), number(code_of_it)
    )
    return register + b"0" + opcode + many(shell(canary)) + b"R"


def _layer(module: str, cls: str, **state: bytes) -> bytes:
    return made(name(module, cls)) + table(**state) + b"b"


SEQUENTIAL = ("torch.nn.modules.container", "Sequential")

FOR_PYTORCH: dict[str, Payload] = {
    "EXT1": lambda c: _extension(201, b"\x82\xc9", c),
    "EXT2": lambda c: _extension(1001, b"\x83" + struct.pack("<H", 1001), c),
    "EXT4": lambda c: _extension(100_001, b"\x84" + struct.pack("<i", 100_001), c),
    "PERSID": lambda c: b"Pos.system('touch " + str(c).encode() + b"')\n",
    "BINPERSID of a call": lambda c: call(SYSTEM, shell(c)) + b"Q",
    "BINPERSID of a module": lambda c: (
        many(text("module"), SYSTEM, text("a.py"), text("source")) + b"Q"
    ),
    "storage of a type that is a call": lambda c: (
        many(text("storage"), SYSTEM, text("0"), text("cpu"), b"K\x01") + b"Q"
    ),
    "a layer whose forward is a call": lambda c: _layer(
        "models.common", "Conv", forward=SYSTEM, call=shell(c)
    ),
    "a layer with a hook": lambda c: _layer(
        *SEQUENTIAL, _forward_hooks=table(a=SYSTEM), _modules=b"}"
    ),
    "a layer with __class__": lambda c: _layer(*SEQUENTIAL, __class__=name("os", "_wrap_close")),
    "a layer with __setstate__": lambda c: (
        _layer("models.yolo", "Model", __setstate__=SYSTEM) + shell(c) + b"b"
    ),
    "an allowed class, called": lambda c: call(name("models.common", "Conv"), SYSTEM, shell(c)),
    "an allowed class, changed": lambda c: (
        name("models.common", "Conv") + many(b"N", table(forward=SYSTEM)) + b"b"
    ),
    "an ordered dictionary of calls": lambda c: call(
        name("collections", "OrderedDict"), b"](" + call(SYSTEM, shell(c)) + b"e"
    ),
    "a parameter of a call": lambda c: call(
        name("torch._utils", "_rebuild_parameter"), call(SYSTEM, shell(c)), b"\x89", b"N"
    ),
    "_rebuild_from_type_v2": lambda c: call(
        name("torch._tensor", "_rebuild_from_type_v2"), SYSTEM, SYSTEM, many(shell(c)), b"N"
    ),
    "_rebuild_wrapper_subclass": lambda c: call(
        name("torch._utils", "_rebuild_wrapper_subclass"), SYSTEM, shell(c)
    ),
    "_rebuild_device_tensor_from_numpy": lambda c: call(
        name("torch._utils", "_rebuild_device_tensor_from_numpy"), SYSTEM, shell(c)
    ),
    "torch.load": lambda c: call(name("torch", "load"), text(f"{c}.pkl")),
    "torch.jit.load": lambda c: call(name("torch.jit", "load"), text(f"{c}.pt")),
    "torch.hub.load": lambda c: call(name("torch.hub", "load"), text(str(c.parent)), text("x")),
    "torch.ops.load_library": lambda c: call(name("torch.ops", "load_library"), text(f"{c}.so")),
    "ctypes.CDLL": lambda c: call(name("ctypes", "CDLL"), text(f"{c}.so")),
    "a name of our own": lambda c: call(
        name("pipeline.model.weights", "download"), text(f"file://{c}"), text(""), text(str(c))
    ),
    "a dotted GLOBAL": lambda c: call(name("torch.nn.modules", "os.system"), shell(c)),
    "a name that begins like a known one": lambda c: call(
        name("models.common", "Conv.__init__.__globals__"), shell(c)
    ),
    "a name with a space": lambda c: call(name("models.common Conv", "os.system"), shell(c)),
    "a name of thousands of letters": lambda c: call(name("os" * 5000, "system\x1b[2J"), shell(c)),
    "a numpy array of objects": lambda c: (
        call(
            name("numpy.core.multiarray", "_reconstruct"),
            name("numpy", "ndarray"),
            many(b"K\x00"),
            text("b"),
        )
        + many(
            b"K\x01",
            many(b"K\x01"),
            call(name("numpy", "dtype"), text("O8"), b"K\x00", b"K\x01"),
            b"\x89",
            b"](" + call(SYSTEM, shell(c)) + b"e",
        )
        + b"b"
    ),
    "a numpy file": lambda c: call(name("numpy", "load"), text(f"{c}.npy"), b"N", b"\x88"),
    "a frame within a frame": lambda c: b"\x95" + struct.pack("<Q", 1 << 40) + SYSTEM,
    "a buffer from outside": lambda c: b"\x97\x98" + SYSTEM,
    "a hostile codec": lambda c: (
        call(name("_codecs", "encode"), text("x"), text("os.system")) + call(SYSTEM, shell(c))
    ),
    "a memo entry that was never put": lambda c: b"j" + struct.pack("<I", 1 << 31) + shell(c),
    "more from the stack than there is": lambda c: b"tR\x85\x86" + shell(c),
}


# Files that are no zip with one pickle.


class _RunsWhenUnpickled:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def _before_zip_files(path: Path, canary: Path) -> None:
    content = {"model": _RunsWhenUnpickled(canary), "numbers": torch.zeros(3)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def _tar(path: Path, canary: Path) -> None:
    data = pickle.dumps(_RunsWhenUnpickled(canary))
    with tarfile.open(path, "w") as archive:
        for entry in ("storages", "tensors", "pickle", "../storages"):
            about = tarfile.TarInfo(entry)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))


def _torchscript(path: Path, canary: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8))  # type: ignore[no-untyped-call]
        scripted.save(str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/code/__torch__/evil.py", f"open({str(canary)!r}, 'w').close()\n")


def _entries(*entries: tuple[str, bytes | None]) -> Attack:
    """A zip of these entries; None stands for the pickle that touches the canary."""

    def write(path: Path, canary: Path) -> None:
        evil = line(call(SYSTEM, shell(canary)))
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")  # Of names that come twice.
            for entry, content in entries:
                archive.writestr(entry, evil if content is None else content)

    return write


def _pickle_before_the_zip(path: Path, canary: Path) -> None:
    zipped(path, line(b"}"))
    path.write_bytes(line(call(SYSTEM, shell(canary))) + path.read_bytes())


def _pickle_in_a_storage(path: Path, canary: Path) -> None:
    evil = line(call(SYSTEM, shell(canary)))
    storage = many(
        text("storage"), name("torch", "ByteStorage"), text("0"), text("cpu"), number(len(evil))
    )
    data = line(call(name("torch.storage", "_load_from_bytes"), storage + b"Q"))
    zipped(path, data, {"0": evil})


def _storage_outside(path: Path, canary: Path) -> None:
    storage = many(
        text("storage"),
        name("torch", "ByteStorage"),
        text(f"../../..{canary.parent}/secret"),
        text("cpu"),
        number(6),
    )
    (canary.parent / "secret").write_text("secret")
    zipped(path, line(storage + b"Q"))


EMPTY = line(b"}")
FILES: dict[str, Attack] = {
    "from before zip files": _before_zip_files,
    "tar": _tar,
    "TorchScript": _torchscript,
    "two pickles": _entries(("archive/data.pkl", EMPTY), ("evil/data.pkl", None)),
    "one name twice": _entries(("archive/data.pkl", EMPTY), ("archive/data.pkl", None)),
    "names outside": _entries(("../data.pkl", None), ("/tmp/data.pkl", None)),
    "no folder": _entries(("data.pkl", None)),
    "a deeper folder": _entries(("archive/archive/data.pkl", None)),
    "other slashes": _entries(("archive\\data.pkl", None)),
    "a script beside it": _entries(("archive/data.pkl", EMPTY), ("archive/code/evil.py", None)),
    "a pickle before the zip": _pickle_before_the_zip,
    "a pickle in a storage": _pickle_in_a_storage,
    "a storage outside of the archive": _storage_outside,
}


def _wrapped(
    payload: Payload, wrap: Callable[[Path, bytes], Path], path: Path, canary: Path
) -> None:
    wrap(path, line(payload(canary)))


ATTACKS: dict[str, Attack] = {
    **{
        f"{title}, {wrapping}": partial(_wrapped, payload, wrap)
        for wrapping, wrap in WRAPPINGS.items()
        for title, payload in (LIVE | FOR_PYTORCH).items()
    },
    **FILES,
}


# Small files that claim to be large, or make much of little.

HALF, BYTE = name("torch", "HalfStorage"), name("torch", "ByteStorage")


def _storage(numbers: int, kind: bytes = HALF, key: str = "0") -> bytes:
    return many(text("storage"), kind, text(key), text("cpu"), number(numbers)) + b"Q"


def _tensor(storage: bytes, size: list[int], stride: list[int], offset: int = 0) -> bytes:
    sizes, strides = (many(*(number(n) for n in values)) for values in (size, stride))
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    return call(rebuild, storage, number(offset), sizes, strides, b"\x89", b"N")


def _tensor_of(size: list[int], stride: list[int], offset: int = 0) -> Bomb:
    data = line(table(model=_tensor(_storage(8), size, stride, offset)))
    return lambda path: _discard(zipped(path, data, {"0": bytes(16)}))


def _pickle(data: bytes) -> Bomb:
    return lambda path: _discard(zipped(path, line(data)))


def _discard(_: object) -> None:
    return


@cache
def _gigabyte_of_zeros() -> tuple[bytes, int]:
    """Deflated, and its checksum: one block of 16 MB, many times over."""
    zeros, count = bytes(1 << 24), 1 << 6
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(count):
        checksum = zlib.crc32(zeros, checksum)
    return block * count + packer.flush(), checksum


def _deflated(entry: str, path: Path) -> None:
    """A gigabyte of zeros in a few megabytes."""
    data = line(table(model=_tensor(_storage(1 << 30, BYTE), [1 << 30], [1])))
    zeros, checksum = _gigabyte_of_zeros()
    with zipfile.ZipFile(path, "w") as archive:
        for written in ("archive/data.pkl", "archive/data/0"):
            if written != entry:
                archive.writestr(written, data, zipfile.ZIP_DEFLATED)
        archive.writestr(entry, zeros)
        about = archive.getinfo(entry)
        about.compress_type, about.CRC, about.file_size = zipfile.ZIP_DEFLATED, checksum, 1 << 30
    with path.open("r+b") as file:  # The same beside the data itself.
        file.seek(about.header_offset + 8)
        file.write(struct.pack("<H", zipfile.ZIP_DEFLATED))
        file.seek(about.header_offset + 14)
        file.write(struct.pack("<3I", checksum, len(zeros), 1 << 30))


def _overlapping(path: Path) -> None:
    """A thousand entries whose bytes are the same twenty megabytes."""
    size, count = 20 << 20, 1000
    with zipfile.ZipFile(path, "w") as archive:
        tensors = b"".join(
            _tensor(_storage(size, BYTE, str(key)), [size], [1]) for key in range(count)
        )
        archive.writestr("archive/data.pkl", line(b"](" + tensors + b"e"))
        archive.writestr("archive/data/0", bytes(size))
        first = archive.getinfo("archive/data/0")
        for key in range(1, count):
            about = zipfile.ZipInfo(f"archive/data/{key}")
            about.header_offset, about.CRC = first.header_offset, first.CRC
            about.file_size = about.compress_size = size
            archive.filelist.append(about)
            archive.NameToInfo[about.filename] = about


def _million_entries(path: Path) -> None:
    local = b"PK\x03\x04" + bytes(26)
    entry = b"PK\x01\x02" + bytes(42)
    count = 1_000_000
    with path.open("wb") as file:
        file.write(local)
        for _ in range(100):
            file.write(entry * (count // 100))
        size = count * len(entry)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, size, len(local), 0))


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def _views(path: Path) -> None:
    """A megabyte in half precision, seen by thousands of tensors."""
    kept = _storage(1 << 19) + b"q\x00"
    view = _tensor(b"h\x00", [1 << 19], [1])
    data = line(b"](" + kept + view * 10_000 + b"e")
    zipped(path, data, {"0": bytes(1 << 20)})


def _with(change: Callable[[DetectionModel], object]) -> Bomb:
    def write(path: Path) -> None:
        model = small_yolov5(2)
        change(model)
        save(path, model)

    return write


def _set(layer: str, **settings: object) -> Bomb:
    def change(model: DetectionModel) -> None:
        target = model.get_submodule(layer)
        for setting, value in settings.items():
            target.__dict__[setting] = value

    return _with(change)


def _doubling(model: DetectionModel) -> None:
    concat = model.model[9]
    assert type(concat).__name__ == "Concat"
    layers = list(model.model)
    for _ in range(40):
        again = type(concat)()
        again.i, again.f = 0, [-1, -1]  # type: ignore[assignment]
        layers.insert(10, again)
    model.model = nn.Sequential(*layers)


def _nested(path: Path, depth: int = 10_000) -> None:
    """A whole checkpoint, and in it layers in layers in layers."""
    opening = made(name(*SEQUENTIAL)) + b"}(" + text("_modules") + b"}(" + text("0")
    in_a_whole_checkpoint(path, line(opening * depth + b"N" + b"uub" * depth))


def _nested_activation(model: DetectionModel) -> None:
    layer: nn.Module = nn.Sequential(nn.SiLU())
    for _ in range(100):
        layer = nn.Sequential(layer)
    model.model[1].act = layer


def _twice_each(model: DetectionModel) -> None:
    layer: nn.Module = nn.Sequential(nn.SiLU())
    for _ in range(40):
        layer = nn.Sequential(layer, layer)
    model.model[1].act = layer


def _many_layers(model: DetectionModel) -> None:
    layers = list(model.model)
    for _ in range(30_000):
        more = nn.SiLU()
        more.i, more.f = 0, -1  # type: ignore[assignment]
        layers.insert(1, more)
    model.model = nn.Sequential(*layers)


def _in_itself(path: Path) -> None:
    layer = made(name(*SEQUENTIAL)) + b"q\x01"
    state = table(_modules=b"}(" + text("0") + b"h\x01" + b"u") + b"b"
    model = _layer("models.yolo", "Model", _modules=table(model=layer + state), names=b"]")
    zipped(path, line(table(model=model)))


def _names(count: int, length: int) -> Bomb:
    return _with(lambda model: setattr(model, "names", ["x" * length] * count))


BOMBS: dict[str, Bomb] = {
    "a storage that is deflated": partial(_deflated, "archive/data/0"),
    "a pickle that is deflated": partial(_deflated, "archive/data.pkl"),
    "entries that overlap": _overlapping,
    "a million entries": _million_entries,
    "a sparse file of a terabyte": _sparse,
    "a pickle of 64 MB": lambda path: _discard(
        zipped(path, line(b"](" + b"}" * (64 << 20) + b"e"))
    ),
    "a pickle full of dictionaries": lambda path: _discard(
        zipped(path, line(b"](" + b"}" * ((4 << 20) - 10) + b"e"))
    ),
    "a shape of a terabyte": _tensor_of([MANY], [1]),
    "a shape with stride 0": _tensor_of([1 << 33], [0]),
    "a shape that overlaps itself": _tensor_of([8, 8, 8], [0, 0, 1]),
    "a stride beyond the storage": _tensor_of([2], [MANY]),
    "an offset beyond the storage": _tensor_of([1], [1], MANY),
    "a negative offset": _tensor_of([1], [1], -5),
    "a negative size": _tensor_of([-1, -8], [1, 1]),
    "a negative stride": _tensor_of([4], [-1]),
    "sizes that overflow": _tensor_of([1 << 32, 1 << 32], [1, 1]),
    "sizes without strides": _tensor_of([2, 2], [1]),
    "a thousand dimensions": _tensor_of([1] * 1000, [1] * 1000),
    "an empty shape of huge sides": _tensor_of([0, 1 << 62], [1, 1]),
    "a storage of a terabyte": lambda path: _discard(
        zipped(path, line(_tensor(_storage(MANY), [MANY], [1])), {"0": bytes(16)})
    ),
    "a storage of less than nothing": lambda path: _discard(
        zipped(path, line(_tensor(_storage(-8), [1], [1])), {"0": bytes(16)})
    ),
    "a storage with two types": lambda path: _discard(
        zipped(
            path,
            line(b"](" + _storage(8) + _storage(16, BYTE) + _storage(4, HALF) + b"e"),
            {"0": bytes(16)},
        )
    ),
    "thousands of views": _views,
    "tuples in tuples as a key": _pickle(b"}" + b")" + b"\x85" * 200_000 + b"Ns"),
    "tuples in tuples in a set": _pickle(
        call(name("__builtin__", "set"), b"](" + b")" + b"\x85" * 200_000 + b"e")
    ),
    "lists in lists": _pickle(b"]" * 200_000 + b"a" * 199_999),
    "tuples that double": _pickle(b")" + b"q\x00h\x00\x86" * 100_000),
    "marks": _pickle(b"(" * 200_000),
    "memo indices of billions": _pickle(b"}" + b"r\xff\xff\xff\xff" + b"r\xfe\xff\xff\xff"),
    "BINUNICODE of 4 GB": _pickle(b"X\xff\xff\xff\xff"),
    "BINUNICODE8": _pickle(b"\x8d" + struct.pack("<Q", 1 << 62)),
    "BINBYTES8": _pickle(b"\x8e" + struct.pack("<Q", 1 << 40)),
    "BYTEARRAY8": _pickle(b"\x96" + struct.pack("<Q", 1 << 40)),
    "LONG4": _pickle(b"\x8b\xff\xff\xff\x7f"),
    "LONG of a million digits": _pickle(b"L" + b"9" * 1_000_000 + b"L\n"),
    "INT of a million digits": _pickle(b"I" + b"9" * 1_000_000 + b"\n"),
    "bytearray": _pickle(call(name("builtins", "bytearray"), number(MANY))),
    "UntypedStorage": _pickle(call(name("torch.storage", "UntypedStorage"), number(MANY))),
    "FloatTensor": _pickle(call(name("torch", "FloatTensor"), number(MANY))),
    "Conv2d, called": _pickle(
        call(name("torch.nn.modules.conv", "Conv2d"), number(10**5), number(10**5), b"K\x63")
    ),
    "C3 of a billion, called": _pickle(
        call(name("models.common", "C3"), b"K\x08", b"K\x08", number(10**9))
    ),
    "a padding of a billion": _set("model.0.conv", padding=(10**9, 10**9)),
    "a stride of nothing": _set("model.0.conv", stride=(0, 0)),
    "a dilation of a billion": _set(
        "model.1.conv", dilation=(10**9, 10**9), padding=(10**9, 10**9)
    ),
    "a kernel of a billion": _set("model.7.m", kernel_size=10**9, padding=5 * 10**8),
    "a padding of 32": _set("model.0.conv", padding=(32, 32)),
    "groups of a billion": _set("model.0.conv", groups=10**9),
    "an upsampling of a million": _set("model.8", scale_factor=10.0**6),
    "an upsampling to a billion": _set("model.8", scale_factor=None, size=(10**9, 10**9)),
    "a pooling of a billion steps": _set("model.7", n=10**9),
    "a concatenation that doubles": _with(_doubling),
    "layers in layers": _nested,
    "an activation in a hundred layers": _with(_nested_activation),
    "layers that double": _with(_twice_each),
    "a layer in itself": _in_itself,
    "tens of thousands of layers": _with(_many_layers),
    "a million class names": _names(1_000_000, 1),
    "class names of a megabyte": _names(2, 1 << 20),
    "a class count of a billion": _set("model.11", nc=10**9, no=10**9 + 5),
}
