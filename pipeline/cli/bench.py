"""`bench`: the throughput configurations beside each other."""

from __future__ import annotations

import argparse
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.groups import add_cores, add_weights_options
from pipeline.cli.options import read_path, read_size
from pipeline.cli.terminal import progress_shown, show, show_outputs
from pipeline.core.config import SyntheticOptions


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "bench",
        help="compare the throughput configurations",
        description="Measure the model alone in every throughput configuration on the same frames; "
        "writes bench.json, bench.png and bench.html.",
        formatter_class=HelpFormatter,
    )
    command.add_argument(
        "--frames",
        type=int,
        default=1024,
        metavar="N",
        help="frames per configuration, over all rounds",
    )
    command.add_argument(
        "--rounds",
        type=int,
        default=4,
        metavar="N",
        help="rounds in which the configurations take turns",
    )
    command.add_argument("--image", type=read_path, metavar="FILE", help="repeat this picture")
    command.add_argument(
        "--size", type=read_size, default="640x480", metavar="WxH", help="frame size"
    )
    command.add_argument(
        "--configs", nargs="+", metavar="NAME", help="measure only these (default: all)"
    )
    command.add_argument(
        "--output-dir", type=read_path, default="output/bench", metavar="DIR", help="output folder"
    )
    add_cores(command)
    add_weights_options(command)


def run(arguments: argparse.Namespace) -> None:
    from pipeline.measure.benchmark import BenchOptions, benchmark
    from pipeline.measure.chart import PAGE_NAME, require_chart, table_lines, write_bench

    require_chart()
    options = BenchOptions(
        source=SyntheticOptions(
            num_frames=arguments.frames, size_wh=arguments.size, image=arguments.image
        ),
        num_frames=arguments.frames,
        num_rounds=arguments.rounds,
        imgsz=arguments.imgsz,
        weights=arguments.weights,
        nms_free=arguments.nms_free,
        names=tuple(arguments.configs) if arguments.configs else None,
    )
    with progress_shown(arguments) as progress:
        result = benchmark(options, progress)
    write_bench(result, arguments.output_dir)
    show_outputs([arguments.output_dir / PAGE_NAME])
    if arguments.quiet:
        return
    for line in table_lines(result):
        show(line)
    show(f"page in {arguments.output_dir / PAGE_NAME}")
