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
        "apply to them. A model that cannot be used is named with the reason; the exit code is "
        "then 1.",
    )
    command.add_argument(
        "models",
        nargs="*",
        type=read_model,
        metavar="MODEL",
        help="files, exported folders, or names (default: official and demo, as far as they are "
        "here)",
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
