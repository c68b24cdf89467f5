"""What a short clip costs beyond its frames, part by part, in CPU time.

    python scripts/benchmarks/short_clips.py clip.mp4 --clips 100 --frames 10
    python scripts/benchmarks/batch_overhead.py clip.mp4 --clips 20 --seconds 2.4

The clips are processed one after the other in this process; each part is measured on the thread
that does it, without the threads of libraries, and beside the same frames in one clip.
`batch_overhead.py` measures the wall time of whole commands.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_overhead import make_clips

from pipeline.core.config import AutoOptions, ProcessConfig
from pipeline.core.memory import keep_memory
from pipeline.inference.models import Models
from pipeline.run.precision_audit import Int8Audits
from pipeline.run.process import process_video

PARTS = {
    "scan of the packets": ("pipeline.run.opening", "scan_source"),
    "opening, first frame": ("pipeline.run.opening", "open_source"),
    "model, from memory": ("pipeline.inference.models", "Models.prepare"),
    "INT8, from memory": ("pipeline.inference.models", "Models.quantize"),
    "configuration": ("pipeline.run.opening", "select"),
    "keys": ("pipeline.run.process", "run_key"),
    "key of the detections": ("pipeline.run.process", "detections_key"),
    "is the output free": ("pipeline.run.process", "require_free_output"),
    "streams left out": ("pipeline.run.process", "_note_what_is_left_out"),
    "encoder, opened": ("pipeline.frames.encode", "VideoEncoder.__init__"),
    "encoder, closed": ("pipeline.frames.encode", "VideoEncoder.close"),
    "encoder, abandoned": ("pipeline.frames.encode", "VideoEncoder.abandon"),
    "encoder, last frames": ("pipeline.frames.encode", "VideoEncoder.flush"),
    "requests, opened": ("pipeline.inference.openvino", "OpenVinoEngine.open_pool"),
    "requests, closed": ("pipeline.inference.openvino", "InferPool.close"),
    "segment, read back": ("pipeline.frames.segment", "verify_annotated"),
    "journal": ("pipeline.execution.journal", "Journal.add"),
    "joined": ("pipeline.run.join", "mux"),
    "result, read back": ("pipeline.run.join", "verify"),
    "INT8 compared with float": ("pipeline.run.process", "audit_int8"),
    "boxes over time": ("pipeline.run.process", "boxes_over_time"),
    "is the clip unchanged": ("pipeline.core.watched", "WatchedFile.require_unchanged"),
    "work folder cleared": ("pipeline.execution.journal", "Journal.clear"),
    "lines joined": ("pipeline.run.join", "join_lines"),
    "report": ("pipeline.run.process", "build_report"),
    "report.json and the page": ("pipeline.run.process", "write_report"),
    "moved into place": ("pipeline.run.process", "move_into_place"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--clips", type=int, default=100, metavar="N")
    parser.add_argument("--frames", type=int, default=10, metavar="N", help="of a short clip")
    parser.add_argument("--frame-rate", type=float, default=12.5, metavar="FPS", help="of the clip")
    parser.add_argument("--precision", choices=("auto", "int8"), default="auto")
    arguments = parser.parse_args()
    seconds = (arguments.frames + 0.01) / arguments.frame_rate
    spent: defaultdict[str, float] = defaultdict(float)
    keep_memory()  # As a batch does.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(arguments.video, folder, arguments.clips, seconds)
        infer, models = AutoOptions(precision=arguments.precision), Models()
        process = functools.partial(process_all, folder, infer=infer, models=models)
        process("warm", [folder / "short" / "000.mp4"])
        long_seconds = process("long-out", [folder / "long" / "long.mp4"])
        for label, (module, attribute) in PARTS.items():
            measure(label, module, attribute, spent)
        short_seconds = process("short-out", sorted((folder / "short").iterdir()))
    number = arguments.clips
    short, long = 1000 * short_seconds / number, 1000 * long_seconds / number
    print(f"{number} clips of {arguments.frames} frames: {short:.1f} ms CPU each")
    print(f"the same frames in one clip: {long:.1f} ms CPU; {short / long:.3f} times")
    for label, of_part in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{1000 * of_part / number:>8.2f} ms  {label}")
    os._exit(0)  # Without waiting for the threads of the model.


def process_all(
    folder: Path, out: str, clips: list[Path], *, infer: AutoOptions, models: Models
) -> float:
    """CPU seconds of this process for some clips."""
    audits, before = Int8Audits(of_batch=len(clips) > 1), time.process_time()
    for clip in clips:
        config = ProcessConfig(source=clip, output_dir=folder / out / clip.name, infer=infer)
        process_video(config, models=models, audits=audits)
    return time.process_time() - before


def measure(label: str, module: str, attribute: str, spent: dict[str, float]) -> None:
    """Count the CPU time of the thread in a function from now on."""
    owner: Any = importlib.import_module(module)
    *classes, name = attribute.split(".")
    for cls in classes:
        owner = getattr(owner, cls)
    setattr(owner, name, counted(getattr(owner, name), label, spent))


def counted(
    function: Callable[..., Any], label: str, spent: dict[str, float]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def measured(*arguments: Any, **options: Any) -> Any:
        before = time.thread_time()
        try:
            return function(*arguments, **options)
        finally:
            spent[label] += time.thread_time() - before

    return measured


if __name__ == "__main__":
    main()
