"""The command line -> its arguments: the options and names that every command takes."""

from __future__ import annotations

import argparse
import difflib
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.cli.options import SCENE_FIELDS, Words, add_options, read_size
from pipeline.core.config import (
    MODEL_NAMES,
    STANDARD_INPUT,
    SYNTHETIC,
    AutoOptions,
    ClusterOptions,
    DetectOptions,
    EncodeOptions,
    LimitOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.machine import versions
from pipeline.core.text import printable
from pipeline.inference.configurations import AUTO
from pipeline.run.exports.formats import EXPORT_FOLDER, EXPORT_FORMATS

OUTPUT_FOLDER = "output"


_RENAMED = {"--max-size": "--max-input-size"}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or isinstance(action.default, bool):
            return action.help
        return super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Prints errors in one line, escaped: file names that a shell expanded may be hostile."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would change its meaning with the next option that begins with it.
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        reason = " ".join(message.split())
        self.exit(2, printable(f"pipeline: {reason}; see {self.prog} --help") + "\n")

    def parse_mixed(self, words: Sequence[str], command: str) -> argparse.Namespace:
        """Parse options and names in any order; suggest the closest option for an unknown one."""
        found, unknown = self.parse_known_intermixed_args(
            list(self._one_by_one(words)), argparse.Namespace(command=command)
        )
        if unknown:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            word = unknown[0].partition("=")[0]
            if word in _RENAMED:
                self.error(f"{word} is now {_RENAMED[word]}")
            alike = difflib.get_close_matches(word, known, 1, 0.7) if word.startswith("--") else []
            meant = f"; did you mean {alike[0]}?" if alike else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found

    def _one_by_one(self, words: Sequence[str]) -> Iterator[str]:
        """Several values of one option, each with the option: a clip may come behind them."""
        flag, option = "", None
        for before, word in itertools.pairwise(["", *words]):
            if before != flag and option and option.more.fullmatch(word):
                yield f"{flag}={word}"
                continue
            if before != flag or option is None:
                found = self._option_string_actions.get(word)
                flag, option = word, found if isinstance(found, Words) else None
            yield word


class _Version(argparse.Action):
    """Prints the versions that a result depends on and exits; they are read only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        found = versions()
        others = ", ".join(f"{name} {found[name]}" for name in found if name != "pipeline")
        sys.stdout.write(f"pipeline {found['pipeline']} ({others})\n")
        parser.exit()


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; the name of the command is in `command`. Raises SystemExit if invalid.

    argv: None takes the arguments of the process. Options and names may be mixed; after `--`
    everything is a name, also with a leading dash.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = argument_parser()
    if not words:
        parser.error(f"no command given; commands are: {', '.join(commands)}")
    if words[0] not in commands:
        if not words[0].startswith("-"):
            alike = difflib.get_close_matches(words[0], commands, 1) or ["process"]
            meant = alike[0] if not Path(words[0]).exists() else f"process {words[0]}"
            parser.error(
                f"unknown command {words[0]!r}, commands are: {', '.join(commands)}; "
                f"did you mean `pipeline {meant}`?"
            )
        if words[0] not in ("--help", "-h", "--version"):
            parser.error(f"{words[0]}: put options after the command, as in process {words[0]}")
        return parser.parse_args(words)
    options, names = words[1:], []
    if "--" in options:
        end = options.index("--")
        # Otherwise some versions of argparse take them for options.
        names = [
            f"./{name}" if name.startswith("-") and name != STANDARD_INPUT else name
            for name in options[end + 1 :]
        ]
        options = [*options[:end], "--"]
    return commands[words[0]].parse_mixed([*options, *names], words[0])


def argument_parser() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of the commands by their names.

    The values of a command are in one namespace, from which declared options are read by the names
    of their fields: no other argument may have such a name.
    """
    parser = _Parser(
        prog="pipeline",
        description="Detect objects in footage with YOLOv5 and OpenVINO, fast and offline.",
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="show the versions of the program and its libraries",
    )
    commands = parser.add_subparsers(
        title="commands", dest="command", required=True, metavar="COMMAND"
    )
    _add_process(commands)
    _add_render(commands)
    _add_export(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    _add_tune(commands)
    _add_plan(commands)
    _add_configs(commands)
    _add_models(commands)
    return parser, commands.choices


def _add_process(commands: Any) -> None:
    command = commands.add_parser(
        "process",
        help="annotate one or many clips or pictures",
        description="Annotate a clip: writes annotated.mp4, detections.jsonl, report.json and "
        "report.html, for the synthetic scene also truth.jsonl. A picture gives annotated.jpg or "
        "annotated.png instead of annotated.mp4. Given several files, a folder or a pattern, each "
        "clip (or each picture, if there are no clips) is processed into its own output folder; "
        "batch.json and batch.html summarise them. A clip with a finished result for the same "
        "model and options is skipped. A clip that fails does not stop the others. Rerun an "
        "interrupted command to resume.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "videos",
        nargs="*",
        metavar="video",
        help="a clip, '-' for standard input, or 'synthetic' for the synthetic scene (the "
        "default); or files, folders and quoted patterns like 'cams/**/*.mp4'",
    )
    command.add_argument(
        "--output-dir",
        metavar="DIR",
        help="output folder (default: output/CLIP; for many clips: output)",
    )
    add_options(command, ProcessConfig, "overwrite")
    _add_cores(command)
    command.add_argument(
        "--export",
        nargs="+",
        choices=EXPORT_FORMATS,
        metavar="FORMAT",
        default=[],
        help="write the detections in these formats too, into export/ of the output folder: "
        + ", ".join(EXPORT_FORMATS),
    )
    _add_model_options(command)
    add_options(command.add_argument_group("boxes"), DetectOptions)
    add_options(
        command.add_argument_group("frames"),
        ProcessConfig,
        *(
            "num_frames",
            "every",
            "adaptive",
            "least_agreement",
            "deinterlace",
            "reuse_duplicates",
            "segment_seconds",
            "segments_at_once",
        ),
    )
    encoding = command.add_argument_group("encoding")
    add_options(encoding, EncodeOptions)
    add_options(encoding, ProcessConfig, "video")
    add_options(_add_limits(command), ProcessConfig, "stall_seconds")
    _add_synthetic(command)
    cluster = command.add_argument_group("cluster", "Process segments on a Ray cluster.")
    cluster.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="this machine or a Ray cluster",
    )
    add_options(cluster, ClusterOptions, "address", "cores_per_actor")


def _add_render(commands: Any) -> None:
    command = commands.add_parser(
        "render",
        help="draw existing detections onto their clip, without a model",
        description="Draw the detections.jsonl of an earlier run onto its clip or picture: writes "
        "annotated.mp4 (or .jpg, .png) as that run did or would have done. The report.json beside "
        "the detections says which clip they belong to; another clip is refused. Rerun an "
        "interrupted command to resume.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument("clip", help="the clip or picture")
    command.add_argument(
        "detections", type=Path, help="its detections.jsonl, with report.json beside it"
    )
    command.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help="output folder (default: that of the detections)",
    )
    add_options(command, ProcessConfig, "overwrite")
    _add_cores(command)
    _add_debug(command)
    _add_quiet(command)
    encoding = command.add_argument_group("encoding", "Without these options, as that run did.")
    add_options(command, ProcessConfig, "segments_at_once")
    add_options(encoding, EncodeOptions, default=None)
    add_options(_add_limits(command), ProcessConfig, "stall_seconds")


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="write existing detections in the formats of other tools",
        description="Write the detections of earlier runs in the formats of other tools: coco, "
        "csv (one row per box), cvat (CVAT for video 1.1), labelstudio (tasks with "
        "predictions), megadetector (JSON 1.6), mot (MOTChallenge), yolo (data set of "
        "ultralytics). Several results become one data set, with unique ids.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="result",
        help="output folder of a run or of a batch, or a detections.jsonl with the report.json "
        "beside it",
    )
    command.add_argument(
        "--to", nargs="+", required=True, choices=EXPORT_FORMATS, metavar="FORMAT", help="formats"
    )
    command.add_argument(
        "--every-nth", type=int, default=1, metavar="N", help="only every Nth frame"
    )
    command.add_argument(
        "--images",
        type=Path,
        metavar="CLIPS",
        help="write the exported frames as pictures too (coco, mot, yolo); CLIPS is the clip, or "
        "the folder with the clips",
    )
    command.add_argument(
        "--output-dir",
        type=Path,
        metavar="DIR",
        help=f"output folder (default: {EXPORT_FOLDER}/ beside the detections of one result)",
    )
    add_options(command, ProcessConfig, "overwrite")
    _add_debug(command)
    _add_quiet(command)


