"""Graphs that are given: what they claim is checked before OpenVINO reads them."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper
from openvino import opset13 as ops

from pipeline.core.errors import ModelError
from pipeline.core.progress import no_progress
from pipeline.model.prepare import prepare_model
from tests.checkpoints import WIDE, Decoded, class_names, three_convolutions, write_onnx
from tests.conftest import gray, light_detector, process, write_clip

READ_ALL = """
import json, sys
from pathlib import Path
from pipeline.core.errors import ModelError
from pipeline.model.prepare import prepare_model
for name in sys.argv[1:]:
    try:
        prepare_model(Path(name), (640, 480), 160, lambda _: None)
        message = "read"
    except ModelError as error:
        message = str(error)
    print(json.dumps([name, message]), flush=True)
"""


def save_ir(path: Path) -> Path:
    ov.save_model(light_detector(), path, compress_to_fp16=False)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "yolo.onnx"
    return write_onnx(path, Decoded(three_convolutions(3)), side=64, names=class_names(3))


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        prepare_model(path, WIDE, 160, no_progress)
    assert str(caught.value).isprintable()
    assert path.name.partition(".")[0] in str(caught.value)
    return str(caught.value)


def test_the_hash_of_an_ir_is_that_of_all_its_parts(tmp_path: Path) -> None:
    ir = save_ir(tmp_path / "light.xml")
    first = prepare_model(ir, WIDE, 640, no_progress).weights_sha256
    parts = [hashlib.sha256(ir.with_suffix(end).read_bytes()) for end in (".xml", ".bin")]
    listed = "".join(part.hexdigest() for part in parts)
    assert first == hashlib.sha256(listed.encode()).hexdigest()
    content = bytearray(ir.with_suffix(".bin").read_bytes())
    content[-1] ^= 1
    ir.with_suffix(".bin").write_bytes(content)
    second = prepare_model(ir, WIDE, 640, no_progress).weights_sha256
    np.savez(ir.with_suffix(".npz"), weight_0=np.zeros(1))
    third = prepare_model(ir, WIDE, 640, no_progress).weights_sha256
    assert len({first, second, third}) == 3


def test_the_report_has_that_hash(tmp_path: Path) -> None:
    ir = save_ir(tmp_path / "light.xml")
    clip = write_clip(tmp_path / "clip.mp4", [gray(30)] * 3)
    report = process(clip, tmp_path / "out", ir)
    assert report["model"]["sha256"] == prepare_model(ir, WIDE, 640, no_progress).weights_sha256


def without_bin(ir: Path) -> None:
    ir.with_suffix(".bin").unlink()


def folder_as_bin(ir: Path) -> None:
    ir.with_suffix(".bin").unlink()
    ir.with_suffix(".bin").mkdir()


def short_bin(ir: Path) -> None:
    content = ir.with_suffix(".bin").read_bytes()
    ir.with_suffix(".bin").write_bytes(content[: len(content) // 2])


def huge_bin(ir: Path) -> None:
    with ir.with_suffix(".bin").open("r+b") as file:
        file.truncate(1 << 40)


def huge_xml(ir: Path) -> None:
    with ir.open("r+b") as file:
        file.truncate(1 << 36)


def edit(old: str, new: str, ir: Path) -> None:
    content = ir.read_text(encoding="utf-8")
    assert old in content
    ir.write_text(content.replace(old, new, 1), encoding="utf-8")


def far_offset(ir: Path) -> None:
    edit('offset="0"', f'offset="{1 << 40}"', ir)


def negative_offset(ir: Path) -> None:
    edit('offset="0"', 'offset="-4096"', ir)


def entities(ir: Path) -> None:
    nested = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
    edit("<net", f'<!DOCTYPE net [<!ENTITY e0 "x">{nested}]><net', ir)


def entity_of_a_file(ir: Path) -> None:
    edit("<net", '<!DOCTYPE net [<!ENTITY e SYSTEM "file:///etc/passwd">]><net', ir)


def other_encoding(ir: Path) -> None:
    ir.write_text(ir.read_text(encoding="utf-8"), encoding="utf-16")


def deep(ir: Path) -> None:
    edit("</net>", "<a>" * 300_000 + "</a>" * 300_000 + "</net>", ir)


@pytest.mark.parametrize(
    "damage",
    [
        without_bin,
        folder_as_bin,
        short_bin,
        huge_bin,
        huge_xml,
        far_offset,
        negative_offset,
        entities,
        entity_of_a_file,
        other_encoding,
        deep,
    ],
)
def test_an_ir_that_claims_what_it_has_not_is_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    ir = save_ir(tmp_path / "light.xml")
    damage(ir)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(ir)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


def test_an_ir_that_makes_gigabytes_of_nothing_is_refused(tmp_path: Path) -> None:
    image = ops.parameter([1, 64, 64, 3], np.uint8)
    huge = ops.broadcast(np.float32(0), np.array([1 << 12] * 3, np.int64))
    model = ov.Model([ops.multiply(ops.convert(image, "f32"), ops.reduce_sum(huge, [0, 1, 2]))],
                     [image], "huge")  # fmt: skip
    ov.save_model(model, tmp_path / "huge.xml", compress_to_fp16=False)
    assert "a value in it has the shape" in refusal(tmp_path / "huge.xml")


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "weights.bin", "/dev/zero", "a/../../secret"]
)
def test_an_onnx_with_weights_in_other_files_is_refused(
    tmp_path: Path, exported: Path, location: str
) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1 << 20))
    model = onnx.load(exported)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    (tmp_path / "yolo.onnx").write_bytes(model.SerializeToString())
    assert "weights in other files" in refusal(tmp_path / "yolo.onnx")


def huge_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def negative_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -1


def other_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] += 1


def operation_of_nobody(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("evil", 1))
    model.graph.node[0].domain = "evil"
    model.graph.node[0].op_type = "Load"


def huge_input(model: onnx.ModelProto) -> None:
    for i in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[i].dim_value = 1 << 20


@pytest.mark.parametrize(
    "change", [huge_dims, negative_dims, other_dims, operation_of_nobody, huge_input]
)
def test_an_onnx_that_claims_what_it_has_not_is_refused_in_one_line(
    tmp_path: Path, exported: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load(exported)
    change(model)
    (tmp_path / "yolo.onnx").write_bytes(model.SerializeToString())
    refusal(tmp_path / "yolo.onnx")


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 32))):
        place = rng.randrange(len(changed))
        kind = rng.randrange(3)
        if kind == 0:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            del changed[place : place + rng.randrange(1, 16)]
        else:
            changed[place:place] = rng.randbytes(rng.randrange(1, 16))
    return bytes(changed)


@pytest.mark.parametrize("kind", ["onnx", "xml", "bin"])
def test_a_hundred_mutated_graphs_are_read_or_refused_by_a_process_that_lives(
    tmp_path: Path, exported: Path, kind: str
) -> None:
    rng, paths = random.Random(5), []
    ir = save_ir(tmp_path / "light.xml")
    for number in range(100):
        path = tmp_path / f"{number}{'.onnx' if kind == 'onnx' else '.xml'}"
        if kind == "onnx":
            path.write_bytes(mutated(exported.read_bytes(), rng))
        else:
            for end in (".xml", ".bin"):
                content = ir.with_suffix(end).read_bytes()
                if end == f".{kind}":
                    content = mutated(content, rng)
                path.with_suffix(end).write_bytes(content)
        paths.append(str(path))
    found = subprocess.run(
        [sys.executable, "-c", READ_ALL, *paths], capture_output=True, text=True, timeout=500
    )
    messages = [json.loads(line)[1] for line in found.stdout.splitlines()]
    assert found.returncode == 0, f"number {len(messages)} ended the process: {found.stderr}"
    assert len(messages) == 100
    assert all(message.isprintable() for message in messages)
    shutil.rmtree(tmp_path)
