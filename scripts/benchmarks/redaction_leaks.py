#!/usr/bin/env python
"""How much of what is to be covered stays to be seen: on the scene, in pixels of its masks.

    scripts/benchmarks/redaction_leaks.py                    the truth taken as detections
    scripts/benchmarks/redaction_leaks.py --withheld 0.2     a fifth of the boxes withheld
    scripts/benchmarks/redaction_leaks.py --lines out/detections.jsonl   what a model found

A pixel leaks if it is of the silhouette of a thing of a chosen class, in the frame, hidden by no
other thing, and not covered. Things that the truth lists count apart from those of which less than
a quarter is to be seen, or less than 8 pixels.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import SyntheticOptions
from pipeline.core.redact_options import RedactOptions
from pipeline.frames.redact import Redactor
from pipeline.media.frame import VideoInfo, plane_rows
from pipeline.run.redaction.covers import covers
from pipeline.run.redaction.fastest import fastest_sides
from pipeline.run.redaction.found import CoverRules, FoundBoxes
from pipeline.run.tracks.lines import read_lines
from pipeline.synthetic.compositing import intersection
from pipeline.synthetic.scene import Placed, Scene
from pipeline.synthetic.source import SyntheticSource
from pipeline.synthetic.sprites import CLASS_NAMES

MOST_WITHHELD_FRAMES = 3


@dataclass
class Leaks:
    """What is to be seen of the chosen classes, and what of that is not covered, in pixels.

    listed: of things that the truth lists and that were found at all, unfound: of those that were
    not, others: of the rest. frames: those with a leak of the first kind. covered_share: mean share
    of a frame that is covered.
    """

    listed_px: int = 0
    listed_leaked_px: int = 0
    unfound_px: int = 0
    unfound_leaked_px: int = 0
    others_px: int = 0
    others_leaked_px: int = 0
    frames: list[int] = field(default_factory=list)
    covered_share: float = 0.0
    num_frames: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be seen of a thing of the chosen classes in a frame.

    is_listed: whether the truth has it. corner_xy, mask: its visible pixels, (height, width), from
    this pixel of the frame on.
    """

    track_id: int
    is_listed: bool
    corner_xy: tuple[int, int]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TrueFrame:
    """boxes, track_ids: of the truth, of the chosen classes. seen: also what it does not list."""

    boxes: FoundBoxes
    track_ids: NDArray[np.int64]
    seen: list[Seen]


def true_frames(options: SyntheticOptions, class_ids: frozenset[int]) -> list[TrueFrame]:
    """What there is of chosen classes in each frame of a scene."""
    scene, frames = Scene(options.size_wh, options.seed), []
    for index in range(options.num_frames):
        things = scene.things(index)
        truth = scene.truth_of(things)
        kept = np.isin(truth.class_id, list(class_ids))
        seconds = index / float(options.frame_rate)
        boxes = FoundBoxes(seconds, truth.xyxy[kept], truth.class_id[kept])
        seen = list(_seen(things, frozenset(truth.track_id.tolist()), options.size_wh, class_ids))
        frames.append(TrueFrame(boxes, truth.track_id[kept], seen))
    return frames


def withheld(
    frames: Sequence[TrueFrame], share: float, seed: int
) -> tuple[list[FoundBoxes], frozenset[int]]:
    """The boxes without a random share of them, and the ids of things of which none is left.

    Each thing misses 1 to 3 frames at a time, after which it is found at least once.
    """
    random = np.random.default_rng(seed)
    mean_frames = (1 + MOST_WITHHELD_FRAMES) / 2
    begins = share / (mean_frames * (1 - share))
    left: dict[int, int] = {}
    found: set[int] = set()
    kept = []
    for frame in frames:
        boxes, track_ids = frame.boxes, frame.track_ids
        here = np.ones(len(track_ids), bool)
        for place, track_id in enumerate(track_ids.tolist()):
            frames_left = left.get(track_id, 0) - 1
            if frames_left < 0 and random.random() < begins:
                frames_left = int(random.integers(1, MOST_WITHHELD_FRAMES + 1))
            left[track_id] = max(0, frames_left)
            here[place] = frames_left <= 0
        found.update(track_ids[here].tolist())
        kept.append(FoundBoxes(boxes.seconds, boxes.xyxy[here], boxes.class_id[here]))
    everything = {track_id for frame in frames for track_id in frame.track_ids.tolist()}
    return kept, frozenset(everything - found)


def _seen(
    things: Sequence[Placed],
    listed: frozenset[int],
    size_wh: tuple[int, int],
    class_ids: frozenset[int],
) -> Iterator[Seen]:
    hidden = np.zeros((size_wh[1], size_wh[0]), bool)
    for thing in reversed(things):
        part = intersection(thing.solid_xyxy, (0, 0, *size_wh))
        if part is None:
            continue
        x0, y0, x1, y1 = part
        solid, hidden_here = thing.solid_within(part), hidden[y0:y1, x0:x1]
        if thing.class_id in class_ids:
            is_listed = thing.track_id in listed
            yield Seen(thing.track_id, is_listed, (x0, y0), solid & ~hidden_here)
        hidden_here |= solid


