"""Frames of any sizes -> their detections, with an engine, outside of a run."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions
from pipeline.core.library_threads import one_library_thread
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.media.frame import Frame
from pipeline.model.letterbox import PADDING_VALUE, Letterbox, letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel
from pipeline.model.preprocess import Preprocessor


@one_library_thread()
def detect_each(
    frames: Iterable[Frame],
    prepared: PreparedModel,
    engine: Engine,
    detect: DetectOptions,
    class_ids: frozenset[int] | None = None,
    *,
    multi_label: bool = False,
) -> list[Detections]:
    """The detections of each frame, in their order.

    class_ids, multi_label: see `detections_from`. Raises InferenceError, and what the frames raise.
    """
    found: dict[int, Detections] = {}
    errors: list[BaseException] = []

    def done(job: tuple[int, Letterbox], heads: Heads, _: float) -> None:
        candidates = prepared.head.select(heads, detect.least_confidence)
        found[job[0]] = detections_from(
            prepared.head, candidates, job[1], detect, class_ids, multi_label=multi_label
        )

    pool: Pool[tuple[int, Letterbox]]
    with engine.open_pool(done, errors.append) as pool:
        for number, frame in enumerate(frames):
            box = letterbox((frame.image.width, frame.image.height), prepared.input_wh)
            model_input = pool.next_input()
            model_input.fill(PADDING_VALUE)  # The frame before was perhaps of another shape.
            Preprocessor(box)(frame, model_input)
            pool.submit((number, box))
        pool.drain()
    if errors:
        raise errors[0]
    return [found[number] for number in range(len(found))]
