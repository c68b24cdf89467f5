"""A command line -> the command and its arguments."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pipeline.cli import (
    bench,
    configs,
    crops,
    evaluate,
    events,
    export,
    highlights,
    models,
    plan,
    process,
    render,
    track,
    tune,
)
from pipeline.cli.argument_parser import Parser
from pipeline.core.config import STANDARD_INPUT
from pipeline.core.machine import versions

# Each is a module with `add_parser` and `run`.
COMMANDS: dict[str, ModuleType] = {
    "process": process,
    "render": render,
    "track": track,
    "export": export,
    "events": events,
    "highlights": highlights,
    "crops": crops,
    "evaluate": evaluate,
    "bench": bench,
    "tune": tune,
    "plan": plan,
    "configs": configs,
    "models": models,
}


class _Version(argparse.Action):
    """Prints the versions that a result depends on and exits; they are read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        found = versions()
        others = ", ".join(f"{name} {found[name]}" for name in found if name != "pipeline")
        sys.stdout.write(f"pipeline {found['pipeline']} ({others})\n")
        parser.exit()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; the name of the command is in `command`. Raises SystemExit if invalid.

    argv: None takes the arguments of the process. Options and names may be mixed; after `--`
    everything is a name, also with a leading dash.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        return _without_command(words)
    options, names = words[1:], []
    if "--" in options:
        end = options.index("--")
        # Otherwise some versions of argparse take them for options.
        names = [
            f"./{name}" if name.startswith("-") and name != STANDARD_INPUT else name
            for name in options[end + 1 :]
        ]
        options = [*options[:end], "--"]
    _, commands = argument_parser(words[0])
    return commands[words[0]].parse_mixed([*options, *names], words[0])


def _without_command(words: list[str]) -> argparse.Namespace:
    """Show help or version, or an error. Raises SystemExit."""
    parser, commands = argument_parser()
    if not words:
        parser.error(f"no command given; commands are: {', '.join(commands)}")
    if not words[0].startswith("-"):
        alike = difflib.get_close_matches(words[0], commands, 1) or ["process"]
        meant = alike[0] if not Path(words[0]).exists() else f"process {words[0]}"
        parser.error(
            f"unknown command {words[0]!r}, commands are: {', '.join(commands)}; "
            f"did you mean `pipeline {meant}`?"
        )
    if words[0] not in ("--help", "-h", "--version"):
        parser.error(f"{words[0]}: put options after the command, as in process {words[0]}")
    return parser.parse_args(words)


def argument_parser(*names: str) -> tuple[Parser, dict[str, Parser]]:
    """The parser, and those of the commands by their names; without names, of all commands.

    The values of a command are in one namespace, from which declared options are read by the names
    of their fields: no other argument may have such a name.
    """
    parser = Parser(
        prog="pipeline",
        description="Detect objects in footage with YOLOv5 and OpenVINO, fast and offline.",
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="show the versions of the program and its libraries",
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    for name in names or COMMANDS:
        COMMANDS[name].add_parser(commands)
    return parser, commands.choices
