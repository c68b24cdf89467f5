"""A synthetic world with ground truth: any frame of it can be drawn without those before.

Things of ten classes move over a drifting landscape: slow ones that belong to it, faster ones,
and some so fast that they have left their own box from one frame to the next. They hide each
other, blur with their motion, grow and shrink, spin and flap, enter and leave.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.cast import CAST, NUM_ANGLES, Stage, Track
from pipeline.synthetic.compositing import intersection, motion_blurred, overlap, scaled_and_turned
from pipeline.synthetic.scenery import Scenery
from pipeline.synthetic.sprites import CLASS_NAMES, Sprite, bounding_box, draw_thing

MIN_VISIBLE_SHARE = 0.25
"""A thing counts when at least this share of its silhouette is in view and not covered."""

MIN_BOX_PX = 8
"""A thing counts when both sides of its box have at least this many pixels."""

_MAX_KEPT_SPRITES = 128
_MAX_KEPT_TRACKS = 128
_LARGEST_MASTER_PX = 1024


@dataclass(frozen=True, slots=True)
class Truth:
    """What is to be seen in a frame, N things.

    xyxy: float32 (N, 4), whole pixels: left, top, and the first column and row outside.
    class_id: int64 (N,), places in CLASS_NAMES.
    track_id: int64 (N,), from 1; the same for a thing in all frames, never used again.
    """

    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int64]
    track_id: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)


@dataclass(frozen=True, slots=True)
class Placed:
    """A thing where it is in one frame; the sprite's upper left corner may lie outside."""

    track_id: int
    class_id: int
    corner_xy: tuple[int, int]
    sprite: Sprite

    @property
    def solid_xyxy(self) -> tuple[int, int, int, int]:
        """The bounding box of the silhouette, in pixels of the frame."""
        (x, y), (x0, y0, x1, y1) = self.corner_xy, self.sprite.solid_xyxy
        return x + x0, y + y0, x + x1, y + y1

    def solid_within(self, xyxy: tuple[int, int, int, int]) -> NDArray[np.bool_]:
        """The silhouette in a part of the frame that its sprite covers."""
        x, y = self.corner_xy
        return self.sprite.solid[xyxy[1] - y : xyxy[3] - y, xyxy[0] - x : xyxy[2] - x]


