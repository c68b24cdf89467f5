"""Writes what the synthetic world shows: a clip's truth, or labelled pictures to judge on.

    python scripts/training/synthetic_data.py clip folder --seed 7 --frames 300
    python scripts/training/synthetic_data.py pictures folder --first-seed 1000000 --scenes 20

`clip` writes truth.jsonl (like detections.jsonl, with track ids) and coco.json for what
`pipeline process synthetic` makes with the same options. `pictures` writes images/ and labels/
for `pipeline evaluate --data folder`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2

from pipeline.core.config import SyntheticOptions
from pipeline.synthetic.scene import Scene, Truth
from pipeline.synthetic.truth import coco_truth, truth_records


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
    for command in (clip, pictures):
        command.add_argument("folder", type=Path)
        command.add_argument("--size", default="640x480")
    return parser.parse_args()


def write_clip_truth(folder: Path, options: SyntheticOptions) -> None:
    """Write truth.jsonl and coco.json into an existing folder."""
    with (folder / "truth.jsonl").open("w", encoding="utf-8") as lines:
        for record in truth_records(options):
            lines.write(json.dumps(record) + "\n")
    (folder / "coco.json").write_text(json.dumps(coco_truth(options)), encoding="utf-8")


def write_pictures(folder: Path, size_wh: tuple[int, int], seeds: range, indices: range) -> None:
    """Write images/*.png and labels/*.txt (class cx cy w h, in shares of the picture)."""
    for name in ("images", "labels"):
        (folder / name).mkdir(exist_ok=True)
    for seed in seeds:
        scene = Scene(size_wh, seed)
        for index in indices:
            stem = f"{seed}_{index:06d}"
            cv2.imwrite(str(folder / "images" / f"{stem}.png"), scene.draw(index))
            text = _label_lines(scene.truth(index), size_wh)
            (folder / "labels" / f"{stem}.txt").write_text(text, encoding="utf-8")


def _label_lines(truth: Truth, size_wh: tuple[int, int]) -> str:
    width, height = size_wh
    return "".join(
        f"{class_id} {(x0 + x1) / 2 / width:.8f} {(y0 + y1) / 2 / height:.8f} "
        f"{(x1 - x0) / width:.8f} {(y1 - y0) / height:.8f}\n"
        for class_id, (x0, y0, x1, y1) in zip(
            truth.class_id.tolist(), truth.xyxy.tolist(), strict=True
        )
    )


if __name__ == "__main__":
    main()
