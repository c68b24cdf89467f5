"""How close the pipeline comes to what the cores allow, and what the obvious program reaches.

Each round measures, one after the other, the CPU time that every step costs by itself, the
pipeline from file to file, and the serial program. Quoted are medians over the rounds, and
medians of ratios taken within a round, because machines are noisy.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
import openvino as ov
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from stock_model import stock_model

from pipeline.annotate import Annotator
from pipeline.config import DetectOptions, EncodeOptions, InferOptions, ProcessConfig
from pipeline.decode import VideoReader
from pipeline.detections import Detections
from pipeline.encode import VideoEncoder
from pipeline.engine import Engine, Heads, Pool
from pipeline.errors import PipelineError
from pipeline.frames import Frame
from pipeline.infer import load_engine, resolved_precision
from pipeline.letterbox import letterbox
from pipeline.machine import available_cores, processor_name
from pipeline.model.prepare import prepare_model
from pipeline.model.quantize import calibration_of_source, prepare_int8
from pipeline.model.weights import cache_dir, find_weights
from pipeline.postprocess import Candidates, detections_from
from pipeline.preprocess import Preprocessor
from pipeline.progress import no_progress
from pipeline.run import process_video
from pipeline.throughput.benchmark import benchmark_app_fps
from pipeline.throughput.measure import in_own_process
from pipeline.throughput.selection import rule

DEFAULT_CLIP = Path("../shared/videos/car-detection.mp4")
SERIAL_PROGRAM = Path(__file__).with_name("serial_program.py")

_HELD_FRAMES_BYTES = 600e6
_NUM_HEAD_SAMPLES = 16
_DETECT = DetectOptions()

T = TypeVar("T")


@dataclass(frozen=True)
class Round:
    """step_ms: CPU milliseconds per frame of each step alone; all else frames per second.

    stock_fps: the model as YOLOv5's exporter gives it, alone, in OpenVINO's benchmark_app with
    the THROUGHPUT hint, by precision; "default" is what OpenVINO chooses. together_fps: two
    runs at once, their frames over the time until both were done.
    """

    step_ms: dict[str, float]
    infer_ms: dict[str, float]
    model_fps: dict[str, float]
    pipeline_fps: dict[str, float]
    stock_fps: dict[str, float]
    together_fps: dict[str, float]
    serial_fps: dict[str, float]

    def allowed_fps(self, precision: str) -> float:
        """What the cores would reach if they did nothing but the steps, at their cost alone."""
        return 1000 * available_cores() / (sum(self.step_ms.values()) + self.infer_ms[precision])


class Bench:
    """One clip, the model in each precision, and every step of the pipeline by itself."""

    def __init__(self, clip: Path, precisions: list[str], encode: EncodeOptions) -> None:
        self.clip, self.encode = clip, encode
        reader = VideoReader(clip)
        self.info = reader.info
        reader.close()
        size_wh = self.info.size_wh
        self.most_frames = max(50, int(_HELD_FRAMES_BYTES / (1.5 * size_wh[0] * size_wh[1])))
        self.weights = find_weights(None, no_progress)
        prepared = prepare_model(self.weights, size_wh, 640, no_progress)
        self.prepared, self.box = prepared, letterbox(size_wh, prepared.input_wh)
        self.infer = {
            precision: dataclasses.replace(
                rule(available_cores(), size_wh).infer, precision=precision
            )
            for precision in precisions
        }
        self.engines: dict[str, Engine] = {}
        for precision, options in self.infer.items():
            chosen = prepared
            if precision == "int8":
                calibration = calibration_of_source(clip, size_wh)
                chosen = prepare_int8(self.weights, size_wh, 640, calibration, no_progress)
            self.engines[precision] = load_engine(chosen, options)
        self.stock_ir = cache_dir() / "stock" / f"{prepared.input_wh[0]}x{prepared.input_wh[1]}.xml"
        if not self.stock_ir.exists():
            self.stock_ir.parent.mkdir(parents=True, exist_ok=True)
            model = stock_model(self.weights, prepared.input_wh)
            ov.save_model(model, self.stock_ir, compress_to_fp16=False)
        self.candidates: dict[int, Candidates | None] = {}
        self.head_samples: list[list[NDArray[np.float32]]] = []
        self._collect_candidates(self._decode()[0])

    def round(self, scratch: Path, serial: dict[str, tuple[str, str]], *, together: bool) -> Round:
        """Measure everything once."""
        frames, step_ms = self._steps(scratch)
        infer_ms, model_fps, pipeline_fps, stock_fps, together_fps = {}, {}, {}, {}, {}
        for precision, engine in self.engines.items():
            infer_ms[precision], model_fps[precision] = self._infer(engine, len(frames))
        del frames
        for precision, options in self.infer.items():
            pipeline_fps[precision] = self._pipeline_fps(scratch / "pipeline", options)
            if together:
                together_fps[precision] = self._together_fps(scratch, options)
            # INT8 is compared with the stock model as it comes.
            name = "default" if precision == "int8" else precision
            stock_fps[name] = benchmark_app_fps(
                self.stock_ir, "CPU", "THROUGHPUT", None if name == "default" else name, 3.0
            )
        return Round(
            step_ms=step_ms,
            infer_ms=infer_ms,
            model_fps=model_fps,
            pipeline_fps=pipeline_fps,
            stock_fps=stock_fps,
            together_fps=together_fps,
            serial_fps={
                name: self._serial_fps(scratch / "serial.mp4", *variant)
                for name, variant in serial.items()
            },
        )

    def _together_fps(self, scratch: Path, options: InferOptions) -> float:
        with ThreadPoolExecutor(2) as pool:
            each = pool.map(
                lambda name: self._pipeline_fps(scratch / name, options), ("left", "right")
            )
            return 2 * min(each)

    def _pipeline_fps(self, output_dir: Path, options: InferOptions) -> float:
        config = ProcessConfig(
            source=self.clip,
            output_dir=output_dir,
            overwrite=True,
            infer=options,
            encode=self.encode,
            reuse_duplicates=False,
        )
        return in_own_process(file_to_file_fps, config)

    def _steps(self, scratch: Path) -> tuple[list[Frame], dict[str, float]]:
        frames, decode_ms = self._decode()
        preprocess_ms = self._preprocess(frames)
        detections, postprocess_ms = self._postprocess(frames)
        annotate_ms = self._annotate(frames, detections)
        return frames, {
            "decode": decode_ms,
            "preprocess": preprocess_ms,
            "postprocess": postprocess_ms,
            "annotate": annotate_ms,
            "encode": self._encode(frames, scratch / "encode.mp4"),
        }

    def _decode(self) -> tuple[list[Frame], float]:
        """Frames to work on, and the cost of decoding them, let go of one by one as in a run."""
        reader = VideoReader(self.clip)
        count, seconds = cpu_seconds(
            lambda: sum(1 for _ in itertools.islice(reader, self.most_frames))
        )
        reader.close()
        reader = VideoReader(self.clip)
        frames = list(itertools.islice(reader, self.most_frames))
        reader.close()
        return frames, 1000 * seconds / count

    def _preprocess(self, frames: list[Frame]) -> float:
        preprocess = Preprocessor(self.box)
        model_input = np.empty((self.box.input_wh[1], self.box.input_wh[0], 3), np.uint8)

        def preprocess_all() -> None:
            for frame in frames:
                preprocess(frame, model_input)

        _, seconds = cpu_seconds(preprocess_all)
        return 1000 * seconds / len(frames)

    def _infer(self, engine: Engine, count: int) -> tuple[float, float]:
        """CPU milliseconds per frame, and frames per second, of the model alone."""
        errors: list[BaseException] = []
        pool: Pool[int] = engine.open_pool(lambda *_: None, errors.append)

        def infer_all() -> float:
            started = time.perf_counter()
            for index in range(count):
                pool.next_input()
                pool.submit(index)
            pool.drain()
            return count / (time.perf_counter() - started)

        fps, seconds = cpu_seconds(infer_all)
        raise_first(errors)
        return 1000 * seconds / count, fps

    def _postprocess(self, frames: list[Frame]) -> tuple[list[Detections], float]:
        def finish(frame: Frame) -> Detections:
            return detections_from(
                self.candidates[frame.index],
                self.box,
                confidence_threshold=_DETECT.confidence_threshold,
                iou_threshold=_DETECT.iou_threshold,
                max_detections=_DETECT.max_detections,
            )

        threshold = _DETECT.confidence_threshold
        _, select_seconds = cpu_seconds(
            lambda: [
                self.prepared.select_candidates(heads, threshold) for heads in self.head_samples
            ]
        )
        detections, seconds = cpu_seconds(lambda: [finish(frame) for frame in frames])
        select_ms = 1000 * select_seconds / len(self.head_samples)
        return detections, select_ms + 1000 * seconds / len(frames)

    def _annotate(self, frames: list[Frame], detections: list[Detections]) -> float:
        annotator = Annotator(self.info, self.prepared.layout.class_names)
        _, seconds = cpu_seconds(
            lambda: [
                annotator(frame.image, found)
                for frame, found in zip(frames, detections, strict=True)
            ]
        )
        return 1000 * seconds / len(frames)

    def _encode(self, frames: list[Frame], path: Path) -> float:
        encoder = VideoEncoder(path, self.info, self.encode)
        annotator = Annotator(self.info, self.prepared.layout.class_names)
        images = [annotator(frame.image, Detections.empty()) for frame in frames]

        def encode_all() -> None:
            for frame, image in zip(frames, images, strict=True):
                encoder.encode(image, frame.pts, frame.duration, frame.time_base)
            encoder.flush()

        _, seconds = cpu_seconds(encode_all)
        encoder.close()
        return 1000 * seconds / len(frames)

    def _serial_fps(self, output: Path, shape: str, precision: str) -> float:
        command = [sys.executable, SERIAL_PROGRAM, self.clip, output, self.weights]
        done = subprocess.run(  # noqa: S603
            [*map(str, command), shape, precision],
            check=True,
            capture_output=True,
            text=True,
        )
        frames, seconds = done.stdout.split()[-2:]
        return int(frames) / float(seconds)

    def _collect_candidates(self, frames: list[Frame]) -> None:
        """Run the model once over the frames, so that later steps have real input."""
        errors: list[BaseException] = []

        def keep(frame: Frame, heads: Heads, _: float) -> None:
            self.candidates[frame.index] = self.prepared.select_candidates(
                heads, _DETECT.confidence_threshold
            )
            if frame.index % (len(frames) // _NUM_HEAD_SAMPLES + 1) == 0:
                self.head_samples.append([head.copy() for head in heads])

        first = next(iter(self.engines.values()))
        pool: Pool[Frame] = first.open_pool(keep, errors.append)
        preprocess = Preprocessor(self.box)
        for frame in frames:
            preprocess(frame, pool.next_input())
            pool.submit(frame)
        pool.drain()
        raise_first(errors)


def file_to_file_fps(config: ProcessConfig) -> float:
    """From the call to the finished files; a first run loads what a process loads only once."""
    process_video(dataclasses.replace(config, num_frames=20))
    started = time.perf_counter()
    report = process_video(config)
    return float(report["output"]["num_frames"] / (time.perf_counter() - started))


def cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """What the work returns, and the CPU time that all threads of this process used for it."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before


