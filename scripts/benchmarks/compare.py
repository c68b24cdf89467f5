"""Whole programs over the same clips, in turns: this project, YOLOv5's detect.py, `yolo predict`.

    scripts/benchmarks/compare.py --peers /path/to/peers/bin/python

The peers' interpreter has the packages `yolov5==7.0.14` (detect.py) and `ultralytics`
(`yolo predict`), with an OpenVINO of their own. `detect.py` runs YOLOv5n in PyTorch. `yolo predict`
cannot read that checkpoint: it runs an exported model of about the same cost in OpenVINO, so its
number of boxes differs. A program is timed from its start to its end, with its output written;
before the first round, it converts its models on a few frames of the same size. One round of all
inputs takes about 20 minutes on two cores that are free; `--clips` and `--minutes` make two of them
smaller. A ratio above 1 means that this project is faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from busy_clip import PICTURES, busy_clip

from pipeline.core.machine import available_cores, processor_name, versions

SHARED = Path("../shared")
CAR, BOTTLE = SHARED / "videos" / "car-detection.mp4", SHARED / "videos" / "bottle-detection.mp4"


_NUM_WARM_UP = 12


@dataclass(frozen=True)
class Input:
    """Clips that are given to a program at once, and every how many frames are inferred.

    warm_up: a short clip of the same size, before them; None takes the clips.
    """

    name: str
    clips: list[Path]
    every: int = 1
    warm_up: Path | None = None


def car(folder: Path, _: argparse.Namespace) -> Input:
    return Input(CAR.name, [CAR], warm_up=beginning(CAR, folder))


def busy(folder: Path, _: argparse.Namespace) -> Input:
    clip = busy_clip(PICTURES, folder / "busy.mp4")
    return Input("busy, 25 boxes a frame", [clip], warm_up=beginning(clip, folder))


def large(folder: Path, _: argparse.Namespace) -> Input:
    options = {"preset": "ultrafast", "x265-params": "log-level=error:wpp=0"}
    clip = folder / "large.mp4"
    encode(CAR, clip, "libx265", "yuv420p10le", (3840, 2160), range(121), options)
    name = "121 frames of 3840x2160, HEVC, 10 bit"
    return Input(name, [clip], warm_up=beginning(clip, folder))


def short(folder: Path, arguments: argparse.Namespace) -> Input:
    clips = [folder / f"short-{number:02d}.mp4" for number in range(arguments.clips)]
    for number, clip in enumerate(clips):
        frames = range(30 * number, 30 * number + 30)
        encode(BOTTLE, clip, "libx264", "yuv420p", (768, 432), frames, {"crf": "20"})
    return Input(f"{len(clips)} clips of 30 frames", clips, warm_up=clips[0])


def long(folder: Path, arguments: argparse.Namespace) -> Input:
    clip = folder / "long.mp4"
    command = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", str(BOTTLE)]
    command += ["-t", str(60 * arguments.minutes), "-an", "-c", "copy", str(clip)]
    subprocess.run(command, check=True)  # noqa: S603
    name = f"{arguments.minutes:g} minutes, every 10th frame"
    return Input(name, [clip], every=10, warm_up=beginning(clip, folder))


def beginning(clip: Path, folder: Path) -> Path:
    """A copy of the first frames of a clip."""
    short_clip = folder / f"beginning-of-{clip.name}"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(clip), "-frames:v", str(_NUM_WARM_UP)]
    command += ["-an", "-c", "copy", str(short_clip)]
    subprocess.run(command, check=True)  # noqa: S603
    return short_clip


INPUTS: dict[str, Callable[[Path, argparse.Namespace], Input]] = {
    "car": car,
    "busy": busy,
    "large": large,
    "short": short,
    "long": long,
}


def encode(
    source: Path,
    target: Path,
    codec: str,
    pix_fmt: str,
    size_wh: tuple[int, int],
    frames: range,
    options: dict[str, str],
) -> None:
    """Write some frames of a clip, which begins again where it ends, as a clip of another kind."""
    with av.open(str(target), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        images = itertools.chain.from_iterable(images_of(source) for _ in itertools.count())
        for index, image in enumerate(itertools.islice(images, frames.start, frames.stop)):
            resized = image.reformat(*size_wh, format=pix_fmt, interpolation="BICUBIC")
            resized.pts, resized.time_base, resized.pict_type = index, Fraction(1, 25), 0
            out.mux(stream.encode(resized))
        out.mux(stream.encode(None))


def images_of(clip: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(clip)) as source:
        yield from source.decode(video=0)


@dataclass(frozen=True)
class Program:
    """command: from an input and a folder for its output. boxes: counted in that folder."""

    name: str
    command: Callable[[Input, Path], list[str]]
    boxes: Callable[[Path], int]


def programs(arguments: argparse.Namespace) -> list[Program]:
    """This project in each precision, then the peers."""
    ours = [sys.executable, "-m", "pipeline", "process", "--quiet"]
    weights = str(arguments.weights)

    def pipeline(*options: str) -> Callable[[Input, Path], list[str]]:
        def command(footage: Input, out: Path) -> list[str]:
            every = ["--every", str(footage.every)] if footage.every > 1 else []
            if "--adaptive" in options:  # It chooses the frames itself.
                every = []
            chosen = [*ours, "--weights", weights, "--output-dir", str(out), *options, *every]
            return [*chosen, "--", *map(str, footage.clips)]

        return command

    def source(footage: Input, out: Path) -> str:
        """One path for programs that take one: a folder, where there are many clips."""
        if len(footage.clips) == 1:
            return str(footage.clips[0].resolve())
        folder = out.with_name("sources")
        folder.mkdir(exist_ok=True)
        for clip in footage.clips:
            link = folder / clip.name
            if not link.is_symlink():
                link.symlink_to(clip.resolve())
        return str(folder)

    def detect(footage: Input, out: Path) -> list[str]:
        chosen = ["-m", "yolov5.detect", "--weights", weights, "--source", source(footage, out)]
        chosen += ["--vid-stride", str(footage.every), "--save-txt", "--device", "cpu"]
        return [arguments.peers, *chosen, "--project", str(out), "--name", "found"]

    def predict(footage: Input, out: Path) -> list[str]:
        call = "import sys; from ultralytics.cfg import entrypoint; entrypoint()"
        chosen = [f"model={arguments.predict_model}", f"source={source(footage, out)}"]
        chosen += [f"vid_stride={footage.every}", "save=True", "save_txt=True", "verbose=False"]
        chosen += [f"project={out}", "name=found", "device=cpu"]
        return [arguments.peers, "-c", call, "predict", *chosen]

    return [
        Program("pipeline", pipeline(), boxes_of_reports),
        Program("pipeline, INT8", pipeline("--precision", "int8"), boxes_of_reports),
        Program(
            "pipeline, INT8, adaptive",
            pipeline("--precision", "int8", "--adaptive"),
            boxes_of_reports,
        ),
        *([Program("detect.py, PyTorch", detect, boxes_of_labels)] if arguments.peers else []),
        *([Program("yolo predict, OpenVINO", predict, boxes_of_labels)] if arguments.peers else []),
    ]


def boxes_of_reports(out: Path) -> int:
    reports = [json.loads(path.read_text()) for path in out.rglob("report.json")]
    return sum(report["detections"]["total"] for report in reports)


def boxes_of_labels(out: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in out.rglob("*.txt"))


def seconds_of(program: Program, footage: Input, scratch: Path) -> tuple[float, int]:
    """How long a whole run of a program takes, and how many boxes it writes."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        out = Path(folder) / "out"
        command = program.command(footage, out)
        started = time.perf_counter()
        ended = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, env=environment()
        )
        seconds = time.perf_counter() - started
        if ended.returncode:
            raise SystemExit(f"{program.name} on {footage.name} failed:\n{ended.stderr[-2000:]}")
        return seconds, program.boxes(out)


