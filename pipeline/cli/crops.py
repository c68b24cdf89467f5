"""`crops`: the best picture of each thing that an earlier run found; also `process --crops`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.groups import add_debug, add_quiet, add_results
from pipeline.cli.terminal import progress_shown, show, show_outputs
from pipeline.core.config import ProcessConfig
from pipeline.core.text import counted
from pipeline.run.outputs import CROPS_NAME


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "crops",
        help="cut the best picture of each thing out of the clips of existing results",
        description="Cut the best picture of each track (without tracks, of each class whenever it "
        "appears) out of the clips of earlier runs, as JPEG: writes crops/ beside each result, in "
        "place of an earlier one. Pictures of redacted results show what is covered as covered.",
        formatter_class=HelpFormatter,
    )
    add_results(command)
    command.add_argument(
        "--clips",
        required=True,
        type=Path,
        metavar="CLIPS",
        help="the clip of the result, or the folder with the clips",
    )
    add_debug(command)
    add_quiet(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.run.exports.clip import find_results
    from pipeline.run.recorded import from_report

    results = find_results(arguments.results)
    for path in results:
        config = from_report(path, lambda path, report: _config(path, report, arguments.clips))
        cut_crops(arguments, path, config, alone=len(results) == 1)


def _config(detections: Path, report: dict[str, Any], at: Path) -> ProcessConfig:
    from pipeline.run.exports.clip import source_file

    source, used = report["source"], report["configuration"]
    return ProcessConfig(
        source=source_file(source["name"], source["fingerprint"], at),
        output_dir=detections.parent,
        deinterlace=used["deinterlace"],
        start=used.get("start"),
        end=used.get("end"),
    )


def cut_crops(
    arguments: argparse.Namespace, detections: Path, config: ProcessConfig, *, alone: bool
) -> None:
    """Cut the pictures of one result out of the source of a config. Raises PipelineError.

    alone: whether there is no other one.
    """
    from pipeline.run.crops import write_crops
    from pipeline.run.recorded import from_report

    report = from_report(detections, lambda _, report: report)
    with progress_shown(arguments, config.source_name) as progress:
        pictures = write_crops(detections, report, config, progress)
    folder = detections.parent / CROPS_NAME
    show_outputs([folder])
    if not arguments.quiet:
        begin = "" if alone else f"{config.source_name}: "
        show(f"{begin}{counted(len(pictures), 'crop')} in {folder}")