def covered_mask(
    redactor: Redactor, covered: NDArray[np.int64], info: VideoInfo
) -> NDArray[np.bool_]:
    """The pixels that the redactor covers in white on all planes: luma and chroma both."""
    width, height = info.size_wh
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane in frame.planes:
        plane_rows(plane)[...] = 235
    drawn = redactor(frame, covered)
    luma, *chroma = (plane_rows(plane)[:, : plane.width] != 235 for plane in drawn.planes)
    both = chroma[0] & chroma[1]
    changed: NDArray[np.bool_] = luma & both.repeat(2, 0).repeat(2, 1)[:height, :width]
    return changed


def measure(
    options: SyntheticOptions,
    frames: Iterable[TrueFrame],
    found: Sequence[FoundBoxes],
    redact: RedactOptions,
    unfound: frozenset[int] = frozenset(),
) -> Leaks:
    """Compute the covers of found boxes, cover with them, and count what is left to be seen.

    frames: as many. unfound: the ids of things of which there is no box in any frame.
    """
    info, leaks = SyntheticSource(options).info, Leaks()
    redactor = Redactor(info, "fill", ())
    rules = CoverRules(
        options.size_wh, redact.hold_seconds, redact.cover_margin, fastest_sides(found)
    )
    for index, (frame, covered) in enumerate(zip(frames, covers(found, rules), strict=True)):
        mask = covered_mask(redactor, covered, info)
        leaks.num_frames += 1
        leaks.covered_share += float(mask.mean())
        leaked_before = leaks.listed_leaked_px
        for seen in frame.seen:
            (x, y), (height, width) = seen.corner_xy, seen.mask.shape
            left = seen.mask & ~mask[y : y + height, x : x + width]
            num_seen, num_left = int(seen.mask.sum()), int(left.sum())
            if seen.is_listed and seen.track_id in unfound:
                leaks.unfound_px += num_seen
                leaks.unfound_leaked_px += num_left
            elif seen.is_listed:
                leaks.listed_px += num_seen
                leaks.listed_leaked_px += num_left
            else:
                leaks.others_px += num_seen
                leaks.others_leaked_px += num_left
        if leaks.listed_leaked_px > leaked_before:
            leaks.frames.append(index)
    leaks.covered_share /= max(1, leaks.num_frames)
    return leaks


def lines_boxes(detections: Path, class_ids: frozenset[int]) -> Iterator[FoundBoxes]:
    """The boxes of the chosen classes in the lines of a run, weak ones too."""
    weak = detections.with_name("weak.jsonl")
    for line in read_lines(detections, weak if weak.is_file() else None, lambda _: None):
        boxes = line.boxes.where(np.isin(line.boxes.class_id, list(class_ids)))
        yield FoundBoxes(
            line.pts_seconds, boxes.xyxy, boxes.class_id, inferred=not line.is_interpolated
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", nargs="+", default=["ball", "bird", "car"])
    parser.add_argument("--withheld", type=float, default=0.0)
    parser.add_argument("--withheld-seed", type=int, default=1)
    parser.add_argument("--hold", type=float, default=RedactOptions().hold_seconds)
    parser.add_argument("--lines", type=Path, help="detections.jsonl of a run on this scene")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    options = SyntheticOptions(
        num_frames=arguments.frames, size_wh=(width, height), seed=arguments.seed
    )
    class_ids = frozenset(map(CLASS_NAMES.index, arguments.classes))
    redact = RedactOptions(covered=tuple(arguments.classes), hold_seconds=arguments.hold)
    frames = true_frames(options, class_ids)
    unfound: frozenset[int] = frozenset()
    if arguments.lines is not None:
        found = list(itertools.islice(lines_boxes(arguments.lines, class_ids), arguments.frames))
    else:
        found, unfound = withheld(frames, arguments.withheld, arguments.withheld_seed)
    leaks = measure(options, frames, found, redact, unfound)
    print(f"{leaks.num_frames} frames, {leaks.covered_share:.1%} of each covered on average")
    print(f"listed in the truth: {leaks.listed_px} px, {leaks.listed_leaked_px} left to be seen")
    print(f"  in {len(leaks.frames)} frames: {leaks.frames[:20]}")
    if unfound:
        print(
            f"{len(unfound)} things of which every box is withheld: {leaks.unfound_px} px, "
            f"{leaks.unfound_leaked_px} left to be seen"
        )
    print(f"not listed: {leaks.others_px} px, {leaks.others_leaked_px} left to be seen")


if __name__ == "__main__":
    main()
