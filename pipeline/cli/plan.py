"""`plan`: time and cost of a job on a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.batch.clips import find_clips
from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.groups import OUTPUT_FOLDER, add_debug
from pipeline.cli.options import add_options
from pipeline.cli.terminal import show
from pipeline.core.config import ProcessConfig
from pipeline.execution.store import require_known


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "plan",
        help="estimate time and cost of a job on a cluster",
        description="Read the headers of clips and estimate the time, cost and bandwidth of a job "
        "on a cluster, and what limits it. No frame is decoded.",
        epilog="Take --fps-per-core from the report.json of a run on similar footage: "
        "speed.file_to_file_fps divided by configuration.cores.",
        formatter_class=HelpFormatter,
    )
    command.add_argument("footage", nargs="+", help="files, folders and patterns")
    command.add_argument(
        "--fps-per-core", type=float, required=True, metavar="FPS", help="throughput of one core"
    )
    command.add_argument(
        "--cores", type=int, required=True, metavar="N", help="cores of all machines"
    )
    command.add_argument(
        "--cores-per-actor",
        type=int,
        default=4,
        metavar="N",
        help="cores that process one segment",
    )
    add_options(command, ProcessConfig, "segment_seconds")
    command.add_argument(
        "--clips-at-once",
        type=int,
        metavar="N",
        help="clips processed at the same time (default: as `process` does)",
    )
    command.add_argument(
        "--bandwidth",
        type=float,
        metavar="MB",
        help="what the storage reads and writes, in total, in megabytes per second",
    )
    command.add_argument(
        "--price-per-core-hour",
        type=float,
        metavar="PRICE",
        help="price of one core for one hour, in any currency",
    )
    add_debug(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.batch.footage import read_headers
    from pipeline.measure.sizing import JobOptions, size_job
    from pipeline.measure.sizing_table import table_lines

    options = JobOptions(
        fps_per_core=arguments.fps_per_core,
        cores=arguments.cores,
        cores_per_actor=arguments.cores_per_actor,
        segment_seconds=arguments.segment_seconds,
        clips_at_once=arguments.clips_at_once,
        bandwidth_bytes=arguments.bandwidth and 1e6 * arguments.bandwidth,
        price_per_core_hour=arguments.price_per_core_hour,
    )
    for name in arguments.footage:
        require_known(name)
    # The usual output folder contains no footage.
    clips = find_clips(arguments.footage, Path(OUTPUT_FOLDER))
    headers = read_headers(clip.path for clip in clips)
    for line in table_lines(size_job(headers, options)):
        show(line)
