"""Simulates jobs on 10, 100 and 1,000 nodes from costs that were measured on one.

    python scripts/benchmarks/simulate_cluster.py docs/costs.json

Prints Markdown tables: how long a job takes, how busy actors and drivers are, and where it stops
scaling. The footage is made up; what segments take is drawn from those that were measured, each
over the line through all that were measured of its clip.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.batch.footage import ClipHeader
from pipeline.measure.schedule import ClipWork, Cluster, Schedule, simulate
from pipeline.measure.sizing import Costs, JobOptions, clip_work, segment_frames, storage_bytes

_RATE = Fraction(25)
_BYTES_PER_SECOND = 250_000  # 2 Mbit/s.
_HOUR = 3600
_HOURS_PER_NODE = 2
_NODES = (10, 100, 1000)
_CORES_PER_NODE = 16
_RETURN_SECONDS = 180.0
_CORES_PER_ACTOR = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """What `measure_costs.py` found.

    spread: seconds of segments over what the line through all of them says.
    """

    costs: Costs
    fps_per_core: float
    spread: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """One row: a job on a cluster, and what came of it."""

    headers: Sequence[ClipHeader]
    options: JobOptions
    schedule: Schedule

    @property
    def storage_bytes_per_second(self) -> tuple[float, float]:
        """Read and written, on average."""
        frames = [segment_frames(clip, self.options.segment_seconds) for clip in self.headers]
        read, written = storage_bytes(self.headers, frames)
        return read / self.schedule.wall_seconds, written / self.schedule.wall_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate jobs on 10, 100 and 1,000 nodes.")
    parser.add_argument("costs", type=Path, help="what measure_costs.py wrote")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, nargs="+", default=_NODES)
    arguments = parser.parse_args()
    measured = read_measured(arguments.costs)
    for title, lines in tables(measured, arguments.nodes, arguments.seed):
        print(f"\n{title}\n")
        print("\n".join(lines))


def tables(measured: Measured, nodes: Sequence[int], seed: int) -> Iterable[tuple[str, list[str]]]:
    """Each with its title."""

    def run(clips: Sequence[ClipHeader], num_nodes: int, **changed: Any) -> Study:
        return study(measured, clips, num_nodes, seed, **changed)

    archives = {number: archive(number * _HOURS_PER_NODE, _HOUR) for number in nodes}
    yield (
        f"An archive of {_HOURS_PER_NODE} clips of an hour for every node",
        table(
            ("nodes", "clips at once"),
            (
                ((n, at_once), run(archives[n], n, clips_at_once=at_once))
                for n in nodes
                for at_once in sorted({1, max(1, n // 10), max(1, n // 3), n})
            ),
        ),
    )
    yield (
        "The same, one clip at once for every three nodes, and segments of other lengths",
        table(
            ("nodes", "segment, s"),
            (
                ((n, int(s)), run(archives[n], n, clips_at_once=max(1, n // 3), segment_seconds=s))
                for n in nodes
                for s in (15.0, 60.0, 240.0)
            ),
        ),
    )
    yield (
        "One recording of 24 hours",
        table(
            ("nodes", "segment, s"),
            (
                ((n, int(s)), run(archive(1, 24 * _HOUR), n, segment_seconds=s))
                for n in nodes
                for s in (15.0, 60.0, 240.0)
            ),
        ),
    )
    yield (
        "The archive, one clip at once for every three nodes, which may be lost",
        table(
            ("nodes", "losses per node and day", "segment, s"),
            (
                (
                    (n, losses, int(s)),
                    run(
                        archives[n],
                        n,
                        clips_at_once=max(1, n // 3),
                        segment_seconds=s,
                        losses_per_node_hour=losses / 24,
                    ),
                )
                for n in nodes
                for losses in (0, 1, 24)
                for s in (60.0, 240.0)
            ),
        ),
    )


def study(
    measured: Measured,
    clips: Sequence[ClipHeader],
    num_nodes: int,
    seed: int,
    *,
    clips_at_once: int = 1,
    segment_seconds: float = 60.0,
    losses_per_node_hour: float = 0.0,
) -> Study:
    """Simulate a job; clips: shared out over the drivers in their order."""
    options = JobOptions(
        fps_per_core=measured.fps_per_core,
        cores=num_nodes * _CORES_PER_NODE,
        cores_per_actor=_CORES_PER_ACTOR,
        segment_seconds=segment_seconds,
        clips_at_once=clips_at_once,
    )
    costs = measured.costs
    cluster = Cluster(
        num_nodes=num_nodes,
        actors_per_node=_CORES_PER_NODE // _CORES_PER_ACTOR,
        num_drivers=clips_at_once,
        dispatch_seconds=costs.dispatch_seconds,
        record_seconds=costs.record_seconds,
        start_seconds=costs.start_seconds,
        losses_per_node_hour=losses_per_node_hour,
        return_seconds=_RETURN_SECONDS,
    )
    works = works_with_spread(measured, clips, options, seed)
    return Study(clips, options, simulate(works, cluster, seed))


def works_with_spread(
    measured: Measured, clips: Sequence[ClipHeader], options: JobOptions, seed: int
) -> list[ClipWork]:
    """The work on clips, each segment longer or shorter by as much as one that was measured."""
    chance = random.Random(seed)  # noqa: S311
    works = []
    for clip in clips:
        frames = segment_frames(clip, options.segment_seconds)
        work = clip_work(clip, frames, options, measured.costs)
        drawn = chance.choices(measured.spread, k=len(frames))
        seconds = tuple(s * d for s, d in zip(work.segment_seconds, drawn, strict=True))
        works.append(ClipWork(work.plan_seconds, seconds, work.join_seconds))
    return works


def archive(num_clips: int, clip_seconds: int) -> list[ClipHeader]:
    """Clips that are all the same."""
    num_bytes = clip_seconds * _BYTES_PER_SECOND
    clip = ClipHeader(Path("clip.mp4"), int(clip_seconds * _RATE), _RATE, num_bytes)
    return [clip] * num_clips


def table(names: Sequence[str], rows: Iterable[tuple[Sequence[int], Study]]) -> list[str]:
    """Lines of Markdown, one for each study, which begin with what tells them apart."""
    heads = [*names, "hours of footage", "minutes", "actors busy", "a driver busy", "lost"]
    heads += ["core-hours per hour of footage", "read, GB/s", "written, GB/s"]
    lines = [heads, ["---"] * len(heads)]
    for key, found in rows:
        schedule = found.schedule
        hours = sum(clip.seconds for clip in found.headers) / _HOUR
        core_hours = schedule.wall_seconds * found.options.cores / _HOUR
        read, written = found.storage_bytes_per_second
        lines.append(
            [
                *(f"{number:,}" for number in key),
                f"{hours:,.0f}",
                f"{schedule.wall_seconds / 60:,.1f}",
                f"{schedule.utilisation:.0%}",
                f"{schedule.driver_load:.0%}",
                f"{schedule.num_lost:,}",
                f"{core_hours / hours:.2f}",
                f"{read / 1e9:.2f}",
                f"{written / 1e9:.2f}",
            ]
        )
    return [f"| {' | '.join(cells)} |" for cells in lines]


def read_measured(path: Path) -> Measured:
    found = json.loads(path.read_text(encoding="utf-8"))
    clips = found["clips"]
    spread = [
        seconds / (clip["segment_seconds"] + frames * clip["frame_seconds"])
        for clip in clips
        for frames, seconds in clip["segments"]
    ]
    return Measured(Costs(**found["costs"]), found["fps_per_core"], tuple(spread))


if __name__ == "__main__":
    main()