def raise_first(errors: list[BaseException]) -> None:
    if errors:
        raise errors[0]


def report_lines(rounds: list[Round], precisions: list[str]) -> list[str]:
    lines = [f"{'step alone':<34}{'CPU ms per frame':>18}"]
    for step in rounds[0].step_ms:
        lines.append(f"{step:<34}{statistics.median(r.step_ms[step] for r in rounds):>18.2f}")
    for precision in precisions:
        infer_ms = statistics.median(r.infer_ms[precision] for r in rounds)
        lines.append(f"{f'infer, {precision}':<34}{infer_ms:>18.2f}")
    for precision in precisions:
        ours = [r.pipeline_fps[precision] for r in rounds]
        model = [r.model_fps[precision] for r in rounds]
        stock = "default" if precision == "int8" else precision
        stock_fps = [r.stock_fps[stock] for r in rounds]
        lines += [
            "",
            f"{precision + ', frames per second':<34}{'median':>18}{'ratio':>14}",
            f"{'pipeline, file to file':<34}{statistics.median(ours):>18.1f}",
            ratio_line(
                "pipeline over what cores allow", ours, [r.allowed_fps(precision) for r in rounds]
            ),
            ratio_line(f"pipeline over stock model, {stock}", ours, stock_fps),
            ratio_line(f"our model over stock model, {stock}", model, stock_fps),
        ]
        if rounds[0].together_fps:
            both = [r.together_fps[precision] for r in rounds]
            ratios = [a / b for a, b in zip(both, ours, strict=True)]
            lines.append(
                f"{'two runs at once over one':<34}{statistics.median(both):>18.1f}"
                f"{statistics.median(ratios):>14.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
            )
    ours = [r.pipeline_fps[precisions[0]] for r in rounds]
    for name in rounds[0].serial_fps:
        serial = [r.serial_fps[name] for r in rounds]
        lines.append(ratio_line(f"{precisions[0]} over serial, {name}", ours, serial))
    return lines


