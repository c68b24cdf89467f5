"""The things that play in a scene: which, where they come from, how they move and look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.synthetic.scenery import Scenery
from pipeline.synthetic.sprites import CLASS_NAMES, NUM_POSES

NUM_ANGLES = 72
_SMALLEST_PX = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the cast, played by one thing after the other.

    frames: how long each stays at most, in frames, from .. to; the slot draws its own number.
    """

    frames: tuple[int, int]
    classes: tuple[str, ...]
    is_fast: bool = False


_FLYING = ("ball", "balloon", "bird", "rocket", "star")
_STANDING = ("flower", "house", "mushroom", "tree")
_FAST = Slot((12, 24), ("ball", "bird", "car", "rocket", "star"), is_fast=True)
_LIVELY = Slot((70, 180), (*_FLYING, "balloon", "bird", "car"))
_STEADY = Slot((250, 600), (*_STANDING, *_STANDING, "balloon"))
CAST = (_FAST,) * 3 + (_LIVELY,) * 5 + (_STEADY,) * 6


@dataclass(frozen=True, slots=True)
class Track:
    """A thing's whole life: where it is and how it looks, as functions of its age in frames."""

    track_id: int
    class_id: int
    seed: tuple[int, int, int]
    start_xy: tuple[float, float]
    velocity_xy: tuple[float, float]
    size_px: float
    growth: float
    depth: float
    sway_px: float
    sway_frames: float
    bounce_px: float
    turn: float
    spin: float
    flap_frames: int
    looks_left: bool
    stands: bool
    shutter: float
    life_frames: int

    def place_xy(self, age: int) -> tuple[float, float]:
        """Its centre, or the middle of its lower edge if it stands."""
        x = self.start_xy[0] + self.velocity_xy[0] * age
        y = self.start_xy[1] + self.velocity_xy[1] * age
        swing = math.sin(2 * math.pi * age / self.sway_frames)
        return x, y + self.sway_px * swing - self.bounce_px * abs(swing)

    def look(self, age: int) -> tuple[int, int, int]:
        """(size in pixels, angle in steps, pose) at this age."""
        size = self.size_px * (1 + self.growth * age / self.life_frames)
        angle = round((self.turn + self.spin * age) / 360 * NUM_ANGLES) % NUM_ANGLES
        return max(4, round(size)), angle, age // self.flap_frames % NUM_POSES


@dataclass(frozen=True, slots=True)
class Stage:
    """Where tracks play: a scene of one seed and size."""

    size_wh: tuple[int, int]
    seed: int
    scenery: Scenery

    def new_track(self, slot: int, number: int, life_frames: int) -> Track:
        """The n-th thing that plays a slot of the cast.

        The order of the random numbers is part of what a seed means.
        """
        width, height = self.size_wh
        random = np.random.default_rng([self.seed, 1 + slot, number])
        role = CAST[slot]
        name = str(random.choice(role.classes))
        largest = max(8.0, min(width, height) / 2)
        smallest = min(float(_SMALLEST_PX), largest)
        size, growth = _size(random, role, smallest, largest)
        stands = name in (*_STANDING, "car")
        if stands:
            x, y = self._middle_on_ground(random, size, smallest, largest)
        else:
            x, y = (
                width * float(random.uniform(0.3, 0.7)),
                height * float(random.uniform(0.1, 0.85)),
            )
        direction = self._direction(random, name)
        # Long enough to come in from outside and to leave again, whatever the direction.
        path = (width if stands else math.hypot(width, height)) + 3 * size
        speed = path / (life_frames * float(random.uniform(0.65, 1.0)))
        if role.is_fast:
            size = max(min(size, speed / float(random.uniform(0.65, 1.3))), smallest)
        velocity = (speed * math.cos(direction), speed * math.sin(direction))
        half = path / speed / 2
        is_ball, is_flyer = name == "ball", name in ("balloon", "bird", "star")
        return Track(
            track_id=1 + slot + number * len(CAST),
            class_id=CLASS_NAMES.index(name),
            seed=(self.seed, 1 + slot, number),
            start_xy=(x - velocity[0] * half, y - velocity[1] * half),
            velocity_xy=velocity,
            size_px=size,
            growth=growth,
            depth=size * float(random.uniform(0.5, 2.0)),
            sway_px=height * float(random.uniform(0, 0.05)) if is_flyer else 0.0,
            sway_frames=float(random.uniform(40, 120)),
            bounce_px=height * float(random.uniform(0, 0.3)) if is_ball else 0.0,
            turn=math.degrees(direction) if name == "rocket" else 0.0,
            spin=float(random.uniform(-6, 6)) if name in ("ball", "star") else 0.0,
            flap_frames=int(random.integers(2, 6)),
            looks_left=math.cos(direction) < 0 and name != "rocket",
            stands=stands,
            shutter=float(random.uniform(0.1, 0.3)),
            life_frames=life_frames,
        )

    def _middle_on_ground(
        self, random: np.random.Generator, size: float, smallest: float, largest: float
    ) -> tuple[float, float]:
        """Near things are large and low, as seen by a viewer who stands on the ground."""
        width, height = self.size_wh
        horizon = self.scenery.horizon_px
        near = math.log(size / smallest + 1e-9) / math.log(largest / smallest + 1e-9)
        near = min(1.0, max(0.0, near + float(random.uniform(-0.2, 0.2))))
        return width / 2, horizon + (height - horizon) * (0.06 + 0.94 * near)

    def _direction(self, random: np.random.Generator, name: str) -> float:
        """In radians, clockwise from the right."""
        if name in _STANDING:
            return math.pi if self.scenery.ground_speed_px > 0 else 0.0
        if name == "car":
            return math.pi * int(random.integers(2))
        if name == "balloon":
            return float(random.uniform(-0.8, -0.2)) * math.pi
        steepest = 1.2 if name in ("rocket", "star") else 0.35
        direction = float(random.uniform(-steepest, steepest))
        return direction + math.pi * int(random.integers(2))


def _size(
    random: np.random.Generator, role: Slot, smallest: float, largest: float
) -> tuple[float, float]:
    """Size in pixels at first, and by which share of that it grows."""
    size = smallest * (largest / smallest) ** float(random.random() ** 0.7)
    growth = 0.0 if role.is_fast else float(random.uniform(-0.3, 0.3))
    size /= max(1.0, 1 + growth)
    return max(size, smallest / min(1.0, 1 + growth)), growth
