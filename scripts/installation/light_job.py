"""The main job where only requirements-light.txt is installed: a checkpoint, then its IR.

Annotates the sample clip with the demo model and holds what was found against what comes with the
project, then its first frames with the IR, which has to find the same. Ends with an error if a
package was imported that a light install does not have, or if a module cannot be imported on this
version of Python.

    python scripts/installation/light_job.py FOLDER
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pipeline
from pipeline import ProcessConfig, process_video
from pipeline.core.progress import no_progress
from pipeline.model.prepare import prepare_model, save_prepared

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
HEAVY = {"torch", "onnx", "ultralytics", "nncf", "matplotlib"}
NUM_FRAMES_OF_IR = 50
_LEAST_SHARE = 0.98


def boxes(lines: Path) -> list[list[str]]:
    """The class names found in every frame, those of boxes that are no borderline case."""
    return [
        sorted(d["class_name"] for d in json.loads(line)["detections"] if d["confidence"] > 0.5)
        for line in lines.read_text(encoding="utf-8").splitlines()
    ]


def import_everything() -> None:
    """Import each module, as far as the packages are here: some syntax fails on old versions."""
    for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("pipeline"):
                raise


def main() -> None:
    folder, clip = Path(sys.argv[1]), SAMPLES / "clip.mp4"
    ir = folder / "demo.xml"
    expected = boxes(SAMPLES / "clip.detections.jsonl")
    for weights in (SAMPLES / "demo.pt", ir):
        if weights is ir:
            prepared = prepare_model(SAMPLES / "demo.pt", (640, 360), 640, no_progress)
            save_prepared(prepared, ir)
        out, limit = folder / weights.suffix[1:], NUM_FRAMES_OF_IR if weights is ir else None
        process_video(ProcessConfig(source=clip, weights=weights, output_dir=out, num_frames=limit))
        found = boxes(out / "detections.jsonl")
        same = sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)
        print(f"{weights.name}: {len(found)} frames, {same:.1%} with the boxes expected")
        if same < _LEAST_SHARE:
            sys.exit(f"{weights.name}: too few frames have the boxes expected")
        expected = found[:NUM_FRAMES_OF_IR]
    if imported := HEAVY & set(sys.modules):
        sys.exit(f"imported on the way: {', '.join(sorted(imported))}")
    import_everything()


if __name__ == "__main__":
    main()