def ratio_line(name: str, ours: list[float], others: list[float]) -> str:
    """The other's median, and the median, least and most of the ratio within a round."""
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    return (
        f"{name:<34}{statistics.median(others):>18.1f}"
        f"{statistics.median(ratios):>14.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def upscaled(clip: Path, size_wh: tuple[int, int], num_frames: int, target: Path) -> Path:
    """The first frames of a clip made larger, as H.264 of a camera's quality."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream("libx264", rate=stream.average_rate, options={"crf": "20"})
        copy.width, copy.height = size_wh
        copy.pix_fmt = "yuv420p"
        for index, image in enumerate(itertools.islice(source.decode(stream), num_frames)):
            larger = image.reformat(*size_wh, interpolation="BICUBIC")
            larger.pts, larger.time_base = index, 1 / (stream.average_rate or 25)
            out.mux(copy.encode(larger))
        out.mux(copy.encode(None))
    return target


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", type=Path, default=DEFAULT_CLIP)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=["auto", "int8"])
    parser.add_argument("--preset", help="of x264, instead of our default")
    parser.add_argument("--upscale", type=size, metavar="WxH", help="make the clip larger first")
    parser.add_argument("--frames", type=int, default=200, help="of the larger clip")
    parser.add_argument("--serial", action="store_true", help="run the serial program too")
    parser.add_argument("--together", action="store_true", help="two runs at once too")
    parser.add_argument("--output", type=Path, default=Path("output/bench/bench_e2e.json"))
    arguments = parser.parse_args()
    precisions = [p if p == "int8" else resolved_precision(p) for p in arguments.precision]
    serial = {
        "as exported, 640x640": ("square", "default"),
        "input as small as ours": ("fitting", "default"),
        f"the same in {precisions[0]}": ("fitting", precisions[0]),
    }
    with tempfile.TemporaryDirectory() as scratch:
        clip = arguments.clip
        try:
            if arguments.upscale:
                larger = Path(scratch) / f"{clip.stem}-{arguments.upscale[1]}p.mp4"
                clip = upscaled(clip, arguments.upscale, arguments.frames, larger)
            bench = Bench(clip, precisions, EncodeOptions(preset=arguments.preset))
            rounds = []
            for number in range(1, arguments.rounds + 1):
                print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
                rounds.append(
                    bench.round(
                        Path(scratch),
                        serial if arguments.serial else {},
                        together=arguments.together,
                    )
                )
        except PipelineError as error:
            print(f"bench_e2e: {error}", file=sys.stderr)
            return 1
    print(f"{clip.name}, {available_cores()} cores of {processor_name()}")
    print("\n".join(report_lines(rounds, precisions)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps([asdict(r) for r in rounds], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
