"""The command line -> its arguments: the options and names that every command takes."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from pipeline.core.config import (
    CODECS,
    DEINTERLACE,
    HINTS,
    MODEL_NAMES,
    PRECISIONS,
    STANDARD_INPUT,
    SYNTHETIC,
    SyntheticOptions,
)
from pipeline.core.machine import versions
from pipeline.core.text import printable
from pipeline.inference.configurations import AUTO

OUTPUT_FOLDER = "output"

_SCENE = SyntheticOptions()


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Complains in one line; names of files in it, which a shell put in, may be hostile."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would change its meaning with the next option that begins with it.
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        reason = " ".join(message.split())
        self.exit(2, printable(f"pipeline: {reason}; see {self.prog} --help") + "\n")

    def parse_mixed(self, words: Sequence[str], command: str) -> argparse.Namespace:
        """Options and names in any order; for what is unknown, the option that is like it."""
        found, unknown = self.parse_known_intermixed_args(
            words, argparse.Namespace(command=command)
        )
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            word = unknown[0].partition("=")[0]
            alike = difflib.get_close_matches(word, known, 1, 0.7) if word.startswith("--") else []
            meant = f"; did you mean {alike[0]}?" if alike else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found


class _Version(argparse.Action):
    """Shows the versions that a result depends on, found only when asked for, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        found = versions()
        others = ", ".join(f"{name} {found[name]}" for name in found if name != "pipeline")
        sys.stdout.write(f"pipeline {found['pipeline']} ({others})\n")
        parser.exit()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command, whose name is in `command`. Leaves by SystemExit if it is wrong.

    argv: None takes those of the process. Options and names may be mixed; after `--` all are
    names, also those that begin with a dash.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _argument_parser()
    if not words:
        parser.error(f"which command? There are: {', '.join(commands)}")
    if words[0] not in commands:
        if not words[0].startswith("-"):
            alike = difflib.get_close_matches(words[0], commands, 1) or ["process"]
            meant = alike[0] if not Path(words[0]).exists() else f"process {words[0]}"
            parser.error(
                f"{words[0]!r} is no command, there are: {', '.join(commands)}; "
                f"did you mean `pipeline {meant}`?"
            )
        if words[0] not in ("--help", "-h", "--version"):
            parser.error(f"{words[0]}: options come after the command, as in process {words[0]}")
        return parser.parse_args(words)
    options, names = words[1:], []
    if "--" in options:
        end = options.index("--")
        # So that no version of argparse takes one for an option.
        names = [
            f"./{name}" if name.startswith("-") and name != STANDARD_INPUT else name
            for name in options[end + 1 :]
        ]
        options = [*options[:end], "--"]
    return commands[words[0]].parse_mixed([*options, *names], words[0])


