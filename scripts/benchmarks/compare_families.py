"""Each family of models: whole processes of this project and of `yolo predict`, in turns.

    scripts/benchmarks/compare_families.py --peers /path/to/peers/bin/python

Every model is one of ultralytics' configurations with random weights, exported to OpenVINO by
ultralytics for the size that the clip has in the model; both programs read that export, so that
model, precision and input are the same. `--int8` exports in INT8, for which the peers' interpreter
needs `nncf`. Random weights find hardly a box; what boxes cost is in compare.py. The ratio above 1
means that this project is faster. Seven families take about 8 minutes on two free cores, and 3 more
to export them, unless `--exports FOLDER` has them from an earlier time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import tempfile
from pathlib import Path

from compare import CAR, SHARED, Input, Program, beginning, encode, peer_versions, programs
from compare import seconds_of as seconds_and_boxes

from pipeline.core.machine import available_cores, processor_name, versions

FAMILIES = ("yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n")
_INPUT_HW = [384, 640]
"""The least rectangle for the clip, which is 768x432."""

_EXPORT = """
import json, sys
from ultralytics import YOLO
family, imgsz, data = json.loads(sys.argv[1])
model = YOLO(f"{family.removesuffix('u')}.yaml")
model.save(f"{family}.pt")
int8 = {"int8": True, "data": data} if data else {}
print(YOLO(f"{family}.pt").export(format="openvino", imgsz=imgsz, device="cpu", **int8))
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """infer_cpu_ms: of the model, for each frame. seconds: by round."""

    family: str
    infer_cpu_ms: float
    ours_seconds: list[float]
    their_seconds: list[float]

    def __str__(self) -> str:
        ratios = [b / a for a, b in zip(self.ours_seconds, self.their_seconds, strict=True)]
        ours, theirs, ratio = map(
            statistics.median, (self.ours_seconds, self.their_seconds, ratios)
        )
        return (
            f"| {self.family} | {self.infer_cpu_ms:.1f} | {ours:.1f} | {theirs:.1f} | "
            f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


def exported(family: str, arguments: argparse.Namespace, scratch: Path) -> Path:
    """The folder that ultralytics exports of a family with random weights, if it is not there."""
    folder = (arguments.exports or scratch).resolve() / f"{family}{'-int8' * arguments.int8}"
    for before in folder.glob("*_openvino_model"):
        return before
    folder.mkdir(parents=True, exist_ok=True)
    data = None
    if arguments.int8:
        data = str(folder / "data.yaml")
        pictures = (SHARED / "coco128").resolve()
        names = "".join(f"  {number}: class {number}\n" for number in range(80))
        Path(data).write_text(f"path: {pictures}\ntrain: images\nval: images\nnames:\n{names}")
    words = json.dumps([family, _INPUT_HW, data])
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # They made the file.
    ended = subprocess.run(  # noqa: S603
        [arguments.peers, "-c", _EXPORT, words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise SystemExit(f"{family} cannot be exported:\n{ended.stderr[-2000:]}")
    return next(folder.glob("*_openvino_model"))


def measured(family: str, footage: Input, arguments: argparse.Namespace, scratch: Path) -> Row:
    """Both programs in turns, so many rounds, after one on the first frames."""
    model = exported(family, arguments, scratch)
    given = argparse.Namespace(weights=model, predict_model=model, peers=arguments.peers)
    infer_cpu_ms: list[float] = []

    def look(out: Path) -> int:
        report = json.loads(next(out.rglob("report.json")).read_text())
        infer_cpu_ms.extend(s["cpu_ms"] for s in report["steps"] if s["step"] == "infer")
        return 0

    ours, *_, theirs = programs(given)
    both: list[Program] = [dataclasses.replace(ours, boxes=look), theirs]
    assert footage.warm_up is not None
    first = dataclasses.replace(footage, clips=[footage.warm_up])
    for program in both:
        seconds_and_boxes(program, first, scratch)
    infer_cpu_ms.clear()
    seconds: list[list[float]] = [[], []]
    for _ in range(arguments.rounds):
        for program, taken in zip(both, seconds, strict=True):
            taken.append(seconds_and_boxes(program, footage, scratch)[0])
    return Row(family, statistics.median(infer_cpu_ms), *seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="of the other program")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--frames", type=int, default=160, help="of the clip")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--exports", type=Path, metavar="FOLDER", help="to keep the exports in")
    parser.add_argument("--int8", action="store_true", help="export in INT8")
    arguments = parser.parse_args()
    print(f"{processor_name()}, {available_cores()} cores, {platform.platform()}")
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    print("peers:", peer_versions(arguments.peers))
    print("| model | CPU ms of the model per frame | this project, s | `yolo predict`, s | ratio |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        clip = scratch / "clip.mp4"
        frames = range(arguments.frames)
        encode(CAR, clip, "libx264", "yuv420p", (768, 432), frames, {"crf": "20"})
        footage = Input(CAR.name, [clip], warm_up=beginning(clip, scratch))
        for family in arguments.families:
            print(measured(family, footage, arguments, scratch), flush=True)


if __name__ == "__main__":
    main()
