"""`render`: existing detections onto their clip."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from pipeline.cli.argument_parser import HelpFormatter
from pipeline.cli.arguments import render_config
from pipeline.cli.groups import add_cores, add_debug, add_limits, add_quiet
from pipeline.cli.options import add_options, read_name, read_path
from pipeline.cli.terminal import progress_shown, show, show_note, show_outputs
from pipeline.core.config import DrawOptions, EncodeOptions, ProcessConfig
from pipeline.core.position import Position
from pipeline.core.progress import ProgressCallback
from pipeline.core.text import counted
from pipeline.execution.store import require_known
from pipeline.execution.supervise import supervise
from pipeline.run.recorded import RecordedRun, Rendered, read_recorded


def add_parser(commands: Any) -> None:
    command = commands.add_parser(
        "render",
        help="draw existing detections onto their clip, without a model",
        description="Draw the detections.jsonl of an earlier run onto its clip or picture: writes "
        "annotated.mp4 (or .jpg, .png), the same file that `process` writes. The report.json "
        "beside the detections identifies the clip; another clip is refused. Rerun an interrupted "
        "command to resume.",
        formatter_class=HelpFormatter,
    )
    command.add_argument("clip", type=read_name, help="the clip or picture")
    command.add_argument(
        "detections", type=read_path, help="its detections.jsonl, with report.json beside it"
    )
    command.add_argument(
        "--output-dir",
        type=read_path,
        metavar="DIR",
        help="output folder (default: that of the detections)",
    )
    add_options(command, ProcessConfig, "overwrite", help_text="replace an existing annotated file")
    add_cores(command)
    add_debug(command)
    add_quiet(command)
    encoding = command.add_argument_group("encoding", "Without these options, as that run did.")
    add_options(command, ProcessConfig, "segments_at_once")
    add_options(encoding, EncodeOptions, default=None)
    drawing = command.add_argument_group("drawing", "Without these options, as that run did.")
    add_options(drawing, DrawOptions, default=None)
    add_options(add_limits(command), ProcessConfig, "stall_seconds")


def run(arguments: argparse.Namespace) -> None:
    require_known(arguments.clip)
    recorded = read_recorded(arguments.detections)
    config = render_config(arguments, recorded)
    with progress_shown(arguments, config.source_name) as progress:
        rendered = supervise(RenderInChild(recorded), config, progress)
    if not arguments.quiet:
        seconds = rendered.wall_seconds
        frames = counted(rendered.num_frames, "frame")
        show(f"{frames} in {seconds:.2f} s: {rendered.num_frames / seconds:.1f} fps")
        show(f"{config.output_dir}/{rendered.file}")
    for line in rendered.notes:
        show_note(line)
    show_outputs([config.output_dir / rendered.file])


@dataclasses.dataclass(frozen=True, slots=True)
class RenderInChild:
    """The work of the child process of `render`, which imports FFmpeg and OpenCV."""

    recorded: RecordedRun

    def __call__(
        self, config: ProcessConfig, on_progress: ProgressCallback, position: Position
    ) -> Rendered:
        from pipeline.run.render import render_clip

        return render_clip(config, self.recorded, on_progress, position)
