"""What each step of a frame costs by itself: CPU time, on one thread, on warm caches."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions, EncodeOptions
from pipeline.core.library_threads import one_library_thread
from pipeline.frames.annotate import Annotator
from pipeline.frames.decode import VideoReader
from pipeline.frames.encode import VideoEncoder
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.media.frame import Frame, VideoInfo
from pipeline.model.heads import Candidates
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel
from pipeline.model.preprocess import Preprocessor

DETECT = DetectOptions()

_HELD_FRAMES_BYTES = 600e6
_NUM_HEAD_SAMPLES = 16

T = TypeVar("T")


class StepsAlone:
    """Every step but inference on the frames of one clip, as many as fit into memory.

    engine runs the model once over them, so that the later steps have real input.
    """

    def __init__(
        self,
        clip: Path,
        info: VideoInfo,
        prepared: PreparedModel,
        engine: Engine,
        encode: EncodeOptions,
    ) -> None:
        self._clip, self._info, self._prepared, self._options = clip, info, prepared, encode
        self._box = letterbox(info.size_wh, prepared.input_wh)
        width, height = info.size_wh
        self._most_frames = max(50, int(_HELD_FRAMES_BYTES / (1.5 * width * height)))
        self._candidates: dict[int, Candidates | None] = {}
        self._head_samples: list[list[NDArray[np.float32]]] = []
        frames, _ = self._decode()
        self.num_frames = len(frames)
        self._collect_candidates(engine, frames)

    @one_library_thread()
    def measure(self, scratch: Path) -> dict[str, float]:
        """CPU milliseconds per frame of each step."""
        frames, decode_ms = self._decode()
        preprocess_ms = self._preprocess(frames)
        detections, postprocess_ms = self._postprocess(frames)
        annotate_ms = self._annotate(frames, detections)
        return {
            "decode": decode_ms,
            "preprocess": preprocess_ms,
            "postprocess": postprocess_ms,
            "annotate": annotate_ms,
            "encode": self._encode(frames, scratch / "encode.mp4"),
        }

    def _decode(self) -> tuple[list[Frame], float]:
        """Frames to work on, and the cost of decoding them, let go of one by one as in a run."""
        reader = VideoReader(self._clip)
        count, seconds = cpu_seconds(
            lambda: sum(1 for _ in itertools.islice(reader, self._most_frames))
        )
        reader.close()
        reader = VideoReader(self._clip)
        frames = list(itertools.islice(reader, self._most_frames))
        reader.close()
        return frames, 1000 * seconds / count

    def _preprocess(self, frames: list[Frame]) -> float:
        preprocess = Preprocessor(self._box)
        model_input = np.empty((self._box.input_wh[1], self._box.input_wh[0], 3), np.uint8)

        def preprocess_all() -> None:
            for frame in frames:
                preprocess(frame, model_input)

        _, seconds = cpu_seconds(preprocess_all)
        return 1000 * seconds / len(frames)

    def _postprocess(self, frames: list[Frame]) -> tuple[list[Detections], float]:
        def finish(frame: Frame) -> Detections:
            return detections_from(
                self._prepared.head,
                self._candidates[frame.index],
                self._box,
                DETECT,
            )

        threshold = DETECT.confidence_threshold
        _, select_seconds = cpu_seconds(
            lambda: [self._prepared.head.select(heads, threshold) for heads in self._head_samples]
        )
        detections, seconds = cpu_seconds(lambda: [finish(frame) for frame in frames])
        select_ms = 1000 * select_seconds / len(self._head_samples)
        return detections, select_ms + 1000 * seconds / len(frames)

    def _annotate(self, frames: list[Frame], detections: list[Detections]) -> float:
        annotator = Annotator(self._info, self._prepared.head.class_names)
        _, seconds = cpu_seconds(
            lambda: [
                annotator(frame.image, found)
                for frame, found in zip(frames, detections, strict=True)
            ]
        )
        return 1000 * seconds / len(frames)

    def _encode(self, frames: list[Frame], path: Path) -> float:
        encoder = VideoEncoder(path, self._info, self._options)
        annotator = Annotator(self._info, self._prepared.head.class_names)
        images = [annotator(frame.image, Detections.empty()) for frame in frames]

        def encode_all() -> None:
            for frame, image in zip(frames, images, strict=True):
                encoder.encode(image, frame.pts, frame.duration, frame.time_base)
            encoder.flush()

        _, seconds = cpu_seconds(encode_all)
        encoder.close()
        return 1000 * seconds / len(frames)

    def _collect_candidates(self, engine: Engine, frames: list[Frame]) -> None:
        """Run the model once over the frames, so that later steps have real input."""
        errors: list[BaseException] = []

        def keep(frame: Frame, heads: Heads, _: float) -> None:
            self._candidates[frame.index] = self._prepared.head.select(
                heads, DETECT.confidence_threshold
            )
            if frame.index % (len(frames) // _NUM_HEAD_SAMPLES + 1) == 0:
                self._head_samples.append([head.copy() for head in heads])

        pool: Pool[Frame]
        with engine.open_pool(keep, errors.append) as pool:
            preprocess = Preprocessor(self._box)
            for frame in frames:
                preprocess(frame, pool.next_input())
                pool.submit(frame)
            pool.drain()
        raise_first(errors)


def infer_alone(engine: Engine, count: int) -> tuple[float, float]:
    """CPU milliseconds per frame, and frames per second, of the model alone."""
    errors: list[BaseException] = []
    pool: Pool[int]

    def infer_all() -> float:
        started = time.perf_counter()
        for index in range(count):
            pool.next_input()
            pool.submit(index)
        pool.drain()
        return count / (time.perf_counter() - started)

    def ignore(index: int, heads: Heads, latency_seconds: float) -> None: ...

    with engine.open_pool(ignore, errors.append) as pool:
        fps, seconds = cpu_seconds(infer_all)
    raise_first(errors)
    return 1000 * seconds / count, fps


def cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    """What the work returns, and the CPU time that all threads of this process used for it."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before


def raise_first(errors: list[BaseException]) -> None:
    if errors:
        raise errors[0]
