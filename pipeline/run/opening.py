"""The options of a run -> an open clip with the model for it, and the segments it is cut into."""

from __future__ import annotations

import contextlib
import functools

from pipeline.core.config import ProcessConfig
from pipeline.core.notes import note
from pipeline.core.position import Position, Step
from pipeline.core.progress import ProgressCallback
from pipeline.frames.codecs import require_encodable
from pipeline.frames.scaled import annotated_info
from pipeline.frames.segment import OpenClip
from pipeline.frames.source import numbers_taken, open_source, scan_source
from pipeline.inference.models import Models
from pipeline.inference.selection import Selection, select
from pipeline.media.cut import cut_clip, cut_synthetic
from pipeline.media.frame import WHOLE, Segment
from pipeline.media.scan import ClipScan
from pipeline.model.prepare import note_model
from pipeline.model.weights import find_weights


def open_clip(
    config: ProcessConfig,
    models: Models,
    cores: int,
    position: Position,
    on_progress: ProgressCallback,
) -> tuple[OpenClip, Selection, tuple[Segment, ...]]:
    """The clip and the model for it, how the model is to be run, and the segments of the clip.

    cores: of this machine that work on it. Raises PipelineError.
    """
    beat = functools.partial(position.encoding.enter, Step.PREPARE)
    with contextlib.ExitStack() as stack:
        scan = scan_source(config, beat)
        timeline = scan.timeline if scan else None
        source = open_source(config, cores, timeline)
        stack.enter_context(contextlib.closing(source))
        stack.enter_context(position.failures_told())
        for warning in source.info.warnings:
            note(warning)
        if config.video:
            require_encodable(annotated_info(source.info, config.encode), config.encode)
        weights = find_weights(config.weights, on_progress, config.default_model)
        size_wh = config.windows(source.info.size_wh)[0].size_wh
        prepared = models.prepare(
            weights, size_wh, config.imgsz, on_progress, nms_free=config.nms_free
        )
        note_model(prepared, config.imgsz)
        selection = select(config.infer, prepared, config.encode, cores)
        if selection.options.infer.precision == "int8" and prepared.quantization is None:
            from pipeline.frames.calibration import calibration_for  # A run in float needs none.

            calibration = calibration_for(config, prepared.head.class_names)
            prepared = models.quantize(prepared, calibration, on_progress)
        segments = _segments(config, scan)
        stack.pop_all()
    return OpenClip(source, prepared), selection, segments


def _segments(config: ProcessConfig, scan: ClipScan | None) -> tuple[Segment, ...]:
    """The segments that the source is processed in."""
    scene = config.synthetic
    if config.ends_early and config.cluster is not None:
        return (WHOLE,)
    if scene is not None:
        return cut_synthetic(len(numbers_taken(config)), scene.frame_rate, config.segment_seconds)
    if config.pictures is not None:
        rate = config.pictures.frame_rate
        return cut_synthetic(len(numbers_taken(config)), rate, config.segment_seconds)
    assert scan is not None
    return cut_clip(scan, config.segment_seconds, config.num_frames)
