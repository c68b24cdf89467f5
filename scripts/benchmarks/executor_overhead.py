"""What a Ray cluster on this machine makes of a clip, against the same cores without one.

    python scripts/benchmarks/executor_overhead.py clip.mp4 --repeat 4 --segment-seconds 10

The clip is repeated, so that there are segments enough, and goes through both executors in turn,
from file to file. The cluster is one actor with all cores, started before anything is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from batch_overhead import write_repeated

from pipeline.core.config import ClusterOptions, ProcessConfig
from pipeline.core.machine import available_cores
from pipeline.core.position import Position
from pipeline.execution.executor import Executor
from pipeline.execution.launch import open_executor
from pipeline.inference.models import Models
from pipeline.run.process import process_video


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--repeat", type=int, default=4, metavar="N", help="times in a row")
    parser.add_argument("--segment-seconds", type=float, default=10.0, metavar="S")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="in turn")
    parser.add_argument("--weights", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_repeated(arguments.video, folder / "clip.mp4", arguments.repeat)
        config = ProcessConfig(
            source=folder / "clip.mp4",
            output_dir=folder / "out",
            overwrite=True,
            weights=arguments.weights,
            segment_seconds=arguments.segment_seconds,
        )
        local, ray = rounds_fps(config, arguments.rounds)
    ratios = [b / a for a, b in zip(local, ray, strict=True)]
    print(f"this process: {statistics.median(local):.1f} fps")
    print(f"a Ray actor with the same cores: {statistics.median(ray):.1f} fps")
    print(f"{statistics.median(ratios):.3f} of it ({', '.join(f'{r:.3f}' for r in ratios)})")


def rounds_fps(config: ProcessConfig, num_rounds: int) -> tuple[list[float], list[float]]:
    """Frames per second from file to file in each round: in this process, and on Ray."""
    cluster = ClusterOptions(address="local", cores_per_actor=available_cores())
    with (
        open_executor(None, Models(), Position()) as local,
        open_executor(cluster, Models(), Position()) as ray,
    ):
        models = Models(), Models()
        on_ray = dataclasses.replace(config, cluster=cluster)
        runs = (config, models[0], local), (on_ray, models[1], ray)
        for run in runs:
            fps(*run)  # What is loaded only once.
        rounds = [[fps(*run) for run in runs] for _ in range(num_rounds)]
    return [local for local, _ in rounds], [ray for _, ray in rounds]


def fps(config: ProcessConfig, models: Models, executor: Executor) -> float:
    started = time.perf_counter()
    report = process_video(config, models=models, executor=executor)
    frames: int = report["output"]["num_frames"]
    return frames / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