def _add_limits(command: argparse.ArgumentParser) -> Any:
    """The limits of every command that reads footage; returns their group."""
    limits = command.add_argument_group("limits", "Footage beyond these limits is refused.")
    add_options(limits, LimitOptions)
    return limits


def _add_synthetic(command: argparse.ArgumentParser) -> None:
    synthetic = command.add_argument_group(
        "synthetic source", "For the synthetic scene only, except --frame-rate."
    )
    # None shows that an option was not given.
    add_options(synthetic, SyntheticOptions, *SCENE_FIELDS, default=None)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure the accuracy on labelled pictures",
        description="Measure the mean average precision, as COCO defines it, on a folder with "
        "images/ and labels/ in YOLO format (class cx cy w h, normalised).",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="folder with images/ and labels/"
    )
    _add_cores(command)
    _add_model_options(command)


def _add_bench(commands: Any) -> None:
    command = commands.add_parser(
        "bench",
        help="compare the throughput configurations",
        description="Measure the model alone in every throughput configuration on the same frames; "
        "writes bench.json, bench.png and bench.html.",
        formatter_class=_HelpFormatter,
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
    command.add_argument("--image", type=Path, metavar="FILE", help="repeat this picture")
    command.add_argument(
        "--size", type=read_size, default="640x480", metavar="WxH", help="frame size"
    )
    command.add_argument("--configs", nargs="+", metavar="NAME", help="only these (default: all)")
    command.add_argument(
        "--output-dir", type=Path, default="output/bench", metavar="DIR", help="output folder"
    )
    _add_cores(command)
    _add_weights_options(command)


def _add_tune(commands: Any) -> None:
    command = commands.add_parser(
        "tune",
        help="find the fastest configuration on this machine",
        description="Measure configurations from file to file and keep the fastest for later runs "
        "with the same machine, model, frame size and codec.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "clip",
        nargs="?",
        metavar="video",
        default=SYNTHETIC,
        help="a clip, or 'synthetic' for the synthetic scene",
    )
    _add_cores(command)
    _add_precision(_add_weights_options(command))
    add_options(command.add_argument_group("encoding"), EncodeOptions, "codec", "crf", "preset")
    _add_limits(command)
    _add_synthetic(command)


def _add_plan(commands: Any) -> None:
    command = commands.add_parser(
        "plan",
        help="estimate time and cost of a job on a cluster",
        description="Read the headers of clips and estimate the time, cost and bandwidth of a job "
        "on a cluster, and what limits it. No frame is decoded.",
        epilog="Take --fps-per-core from the report.json of a run on similar footage: "
        "speed.file_to_file_fps divided by configuration.cores.",
        formatter_class=_HelpFormatter,
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
    _add_debug(command)


def _add_configs(commands: Any) -> None:
    command = commands.add_parser(
        "configs",
        help="list the throughput configurations",
        description="List the throughput configurations (values for --config), and why one is "
        "unavailable on this machine.",
    )
    _add_debug(command)


def _add_cores(command: argparse.ArgumentParser) -> None:
    add_options(command, ProcessConfig, "cores")


def _add_models(commands: Any) -> None:
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
        type=_read_model,
        metavar="MODEL",
        help="files, exported folders, or names (default: official and demo, as far as they are "
        "here)",
    )
    command.add_argument("--json", action="store_true", help="as JSON, one object for each model")
    _add_debug(command)


def _add_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--quiet",
        action="store_true",
        help="show the result, errors and warnings only"
        if command.prog.endswith("evaluate")
        else "show errors and warnings only, no progress and no summary",
    )


