"""Boxes of a quantised model, compared with those in float on some frames of the clip."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from pipeline.core.config import ProcessConfig
from pipeline.core.position import Step
from pipeline.frames.audit import Audit
from pipeline.frames.segment import OpenClip
from pipeline.frames.source import open_source
from pipeline.frames.task import RunSettings
from pipeline.inference.detect_each import detect_each
from pipeline.inference.models import Models
from pipeline.media.frame import Frame
from pipeline.model.letterbox import PADDING_VALUE, letterbox
from pipeline.model.preprocess import Preprocessor
from pipeline.run.context import RunContext

NUM_FRAMES = 16
_PARTNERS_CONFIDENCE = 0.25
"""Boxes down to this confidence may be partners of sure ones."""


def audit_int8(
    run: RunContext, models: Models, clip: OpenClip, settings: RunSettings, num_frames: int
) -> Audit | None:
    """Infer frames spread over a clip in INT8 and in float; `ours` are the boxes in INT8.

    num_frames: of the clip. An eighth of them are compared at most, so that this takes a small
    part of a short run too. None for a model that is in float or not in float at all, and for a
    picture.
    """
    quantization = clip.prepared.quantization
    if quantization is None or quantization.calibrated_on is None or clip.source.info.is_picture:
        return None
    config, infer = run.config, settings.infer
    frames = list(_at_model_size(run, clip, num_frames))
    in_float = models.prepare(
        clip.prepared.weights, clip.prepared.source_wh, config.imgsz, run.on_progress
    )
    options = [infer, dataclasses.replace(infer, precision="auto", batch=1)]
    detect = config.detect.down_to(_PARTNERS_CONFIDENCE)
    found = []
    for prepared, how in zip((clip.prepared, in_float), options, strict=True):
        run.position.encoding.enter(Step.PREPARE)
        with models.engine(prepared, how) as engine:
            found.append(detect_each(frames, prepared, engine, detect, settings.class_ids))
    audit = Audit()
    for ours, theirs in zip(*found, strict=True):
        audit.compare(ours, theirs, config.detect.least_confidence)
    return audit


def _at_model_size(run: RunContext, clip: OpenClip, num_frames: int) -> Iterator[Frame]:
    """Some of the frames of a run as the model sees them: a few of full size need no memory."""
    count = min(NUM_FRAMES, -(-num_frames // 8))
    width, height = clip.prepared.input_wh
    box = letterbox(clip.source.info.size_wh, clip.prepared.input_wh)
    preprocess = Preprocessor(box)
    source = open_source(run.config, 1, clip.source.timeline)
    with contextlib.closing(source), run.position.failures_told():
        if run.config.num_frames is None:
            spread = source.sample(count)
        else:  # Only the first ones were asked for.
            spread = itertools.islice(source.frames(), 0, num_frames, -(-num_frames // count))
        for number, frame in enumerate(spread):
            run.position.encoding.enter(Step.PREPARE)
            pixels = np.full((height, width, 3), PADDING_VALUE, np.uint8)
            preprocess(frame, pixels)
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            yield Frame(number, number, 1, Fraction(1), image)


def int8_warning(audit: Audit, config: ProcessConfig) -> str | None:
    """A warning if the audit shows that too few boxes are as in float; else None."""
    if audit.verdict(config.least_agreement) != "below":
        return None
    low, high = audit.deciding.worse.interval
    remedy = "calibrate on pictures like the clip's with --calibration FOLDER, or run in float"
    if config.calibration is None:
        remedy = "use --calibration clip, or --calibration FOLDER with pictures like the clip's"
    return (
        f"of the boxes in INT8, {low:.1%} to {high:.1%} are as in float, less than "
        f"--least-agreement {config.least_agreement:g}: {remedy}"
    )
