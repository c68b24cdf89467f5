"""`crops`: the best picture of each thing that an earlier run found; also `process --crops`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.cutting import cut_each
from pipeline.cli.groups import add_debug, add_quiet, add_results
from pipeline.cli.options import add_options, read_path
from pipeline.core.config import ProcessConfig
from pipeline.core.highlight_options import HighlightOptions


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "crops",
        help="cut the best picture of each object out of the clips of existing results",
        description="Cut the best picture of each track out of the clips of earlier runs, as JPEG "
        "(without tracks: of each class, each time that it appears). Writes crops/ beside each "
        "result and replaces an earlier one. In pictures of redacted results, covered areas are "
        "covered.",
        formatter_class=HelpFormatter,
    )
    add_results(command)
    command.add_argument(
        "--clips",
        required=True,
        type=read_path,
        metavar="CLIPS",
        help="the clip of the result, or the folder with the clips",
    )
    add_options(command, ProcessConfig, "stall_seconds")
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.run.exports.clip import find_results
    from pipeline.run.recorded import from_report

    options = HighlightOptions(crops=True)

    def config_of(path: Path) -> ProcessConfig:
        return from_report(path, lambda path, report: _config(path, report, arguments))

    cut_each(arguments, find_results(arguments.results), config_of, options)


def _config(
    detections: Path, report: dict[str, Any], arguments: argparse.Namespace
) -> ProcessConfig:
    from pipeline.run.exports.clip import source_file

    source, used = report["source"], report["configuration"]
    return ProcessConfig(
        source=source_file(source["name"], source["fingerprint"], arguments.clips),
        output_dir=detections.parent,
        deinterlace=used["deinterlace"],
        start=used.get("start"),
        end=used.get("end"),
        stall_seconds=arguments.stall_seconds,
    )