def _argument_parser() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of the commands by their names."""
    parser = _Parser(
        prog="pipeline",
        description="Annotate footage with YOLOv5 through OpenVINO, as fast as the machine allows.",
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show the versions of this and of its libraries"
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    _add_process(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    _add_tune(commands)
    _add_plan(commands)
    _add_configs(commands)
    return parser, commands.choices


def _add_process(commands: Any) -> None:
    command = commands.add_parser(
        "process",
        help="annotate a clip, or many",
        description="Annotate a clip: writes annotated.mp4, detections.jsonl, report.json and "
        "report.html; for the synthetic scene also truth.jsonl; of a picture annotated.jpg or "
        "annotated.png. Of several files, of a folder or a pattern, each clip, or each picture "
        "where there is no clip, is done, into a folder of its own with the path of the clip; "
        "batch.json and batch.html tell of all. What was done before, of the same clip with the "
        "same model and options, is skipped, and a clip that fails does not end the others.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "videos",
        nargs="*",
        metavar="video",
        help="the clip, '-' for standard input, or 'synthetic' for one that is made up, as without "
        "any; or files, folders and quoted patterns like 'cams/**/*.mp4'",
    )
    command.add_argument(
        "--output-dir",
        metavar="DIR",
        help="where to write (default: output/CLIP; for many clips output)",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing output; of many clips, those made with other options or of "
        "another file",
    )
    _add_model_options(command)

    boxes = command.add_argument_group("boxes")
    boxes.add_argument("--conf", type=float, default=0.25, metavar="P", help="least confidence")
    boxes.add_argument(
        "--iou", type=float, default=0.45, metavar="P", help="overlap above which NMS drops a box"
    )
    boxes.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="keep these only: names or numbers; a clip after them needs -- before it",
    )
    boxes.add_argument(
        "--max-det", type=int, default=1000, metavar="N", help="most boxes per frame"
    )

    frames = command.add_argument_group("frames")
    frames.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help=f"the first N of a clip only; of a synthetic one all (default: {_SCENE.num_frames})",
    )
    frames.add_argument(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="infer each Nth frame, and carry its boxes over to those between",
    )
    frames.add_argument(
        "--deinterlace",
        choices=DEINTERLACE,
        default="off",
        help="make whole pictures of the fields of an interlaced clip (default: %(default)s)",
    )
    frames.add_argument(
        "--no-reuse",
        action="store_true",
        help="infer frames too that repeat the one before to the byte",
    )

    _add_segment_seconds(frames)
    _add_encoding(command)
    _add_limits(command).add_argument(
        "--stall-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="end if nothing moves for so long, no frame, no CPU time and no file, or if one step "
        "on one frame takes a thread so much CPU time",
    )
    _add_synthetic(command)
    _add_cluster(command)


def _add_encoding(command: argparse.ArgumentParser) -> None:
    output = command.add_argument_group("encoding")
    output.add_argument("--codec", choices=CODECS, default="h264", help="video codec")
    output.add_argument(
        "--crf",
        type=int,
        metavar="N",
        help="quality, lower is better: 0 to 51 for h264 and hevc, 63 for av1 and vp9 "
        "(default: by codec)",
    )
    output.add_argument(
        "--preset",
        metavar="NAME",
        help="speed of the encoder: ultrafast to placebo for h264 and hevc, 0 to 13 for av1, 0 to "
        "8 for vp9 (default: by codec)",
    )


def _add_limits(command: argparse.ArgumentParser) -> Any:
    """The limits of every command that reads footage; returns their group."""
    limits = command.add_argument_group("limits", "Footage that asks for more is refused.")
    limits.add_argument(
        "--max-size", type=_size, default="8192x4320", metavar="WxH", help="of a frame"
    )
    limits.add_argument("--max-streams", type=int, default=64, metavar="N", help="of a file")
    limits.add_argument(
        "--max-frame-rate", type=_fraction, default="1000", metavar="R", help="frames per second"
    )
    limits.add_argument(
        "--max-memory", type=int, default=4096, metavar="MB", help="for decoded frames"
    )
    return limits


def _add_synthetic(command: argparse.ArgumentParser) -> None:
    # Without defaults of their own, so that it shows which were given.
    synthetic = command.add_argument_group("synthetic source", "Not for clips, but --frame-rate.")
    width, height = _SCENE.size_wh
    synthetic.add_argument(
        "--size", type=_size, metavar="WxH", help=f"frame size (default: {width}x{height})"
    )
    synthetic.add_argument(
        "--frame-rate",
        type=_fraction,
        metavar="R",
        help=f"frames per second (default: {_SCENE.frame_rate}); given with a folder of "
        "pictures, one clip is made of them, in the order of the numbers in their names",
    )
    synthetic.add_argument(
        "--seed", type=int, metavar="N", help=f"of the scene (default: {_SCENE.seed})"
    )
    synthetic.add_argument("--image", type=Path, metavar="FILE", help="repeat this picture")


def _add_cluster(command: argparse.ArgumentParser) -> None:
    cluster = command.add_argument_group("cluster", "Segments worked on by the nodes of a cluster.")
    cluster.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="this machine alone, or a Ray cluster",
    )
    cluster.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the cluster, or 'local' to start one (default: the one that runs here, or local)",
    )
    _add_cores_per_actor(cluster, None, " (default: 4, or what the smallest node has)")


def _add_segment_seconds(group: Any) -> None:
    group.add_argument(
        "--segment-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="about how long a segment is; as much is done again, at most, when an interrupted "
        "run goes on",
    )


def _add_cores_per_actor(group: Any, default: int | None, told_default: str = "") -> None:
    group.add_argument(
        "--cores-per-actor",
        type=int,
        default=default,
        metavar="N",
        help=f"that one segment is worked on with{told_default}",
    )


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure the accuracy on labelled pictures",
        description="Mean average precision, as COCO defines it, on a folder with images/ and "
        "labels/ in YOLO format (class cx cy w h, normalised).",
        formatter_class=_HelpFormatter,
    )
    command.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the pictures")
    _add_model_options(command)


def _add_bench(commands: Any) -> None:
    command = commands.add_parser(
        "bench",
        help="compare the throughput configurations",
        description="Measure the model alone in every throughput configuration on the same frames; "
        "writes bench.json, bench.png and bench.html.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument("--frames", type=int, default=1024, metavar="N", help="in all rounds")
    command.add_argument("--rounds", type=int, default=4, metavar="N", help="in turn")
    command.add_argument("--image", type=Path, metavar="FILE", help="repeat this picture")
    command.add_argument("--size", type=_size, default="640x480", metavar="WxH", help="frame size")
    command.add_argument("--configs", nargs="+", metavar="NAME", help="these only (default: all)")
    command.add_argument(
        "--output-dir", type=Path, default="output/bench", metavar="DIR", help="where to write"
    )
    _add_weights_options(command)


def _add_tune(commands: Any) -> None:
    command = commands.add_parser(
        "tune",
        help="find what is fastest on this machine",
        description="Measure candidates from file to file, and keep the fastest for later runs "
        "with the same machine, model, frame shape and codec.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "video",
        nargs="?",
        default=SYNTHETIC,
        help="the clip, or 'synthetic' for one that is made up",
    )
    _add_precision(_add_weights_options(command))
    _add_encoding(command)
    _add_limits(command)
    _add_synthetic(command)


def _add_plan(commands: Any) -> None:
    command = commands.add_parser(
        "plan",
        help="how long footage takes on how many cores, and what it costs",
        description="Reads the headers of clips, and tells the time, cost and bandwidth of a job "
        "on a cluster, and what limits it. No frame is decoded.",
        epilog="The frames per second of a core are those of a run on footage of the same kind: in "
        "its report.json, speed.file_to_file_fps divided by configuration.cores.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument("footage", nargs="+", help="files, folders and patterns")
    command.add_argument(
        "--fps-per-core", type=float, required=True, metavar="FPS", help="what one core manages"
    )
    command.add_argument(
        "--cores", type=int, required=True, metavar="N", help="of all machines together"
    )
    _add_cores_per_actor(command, 4)
    _add_segment_seconds(command)
    command.add_argument(
        "--clips-at-once",
        type=int,
        metavar="N",
        help="that are worked on at the same time (default: as many as `process` takes)",
    )
    command.add_argument(
        "--bandwidth",
        type=float,
        metavar="MB",
        help="megabytes that the storage reads and writes in a second, together",
    )
    command.add_argument(
        "--price-per-core-hour", type=float, metavar="PRICE", help="in any currency"
    )
    _add_debug(command)


def _add_configs(commands: Any) -> None:
    command = commands.add_parser(
        "configs",
        help="list the throughput configurations",
        description="List the throughput configurations, each a value for --config, and say of "
        "each that cannot run on this machine what is missing.",
    )
    _add_debug(command)


def _add_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show where an error came from")


def _add_weights_options(command: argparse.ArgumentParser) -> Any:
    """The options of every command that needs a model; returns their group."""
    _add_debug(command)
    command.add_argument(
        "--quiet",
        action="store_true",
        help="no progress and no summary: errors and warnings only"
        + (", and the figures" if command.prog.endswith("evaluate") else ""),
    )
    model = command.add_argument_group("model")
    which = model.add_mutually_exclusive_group()
    which.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="YOLOv5 .pt, exported .onnx or IR .xml (default: what PIPELINE_WEIGHTS names)",
    )
    which.add_argument(
        "--model",
        dest="weights",
        choices=MODEL_NAMES,
        help="YOLOv5n as published, or the bundled one that knows the things of the synthetic "
        "scene (default: official; demo where `process` draws that scene)",
    )
    model.add_argument("--imgsz", type=_imgsz, default=640, metavar="PX", help="longer input side")
    return model


def _add_model_options(command: argparse.ArgumentParser) -> None:
    model = _add_weights_options(command)
    model.add_argument(
        "--config",
        default=AUTO,
        metavar="NAME",
        help="throughput configuration, see 'configs'; decides by itself what the "
        "options below set, precision excepted",
    )
    model.add_argument("--device", type=str.upper, metavar="NAME", help="OpenVINO device")
    model.add_argument("--hint", choices=HINTS, help="performance hint")
    _add_precision(model)
    model.add_argument(
        "--streams", type=int, metavar="N", help="inference streams, at most one a core"
    )
    model.add_argument("--requests", type=int, metavar="N", help="inference requests")
    model.add_argument("--batch", type=int, metavar="N", help="frames per request")


def _add_precision(model: Any) -> None:
    model.add_argument("--precision", choices=PRECISIONS, help="of the inference (default: auto)")
    model.add_argument(
        "--calibration",
        type=Path,
        metavar="FOLDER",
        help="pictures to calibrate INT8 on (default: frames of the clip)",
    )


def _imgsz(text: str) -> int:
    if not text.isdecimal() or int(text) == 0 or int(text) % 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 32")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT") from None


def _fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        reason = f"{text!r} is not a frame rate like 30 or 30000/1001"
        raise argparse.ArgumentTypeError(reason) from None
