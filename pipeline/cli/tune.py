"""`tune`: the fastest configuration of this machine."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.arguments import tune_config
from pipeline.cli.groups import (
    add_cores,
    add_limits,
    add_precision,
    add_synthetic,
    add_weights_options,
)
from pipeline.cli.options import add_options, read_name
from pipeline.cli.terminal import progress_shown, show
from pipeline.core.config import SYNTHETIC, EncodeOptions


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "tune",
        help="find the fastest configuration on this machine",
        description="Measure configurations from file to file and keep the fastest for later runs "
        "with the same machine, model, frame size and codec.",
        formatter_class=HelpFormatter,
    )
    command.add_argument(
        "clip",
        nargs="?",
        type=read_name,
        metavar="video",
        default=SYNTHETIC,
        help="a clip, or 'synthetic' for the synthetic scene",
    )
    add_cores(command)
    model = add_weights_options(command)
    add_precision(model)
    add_options(command.add_argument_group("encoding"), EncodeOptions, "codec", "crf", "preset")
    add_limits(command)
    add_synthetic(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.measure.tuner import tune

    with progress_shown(arguments) as progress:
        tuned = tune(tune_config(arguments), progress)
    if arguments.quiet:
        return
    for entry in tuned.selection.alternatives:
        rounds = ", ".join(f"{fps:.1f}" for fps in entry.throughput_fps)
        show(f"{entry.median_fps:>7.1f} fps  {entry.name}  ({rounds})")
    kept = f"kept in {tuned.path}" if tuned.path else "not kept: the cache folder cannot be written"
    show(f"{tuned.selection.reason}; {kept}")
    if tuned.int8_gain is not None:
        show(
            f"INT8 would be {tuned.int8_gain:.2f} times as fast: --precision int8; "
            "`pipeline evaluate` measures its accuracy"
        )
    if tuned.adaptive is not None:
        show(str(tuned.adaptive))
