"""The files of a given model: their sizes, what they claim, their hash."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from xml.etree import ElementTree

from pipeline.core.errors import ModelError
from pipeline.core.files import file_sha256
from pipeline.model.metadata import METADATA_NAME
from pipeline.model.weights import MOST_BYTES

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS_SUFFIX = ".npz"
_MOST_XML_BYTES = 32 << 20
_MOST_XML_DEPTH = 64
_MOST_NUMBERS = 1 << 28


def parts_of(weights: Path) -> tuple[Path, ...]:
    """The file itself; for an IR its .bin, and its .npz and metadata.yaml where they are there."""
    if weights.suffix != ".xml":
        return (weights,)
    beside = (weights.with_suffix(_CONVOLUTIONS_SUFFIX), weights.with_name(METADATA_NAME))
    return (weights, weights.with_suffix(".bin"), *filter(Path.exists, beside))


def parts_sha256(weights: Path) -> str:
    """The SHA-256 of the file; for an IR that of the hashes of its parts, as 64 letters each."""
    hashes = [file_sha256(part) for part in parts_of(weights)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def require_sizes(weights: Path) -> None:
    """Raise ModelError for a size that no model has, before the file is read."""
    for part in parts_of(weights):
        if not part.is_file():
            raise ModelError(f"{weights}: {part.name}, which belongs to it, is not a regular file")
        size = part.stat().st_size
        if size > MOST_BYTES or (size == 0 and part.suffix != ".bin"):
            _refuse(part, f"{size} bytes; a model has 1 to {MOST_BYTES} bytes")


def require_plain_graph(weights: Path) -> None:
    """Raise ModelError for a graph with weights in other files, or with absurd sizes."""
    if weights.suffix == ".xml":
        _require_plain_ir(weights)
    elif weights.suffix == ".onnx":
        _require_plain_onnx(weights)


def _require_plain_ir(ir: Path) -> None:
    content = ir.read_bytes() if ir.stat().st_size <= _MOST_XML_BYTES else b""
    if not content or b"\0" in content or b"<!" in content.replace(b"<!--", b""):
        _refuse(ir, "an IR is a short XML text in UTF-8 without declarations")
    num_bytes, depth = ir.with_suffix(".bin").stat().st_size, 0
    try:
        # Without declarations there are no entities that could grow.
        events = ElementTree.iterparse(io.BytesIO(content), ("start", "end"))  # noqa: S314
        for event, element in events:
            depth += 1 if event == "start" else -1
            if depth > _MOST_XML_DEPTH:
                _refuse(ir, f"its XML is more than {_MOST_XML_DEPTH} levels deep")
            if event == "end" and element.tag == "data" and "offset" in element.attrib:
                offset, size = (int(element.attrib[name]) for name in ("offset", "size"))
                if min(offset, size) < 0 or offset + size > num_bytes:
                    _refuse(ir, f"it has no {size} bytes at {offset}, where a constant should be")
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ModelError(f"{ir}: not a model that OpenVINO reads ({error})") from error


def _require_plain_onnx(path: Path) -> None:
    try:
        import onnx  # Imported here, because only ONNX models need it.
    except ModuleNotFoundError as error:
        raise ModelError(f"{path}: ONNX needs the package onnx: pip install onnx") from error
    try:
        model = onnx.load_model(path, load_external_data=False)
        for tensor in _tensors(model.graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                _refuse(path, "has weights in other files; export it into one")
            if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _MOST_NUMBERS:
                _refuse(path, f"has a constant of the shape {list(tensor.dims)[:8]}")
    except ModelError:
        raise
    except Exception as error:  # Arbitrary bytes can make the reader raise any exception.
        raise ModelError(f"{path}: not a model that OpenVINO reads ({type(error).__name__})") from (
            error
        )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants, in the graphs within the graph too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.ByteSize():
                    yield from _tensors(inner)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ModelError(f"{path}: refused: {reason}")