class Scene:
    """The world of one seed, at one size.

    A frame depends on seed, size and index alone. Motion is per frame, whatever the frame rate;
    sizes and speeds are relative to the frame: things measure 16 pixels to half of its shorter
    side. Raises nothing for any size of 16x16 or more. Not for several threads at once.
    """

    def __init__(self, size_wh: tuple[int, int], seed: int) -> None:
        self.size_wh = size_wh
        random = np.random.default_rng([seed, 0])
        self._scenery = Scenery(size_wh, random)
        self._stage = Stage(size_wh, seed, self._scenery)
        self._life_frames = [int(random.integers(*slot.frames)) for slot in CAST]
        self._head_start = [int(random.integers(frames)) for frames in self._life_frames]
        self._tracks: OrderedDict[tuple[int, int], Track] = OrderedDict()
        self._masters: OrderedDict[tuple[int, int], list[NDArray[np.uint8]]] = OrderedDict()
        self._sprites: OrderedDict[tuple[int, int, int, int], Sprite] = OrderedDict()

    def draw(self, index: int) -> NDArray[np.uint8]:
        """Frame `index`, uint8 BGR (height, width, 3)."""
        return self.draw_things(index, self.things(index))

    def draw_things(self, index: int, things: Sequence[Placed]) -> NDArray[np.uint8]:
        """Frame `index` with these things only, the first at the back; as `draw`."""
        canvas = self._scenery.draw(index)
        for thing in things:
            _lay_over(canvas, thing)
        self._scenery.expose(canvas, index)
        return canvas

    def truth(self, index: int, window_xyxy: tuple[int, int, int, int] | None = None) -> Truth:
        """What is to be seen in frame `index`, exactly.

        A thing's silhouette is where its sprite, as drawn (scaled, turned, motion-blurred), has
        an alpha of one half or more; shadows on the ground do not belong to it. Visible are the
        pixels of the silhouette that lie in the frame and in no silhouette further to the front.
        The box is the bounding box of the visible pixels. A thing counts when these are at least
        MIN_VISIBLE_SHARE of its whole silhouette and both sides of the box measure MIN_BOX_PX.

        window_xyxy: judge this part of the frame as if it were the whole; boxes then count from
        its upper left corner.
        """
        return self.truth_of(self.things(index), window_xyxy)

    def truth_of(
        self, things: Sequence[Placed], window_xyxy: tuple[int, int, int, int] | None = None
    ) -> Truth:
        """As `truth`, of things placed by `things`."""
        window = window_xyxy or (0, 0, *self.size_wh)
        boxes, class_ids, track_ids = [], [], []
        for number, thing in enumerate(things):
            box = _visible_box(thing, things[number + 1 :], window)
            if box is not None:
                x0, y0, x1, y1 = box
                boxes.append((x0 - window[0], y0 - window[1], x1 - window[0], y1 - window[1]))
                class_ids.append(thing.class_id)
                track_ids.append(thing.track_id)
        return Truth(
            xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            class_id=np.array(class_ids, np.int64),
            track_id=np.array(track_ids, np.int64),
        )

    def things(self, index: int) -> list[Placed]:
        """All that touches frame `index`, from back to front."""
        present = []
        for slot, life_frames in enumerate(self._life_frames):
            number, age = divmod(index + self._head_start[slot], life_frames)
            track = self._track(slot, number)
            thing = self._place(track, age)
            if thing is not None:
                present.append((track.depth, track.track_id, thing))
        present.sort(key=lambda entry: entry[:2])
        return [thing for _, _, thing in present]

    def _place(self, track: Track, age: int) -> Placed | None:
        x, y = track.place_xy(age)
        reach = track.size_px * (1 + abs(track.growth)) * 2
        if not (-reach < x < self.size_wh[0] + reach and -reach < y < self.size_wh[1] + reach):
            return None
        sprite = self._sprite(track, *track.look(age))
        x0, y0, x1, y1 = sprite.solid_xyxy
        corner_xy = (
            round(x - (x0 + x1) / 2),
            round(y - y1 if track.stands else y - (y0 + y1) / 2),
        )
        width, height = self.size_wh
        if not (
            -sprite.solid.shape[1] < corner_xy[0] < width
            and -sprite.solid.shape[0] < corner_xy[1] < height
        ):
            return None
        return Placed(track.track_id, track.class_id, corner_xy, sprite)

    def _track(self, slot: int, number: int) -> Track:
        key = (slot, number)
        track = self._tracks.get(key)
        if track is None:
            track = self._stage.new_track(slot, number, self._life_frames[slot])
            _keep(self._tracks, key, track, _MAX_KEPT_TRACKS)
        return track

    def _sprite(self, track: Track, size_px: int, angle: int, pose: int) -> Sprite:
        if CLASS_NAMES[track.class_id] != "bird":
            pose = 0
        key = (track.track_id, size_px, angle, pose)
        sprite = self._sprites.get(key)
        if sprite is None:
            bgra = scaled_and_turned(self._master(track, pose), size_px, 360 / NUM_ANGLES * angle)
            if track.looks_left:
                bgra = bgra[:, ::-1]
            vx, vy = track.velocity_xy
            bgra = motion_blurred(bgra, (vx * track.shutter, vy * track.shutter))
            sprite = Sprite.from_bgra(bgra)
            _keep(self._sprites, key, sprite, _MAX_KEPT_SPRITES)
        return sprite

    def _master(self, track: Track, pose: int) -> list[NDArray[np.uint8]]:
        """The thing in large, and at a half, a quarter, ... of that."""
        key = (track.track_id, pose)
        levels = self._masters.get(key)
        if levels is None:
            needed = track.size_px * max(1.0, 1 + track.growth)
            size_px = 32
            while size_px < min(needed, _LARGEST_MASTER_PX):
                size_px *= 2
            random = np.random.default_rng([*track.seed, 0])
            levels = [draw_thing(track.class_id, size_px, random, pose)]
            while size_px > 16:
                size_px //= 2
                smaller = cv2.resize(levels[-1], (size_px, size_px), interpolation=cv2.INTER_AREA)
                levels.append(smaller.astype(np.uint8, copy=False))
            _keep(self._masters, key, levels, _MAX_KEPT_TRACKS)
        return levels


def _visible_box(
    thing: Placed, nearer: Sequence[Placed], window: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    """The box of what is to be seen of a thing behind others; None if that does not count."""
    part = intersection(thing.solid_xyxy, window)
    if part is None:
        return None
    box = part
    hiding = [(o, shared) for o in nearer if (shared := intersection(o.solid_xyxy, part))]
    if hiding or part != thing.solid_xyxy:
        left, top = part[:2]
        visible = thing.solid_within(part).copy()
        for other, (x0, y0, x1, y1) in hiding:
            hidden = other.solid_within((x0, y0, x1, y1))
            visible[y0 - top : y1 - top, x0 - left : x1 - left] &= ~hidden
        if np.count_nonzero(visible) < MIN_VISIBLE_SHARE * thing.sprite.num_solid:
            return None
        x0, y0, x1, y1 = bounding_box(visible)
        box = (left + x0, top + y0, left + x1, top + y1)
    return box if min(box[2] - box[0], box[3] - box[1]) >= MIN_BOX_PX else None


def _keep(kept: OrderedDict, key: object, value: object, limit: int) -> None:  # type: ignore[type-arg]
    """Remember a value and forget the oldest beyond the limit."""
    kept[key] = value
    if len(kept) > limit:
        kept.popitem(last=False)


def _lay_over(canvas: NDArray[np.uint8], thing: Placed) -> None:
    view, part = overlap(canvas.shape, thing.corner_xy, thing.sprite.solid.shape)
    under = canvas[view]
    if under.size:
        cv2.multiply(under, thing.sprite.transparency[part], dst=under, scale=1 / 255)
        cv2.add(under, thing.sprite.bgr[part], dst=under)
