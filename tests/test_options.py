"""An option is declared once: parser, checks, command and keys derive from its declaration."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from pipeline.cli.arguments import process_config
from pipeline.cli.options import add_options, given
from pipeline.cli.parsers import parse_arguments
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import UsageError
from pipeline.core.options import Option, changed, deciding, declared, validate
from pipeline.run.identity import result_key

OTHER_VALUES = {
    "--overwrite": "",
    "--model": "demo",
    "--imgsz": "320",
    "--conf": "0.3",
    "--iou": "0.5",
    "--classes": "person",
    "--max-det": "7",
    "--codec": "hevc",
    "--crf": "20",
    "--preset": "fast",
    "--output-size": "320x240",
    "--max-input-size": "640x480",
    "--max-streams": "3",
    "--max-frame-rate": "60",
    "--max-memory": "100",
    "--frames": "5",
    "--every": "2",
    "--adaptive": "",
    "--deinterlace": "auto",
    "--no-reuse": "",
    "--no-video": "",
    "--segment-seconds": "7",
    "--least-agreement": "0.9",
    "--stall-seconds": "7",
}
"""A value that is not the default of each option of a clip that is not about the model's run."""

WITHOUT_EFFECT = {
    *("--overwrite", "--stall-seconds", "--max-input-size", "--max-streams", "--max-frame-rate"),
    *("--max-memory", "--least-agreement"),
}
"""Options that do not decide the result. The model is in the key by its content."""


def declared_flags(config: Any) -> Iterator[str]:
    for option in declared(config).values():
        if option.flag is not None:
            yield option.flag
    for field in fields(config):
        if field.name not in ("source", "infer") and is_dataclass(getattr(config, field.name)):
            yield from declared_flags(getattr(config, field.name))


def test_without_options_the_configuration_is_the_default_one() -> None:
    config = process_config(parse_arguments(["process", "clip.mp4"]))
    assert config == ProcessConfig(source=Path("clip.mp4"), output_dir=config.output_dir)


def test_every_option_of_a_run_is_in_the_table_above() -> None:
    config = ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out"))
    known = (set(OTHER_VALUES) - {"--model"}) | {"--weights", "--calibration"}
    assert set(declared_flags(config)) == known


@pytest.mark.parametrize("flag", OTHER_VALUES)
def test_an_option_is_in_the_key_exactly_if_it_decides_the_result(
    flag: str, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"any")
    usual = process_config(parse_arguments(["process", str(clip)]))
    words = ["process", *filter(None, (flag, OTHER_VALUES[flag])), "--", str(clip)]
    other = process_config(parse_arguments(words))
    assert other != usual
    same_key = result_key(usual, "weights") == result_key(other, "weights")
    assert same_key == (flag in WITHOUT_EFFECT or flag == "--model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    strength: Annotated[int, Option("--strength", "how strong", metavar="N", lowest=1)] = 3
    threads: Annotated[int | None, Option(lowest=1, highest=8, decides_result=False)] = None
    soft: Annotated[bool, Option("--soft")] = False
    quick: Annotated[bool, Option("--thorough")] = True

    def __post_init__(self) -> None:
        validate(self)


def parse(words: list[str]) -> Group:
    parser = argparse.ArgumentParser()
    add_options(parser, Group)
    return Group(**given(Group, parser.parse_args(words)))


def test_a_declared_option_is_parsed() -> None:
    assert parse([]) == Group()
    words = ["--strength", "5", "--soft", "--thorough"]
    assert parse(words) == Group(strength=5, soft=True, quick=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": 0}, "strength must be 1 or more, not 0"),
        ({"threads": 9}, "threads must lie between 1 and 8, not 9"),
        ({"strength": "many"}, "strength must be an integer, not 'many'"),
    ],
)
def test_a_value_outside_its_limits_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Group(**values)


def test_changed_options_are_those_without_their_default() -> None:
    group = replace(Group(), strength=4, threads=2)
    assert [(name, value) for name, _, value in changed(group)] == [("strength", 4), ("threads", 2)]


def test_a_field_decides_the_result_unless_its_option_says_otherwise() -> None:
    assert deciding(Group(threads=2)) == {"strength": 3, "soft": False, "quick": True}
