"""What the driver of a cluster costs: jobs handed to actors that do nothing.

Prints jobs per second, CPU of the driver and of all of Ray for each job, and the driver's memory.
The jobs are those of real segments, 100,000 of them by default.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

import psutil
import ray

from pipeline.core.config import InferOptions, ProcessConfig
from pipeline.core.errors import PipelineError
from pipeline.core.machine import process_cpu_seconds
from pipeline.execution.cluster.pool import ActorPool
from pipeline.execution.segment_worker import Attempt, RemoteTask, SharedModel
from pipeline.frames.task import RunSettings, SegmentFiles, SegmentTask
from pipeline.media.frame import Segment

MAKING = Path("/shared/output/clip/.partial/making")


class Idler:
    """An actor that has done everything at once."""

    def start(self, node: str) -> PipelineError | None:
        return None

    def run(self, remote: RemoteTask) -> Attempt:
        number = remote.task.files.number
        return Attempt(SegmentFiles(MAKING / f"{number:04d}-0", number), [])


def remote_task(number: int) -> RemoteTask:
    config = ProcessConfig(source=Path("/shared/footage/clip.mp4"), output_dir=MAKING)
    task = SegmentTask(
        settings=RunSettings(config, InferOptions(), encoder_threads=2, class_ids=None),
        segment=Segment(number, number * 1000, (number + 1) * 1000, number * 1000),
        files=SegmentFiles(MAKING, number),
        first_index=number * 1500,
        num_frames=None,
    )
    model = SharedModel(MAKING / "model.xml", "0" * 64, 640, None)
    return RemoteTask(task, model, "0" * 32, 1 << 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--actors", type=int, default=8)
    arguments = parser.parse_args()
    ray.init(
        address="local",
        num_cpus=arguments.actors,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    pool: ActorPool[RemoteTask, Attempt] = ActorPool(Idler, (), cores=1)
    done: SimpleQueue[Future[Attempt]] = SimpleQueue()
    try:
        for number in range(arguments.actors):
            pool.submit(remote_task(number), "warm-up").add_done_callback(done.put)
        for _ in range(arguments.actors):
            done.get()
        before_mb = psutil.Process().memory_info().rss / 1e6
        cpu, others_cpu, started = process_cpu_seconds(), others_cpu_seconds(), time.perf_counter()
        for number in range(arguments.jobs):
            pool.submit(remote_task(number), f"segment {number}").add_done_callback(done.put)
        submitted = time.perf_counter()
        for _ in range(arguments.jobs):
            done.get().result()
        wall_seconds = time.perf_counter() - started
        cpu, others_cpu = process_cpu_seconds() - cpu, others_cpu_seconds() - others_cpu
        print(f"{arguments.jobs} jobs on {pool.num_actors} actors, {os.cpu_count()} cores")
        print(f"{arguments.jobs / wall_seconds:.0f} jobs per second ({wall_seconds:.1f} s)")
        print(f"submitted within {submitted - started:.1f} s")
        print(f"driver {1e6 * cpu / arguments.jobs:.0f} us of CPU per job")
        print(f"actors and Ray {1e6 * others_cpu / arguments.jobs:.0f} us of CPU per job")
        print(
            f"driver's memory {before_mb:.0f} MB before, "
            f"{psutil.Process().memory_info().rss / 1e6:.0f} MB after"
        )
    finally:
        pool.close()
        ray.shutdown()


def others_cpu_seconds() -> float:
    """Of the processes that Ray started."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return float(sum(found.user + found.system for found in times))


if __name__ == "__main__":
    main()