def _add_weights_options(command: argparse.ArgumentParser) -> Any:
    """The options of every command that needs a model; returns their group."""
    _add_debug(command)
    _add_quiet(command)
    model = command.add_argument_group("model")
    which = model.add_mutually_exclusive_group()
    add_options(which, ProcessConfig, "weights")
    which.add_argument(
        "--model",
        dest="weights",
        type=_read_model,
        metavar="NAME|PATH",
        help="official: YOLOv5n as published; demo: the bundled model for the synthetic scene; or "
        "a path as for --weights (default: official for footage, demo for the synthetic scene)",
    )
    add_options(model, ProcessConfig, "imgsz")
    return model


def _read_model(text: str) -> str | Path:
    """One of the names, or a path. Raises ArgumentTypeError for a name that is none."""
    if text in MODEL_NAMES:
        return text
    path = Path(text)
    if path.suffix or len(path.parts) > 1 or path.exists():
        return path
    alike = difflib.get_close_matches(text, MODEL_NAMES, 1)
    meant = f"; did you mean {alike[0]}?" if alike else ""
    raise argparse.ArgumentTypeError(
        f"{text!r} is no file or folder, and not one of {', '.join(MODEL_NAMES)}{meant}"
    )


def _add_model_options(command: argparse.ArgumentParser) -> None:
    model = _add_weights_options(command)
    model.add_argument(
        "--config",
        default=AUTO,
        metavar="NAME",
        help="throughput configuration, see 'pipeline configs'; sets the options below, except "
        "the precision",
    )
    add_options(model, AutoOptions, "device", "hint")
    _add_precision(model)
    add_options(model, AutoOptions, "num_streams", "num_requests", "batch")


def _add_precision(model: Any) -> None:
    add_options(model, AutoOptions, "precision")
    add_options(model, ProcessConfig, "calibration")
