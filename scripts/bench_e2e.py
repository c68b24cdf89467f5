"""How close the pipeline comes to what the cores allow, and what the obvious program reaches.

Each round measures, one after the other, the CPU time that every step costs by itself, the
pipeline from file to file, and the serial program. Quoted are medians over the rounds, and
medians of ratios taken within a round, because machines are noisy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.annotate import Annotator
from pipeline.config import DetectOptions, EncodeOptions, InferOptions, ProcessConfig
from pipeline.decode import VideoReader
from pipeline.detections import Detections
from pipeline.encode import VideoEncoder
from pipeline.errors import PipelineError
from pipeline.frames import Frame
from pipeline.infer import Heads, InferPool, compile_model, resolved_precision
from pipeline.letterbox import letterbox
from pipeline.machine import available_cores, processor_name
from pipeline.model.prepare import prepare_model
from pipeline.model.weights import find_weights
from pipeline.postprocess import Candidates, detections_from, select_candidates
from pipeline.preprocess import Preprocessor
from pipeline.progress import no_progress
from pipeline.run import process_video

DEFAULT_CLIP = Path("../shared/videos/car-detection.mp4")
SERIAL_PROGRAM = Path(__file__).with_name("serial_program.py")

_HELD_FRAMES_BYTES = 600e6
_NUM_HEAD_SAMPLES = 16
_DETECT = DetectOptions()

T = TypeVar("T")


@dataclass(frozen=True)
class Round:
    """step_ms: CPU milliseconds per frame of each step alone; the rest frames per second."""

    step_ms: dict[str, float]
    allowed_fps: float
    pipeline_fps: float
    serial_fps: dict[str, float]


class Bench:
    """One clip, one compiled model, and every step of the pipeline by itself."""

    def __init__(self, clip: Path, infer: InferOptions, encode: EncodeOptions) -> None:
        self.clip, self.infer, self.encode = clip, infer, encode
        reader = VideoReader(clip)
        self.info = reader.info
        reader.close()
        width, height = self.info.size_wh
        self.most_frames = max(50, int(_HELD_FRAMES_BYTES / (1.5 * width * height)))
        self.weights = find_weights(None, no_progress)
        prepared = prepare_model(self.weights, self.info.size_wh, 640, no_progress)
        self.layout = prepared.layout
        self.compiled = compile_model(prepared.model, infer, prepared.compiled_cache_dir)
        self.box = letterbox(self.info.size_wh, prepared.input_wh)
        self.candidates: dict[int, Candidates | None] = {}
        self.head_samples: list[list[NDArray[np.float32]]] = []
        self._collect_candidates(self._decode()[0])

    def round(self, scratch: Path, serial: dict[str, tuple[str, str]]) -> Round:
        """Measure everything once."""
        step_ms = self._steps(scratch)
        config = ProcessConfig(
            source=self.clip,
            output_dir=scratch / "pipeline",
            overwrite=True,
            infer=self.infer,
            encode=self.encode,
        )
        return Round(
            step_ms=step_ms,
            allowed_fps=1000 * available_cores() / sum(step_ms.values()),
            pipeline_fps=process_video(config)["speed"]["file_to_file_fps"],
            serial_fps={
                name: self._serial_fps(scratch / "serial.mp4", *variant)
                for name, variant in serial.items()
            },
        )

    def _steps(self, scratch: Path) -> dict[str, float]:
        frames, decode_ms = self._decode()
        preprocess_ms = self._preprocess(frames)
        infer_ms = self._infer(len(frames))
        detections, postprocess_ms = self._postprocess(frames)
        annotate_ms = self._annotate(frames, detections)
        return {
            "decode": decode_ms,
            "preprocess": preprocess_ms,
            "infer": infer_ms,
            "postprocess": postprocess_ms,
            "annotate": annotate_ms,
            "encode": self._encode(frames, scratch / "encode.mp4"),
        }

    def _decode(self) -> tuple[list[Frame], float]:
        reader = VideoReader(self.clip)
        frames, seconds = cpu_seconds(lambda: list(itertools.islice(reader, self.most_frames)))
        reader.close()
        return frames, 1000 * seconds / len(frames)

    def _preprocess(self, frames: list[Frame]) -> float:
        preprocess = Preprocessor(self.box)
        model_input = np.empty((self.box.input_wh[1], self.box.input_wh[0], 3), np.uint8)

        def preprocess_all() -> None:
            for frame in frames:
                preprocess(frame, model_input)

        _, seconds = cpu_seconds(preprocess_all)
        return 1000 * seconds / len(frames)

    def _infer(self, count: int) -> float:
        errors: list[BaseException] = []
        pool: InferPool[int] = InferPool(self.compiled, None, lambda *_: None, errors.append)

        def infer_all() -> None:
            for index in range(count):
                pool.submit(pool.wait_for_request(), index)
            pool.drain()

        _, seconds = cpu_seconds(infer_all)
        raise_first(errors)
        return 1000 * seconds / count

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
                select_candidates(heads, self.layout, threshold) for heads in self.head_samples
            ]
        )
        detections, seconds = cpu_seconds(lambda: [finish(frame) for frame in frames])
        select_ms = 1000 * select_seconds / len(self.head_samples)
        return detections, select_ms + 1000 * seconds / len(frames)

    def _annotate(self, frames: list[Frame], detections: list[Detections]) -> float:
        annotator = Annotator(self.info, self.layout.class_names)
        _, seconds = cpu_seconds(
            lambda: [
                annotator(frame.image, found)
                for frame, found in zip(frames, detections, strict=True)
            ]
        )
        return 1000 * seconds / len(frames)

    def _encode(self, frames: list[Frame], path: Path) -> float:
        encoder = VideoEncoder(path, self.info, self.encode)
        annotator = Annotator(self.info, self.layout.class_names)
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
            self.candidates[frame.index] = select_candidates(
                heads, self.layout, _DETECT.confidence_threshold
            )
            if frame.index % (len(frames) // _NUM_HEAD_SAMPLES + 1) == 0:
                self.head_samples.append([head.copy() for head in heads])

        pool: InferPool[Frame] = InferPool(self.compiled, None, keep, errors.append)
        preprocess = Preprocessor(self.box)
        for frame in frames:
            request = pool.wait_for_request()
            preprocess(frame, pool.input_of(request))
            pool.submit(request, frame)
        pool.drain()
        raise_first(errors)


def cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """What the work returns, and the CPU time that all threads of this process used for it."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before


