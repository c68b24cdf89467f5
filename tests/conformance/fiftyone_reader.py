"""Reads a COCO export with FiftyOne's importer; writes the boxes that it found.

Needs no database: it calls what the importer calls for each image. Usage: fiftyone_reader.py FILE.
Output as of foreign_readers.py: a list of [frame index, class name, left, top, right, bottom].
"""

from __future__ import annotations

import json
import sys

from fiftyone.utils.coco import load_coco_detection_annotations


def main(path: str) -> None:
    _, classes, _, images, annotations = load_coco_detection_annotations(path)
    found = []
    for image_id, objects in annotations.items():
        image = images[image_id]
        width, height = image["width"], image["height"]
        for annotation in objects:
            box = annotation.to_detection((width, height), classes_map=classes)
            left, top, w, h = box.bounding_box
            edges = [left * width, top * height, (left + w) * width, (top + h) * height]
            found.append([image["frame_id"], box.label, *edges])
    sys.stdout.write(f"\nFOUND {json.dumps({'coco, FiftyOne': found})}\n")


if __name__ == "__main__":
    main(sys.argv[1])
