"""The files of real runs are valid against docs/schemas, and versions that are read are read."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import pytest

from pipeline.cli.commands import main
from pipeline.run.outputs import BATCH_VERSION, DETECTIONS_VERSION, REPORT_VERSION
from tests.conftest import DEMO, needs_demo, with_light, write_clip
from tests.schemas import SCHEMAS, schema, schema_errors

NAMES = ("detections", "report", "batch")
FORMATS = (SCHEMAS.parent / "formats.md").read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(folder: Path) -> list[Any]:
    text = (folder / "detections.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def parts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every object and array in a value, with its path."""
    if isinstance(value, dict | list):
        yield path, value
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from parts(part, (*path, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [with_light((i, 3)) for i in range(7)])


@pytest.fixture
def usual(tiny_weights: Path, tmp_path: Path) -> list[str]:
    return ["--weights", str(tiny_weights), "--output-dir", str(tmp_path / "out")]


@pytest.fixture
def result(clip: Path, usual: list[str], tmp_path: Path) -> Path:
    assert main(["process", str(clip), *usual, "--every", "3"]) == 0
    return tmp_path / "out"


@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize(
    "options",
    [
        ["--every", "3"],
        ["--frames", "3", "--classes", "light", "--preset", "ultrafast"],
        ["--codec", "av1", "--config", "latency"],
    ],
    ids=" ".join,
)
def test_what_a_clip_gives_is_what_the_schemas_say(
    options: list[str], clip: Path, usual: list[str], tmp_path: Path
) -> None:
    assert main(["process", str(clip), *usual, *options]) == 0
    assert schema_errors("report", read(tmp_path / "out" / "report.json")) == []
    records = lines(tmp_path / "out")
    assert len(records) in (3, 7)
    for record in records:
        assert schema_errors("detections", record) == []
        assert ("interpolated" in record) == ("--every" in options)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_what_a_picture_gives_is_what_the_schemas_say(
    suffix: str, usual: list[str], tmp_path: Path
) -> None:
    picture = tmp_path / f"picture{suffix}"
    cv2.imwrite(str(picture), with_light((4, 4)))
    assert main(["process", str(picture), *usual]) == 0
    assert schema_errors("report", read(tmp_path / "out" / "report.json")) == []
    [record] = lines(tmp_path / "out")
    assert schema_errors("detections", record) == []


@needs_demo
def test_what_the_scene_gives_is_what_the_schemas_say(tmp_path: Path) -> None:
    small = ["--frames", "5", "--size", "320x192", "--imgsz", "320"]
    out = str(tmp_path / "out")
    assert main(["process", *small, "--weights", str(DEMO), "--output-dir", out]) == 0
    report = read(tmp_path / "out" / "report.json")
    assert schema_errors("report", report) == []
    assert report["truth"] is not None


def test_what_a_batch_gives_is_what_the_schema_says(
    clip: Path, usual: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video\n" * 50)
    assert main(["process", str(clip), str(broken), *usual]) == 1
    record = read(tmp_path / "out" / "batch.json")
    assert schema_errors("batch", record) == []
    assert [entry["status"] for entry in record["clips"]] == ["done", "failed"]
    assert main(["process", str(clip), *usual]) == 0


def test_every_field_that_is_unknown_or_missing_contradicts_the_schema(result: Path) -> None:
    for name, value in (
        ("report", read(result / "report.json")),
        ("detections", next(record for record in lines(result) if record["detections"])),
    ):
        by_class = (("detections", "per_class"), ("detections", "over_time", "boxes"))
        free = {("versions",), *by_class} if name == "report" else set()
        fields = [path for path, part in parts(value) if isinstance(part, dict)]
        assert len(fields) > 1
        for path in fields:
            if path in free:
                continue
            more = copy.deepcopy(value)
            at(more, path)["unknown"] = 1
            assert schema_errors(name, more) != [], f"{path} may have more"
            for key in at(value, path):
                less = copy.deepcopy(value)
                del at(less, path)[key]
                optional = (*path, key) in {
                    ("interpolated",),
                    *(("output", field) for field in ("crf", "preset", "partitions")),
                }
                assert (schema_errors(name, less) == []) == optional, f"{path} without {key}"


def test_the_versions_in_the_schemas_are_those_that_are_written(result: Path) -> None:
    report = read(result / "report.json")
    assert report["schema_version"] == REPORT_VERSION
    assert report["output"]["detections_version"] == DETECTIONS_VERSION
    for name, version in (
        ("report", REPORT_VERSION),
        ("detections", DETECTIONS_VERSION),
        ("batch", BATCH_VERSION),
    ):
        assert schema(name)["$id"] == f"urn:pipeline:{name}:{version}"


def test_a_result_of_the_version_before_is_read(
    result: Path, clip: Path, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = read(result / "report.json")
    report["schema_version"] = 1
    del report["output"]["detections_version"]
    del report["detections"]["over_time"], report["events"], report["source"]["creation_time"]
    (result / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert main(["process", str(clip), *usual, "--every", "3"]) == 0
    assert "already done" in capsys.readouterr().out


def test_a_result_of_a_later_version_is_refused_in_one_line(
    result: Path, clip: Path, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = read(result / "report.json")
    report["schema_version"] = REPORT_VERSION + 1
    (result / "report.json").write_text(json.dumps(report), encoding="utf-8")
    capsys.readouterr()
    command = ["process", str(clip), *usual, "--every", "3"]
    assert main(command) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"format version {REPORT_VERSION + 1}" in line
    assert "--overwrite" in line
    assert main([*command, "--overwrite"]) == 0
    assert read(result / "report.json")["schema_version"] == REPORT_VERSION


@pytest.mark.parametrize("name", NAMES)
def test_the_page_on_formats_names_every_field_at_the_top(name: str) -> None:
    named = set(re.findall(r"`([a-z_]+)`", FORMATS))
    assert set(schema(name)["properties"]) <= named
