"""`configs`: the throughput configurations."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.groups import add_debug
from pipeline.cli.terminal import show
from pipeline.core.machine import available_cores
from pipeline.inference.configurations import AUTO, configurations


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "configs",
        help="list the throughput configurations",
        description="List the throughput configurations (values for --config), and why one is "
        "unavailable on this machine.",
    )
    add_debug(command)


def run(_: argparse.Namespace) -> None:
    from pipeline.model.compiled import core

    devices = core().available_devices
    show(f"{AUTO:<14} the fastest that `tune` measured here, else a rule; the default")
    for entry in configurations(available_cores()).values():
        show(f"{entry.name:<14} {entry.description}")
        for variant in entry.variants if len(entry.variants) > 1 else ():
            show(f"{'':<14} --config '{entry.name} {variant.label}'")
        if why := entry.why_unavailable(devices):
            show(f"{'':<14} {why}")
