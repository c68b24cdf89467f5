"""Trains YOLOv5n from nothing but the synthetic world, on a CPU, into samples/demo.pt.

    python scripts/training/train_demo_model.py --state demo.state
    python scripts/training/train_demo_model.py --state demo.state --resume

Every picture is new: crops of frames at first, whole frames at the end. The checkpoint holds
averaged weights and is written every few minutes, so that it can be judged at any time. The
learning rate follows a cosine over the whole number of steps; to end early and well, resume with
a smaller --steps than before. The same seed and number of steps give the same pictures in the
same order; how far the weights agree to the last bit is up to PyTorch.
"""

from __future__ import annotations

import argparse
import copy
import math
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detection_loss import LossWeights, detection_loss
from numpy.typing import NDArray
from torch import Tensor, nn
from training_scenes import FIRST_TRAINING_SEED, Batch, TrainingScenes
from yolov5n import STRIDES, in_channels_last, new_yolov5n, save_checkpoint

from pipeline.model.pytorch import YOLO
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.sprites import CLASS_NAMES

_LEARNING_RATE = 3e-3
_LAST_LEARNING_RATE = 0.02
_WARM_UP_STEPS = 300
_WEIGHT_DECAY = 0.02
_MOST_GRADIENT = 10.0
_AVERAGING = 0.999
_AVERAGING_RAMP_STEPS = 300
_WEIGHTS = LossWeights(box=0.05)
_LOG_STEPS = 50
_SAVE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Stage:
    """A part of the training: until this share of all steps, pictures like this."""

    until: float
    size_wh: tuple[int, int]
    num_scenes: int
    crops_per_scene: int


_STAGES = (
    _Stage(until=0.7, size_wh=(320, 320), num_scenes=16, crops_per_scene=2),
    _Stage(until=1.0, size_wh=(640, 480), num_scenes=10, crops_per_scene=1),
)


