"""The sizing of a job as lines for a terminal."""

from __future__ import annotations

from pipeline.core.text import counted, duration
from pipeline.measure.sizing import SECONDS_PER_HOUR, Sizing


def table_lines(sizing: Sizing) -> list[str]:
    """The estimate of a job as lines for a terminal."""
    rows = [*_time_rows(sizing), *_cost_rows(sizing), *_limit_rows(sizing)]
    return [f"{name:<13}{text}" for name, text in rows] + [_next_limit(sizing)]


def _time_rows(sizing: Sizing) -> list[tuple[str, str]]:
    options, schedule = sizing.options, sizing.schedule
    num_frames = sum(clip.num_frames for clip in sizing.clips)
    num_bytes = sum(clip.num_bytes for clip in sizing.clips)
    return [
        (
            "footage",
            f"{counted(len(sizing.clips), 'clip')}, {duration(sizing.footage_seconds)}, "
            f"{counted(num_frames, 'frame')}, {_bytes(num_bytes)}",
        ),
        (
            "work",
            f"{sizing.core_seconds / SECONDS_PER_HOUR:,.2f} core-hours in "
            f"{counted(sizing.num_segments, 'segment')}",
        ),
        (
            "wall time",
            f"{duration(sizing.wall_seconds)} with {counted(options.num_actors, 'actor')} of "
            f"{counted(options.cores_per_actor, 'core')}, busy {schedule.utilisation:.0%} of it; "
            f"{duration(sizing.floor_seconds)} with unlimited cores",
        ),
        ("longest clip", f"{duration(sizing.longest_clip_seconds)} with unlimited cores"),
        (
            "driver",
            f"planning {duration(sizing.plan_seconds)}, "
            f"recording {duration(sizing.record_seconds)}, "
            f"joining {duration(sizing.join_seconds)}",
        ),
    ]


def _cost_rows(sizing: Sizing) -> list[tuple[str, str]]:
    footage_hours = sizing.footage_seconds / SECONDS_PER_HOUR
    paid_hours = sizing.paid_core_seconds / SECONDS_PER_HOUR
    rows = [
        (
            "storage",
            f"read {_bytes(sizing.read_bytes / sizing.wall_seconds)}/s, "
            f"written {_bytes(sizing.written_bytes / sizing.wall_seconds)}/s",
        ),
        (
            "paid",
            f"{paid_hours:,.2f} core-hours, {paid_hours / footage_hours:.3g} per hour of footage",
        ),
    ]
    if sizing.price is not None:
        rows.append(
            (
                "price",
                f"{sizing.price:,.2f}, {sizing.price / footage_hours:.3g} per hour of footage",
            )
        )
    return rows


def _limit_rows(sizing: Sizing) -> list[tuple[str, str]]:
    return [
        (
            "limits" if number == 0 else "",
            f"{limit.name}: at least {duration(limit.seconds)}, reached with {_cores(limit.cores)}",
        )
        for number, limit in enumerate(sizing.limits)
    ]


def _next_limit(sizing: Sizing) -> str:
    cores, hardest = sizing.core_seconds / sizing.floor_seconds, sizing.limits[0].name
    if cores <= sizing.options.cores:
        return (
            f"With more than {_cores(cores)}, as here, the job is limited by {hardest} rather than "
            f"by the frames: {_REMEDIES[hardest]}"
        )
    return (
        f"With more than {_cores(cores)}, the job would be limited by {hardest} rather than by the "
        f"frames: then {_REMEDIES[hardest]}"
    )


_REMEDIES = {
    "segments": "shorter segments, or more clips at once, help",
    "planning": "several commands, each for a part of the footage, help",
    "recording": "longer segments, or several commands, each for a part of the footage, help",
    "joining": "several commands, each for a part of the footage, help",
    "storage": "only faster storage helps",
}


def _cores(number: float) -> str:
    return counted(round(number), "core")


def _bytes(number: float) -> str:
    unit = next((unit for unit in _UNITS if number < 1000 * unit[1]), _UNITS[-1])
    return f"{number / unit[1]:,.3g} {unit[0]}"


_UNITS = (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12), ("PB", 1e15))
