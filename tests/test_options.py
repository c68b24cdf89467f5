"""An option is declared once: parser, checks, command and keys derive from its declaration."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

from pipeline.cli.arguments import process_config
from pipeline.cli.options import add_options, given
from pipeline.cli.parsers import argument_parser, parse_arguments
from pipeline.core import config as config_module
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import UsageError
from pipeline.core.options import Option, changed, deciding, declared, validate
from pipeline.run.identity import result_key

OTHER_VALUES = {
    "--overwrite": "",
    "--model": "demo",
    "--imgsz": "320",
    "--nms-free": "",
    "--conf": "0.3",
    "--iou": "0.5",
    "--agnostic-nms": "",
    "--classes": "person",
    "--max-det": "7",
    "--codec": "hevc",
    "--crf": "20",
    "--preset": "fast",
    "--output-size": "320x240",
    "--drop-audio": "",
    "--redact": "person",
    "--redact-style": "fill",
    "--redact-hold": "2",
    "--redact-margin": "0.3",
    "--max-input-size": "640x480",
    "--max-streams": "3",
    "--max-frame-rate": "60",
    "--max-memory": "100",
    "--roi": "0,0,8,8",
    "--roi-crop": "",
    "--frames": "5",
    "--start": "2",
    "--end": "7f",
    "--every": "2",
    "--adaptive": "",
    "--tile": "96",
    "--track": "ocsort",
    "--deinterlace": "auto",
    "--no-reuse": "",
    "--no-video": "",
    "--line-width": "4",
    "--no-labels": "",
    "--no-confidence": "",
    "--segment-seconds": "7",
    "--segments-at-once": "2",
    "--cores": "1",
    "--least-agreement": "0.9",
    "--stall-seconds": "7",
}
"""A value that is not the default of each option of a clip that is not about the model's run."""

WITHOUT_EFFECT = {
    *("--overwrite", "--stall-seconds", "--max-input-size", "--max-streams", "--max-frame-rate"),
    *("--max-memory", "--segments-at-once", "--cores"),
}
"""Options that do not decide the result. The model is in the key by its content."""


NEEDED = {
    "--least-agreement": ["--adaptive"],
    "--roi-crop": ["--roi=1,1,8,8"],
    **{f"--redact-{what}": ["--redact=person"] for what in ("style", "hold", "margin")},
}
"""The options without which another one is refused."""


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
    needed = NEEDED.get(flag, [])
    usual = process_config(parse_arguments(["process", *needed, str(clip)]))
    words = ["process", *needed, *filter(None, (flag, OTHER_VALUES[flag])), "--", str(clip)]
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
        ({"strength": 0}, "--strength must be 1 or more, not 0"),
        ({"threads": 9}, "threads must lie between 1 and 8, not 9"),
        ({"strength": "many"}, "--strength must be an integer, not 'many'"),
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


def flags_by_field() -> dict[str, set[str]]:
    """The flags of all declared options, by the names of their fields."""
    flags = defaultdict(set)
    for kind in vars(config_module).values():
        if isinstance(kind, type) and is_dataclass(kind):
            for name, option in declared(kind).items():
                if option.flag is not None:
                    flags[name].add(option.flag)
    return flags


def clashes(command: argparse.ArgumentParser) -> set[str]:
    """Names in the namespace of a command that stand for two things.

    Options of which only one can be given may share a name: they are two ways to say one thing.
    """
    declared_flags, owners = flags_by_field(), defaultdict(set)
    owners["command"].add("the name of the command")
    for action in command._actions:
        alternatives = [
            group._group_actions
            for group in command._mutually_exclusive_groups
            if action in group._group_actions
        ]
        same = [other for group in alternatives for other in group if other.dest == action.dest]
        flags = {flag for one in (action, *same) for flag in one.option_strings}
        owners[action.dest].add(" ".join(sorted(flags)) or "positional")
        if action.dest in declared_flags and not flags & declared_flags[action.dest]:
            owners[action.dest].add("a declared option")
    return {name for name, found in owners.items() if len(found) > 1}


@pytest.mark.parametrize("command", argument_parser()[1])
def test_no_argument_of_a_command_has_the_name_of_another_one(command: str) -> None:
    assert clashes(argument_parser()[1][command]) == set()


@pytest.mark.parametrize(
    ("name", "dest", "clash"),
    [
        ("every", "every", {"every"}),
        ("--every-nth", "every", {"every"}),
        ("--every", "every", set()),
        ("codec", "codec", {"codec"}),
        ("command", "command", {"command"}),
        ("--other", "clip", {"clip"}),
        ("--model", "weights", set()),
    ],
)
def test_a_name_that_stands_for_two_things_is_found(name: str, dest: str, clash: set[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clip")
    which = parser.add_mutually_exclusive_group()
    add_options(which, ProcessConfig, "weights")
    container = which if dest == "weights" else parser
    if name.startswith("-"):
        container.add_argument(name, dest=dest)
    else:
        container.add_argument(name)
    assert clashes(parser) == clash
