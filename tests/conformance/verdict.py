"""One clip through the pipeline, held against what FFmpeg's own programs show of it."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.core.config import DetectOptions, EncodeOptions, ProcessConfig
from pipeline.core.errors import PipelineError
from pipeline.inference.models import Models
from pipeline.run.process import process_video
from tests.conformance.clips import JOINED, Recipe
from tests.conformance.oracle import Shown, Track, evenly_spaced, look

Outcome = Literal["right", "warned", "refused", "wrong", "not made", "not shown"]

_LEAST_TICK = Fraction(1, 1000)
"""Clocks as coarse as Matroska's round each time by up to half a tick, in the source or before."""
_SOUND_SECONDS = Fraction(7, 100)
"""A packet of sound, as most are; a longer one may end so much later."""
_JOIN_SECONDS = Fraction(1, 25)
"""Where a second recording begins behind the first is up to the program, but for a frame."""
_RIGHTLY_REFUSED: tuple[str, ...] = ()
"""Parts of messages about clips of which ffmpeg shows frames, and that are refused on purpose."""
_MOST_LEVELS = 6.0
"""The mean difference of a thumbnail that encoding costs; a wrong matrix or range costs more."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a clip came out; reason: why it is wrong, or what the warning or the refusal says."""

    recipe: Recipe
    outcome: Outcome
    reason: str = ""


def judge(recipe: Recipe, weights: Path, models: Models | None = None) -> Verdict:
    """Make the clip, process it, and compare. Never raises: what is unexpected is wrong.

    models: None takes those of this process, which are kept from clip to clip.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "made").mkdir()
        clip = recipe.make(folder / "made")
        if clip is None:
            return Verdict(recipe, "not made")
        source = look(clip)
        if source is None:
            return Verdict(recipe, "not shown")
        try:
            config = _config(clip, folder / "result", weights)
            report = process_video(config, models=models or _models())
        except PipelineError as error:
            message = str(error).replace(f"{clip.parent}/", "")
            rightly = "\n" not in message and any(part in message for part in _RIGHTLY_REFUSED)
            return Verdict(recipe, "refused" if rightly else "wrong", message)
        except Exception as error:
            return Verdict(recipe, "wrong", f"{type(error).__name__}: {error}")
        result = look(folder / "result" / "annotated.mp4")
    if result is None:
        return Verdict(recipe, "wrong", "ffmpeg shows no frame of the result")
    notes: list[str] = report["output"]["notes"]
    faults = _differences(recipe, source, result, report, notes)
    if faults:
        return Verdict(recipe, "wrong", "; ".join(faults))
    return Verdict(recipe, "warned" if notes else "right", "; ".join(notes))


@functools.cache
def _models() -> Models:
    return Models()


def _config(clip: Path, output_dir: Path, weights: Path) -> ProcessConfig:
    return ProcessConfig(
        source=clip,
        output_dir=output_dir,
        weights=weights,
        # A class that is never found: no box changes a pixel.
        detect=DetectOptions(classes=("shade",)),
        encode=EncodeOptions(crf=8),
    )


def _differences(
    recipe: Recipe, source: Shown, result: Shown, report: dict[str, Any], notes: list[str]
) -> list[str]:
    tolerance = _JOIN_SECONDS if recipe.family == JOINED else _LEAST_TICK
    expected = evenly_spaced(source.video) if recipe.even else source.video
    return [
        *_differences_of_times(expected, result.video, tolerance),
        *_differences_of_sounds(source, result, notes),
        *_differences_of_pictures(source, result),
        *_differences_of_report(result, report),
    ]


def _differences_of_times(source: Track, result: Track, tolerance: Fraction) -> list[str]:
    if len(result.starts) != len(source.starts):
        return [f"{len(result.starts)} frames shown, {len(source.starts)} in the source"]
    pairs = zip(_from_first(source), _from_first(result), strict=True)
    worst = max(abs(ours - theirs) for theirs, ours in pairs)
    found = [f"a frame is {float(worst):.4f} s off"] if worst > tolerance else []
    lengths = (source.end - source.starts[0], result.end - result.starts[0])
    if abs(lengths[0] - lengths[1]) > max(tolerance, lengths[0] / 50):
        found.append(f"lasts {float(lengths[1]):.3f} s, the source {float(lengths[0]):.3f} s")
    return found


def _from_first(track: Track) -> list[Fraction]:
    return [start - track.starts[0] for start in track.starts]


def _differences_of_sounds(source: Shown, result: Shown, notes: list[str]) -> list[str]:
    heard, ours = source.sounds, result.sounds
    if len(ours) != len(heard):
        told = any("audio" in note or "sound" in note for note in notes)
        return [] if told else [f"{len(ours)} sounds, {len(heard)} in the source, and no warning"]
    found = []
    for number, (theirs, our) in enumerate(zip(heard, ours, strict=True)):
        shift = (our.starts[0] - result.video.starts[0]) - (
            theirs.starts[0] - source.video.starts[0]
        )
        if abs(shift) > _SOUND_SECONDS:
            found.append(f"sound {number} is {float(shift):.3f} s off at its start")
        shift = (our.end - result.video.starts[0]) - (theirs.end - source.video.starts[0])
        if abs(shift) > max(_SOUND_SECONDS, our.longest_step):
            found.append(f"sound {number} is {float(shift):.3f} s off at its end")
    return found


def _differences_of_pictures(source: Shown, result: Shown) -> list[str]:
    theirs, ours = source.thumbnails, result.thumbnails
    if len(theirs) != len(ours):
        return []  # Told by the times.
    levels = np.abs(theirs.astype(np.int16) - ours).mean(axis=(1, 2, 3))
    worst = float(levels.max())
    return [f"a picture is {worst:.1f} levels off"] if worst > _MOST_LEVELS else []


def _differences_of_report(result: Shown, report: dict[str, Any]) -> list[str]:
    counted = report["output"]["num_frames"]
    shown = len(result.video.starts)
    return [] if counted == shown else [f"the report counts {counted} frames, {shown} are shown"]
