"""Endless training pictures from the synthetic world: no picture twice, no file needed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.scene import Scene

FIRST_TRAINING_SEED = 1 << 40
"""Scenes of this seed and above are for training; judge on others."""

_SIZES_WH = ((640, 480), (640, 480), (640, 480), (640, 360), (480, 360), (800, 600), (480, 640))
_SCALES = (0.7, 1.6)
_SCALED_SHARE = 0.3
_FRAMES_PER_SCENE = 60
_STRIDE_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures and what is in them.

    rgb: uint8 (N, height, width, 3).
    targets: float32 (M, 6): picture, class, centre x, y, width, height in pixels.
    """

    rgb: NDArray[np.uint8]
    targets: NDArray[np.float32]


class TrainingScenes:
    """A number of scenes played at once, each replaced by a new one after a while.

    Batch number `step` is the same whatever was asked for before. Not for several threads.
    """

    def __init__(self, seed: int, num_scenes: int) -> None:
        self._seed = seed
        self._num_scenes = num_scenes
        self._playing: dict[int, tuple[int, Scene]] = {}

    def batch(self, step: int, size_wh: tuple[int, int], crops_per_scene: int) -> Batch:
        """Crops of this size, from one frame of every scene."""
        pictures: list[NDArray[np.uint8]] = []
        targets: list[NDArray[np.float32]] = []
        for place in range(self._num_scenes):
            # Staggered, so that not all are replaced in the same step.
            age = step + place * _FRAMES_PER_SCENE // self._num_scenes
            generation, played = divmod(age, _FRAMES_PER_SCENE)
            scene = self._scene(place, generation, size_wh)
            random = np.random.default_rng([self._seed, 2, step, place])
            index = int(random.integers(_STRIDE_FRAMES)) + played * _STRIDE_FRAMES
            things = scene.things(index)
            frame = scene.draw_things(index, things)
            for _ in range(crops_per_scene):
                window = _random_window(random, scene.size_wh, size_wh)
                left, top, right, bottom = window
                truth = scene.truth_of(things, window)
                part, xyxy = _scaled(frame[top:bottom, left:right], truth.xyxy, size_wh)
                picture, xyxy = _varied(random, part, xyxy)
                if len(truth):
                    targets.append(_as_targets(len(pictures), truth.class_id, xyxy))
                pictures.append(picture)
        empty = np.empty((0, 6), np.float32)
        return Batch(np.stack(pictures), np.concatenate([empty, *targets]))

    def _scene(self, place: int, generation: int, crop_wh: tuple[int, int]) -> Scene:
        number, scene = self._playing.get(place, (-1, None))
        if scene is None or number != generation or not _holds(scene.size_wh, crop_wh):
            serial = generation * self._num_scenes + place
            sizes = [size for size in _SIZES_WH if _holds(size, crop_wh)]
            random = np.random.default_rng([self._seed, 1, serial])
            size_wh = sizes[int(random.integers(len(sizes)))]
            scene = Scene(size_wh, FIRST_TRAINING_SEED + self._seed * 10_000_000 + serial)
            self._playing[place] = (generation, scene)
        return scene


def _holds(size_wh: tuple[int, int], crop_wh: tuple[int, int]) -> bool:
    return size_wh[0] >= crop_wh[0] and size_wh[1] >= crop_wh[1]


def _random_window(
    random: np.random.Generator, size_wh: tuple[int, int], crop_wh: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Mostly of the crop's own size, sometimes of another to be scaled to it."""
    scale = float(random.uniform(*_SCALES)) if random.random() < _SCALED_SHARE else 1.0
    scale = min(scale, size_wh[0] / crop_wh[0], size_wh[1] / crop_wh[1])
    width, height = round(crop_wh[0] * scale), round(crop_wh[1] * scale)
    left = int(random.integers(size_wh[0] - width + 1))
    top = int(random.integers(size_wh[1] - height + 1))
    return left, top, left + width, top + height


def _scaled(
    bgr: NDArray[np.uint8], xyxy: NDArray[np.float32], size_wh: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    height, width = bgr.shape[:2]
    if (width, height) == size_wh:
        return bgr, xyxy
    picture = cv2.resize(bgr, size_wh, interpolation=cv2.INTER_LINEAR)
    scale = np.array([size_wh[0] / width, size_wh[1] / height] * 2, np.float32)
    return picture.astype(np.uint8, copy=False), xyxy * scale


def _varied(
    random: np.random.Generator, bgr: NDArray[np.uint8], xyxy: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The picture as RGB, perhaps mirrored, compressed or in other colours, and its boxes."""
    if random.random() < 0.5:
        bgr = bgr[:, ::-1]
        xyxy = xyxy.copy()
        xyxy[:, [0, 2]] = bgr.shape[1] - xyxy[:, [2, 0]]
    if random.random() < 0.5:
        bgr = _in_other_colors(random, bgr)
    chance = random.random()
    bgr = np.ascontiguousarray(bgr)
    if chance < 0.2:
        quality = int(random.integers(50, 96))
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        bgr = decoded.astype(np.uint8, copy=False)
    elif chance < 0.5:
        # Video keeps colours at half of the resolution.
        yuv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
        return cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB_I420).astype(np.uint8, copy=False), xyxy
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False), xyxy


def _in_other_colors(random: np.random.Generator, bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    hsv = cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2HSV)
    levels = np.arange(256, dtype=np.float32)
    tables = (
        (levels + random.uniform(-4, 4)) % 180,
        levels * random.uniform(0.6, 1.4),
        levels * random.uniform(0.7, 1.3),
    )
    table = np.stack([np.clip(values, 0, 255) for values in tables], axis=-1).astype(np.uint8)
    varied = cv2.LUT(hsv, table[None])
    return cv2.cvtColor(varied, cv2.COLOR_HSV2BGR).astype(np.uint8, copy=False)


def _as_targets(
    picture: int, class_id: NDArray[np.int64], xyxy: NDArray[np.float32]
) -> NDArray[np.float32]:
    targets = np.empty((len(class_id), 6), np.float32)
    targets[:, 0] = picture
    targets[:, 1] = class_id
    targets[:, 2:4] = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    targets[:, 4:6] = xyxy[:, 2:] - xyxy[:, :2]
    return targets
