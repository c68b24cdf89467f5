"""Arguments -> validated config -> run -> exit code. The only place that prints."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.config import (
    CODECS,
    HINTS,
    PRECISIONS,
    DetectOptions,
    EncodeOptions,
    InferOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.errors import Interrupted, PipelineError, UsageError
from pipeline.progress import Progress
from pipeline.throughput.configurations import CONFIGURATIONS, DEFAULT, configuration

EXIT_DONE, EXIT_FAILED, EXIT_WRONG_USE, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_TERMINATED = 143
SYNTHETIC = "synthetic"

_LINE_INTERVAL_SECONDS = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # As an exception, so that a run that is told to end cleans up after itself.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        arguments.run(arguments)
    except Interrupted as error:
        return _fail(arguments, error, EXIT_INTERRUPTED)
    except KeyboardInterrupt:
        return _fail(arguments, "interrupted", EXIT_INTERRUPTED)
    except UsageError as error:
        return _fail(arguments, error, EXIT_WRONG_USE)
    except PipelineError as error:
        return _fail(arguments, error, EXIT_FAILED)
    except Exception as error:
        reason = f"unexpected {type(error).__name__}: {error} (--debug shows where)"
        return _fail(arguments, reason, EXIT_FAILED)
    finally:
        signal.signal(signal.SIGTERM, before)
    return EXIT_DONE


def _fail(arguments: argparse.Namespace, reason: object, code: int) -> int:
    if arguments.debug:
        traceback.print_exc()
    print("pipeline: " + " ".join(str(reason).split()), file=sys.stderr)
    return code


def _process(arguments: argparse.Namespace) -> None:
    from pipeline.run import process_video

    config = _process_config(arguments)
    with ProgressPrinter() as progress:
        report = process_video(config, progress)
    for line in _summary(report, config.output_dir):
        print(line)


def _evaluate(arguments: argparse.Namespace) -> None:
    from pipeline.evaluate import evaluate

    with ProgressPrinter() as progress:
        result = evaluate(
            arguments.data,
            weights=arguments.weights,
            imgsz=arguments.imgsz,
            infer=_infer_options(arguments),
            on_progress=progress,
        )
    print(
        f"{result.num_images} images, {result.num_boxes} boxes, {result.precision}: "
        f"mAP@0.5 {result.map_50:.4f}, mAP@0.5:0.95 {result.map_50_95:.4f}"
    )


def _configs(_: argparse.Namespace) -> None:
    for entry in CONFIGURATIONS.values():
        print(f"{entry.name:<12} {entry.description}")


def _process_config(arguments: argparse.Namespace) -> ProcessConfig:
    source: Path | SyntheticOptions
    if arguments.video == SYNTHETIC:
        source = SyntheticOptions(
            num_frames=arguments.frames,
            size_wh=arguments.size,
            frame_rate=arguments.frame_rate,
            seed=arguments.seed,
            image=arguments.image,
        )
        name = arguments.image.stem if arguments.image else SYNTHETIC
    else:
        source = Path(arguments.video)
        name = source.stem
    return ProcessConfig(
        source=source,
        output_dir=arguments.output_dir or Path("output") / name,
        overwrite=arguments.overwrite,
        weights=arguments.weights,
        imgsz=arguments.imgsz,
        infer=_infer_options(arguments),
        detect=DetectOptions(
            confidence_threshold=arguments.conf,
            iou_threshold=arguments.iou,
            classes=tuple(arguments.classes) if arguments.classes is not None else None,
            max_detections=arguments.max_det,
        ),
        encode=EncodeOptions(codec=arguments.codec, crf=arguments.crf, preset=arguments.preset),
    )


def _infer_options(arguments: argparse.Namespace) -> InferOptions:
    """The named configuration, with what was asked for by itself put over it."""
    asked_for = {
        "device": arguments.device,
        "hint": arguments.hint,
        "precision": arguments.precision,
        "num_streams": arguments.streams,
        "num_requests": arguments.requests,
    }
    given = {key: value for key, value in asked_for.items() if value is not None}
    return dataclasses.replace(configuration(arguments.config).options, **given)


def _summary(report: dict[str, Any], folder: Path) -> list[str]:
    speed, used, slowest = report["speed"], report["configuration"], report["bottleneck"]
    real_time = (
        f", {speed['times_real_time']:.1f} times real time" if speed["times_real_time"] else ""
    )
    mended = {key: value for key, value in report["source"]["faults"].items() if value}
    remarks = [f"{key.replace('_', ' ')}: {value}" for key, value in mended.items()]
    remarks += report["output"]["notes"]
    return [
        f"{report['output']['num_frames']} frames in {speed['wall_seconds']:.2f} s: "
        f"{speed['file_to_file_fps']:.1f} fps from file to file{real_time}",
        f"model alone {speed['model_alone_fps']:.1f} fps ({used['device']}, hint {used['hint']}, "
        f"{used['precision']}, {used['num_streams']} streams, {used['num_requests']} requests); "
        f"cores {100 * speed['cores_busy']:.0f}% busy",
        f"bottleneck {slowest['step']}: {slowest['share_of_cpu']:.0%} of the CPU time; "
        f"next {slowest['next_step']}, {slowest['margin']:.1f} times faster",
        f"{report['detections']['total']} boxes in {report['detections']['frames_with_any']} "
        f"frames{'; ' + '; '.join(remarks) if remarks else ''}",
        f"{folder / report['output']['file']}, report in {folder / 'report.html'}",
    ]


class ProgressPrinter:
    """Shows progress: a bar on a terminal, else a line every few seconds at the most."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._stage = ""
        self._last_line = time.monotonic()
        self._beginnings: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> ProgressPrinter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def __call__(self, progress: Progress) -> None:
        if progress.stage != self._stage:
            self._close_bar()
            self._stage = progress.stage
            self._beginnings.setdefault(progress.stage, (time.monotonic(), progress.done))
        if self._on_terminal:
            self._update_bar(progress)
        elif time.monotonic() - self._last_line > _LINE_INTERVAL_SECONDS:
            self._last_line = time.monotonic()
            self._print_line(progress)

    def _update_bar(self, progress: Progress) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                desc=progress.stage,
                total=progress.total,
                unit=progress.unit,
                unit_scale=progress.unit == "B",
                dynamic_ncols=True,
            )
        self._bar.update(progress.done - self._bar.n)

    def _print_line(self, progress: Progress) -> None:
        began, already_done = self._beginnings[progress.stage]
        rate = (progress.done - already_done) / max(1e-9, time.monotonic() - began)
        line = f"{progress.stage}: {progress.done}"
        if progress.total:
            left = max(0, progress.total - progress.done) / rate if rate else 0
            line += f" of {progress.total}, {rate:.1f} {progress.unit}/s, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipeline",
        description="Annotate footage with YOLOv5 through OpenVINO, as fast as the machine allows.",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_process(commands)
    _add_evaluate(commands)
    listing = commands.add_parser("configs", help="list the throughput configurations")
    listing.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    listing.set_defaults(run=_configs)
    return parser