def raise_first(errors: list[BaseException]) -> None:
    if errors:
        raise errors[0]


def report_lines(rounds: list[Round], precision: str) -> list[str]:
    """The medians as a table."""
    lines = [f"{'step alone':<34}{'CPU ms per frame':>18}"]
    for step in rounds[0].step_ms:
        lines.append(f"{step:<34}{statistics.median(r.step_ms[step] for r in rounds):>18.2f}")
    total = statistics.median(sum(r.step_ms.values()) for r in rounds)
    lines += [
        f"{'sum':<34}{total:>18.2f}",
        "",
        f"{'':<34}{'fps, median':>18}{'pipeline over it':>20}",
        f"{f'pipeline, file to file, {precision}':<34}"
        f"{statistics.median(r.pipeline_fps for r in rounds):>18.1f}",
        ratio_line("what the cores would allow", rounds, [r.allowed_fps for r in rounds]),
    ]
    for name in rounds[0].serial_fps:
        lines.append(ratio_line(f"serial, {name}", rounds, [r.serial_fps[name] for r in rounds]))
    return lines


def ratio_line(name: str, rounds: list[Round], fps: list[float]) -> str:
    ratios = [r.pipeline_fps / other for r, other in zip(rounds, fps, strict=True)]
    return (
        f"{name:<34}{statistics.median(fps):>18.1f}"
        f"{statistics.median(ratios):>14.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", type=Path, default=DEFAULT_CLIP)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--preset", default="veryfast", help="of x264")
    parser.add_argument("--output", type=Path, default=Path("output/bench/bench_e2e.json"))
    arguments = parser.parse_args()
    precision = resolved_precision(arguments.precision)
    serial = {
        "as exported, 640x640": ("square", "default"),
        "input as small as ours": ("fitting", "default"),
        f"the same in {precision}": ("fitting", precision),
    }
    try:
        bench = Bench(
            arguments.clip,
            InferOptions(precision=precision),
            EncodeOptions(preset=arguments.preset),
        )
        rounds = []
        for number in range(1, arguments.rounds + 1):
            print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as scratch:
                rounds.append(bench.round(Path(scratch), serial))
    except PipelineError as error:
        print(f"bench_e2e: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.clip.name}, {available_cores()} cores of {processor_name()}")
    print("\n".join(report_lines(rounds, precision)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps([asdict(r) for r in rounds], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
