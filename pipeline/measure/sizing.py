"""How many machines for how much footage: time, cost and bandwidth of a job, and what limits it.

Times of actors come from a speed that was measured. Times of the driver come from costs that were
measured once (see docs/scale.md). How they add up is simulated by `schedule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.batch.footage import ClipHeader
from pipeline.batch.work import clips_together
from pipeline.core.errors import UsageError
from pipeline.measure.schedule import ClipWork, Cluster, Schedule, simulate
from pipeline.media.cut import cut_synthetic

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a clip and a segment cost beside the frames themselves; measured, see docs/scale.md.

    clip_seconds: of the driver, to open a clip and its model, and to write its report.
    plan_frame_seconds, plan_byte_seconds: to read the packets of a clip and to hash it, which only
        a clip of more than one segment needs.
    dispatch_seconds: of the driver, to hand a segment to an actor and to take its result.
    record_seconds, record_byte_seconds: to hash a segment's result and flush it to the disk.
    join_frame_seconds, join_byte_seconds: to join the segments and to read back what was made.
    segment_seconds: of an actor, to open the clip where a segment begins and to end its encoder.
    start_seconds: until an actor is ready.
    """

    clip_seconds: float = 0.0
    plan_frame_seconds: float = 0.0
    plan_byte_seconds: float = 0.0
    dispatch_seconds: float = 0.0
    record_seconds: float = 0.0
    record_byte_seconds: float = 0.0
    join_frame_seconds: float = 0.0
    join_byte_seconds: float = 0.0
    segment_seconds: float = 0.0
    start_seconds: float = 0.0


MEASURED = Costs(
    clip_seconds=0.05,
    plan_frame_seconds=8e-6,
    plan_byte_seconds=1e-9,
    dispatch_seconds=1.7e-3,
    record_seconds=6.5e-3,
    record_byte_seconds=3e-9,
    join_frame_seconds=2.2e-5,
    join_byte_seconds=1.7e-9,
    segment_seconds=0.05,
    start_seconds=5.0,
)
"""On two cores of an AMD EPYC, a local disk, and Ray 2.60."""

_READ, _READ_TO_PLAN, _WRITTEN = 2, 1, 3
"""How often a clip's bytes are read and written where nothing is fetched twice: an actor reads what
it works on, the driver what came of it, and before that what it plans; a segment is written, joined
to the clip, and the clip once more with its index at the front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The options of a job.

    fps_per_core: frames per second from file to file, over the cores that it took.
    cores: of all machines. cores_per_actor: that work on one segment.
    clips_at_once: how many are worked on at the same time; None takes as many as a batch does.
    bandwidth_bytes: per second, of the storage, for reading and writing together; None if it is
        not known. price_per_core_hour: in any currency; None likewise.
    """

    fps_per_core: float
    cores: int
    cores_per_actor: int = 4
    segment_seconds: float = 60.0
    clips_at_once: int | None = None
    bandwidth_bytes: float | None = None
    price_per_core_hour: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "fps_per_core",
            "cores_per_actor",
            "segment_seconds",
            "clips_at_once",
            "bandwidth_bytes",
            "price_per_core_hour",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                flag = name.removesuffix("_bytes").replace("_", "-")
                raise UsageError(f"--{flag} must be more than 0 and finite, not {value}")
        if self.cores < self.cores_per_actor:
            raise UsageError(
                f"--cores {self.cores} is less than --cores-per-actor {self.cores_per_actor}: give "
                "more --cores, or fewer --cores-per-actor"
            )

    @property
    def num_actors(self) -> int:
        return self.cores // self.cores_per_actor


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that a job cannot be faster than.

    seconds: the least that the job takes for it. cores: with which the frames take as long.
    """

    name: str
    seconds: float
    cores: float


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a job takes. Seconds are of wall time, bytes are of all files.

    core_seconds: that all segments take. floor_seconds: the wall time with cores for every
    segment. read_bytes, written_bytes: by driver and actors, at least.
    longest_clip_seconds: what the clip takes that takes longest, with cores for all its segments.
    plan_seconds, record_seconds, join_seconds: of the driver, for all clips.
    limits: other than the number of cores, the hardest first.
    """

    clips: Sequence[ClipHeader]
    options: JobOptions
    num_segments: int
    core_seconds: float
    wall_seconds: float
    floor_seconds: float
    longest_clip_seconds: float
    plan_seconds: float
    record_seconds: float
    join_seconds: float
    read_bytes: float
    written_bytes: float
    schedule: Schedule
    limits: tuple[Limit, ...]

    @property
    def footage_seconds(self) -> float:
        return sum(clip.seconds for clip in self.clips)

    @property
    def paid_core_seconds(self) -> float:
        """All cores, for as long as the job lasts."""
        return self.options.cores * self.wall_seconds

    @property
    def price(self) -> float | None:
        """Of the whole job."""
        price = self.options.price_per_core_hour
        return None if price is None else self.paid_core_seconds / SECONDS_PER_HOUR * price


