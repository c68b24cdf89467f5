"""Boxes of a quantised model, compared with those in float on some frames of the clip."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from pipeline.core.config import ProcessConfig
from pipeline.core.machine import available_cores
from pipeline.core.notes import note
from pipeline.core.position import Step
from pipeline.core.text import counted
from pipeline.frames.audit import Audit
from pipeline.frames.segment import OpenClip
from pipeline.frames.source import open_source
from pipeline.frames.task import RunSettings
from pipeline.frames.views import views_of
from pipeline.inference.detect_each import detect_each
from pipeline.inference.models import Models
from pipeline.media.crop import Cropper
from pipeline.media.frame import Frame
from pipeline.model.letterbox import PADDING_VALUE
from pipeline.run.context import RunContext

NUM_FRAMES = 16
FRAMES_EACH = 40
"""One in so many frames of a batch is compared, as in a clip of 640 frames."""
_PARTNERS_CONFIDENCE = 0.25
"""Boxes down to this confidence may be partners of sure ones."""


class Int8Audits:
    """How many frames of each clip are compared, and what was found in all; thread-safe.

    of_batch: whether there are many clips. Each is then compared as far as one frame in
    FRAMES_EACH of all clips so far allows, beginning with the first.
    """

    def __init__(self, *, of_batch: bool = False) -> None:
        self._of_batch = of_batch
        self._lock = threading.Lock()
        self._num_seen = self._num_compared = 0
        self._found = Audit()
        self._num_clips = 0
        self._has_warned = False

    def num_compared(self, num_frames: int) -> int:
        """How many frames of a clip of so many are to be compared."""
        # An eighth at most, so that this takes a small part of a short run too.
        number = min(NUM_FRAMES, -(-num_frames // 8))
        with self._lock:
            if self._of_batch:
                self._num_seen += num_frames
                allowed = 1 + self._num_seen // FRAMES_EACH
                number = max(0, min(number, allowed - self._num_compared))
            self._num_compared += number
        return number

    def warning(self, audit: Audit, config: ProcessConfig) -> str | None:
        """A warning, once, if this audit and those before it show that too few boxes are as in
        float."""
        with self._lock:
            self._found.add(audit)
            self._num_clips += 1
            if self._has_warned or self._found.verdict(config.least_agreement) != "below":
                return None
            self._has_warned = True
            return _warning(self._found, self._num_clips, config)


def audit_int8(
    run: RunContext,
    models: Models,
    audits: Int8Audits,
    clip: OpenClip,
    settings: RunSettings,
    num_frames: int,
) -> Audit | None:
    """Infer frames spread over a clip in INT8 and in float; `ours` are the boxes in INT8.

    num_frames: of the clip. None for a model that is in float or not in float at all, for a
    picture, and for a clip of a batch of which no frame is to be compared. Notes what `audits`
    warns of.
    """
    quantization = clip.prepared.quantization
    if quantization is None or quantization.calibrated_on is None or clip.source.info.is_picture:
        return None
    count = audits.num_compared(num_frames)
    if not count:
        return None
    audit = _compared(
        run, models, clip, settings, list(_at_model_size(run, clip, num_frames, count))
    )
    if warning := audits.warning(audit, run.config):
        note(warning)
    return audit


def _compared(
    run: RunContext, models: Models, clip: OpenClip, settings: RunSettings, frames: list[Frame]
) -> Audit:
    config, infer = run.config, settings.infer
    in_float = models.prepare(
        clip.prepared.weights,
        clip.prepared.source_wh,
        config.imgsz,
        run.on_progress,
        nms_free=config.nms_free,
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


def _at_model_size(run: RunContext, clip: OpenClip, num_frames: int, count: int) -> Iterator[Frame]:
    """Some of the frames of a run as the model sees them: a few of full size need no memory.

    Of frames in tiles, one tile each.
    """
    width, height = clip.prepared.input_wh
    info = clip.source.info
    views = views_of(run.config.windows(info.size_wh), clip.prepared.input_wh)
    crop = run.config.detect.window(info.size_wh)
    cut = None if crop is None else Cropper(crop)
    # All cores decode: nothing else runs.
    source = open_source(run.config, 2 * available_cores(), clip.source.timeline)
    with contextlib.closing(source), run.position.failures_told():
        if not run.config.ends_early:
            spread = source.sample(count)
        else:  # Only the first ones were asked for.
            spread = itertools.islice(source.frames(), 0, num_frames, -(-num_frames // count))
        for number, frame in enumerate(spread):
            run.position.encoding.enter(Step.PREPARE)
            pixels = np.full((height, width, 3), PADDING_VALUE, np.uint8)
            if cut is not None:
                frame = dataclasses.replace(frame, window=cut(frame.image))
            views[number * len(views) // count].write(frame, pixels)
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            yield Frame(number, number, 1, Fraction(1), image)


def _warning(audit: Audit, num_clips: int, config: ProcessConfig) -> str:
    low, high = audit.deciding.worse.interval
    remedy = "calibrate on pictures like the clip's with --calibration FOLDER, or run in float"
    if config.calibration is None:
        remedy = "use --calibration clip, or --calibration FOLDER with pictures like the clip's"
    where = f" in frames of {counted(num_clips, 'clip')}" if num_clips > 1 else ""
    return (
        f"of the boxes in INT8{where}, {low:.1%} to {high:.1%} are as in float, less than "
        f"--least-agreement {config.least_agreement:g}: {remedy}"
    )
