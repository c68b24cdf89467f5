"""Writes what the synthetic world shows: a clip's truth, or labelled pictures to judge on.

    python scripts/training/synthetic_data.py clip folder --seed 7 --frames 300
    python scripts/training/synthetic_data.py pictures folder --first-seed 1000000 --scenes 20
    python scripts/training/synthetic_data.py dataset folder --pictures 640 --size 256x256

`clip` writes truth.jsonl (like detections.jsonl, with track ids) for what `pipeline process
synthetic` makes with the same options. `pictures` writes images/ and labels/
for `pipeline evaluate --data folder`. `dataset` writes what ultralytics' trainer reads:
dataset.yaml, crops of the scenes that the demo model learns, and pictures of others to judge on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from training_scenes import TrainingScenes

from pipeline.core.config import SyntheticOptions
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.sprites import CLASS_NAMES
from pipeline.synthetic.truth import truth_records


def main() -> None:
    arguments = _parse_arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    width, _, height = arguments.size.partition("x")
    size_wh = (int(width), int(height))
    if arguments.what == "clip":
        options = SyntheticOptions(
            num_frames=arguments.frames, size_wh=size_wh, seed=arguments.seed
        )
        write_clip_truth(arguments.folder, options)
    elif arguments.what == "dataset":
        write_dataset(arguments.folder, size_wh, arguments.pictures)
    else:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.scenes)
        indices = range(0, arguments.frames * arguments.stride, arguments.stride)
        write_pictures(arguments.folder, size_wh, seeds, indices)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write the truth of synthetic scenes.")
    commands = parser.add_subparsers(dest="what", required=True)
    clip = commands.add_parser("clip", help="boxes and tracks of one clip")
    clip.add_argument("--seed", type=int, default=0)
    clip.add_argument("--frames", type=int, default=1024)
    pictures = commands.add_parser("pictures", help="pictures and labels of many scenes")
    pictures.add_argument("--first-seed", type=int, default=1_000_000)
    pictures.add_argument("--scenes", type=int, default=20)
    pictures.add_argument("--frames", type=int, default=10, help="per scene")
    pictures.add_argument("--stride", type=int, default=60, help="from one to the next")
    dataset = commands.add_parser("dataset", help="what ultralytics' trainer reads")
    dataset.add_argument("--pictures", type=int, default=640, help="crops to learn from")
    for command in (clip, pictures, dataset):
        command.add_argument("folder", type=Path)
        command.add_argument("--size", default="640x480")
    return parser.parse_args()


def write_clip_truth(folder: Path, options: SyntheticOptions) -> None:
    """Write truth.jsonl into an existing folder."""
    with (folder / "truth.jsonl").open("w", encoding="utf-8") as lines:
        for record in truth_records(options):
            lines.write(json.dumps(record) + "\n")


def write_dataset(folder: Path, crop_wh: tuple[int, int], num_crops: int) -> None:
    """Write dataset.yaml, train/ with crops of training scenes, and val/ with whole frames."""
    num_scenes = 16
    scenes = TrainingScenes(0, num_scenes)
    for step in range(-(-num_crops // num_scenes)):
        # Steps far apart: neighbours in time show nearly the same.
        batch = scenes.batch(step * 20, crop_wh, 1)
        for number, rgb in enumerate(batch.rgb):
            shown = batch.targets[batch.targets[:, 0] == number]
            boxes = shown[:, 2:] / np.array([*crop_wh, *crop_wh], np.float32)
            bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
            _write_labelled(folder / "train", f"{step:04d}_{number:02d}", bgr, shown[:, 1], boxes)
    write_pictures(folder / "val", (640, 480), range(2_000_000, 2_000_008), range(0, 300, 60))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASS_NAMES))
    (folder / "dataset.yaml").write_text(
        f"path: {folder.resolve()}\ntrain: train/images\nval: val/images\nnames:\n{names}",
        encoding="utf-8",
    )


def write_pictures(folder: Path, size_wh: tuple[int, int], seeds: range, indices: range) -> None:
    """Write images/*.png and labels/*.txt (class cx cy w h, in shares of the picture)."""
    width, height = size_wh
    for seed in seeds:
        scene = Scene(size_wh, seed)
        for index in indices:
            truth = scene.truth(index)
            centre = (truth.xyxy[:, :2] + truth.xyxy[:, 2:]) / 2
            boxes = np.hstack((centre, truth.xyxy[:, 2:] - truth.xyxy[:, :2]))
            boxes /= np.array([width, height, width, height], np.float32)
            stem = f"{seed}_{index:06d}"
            _write_labelled(folder, stem, scene.draw(index), truth.class_id, boxes)


def _write_labelled(
    folder: Path, stem: str, bgr: NDArray[Any], class_id: NDArray[Any], boxes: NDArray[np.float32]
) -> None:
    """boxes: (N, 4), centre x, y, width, height in shares of the picture."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / f"{stem}.png"), bgr)
    text = "".join(
        f"{int(number)} " + " ".join(f"{value:.8f}" for value in box) + "\n"
        for number, box in zip(class_id.tolist(), boxes.tolist(), strict=True)
    )
    (folder / "labels" / f"{stem}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
