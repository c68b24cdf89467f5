"""How close the pipeline comes to what the cores allow, and what the obvious program reaches.

Quoted are medians over the rounds, and medians of ratios taken within a round, because machines
are noisy.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import av

sys.path.insert(0, str(Path(__file__).parent))
from busy_clip import PICTURES, busy_clip
from end_to_end import EndToEnd, Round

from pipeline.core.config import EncodeOptions
from pipeline.core.errors import PipelineError
from pipeline.core.machine import available_cores, processor_name
from pipeline.inference.openvino import resolved_precision

DEFAULT_CLIP = Path("../shared/videos/car-detection.mp4")


def report_lines(rounds: list[Round], precisions: list[str]) -> list[str]:
    lines = [f"{'step alone':<34}{'CPU ms per frame':>18}"]
    for step in rounds[0].step_ms:
        lines.append(f"{step:<34}{statistics.median(r.step_ms[step] for r in rounds):>18.2f}")
    for precision in precisions:
        infer_ms = statistics.median(r.infer_ms[precision] for r in rounds)
        lines.append(f"{f'infer, {precision}':<34}{infer_ms:>18.2f}")
    for precision in precisions:
        ours = [r.pipeline_fps[precision] for r in rounds]
        frames = [r.frames_fps[precision] for r in rounds]
        workers = [r.workers_fps[precision] for r in rounds]
        allowed = [r.allowed_fps(precision) for r in rounds]
        model = [r.model_fps[precision] for r in rounds]
        stock = "default" if precision == "int8" else precision
        stock_fps = [r.stock_fps[stock] for r in rounds]
        lines += [
            "",
            f"{precision + ', frames per second':<34}{'median':>18}{'ratio':>14}",
            f"{'pipeline, file to file':<34}{statistics.median(ours):>18.1f}",
            f"{'pipeline, frames alone':<34}{statistics.median(frames):>18.1f}",
            ratio_line("pipeline over what cores allow", ours, allowed),
            ratio_line("pipeline over a worker per core", ours, workers),
            ratio_line("frames alone over the same", frames, workers),
            ratio_line("worker per core over cores allow", workers, allowed),
            ratio_line(f"pipeline over stock model, {stock}", ours, stock_fps),
            ratio_line(f"our model over stock model, {stock}", model, stock_fps),
        ]
        lines += adaptive_lines(rounds, precision, precisions[0])
        if rounds[0].together_fps:
            both = [r.together_fps[precision] for r in rounds]
            lines.append(compared_line("two runs at once over one", both, ours))
    ours = [r.pipeline_fps[precisions[0]] for r in rounds]
    for name in rounds[0].serial_fps:
        serial = [r.serial_fps[name] for r in rounds]
        lines.append(ratio_line(f"{precisions[0]} over serial, {name}", ours, serial))
    return lines


def adaptive_lines(rounds: list[Round], precision: str, first: str) -> list[str]:
    """`--adaptive` over all frames inferred, and both over all frames in the first precision."""
    full = [r.pipeline_fps[precision] for r in rounds]
    adaptive = [r.adaptive_fps[precision] for r in rounds]
    share = statistics.median(r.adaptive_shares[precision] for r in rounds)
    name = f"--adaptive, {share:.0%} inferred, over all"
    lines = [compared_line(name, adaptive, full)]
    if precision != first:
        base = [r.pipeline_fps[first] for r in rounds]
        lines += [
            compared_line(f"{precision} over {first}", full, base),
            compared_line(f"{precision} --adaptive over {first}", adaptive, base),
        ]
    return lines


def compared_line(name: str, ours: list[float], others: list[float]) -> str:
    """Our median, and the median, least and most of the ratio within a round."""
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    return (
        f"{name:<34}{statistics.median(ours):>18.1f}"
        f"{statistics.median(ratios):>14.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def ratio_line(name: str, ours: list[float], others: list[float]) -> str:
    """The other's median, and the median, least and most of the ratio within a round."""
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    return (
        f"{name:<34}{statistics.median(others):>18.1f}"
        f"{statistics.median(ratios):>14.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def upscaled(
    clip: Path, size_wh: tuple[int, int], num_frames: int, target: Path, gop: int = 250
) -> Path:
    """The first frames of a clip made larger, as H.264 of a camera's quality.

    gop: frames from one key frame to the next at the most.
    """
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        copy = out.add_stream(
            "libx264", rate=stream.average_rate, options={"crf": "20", "g": str(gop)}
        )
        copy.width, copy.height = size_wh
        copy.pix_fmt = "yuv420p"
        for index, image in enumerate(itertools.islice(source.decode(stream), num_frames)):
            larger = image.reformat(*size_wh, interpolation="BICUBIC")
            larger.pts, larger.time_base = index, 1 / (stream.average_rate or 25)
            out.mux(copy.encode(larger))
        out.mux(copy.encode(None))
    return target


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", type=Path, default=DEFAULT_CLIP)
    parser.add_argument(
        "--busy", action="store_true", help=f"a clip with some 25 boxes a frame, of {PICTURES}"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", nargs="+", default=["auto", "int8"])
    parser.add_argument("--preset", help="of x264, instead of our default")
    parser.add_argument("--upscale", type=size, metavar="WxH", help="make the clip larger first")
    parser.add_argument("--frames", type=int, default=200, help="of the larger clip")
    parser.add_argument("--serial", action="store_true", help="run the serial program too")
    parser.add_argument("--together", action="store_true", help="two runs at once too")
    parser.add_argument("--output", type=Path, default=Path("output/bench/bench_e2e.json"))
    arguments = parser.parse_args()
    precisions = [p if p == "int8" else resolved_precision(p) for p in arguments.precision]
    serial = {
        "as exported, 640x640": ("square", "default"),
        "input as small as ours": ("fitting", "default"),
        f"the same in {precisions[0]}": ("fitting", precisions[0]),
    }
    with tempfile.TemporaryDirectory() as scratch:
        clip = arguments.clip
        if arguments.busy:
            if not PICTURES.is_dir():
                parser.error(f"--busy is made of the pictures in {PICTURES}, which is missing")
            clip = busy_clip(PICTURES, Path(scratch) / "busy.mp4")
        try:
            if arguments.upscale:
                larger = Path(scratch) / f"{clip.stem}-{arguments.upscale[1]}p.mp4"
                clip = upscaled(clip, arguments.upscale, arguments.frames, larger)
            bench = EndToEnd(clip, precisions, EncodeOptions(preset=arguments.preset))
            rounds = []
            for number in range(1, arguments.rounds + 1):
                print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
                rounds.append(
                    bench.round(
                        Path(scratch),
                        serial if arguments.serial else {},
                        together=arguments.together,
                    )
                )
        except PipelineError as error:
            print(f"bench_e2e: {error}", file=sys.stderr)
            return 1
    print(f"{clip.name}, {available_cores()} cores of {processor_name()}")
    print("\n".join(report_lines(rounds, precisions)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps([asdict(r) for r in rounds], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