def _add_process(commands: Any) -> None:
    command = commands.add_parser(
        "process",
        help="annotate a clip",
        description="Annotate a clip: writes annotated.mp4, detections.jsonl, report.json and "
        "report.html.",
        formatter_class=_HelpFormatter,
    )
    command.add_argument(
        "video",
        nargs="?",
        default=SYNTHETIC,
        help="the clip, or 'synthetic' for one that is made up",
    )
    command.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="where to write (default: output/CLIP)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing output")
    _add_model_options(command)

    boxes = command.add_argument_group("boxes")
    boxes.add_argument("--conf", type=float, default=0.25, metavar="P", help="least confidence")
    boxes.add_argument(
        "--iou", type=float, default=0.45, metavar="P", help="overlap above which NMS drops a box"
    )
    boxes.add_argument(
        "--classes", nargs="+", metavar="CLASS", help="keep these only: names or numbers"
    )
    boxes.add_argument(
        "--max-det", type=int, default=1000, metavar="N", help="most boxes per frame"
    )

    output = command.add_argument_group("encoding")
    output.add_argument("--codec", choices=CODECS, default="h264", help="video codec")
    output.add_argument(
        "--crf", type=int, metavar="N", help="quality, lower is better (default: by codec)"
    )
    output.add_argument("--preset", metavar="NAME", help="speed of the encoder (default: by codec)")

    synthetic = command.add_argument_group("synthetic source")
    synthetic.add_argument("--frames", type=int, default=1024, metavar="N", help="length")
    synthetic.add_argument(
        "--size", type=_size, default="640x480", metavar="WxH", help="frame size"
    )
    synthetic.add_argument(
        "--frame-rate", type=_fraction, default="30", metavar="R", help="frames per second"
    )
    synthetic.add_argument("--seed", type=int, default=0, help="of the scene")
    synthetic.add_argument("--image", type=Path, metavar="FILE", help="repeat this picture")
    command.set_defaults(run=_process)


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
    command.set_defaults(run=_evaluate)


def _add_model_options(command: argparse.ArgumentParser) -> None:
    model = command.add_argument_group("model")
    model.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="YOLOv5 .pt, exported .onnx or IR .xml (default: look for yolov5n.pt)",
    )
    model.add_argument("--imgsz", type=_imgsz, default=640, metavar="PX", help="longer input side")
    model.add_argument(
        "--config", default=DEFAULT, metavar="NAME", help="throughput configuration, see 'configs'"
    )
    model.add_argument(
        "--device", type=str.upper, metavar="NAME", help="OpenVINO device, over the configuration's"
    )
    model.add_argument("--hint", choices=HINTS, help="performance hint, over the configuration's")
    model.add_argument(
        "--precision", choices=PRECISIONS, help="of the inference, over the configuration's"
    )
    model.add_argument("--streams", type=int, metavar="N", help="inference streams")
    model.add_argument("--requests", type=int, metavar="N", help="inference requests")
    command.add_argument("--debug", action="store_true", help="show where an error came from")


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
