"""The detections of a clip while they are found, for a program: no file is written."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import weakref
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from pipeline.core.config import AutoOptions, DetectOptions, ProcessConfig
from pipeline.core.detection_lines import DetectedFrame
from pipeline.core.errors import PipelineError, as_pipeline_error
from pipeline.core.library_threads import one_library_thread
from pipeline.core.machine import available_cores
from pipeline.core.position import Position
from pipeline.core.progress import no_progress
from pipeline.frames.detect import ModelDetections
from pipeline.frames.loop import detection_line
from pipeline.frames.segment import OpenClip, detect_settings, require_memory
from pipeline.frames.stats import RunStats
from pipeline.frames.task import RunSettings
from pipeline.inference.engine import Engine
from pipeline.inference.models import Models
from pipeline.media.frame import Segment
from pipeline.model.heads import require_applicable, select_class_ids
from pipeline.run.opening import open_clip

Frames = Generator[DetectedFrame, None, None]

_unfinished: weakref.WeakSet[Frames] = weakref.WeakSet()


def detect(  # noqa: PLR0913  # The options of a command.
    path: Path | str,
    *,
    weights: Path | str | None = None,
    imgsz: int = 640,
    tile: int | None = None,
    nms_free: bool = False,
    precision: str | None = None,
    conf: float | Sequence[str] = 0.25,
    iou: float | None = None,
    agnostic_nms: bool = False,
    classes: Sequence[str | int] | None = None,
    max_det: int = 1000,
    roi: str | Sequence[float] | Path | None = None,
    roi_crop: bool = False,
    frames: int | None = None,
    start: str | float | None = None,
    end: str | float | None = None,
    every: int = 1,
    adaptive: bool = False,
    deinterlace: str = "off",
    reuse: bool = True,
    segment_seconds: float = 60.0,
) -> Frames:
    """The frames of a clip or picture with their boxes, each as soon as it was inferred.

    They equal, value for value, those that `read_detections` reads from the detections.jsonl of
    `pipeline process` with the same options. A few frames are decoded and inferred ahead; memory
    use does not depend on the length of the clip. Nothing is opened before the first frame is
    asked for. Threads, requests and the file are closed at the end of the clip, by `close()`, or
    when the last reference is dropped. Raises UsageError for an invalid option at once, and
    PipelineError while iterating.

    path: of the clip or picture.
    weights: a checkpoint (.pt), .onnx, IR .xml or its folder, or "official" or "demo".
    tile: the side of the tiles of --tile in pixels, 0 for imgsz; None for the whole frame only.
    precision: "f32", "bf16" or "int8"; None selects.
    iou: of NMS; None is 0.45, and needed for models without NMS.
    conf: minimum confidence, or the words of --conf, as in ("person=0.4", "0.25").
    classes: names or numbers; None keeps all.
    roi: a rectangle x, y, w, h, or an outline x, y, x, y, x, y, as text or numbers, or a file with
        one; None keeps boxes everywhere.
    frames: process the first ones only; None processes all.
    start, end: process the frames from start on and before end, by seconds, "hh:mm:ss.ms" or the
        index of a frame, "120f"; None for the clip's own.
    reuse: whether a frame that is identical to the one before gets its boxes uninferred.

    All others are the options of `pipeline process` of the same name.
    """
    config = ProcessConfig(
        source=Path(path),
        output_dir=Path(),
        video=False,
        weights=weights,  # type: ignore[arg-type]  # Converted by the config.
        imgsz=imgsz,
        tile=tile,
        nms_free=nms_free,
        infer=AutoOptions(precision=precision),
        detect=DetectOptions(
            confidence_threshold=conf,  # type: ignore[arg-type]
            iou_threshold=iou,
            agnostic_nms=agnostic_nms,
            classes=classes,  # type: ignore[arg-type]
            max_detections=max_det,
            roi=roi,  # type: ignore[arg-type]
            roi_crop=roi_crop,
        ),
        num_frames=frames,
        start=start,
        end=end,
        every=every,
        adaptive=adaptive,
        deinterlace=deinterlace,
        reuse_duplicates=reuse,
        segment_seconds=segment_seconds,
    )
    found = _detected(config)
    # A generator that is left until the interpreter ends would wait for threads that cannot run.
    _unfinished.add(found)
    return found


@atexit.register
def _close_unfinished() -> None:
    for frames in list(_unfinished):
        with contextlib.suppress(ValueError):  # Another thread is inside it.
            frames.close()


def _detected(config: ProcessConfig) -> Frames:
    position = Position()
    try:
        with one_library_thread(), Models() as models:
            clip, selection, segments = open_clip(
                config, models, available_cores(), position, no_progress
            )
            with contextlib.closing(clip.source):
                head, infer = clip.prepared.head, selection.options.infer
                require_applicable(config.detect, head, in_tiles=config.tile is not None)
                class_ids = select_class_ids(config.detect, head.class_names)
                settings = RunSettings(config, infer, 1, class_ids, clip.source.timeline)
                with models.engine(clip.prepared, infer) as engine:
                    yield from _of_segments(clip, engine, settings, segments, position)
    except PipelineError as error:
        if error.step is not None:
            error.file = config.source_name
        raise
    except OSError as error:
        raise as_pipeline_error(error) from error


def _of_segments(
    clip: OpenClip,
    engine: Engine,
    settings: RunSettings,
    segments: Sequence[Segment],
    position: Position,
) -> Iterator[DetectedFrame]:
    """The frames of all segments, which begin where those of a run do: their boxes are the same."""
    num_frames, wanted = 0, settings.config.num_frames
    for segment in segments:
        left = None if wanted is None else wanted - num_frames
        if left == 0:
            return
        frames = itertools.islice(clip.source.frames(segment), left)
        stats = RunStats(position)
        with ModelDetections(
            frames,
            num_frames,
            engine,
            clip.prepared,
            detect_settings(settings, clip.source.info),
            stats,
        ) as detections:
            require_memory(clip.source.info, stats.in_flight.limit or 0, settings.config.limits)
            first_index = num_frames
            for detected in detections:
                num_frames += 1
                line = detection_line(
                    detected, first_index, says_interpolated=settings.config.infers_some
                )
                yield DetectedFrame.from_record(line.record(clip.prepared.head.class_names))
