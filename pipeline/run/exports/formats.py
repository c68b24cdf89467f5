"""The formats of an export and the names of their files. Imports nothing heavy."""

from __future__ import annotations

EXPORT_FOLDER = "export"

EXPORT_FORMATS = {
    "coco": "coco",
    "csv": "detections.csv",
    "cvat": "cvat",
    "labelstudio": "labelstudio",
    "megadetector": "megadetector.json",
    "mot": "mot",
    "yolo": "yolo",
}
"""Name of a format -> the file or folder that it is."""