def main() -> None:
    arguments = _parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    cv2.setNumThreads(1)
    if arguments.resume:
        state = torch.load(arguments.state, weights_only=True)
        seed, first = int(state["seed"]), int(state["step"])
    else:
        state, seed, first = None, arguments.seed, 0
    anchors_px = state["anchors_px"] if state else choose_anchors(seed)
    model = new_yolov5n(CLASS_NAMES, anchors_px)
    in_channels_last(model)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = _new_optimizer(model)
    seconds = 0.0
    if state:
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        seconds = float(state["seconds"])
    print(f"seed {seed}, steps {first} to {arguments.steps}, anchors {anchors_px}", flush=True)

    def save(step: int) -> None:
        values = {
            "seed": seed,
            "step": step,
            "seconds": seconds,
            "anchors_px": anchors_px,
            "model": model.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        partial = arguments.state.with_name(arguments.state.name + ".partial")
        torch.save(values, partial)
        partial.replace(arguments.state)
        save_checkpoint(arguments.output, averaged)

    parts, num_summed = torch.zeros(3), 0
    saved = logged = time.monotonic()
    with batches(seed, first, arguments.steps) as coming:
        for step in range(first, arguments.steps):
            rate = learning_rate(step, arguments.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts += train_step(model, optimizer, next(coming))
            num_summed += 1
            _average(averaged, model, step)
            now = time.monotonic()
            if (step + 1) % _LOG_STEPS == 0:
                seconds += now - logged
                box, objectness, classes = (parts / num_summed).tolist()
                print(
                    f"step {step + 1}/{arguments.steps}  box {box:.4f}  "
                    f"objectness {objectness:.5f}  classes {classes:.4f}  rate {rate:.5f}  "
                    f"{(now - logged) / num_summed:.3f} s/step  {seconds / 60:.1f} min",
                    flush=True,
                )
                parts.zero_()
                num_summed, logged = 0, now
            if now - saved > _SAVE_SECONDS:
                save(step + 1)
                saved = now
    save(arguments.steps)
    print(f"done: {arguments.output}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train YOLOv5n on the synthetic world.")
    parser.add_argument("--output", type=Path, default=Path("samples/demo.pt"))
    parser.add_argument("--state", type=Path, required=True, help="file to resume from")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--steps", type=int, default=6_000, help="length of the whole training")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def learning_rate(step: int, num_steps: int) -> float:
    """A short rise, then a cosine down to a small share."""
    rise = min(1.0, (step + 1) / _WARM_UP_STEPS)
    fall = (1 + math.cos(math.pi * step / num_steps)) / 2
    return _LEARNING_RATE * rise * (_LAST_LEARNING_RATE + (1 - _LAST_LEARNING_RATE) * fall)


def train_step(model: YOLO, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    """Change the weights once; returns the parts of the loss, as detection_loss does."""
    model.train()
    # Stored as NHWC already: this is PyTorch's channels_last without copying.
    images = torch.from_numpy(batch.rgb).permute(0, 3, 1, 2).float() / 255
    with torch.autocast("cpu", torch.bfloat16):
        heads = model(images)
    loss, parts = detection_loss(
        heads,
        torch.from_numpy(batch.targets),
        model.model[-1].anchors,  # type: ignore[arg-type]
        STRIDES,
        _WEIGHTS,
    )
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), _MOST_GRADIENT)
    optimizer.step()
    return parts


def choose_anchors(seed: int, num_scenes: int = 40) -> list[list[tuple[float, float]]]:
    """Nine typical (width, height) in pixels, three per stride, from scenes to be trained on."""
    sizes = []
    for number in range(num_scenes):
        scene = Scene((640, 480), FIRST_TRAINING_SEED * 2 + seed * 1000 + number)
        for index in range(0, 500, 50):
            xyxy = scene.truth(index).xyxy
            sizes.append(xyxy[:, 2:] - xyxy[:, :2])
    anchors = _typical(np.log(np.concatenate(sizes).astype(np.float64)), 9)
    ordered = sorted(np.exp(anchors).round(1).tolist(), key=lambda wh: wh[0] * wh[1])
    return [[(w, h) for w, h in ordered[first : first + 3]] for first in (0, 3, 6)]


def _typical(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Centres of k-means, begun evenly along the points' sum."""
    order = np.argsort(points.sum(axis=1), kind="stable")
    centres: NDArray[np.float64] = points[
        order[np.linspace(0, len(points) - 1, count + 2).astype(int)[1:-1]]
    ]
    for _ in range(50):
        distance = np.square(points[:, None] - centres[None]).sum(axis=2)
        nearest = distance.argmin(axis=1)
        centres = np.stack(
            [
                points[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k]
                for k in range(count)
            ]
        )
    return centres


@contextmanager
def batches(seed: int, first: int, num_steps: int) -> Iterator[Iterator[Batch]]:
    """The pictures of every step, drawn in another process while the last ones are learnt."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    drawing = context.Process(
        target=_draw, args=(sender, receiver, seed, first, num_steps), daemon=True
    )
    drawing.start()
    sender.close()

    def received() -> Iterator[Batch]:
        for _ in range(first, num_steps):
            yield Batch(*receiver.recv())

    try:
        yield received()
    finally:
        receiver.close()
        drawing.join()


def _draw(sender: Connection, receiver: Connection, seed: int, first: int, num_steps: int) -> None:
    # With its own end of the pipe closed, it ends by itself when the trainer is gone.
    receiver.close()
    scenes = [
        TrainingScenes(2 * seed + number, stage.num_scenes) for number, stage in enumerate(_STAGES)
    ]
    for step in range(first, num_steps):
        number = next(n for n, stage in enumerate(_STAGES) if step < stage.until * num_steps)
        stage = _STAGES[number]
        batch = scenes[number].batch(step, stage.size_wh, stage.crops_per_scene)
        try:
            sender.send((batch.rgb, batch.targets))
        except BrokenPipeError:
            return


def _new_optimizer(model: YOLO) -> torch.optim.Optimizer:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": _WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=_LEARNING_RATE,
        betas=(0.9, 0.99),
        fused=True,
    )


@torch.no_grad()
def _average(averaged: YOLO, model: YOLO, step: int) -> None:
    share = 1 - _AVERAGING * (1 - math.exp(-(step + 1) / _AVERAGING_RAMP_STEPS))
    values: dict[str, Any] = model.state_dict()
    kept = {k: v for k, v in averaged.state_dict().items() if v.is_floating_point()}
    torch._foreach_lerp_(list(kept.values()), [values[name] for name in kept], share)


if __name__ == "__main__":
    main()