def environment() -> dict[str, str]:
    """Without settings of NumPy's library, which slow the peers' own down.

    detect.py reads whole pickles, which newer versions of PyTorch do only where they are told to.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}
    return {**kept, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def compare(footage: Input, taking_part: list[Program], rounds: int, scratch: Path) -> list[str]:
    """A row for each program: its boxes, and the time it takes over that of the first."""
    boxes: dict[str, int] = {}
    seconds: dict[str, list[float]] = {program.name: [] for program in taking_part}
    if footage.warm_up is not None:  # Models are converted, and caches filled.
        first = dataclasses.replace(footage, clips=[footage.warm_up])
        for program in taking_part:
            seconds_of(program, first, scratch)
    for _ in range(rounds):
        for program in taking_part:
            taken, boxes[program.name] = seconds_of(program, footage, scratch)
            seconds[program.name].append(taken)
    rows = []
    for program in taking_part:
        ratios = {
            ours: [a / b for a, b in zip(seconds[program.name], seconds[ours], strict=True)]
            for ours in seconds
            if ours.startswith("pipeline")
        }
        cells = [
            f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
            for found in ratios.values()
        ]
        rows.append(f"| {footage.name} | {program.name} | {boxes[program.name]} | ")
        rows[-1] += " | ".join(cells) + " |"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", metavar="PYTHON", help="the interpreter of the other programs")
    parser.add_argument("--weights", type=Path, default=SHARED / "weights" / "yolov5n.pt")
    parser.add_argument(
        "--predict-model", type=Path, default=SHARED / "models" / "yolo11n_int8_openvino_model"
    )
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=20, help="of the input `short`")
    parser.add_argument("--minutes", type=float, default=10, help="of the input `long`")
    arguments = parser.parse_args()
    taking_part = programs(arguments)
    print(f"{processor_name()}, {available_cores()} cores, {platform.platform()}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    if arguments.peers:
        print("peers:", peer_versions(arguments.peers))
    ours = [program.name for program in taking_part if program.name.startswith("pipeline")]
    print("| input | program | boxes | time over that of " + " | over ".join(ours) + " |")
    print("| --- | --- | --- | " + " | ".join("---" for _ in ours) + " |")
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.inputs:
            footage = INPUTS[name](Path(scratch), arguments)
            for row in compare(footage, taking_part, arguments.rounds, Path(scratch)):
                print(row, flush=True)


def peer_versions(python: str) -> str:
    code = (
        "from importlib.metadata import version as v; "
        "print(*(f'{n} {v(n)}' for n in ('yolov5', 'ultralytics', 'torch', 'openvino')), sep=', ')"
    )
    found = subprocess.run(  # noqa: S603
        [python, "-c", code], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


if __name__ == "__main__":
    main()
