"""Checks a YOLO export with ultralytics' own functions; writes the boxes that its loader found.

Usage: ultralytics_reader.py FOLDER. Output as of foreign_readers.py: a list of
[frame index, class name, left, top, right, bottom].
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset


def main(folder: Path) -> None:
    data = check_det_dataset(str(folder / "data.yaml"), autodownload=False)
    dataset: Any = YOLODataset(img_path=data["train"], data=data, augment=False)
    found = []
    for label in dataset.labels:
        index = int(re.findall(r"\d+", Path(label["im_file"]).stem)[-1])
        height, width = label["shape"]
        for [class_id], (x, y, w, h) in zip(
            label["cls"], label["bboxes"].astype(float), strict=True
        ):
            edges = [(x - w / 2) * width, (y - h / 2) * height]
            edges += [(x + w / 2) * width, (y + h / 2) * height]
            found.append([index, data["names"][int(class_id)], *edges])
    sys.stdout.write(f"\nFOUND {json.dumps({'yolo, ultralytics': found})}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