def clip_work(
    clip: ClipHeader, segments: Sequence[int], options: JobOptions, costs: Costs
) -> ClipWork:
    """The work on a clip whose segments have so many frames; as many bytes come out as go in."""
    planned = costs.clip_seconds
    if len(segments) > 1:
        planned += clip.num_frames * costs.plan_frame_seconds
        planned += clip.num_bytes * costs.plan_byte_seconds
    frame_seconds = 1 / (options.fps_per_core * options.cores_per_actor)
    return ClipWork(
        plan_seconds=planned,
        segment_seconds=tuple(n * frame_seconds + costs.segment_seconds for n in segments),
        join_seconds=clip.num_bytes * (costs.record_byte_seconds + costs.join_byte_seconds)
        + clip.num_frames * costs.join_frame_seconds,
    )


def segment_frames(clip: ClipHeader, segment_seconds: float) -> list[int]:
    """The frames in each of a clip's segments, as `plan` cuts it if key frames lie where due."""
    segments = cut_synthetic(clip.num_frames, clip.frame_rate, segment_seconds)
    starts = [segment.start_pts or 0 for segment in segments]
    return [end - start for start, end in zip(starts, [*starts[1:], clip.num_frames], strict=True)]


def size_job(clips: Sequence[ClipHeader], options: JobOptions, costs: Costs = MEASURED) -> Sizing:
    """What a job takes: simulated on so many cores, and on as many as it could use."""
    frames = [segment_frames(clip, options.segment_seconds) for clip in clips]
    works = [
        clip_work(clip, counts, options, costs) for clip, counts in zip(clips, frames, strict=True)
    ]
    num_segments = sum(len(counts) for counts in frames)
    cluster = Cluster(
        num_nodes=1,
        actors_per_node=options.num_actors,
        num_drivers=options.clips_at_once or clips_together(len(clips), options.num_actors),
        dispatch_seconds=costs.dispatch_seconds,
        record_seconds=costs.record_seconds,
        start_seconds=costs.start_seconds,
    )
    schedule = simulate(works, cluster)
    floor = simulate(works, replace(cluster, actors_per_node=num_segments))
    core_seconds = options.cores_per_actor * sum(sum(work.segment_seconds) for work in works)
    read_bytes, written_bytes = storage_bytes(clips, frames)
    limits = least_times(works, cluster)
    if options.bandwidth_bytes is not None:
        limits["storage"] = (read_bytes + written_bytes) / options.bandwidth_bytes
    driver_seconds = limits["planning"] + limits["recording"] + limits["joining"]
    shared_seconds = max(driver_seconds, limits.get("storage", 0.0))
    return Sizing(
        clips=clips,
        options=options,
        num_segments=num_segments,
        core_seconds=core_seconds,
        wall_seconds=max(schedule.wall_seconds, shared_seconds),
        floor_seconds=max(floor.wall_seconds, shared_seconds),
        longest_clip_seconds=max(work.least_seconds for work in works),
        plan_seconds=limits["planning"],
        record_seconds=limits["recording"],
        join_seconds=limits["joining"],
        read_bytes=read_bytes,
        written_bytes=written_bytes,
        schedule=schedule,
        limits=tuple(
            Limit(name, seconds, core_seconds / seconds)
            for name, seconds in sorted(limits.items(), key=lambda item: -item[1])
            if seconds > 0
        ),
    )


def least_times(works: Sequence[ClipWork], cluster: Cluster) -> dict[str, float]:
    """Seconds that a job takes at least, with actors for every segment, by what it waits for.

    segments: each clip takes as long as its longest one, as many clips at a time as are worked on
    at once; planning, recording, joining: of all clips, which one process does on one core.
    """
    longest = [max(work.segment_seconds) for work in works]
    num_segments = sum(len(work.segment_seconds) for work in works)
    return {
        "segments": max(sum(longest) / cluster.num_drivers, max(longest)),
        "planning": sum(work.plan_seconds for work in works),
        "recording": (cluster.dispatch_seconds + cluster.record_seconds) * num_segments,
        "joining": sum(work.join_seconds for work in works),
    }


def storage_bytes(
    clips: Sequence[ClipHeader], frames: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """Bytes read and written by driver and actors, where what was just seen is in a cache.

    The video that is written is taken to be as large as the one that was read.
    """
    whole = sum(clip.num_bytes for clip in clips)
    planned = sum(
        clip.num_bytes for clip, counts in zip(clips, frames, strict=True) if len(counts) > 1
    )
    return float(whole * _READ + planned * _READ_TO_PLAN), float(whole * _WRITTEN)
