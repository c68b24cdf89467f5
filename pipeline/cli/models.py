"""`models`: what models are, and what applies to them."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.groups import add_debug, read_model
from pipeline.cli.terminal import show
from pipeline.core.errors import ModelError
from pipeline.core.text import counted


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "models",
        help="show what models are, and what applies to them",
        description="Show family, classes, input and parameters of models, and which optimisations "
        "apply to them. If a model cannot be used, the reason is shown, and the exit code "
        "is 1.",
    )
    command.add_argument(
        "models",
        nargs="*",
        type=read_model,
        metavar="MODEL",
        help="files, exported folders, or names (default: official and demo, if they are on this "
        "machine)",
    )
    command.add_argument("--json", action="store_true", help="as JSON, one object for each model")
    add_debug(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.cli.model_table import described, json_text, table_lines

    found = described(arguments.models)
    for line in json_text(found).splitlines() if arguments.json else table_lines(found):
        show(line)
    if failed := [entry for entry in found if entry.error]:
        raise ModelError(f"{counted(len(failed), 'model')} cannot be used: {failed[0].error}")
