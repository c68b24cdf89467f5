"""Measurements -> what the report says on steps, threads and the bottleneck."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.frames.cpu_account import (
    DECODER,
    DECODING_THREAD,
    ENCODER,
    INFERENCE,
    KNOWN,
)
from pipeline.frames.stats import ENCODING_THREAD, RunStats, StepClock
from pipeline.run.outputs import REPORT_JSON_NAME

BETWEEN_STEPS, OTHER_THREADS = "between steps", "other threads"
MOST_OTHER_THREADS = 0.05
"""The share of the CPU time above which a warning is shown."""
_LEAST_OTHER_SECONDS = 0.25
"""Below this, the share is not meaningful: start-up dominates runs of a few frames."""

_NUM_SPEED_POINTS = 120
_LEAST_SLICE_SECONDS = 0.5


def step_times(
    stats: RunStats, cores: int, encoder_threads: int | None, workers: int
) -> list[dict[str, Any]]:
    """The cost of each step, in the order of the flow, in milliseconds per frame.

    alone_fps: the throughput of the step if it had the machine to itself: one core for a step on
    one thread, all cores for the model, times the segments at once. The rows add up to the CPU
    time of the process; the last two are the time of the two threads of the loop between the
    steps, and that of all threads that do not belong to this program.

    encoder_threads: None for a run without an annotated file, which has no such steps.
    """
    frames = stats.num_frames
    return [
        {
            "step": step.name,
            "busy_wall_ms": step.wall_ns / 1e6 / frames,
            "cpu_ms": 1000 * step.cpu_seconds / frames,
            "waited_ms": step.waited_ns / 1e6 / frames,
            "alone_fps": workers * step.num_threads * frames / step.cpu_seconds
            if step.num_threads and step.cpu_seconds
            else None,
        }
        for step in _costs(stats, cores, encoder_threads)
        if step.name not in _left_out(stats, encoder_threads)
    ]


def _left_out(stats: RunStats, encoder_threads: int | None) -> set[str]:
    """The steps that a run does not have."""
    names = set() if encoder_threads is not None else {"annotate", "encode"}
    return names if stats.consumer.track.wall_ns else names | {"track"}


class _Cost(NamedTuple):
    """num_threads: that the step could use if it had the machine to itself; None is unknown."""

    name: str
    wall_ns: float
    cpu_seconds: float
    waited_ns: int
    num_threads: int | None


def _costs(stats: RunStats, cores: int, encoder_threads: int | None) -> list[_Cost]:
    """Of all frames, in the order of the flow."""
    producer, consumer = stats.producer, stats.consumer
    threads_cpu = {name: stats.thread_cpu_seconds.get(name, 0.0) for name in KNOWN}
    callback_cpu = stats.callback_cpu_ns / 1e9
    infer_cpu = max(0.0, threads_cpu[INFERENCE] - callback_cpu) + _cpu_seconds(producer.submit)
    waited_ns = producer.wait_in_flight.wall_ns + producer.wait_request.wall_ns
    return [
        _Cost(
            "decode",
            producer.decode.wall_ns,
            _cpu_seconds(producer.decode) + threads_cpu[DECODER],
            0,
            max(1, cores // 2),
        ),
        _one_thread("preprocess", producer.preprocess)._replace(waited_ns=waited_ns),
        _Cost("infer", stats.latency_seconds_sum * 1e9, infer_cpu, 0, cores),
        _Cost(
            "postprocess",
            consumer.postprocess.wall_ns + stats.callback_wall_ns,
            _cpu_seconds(consumer.postprocess) + callback_cpu,
            consumer.wait_inference.wall_ns,
            1,
        ),
        _one_thread("track", consumer.track),
        _one_thread("annotate", consumer.annotate),
        _Cost(
            "encode",
            consumer.encode.wall_ns,
            _cpu_seconds(consumer.encode) + threads_cpu[ENCODER],
            0,
            encoder_threads,
        ),
        _one_thread("write", consumer.write),
        _Cost(BETWEEN_STEPS, 0, _between_steps_cpu(stats, encoder_threads), 0, None),
        _Cost(OTHER_THREADS, 0, other_threads_cpu_seconds(stats), 0, None),
    ]


def _between_steps_cpu(stats: RunStats, encoder_threads: int | None) -> float:
    producer, consumer = stats.producer, stats.consumer
    steps = [producer.decode, producer.preprocess, producer.submit]
    steps += [consumer.postprocess, consumer.track, consumer.write]
    if encoder_threads is not None:
        steps += [consumer.annotate, consumer.encode]
    threads = (stats.thread_cpu_seconds.get(n, 0.0) for n in (DECODING_THREAD, ENCODING_THREAD))
    return max(0.0, sum(threads) - sum(map(_cpu_seconds, steps)))


def _one_thread(name: str, clock: StepClock) -> _Cost:
    return _Cost(name, clock.wall_ns, _cpu_seconds(clock), 0, 1)


def _cpu_seconds(clock: StepClock) -> float:
    return clock.cpu_ns / 1e9


def thread_times(stats: RunStats) -> dict[str, dict[str, float]]:
    """The wall time of the two threads of the loop by step and wait, in seconds.

    The parts of each add up to the time of the frames.
    """
    producer, consumer = stats.producer, stats.consumer
    named: dict[str, dict[str, StepClock]] = {
        "decoding": {
            "decode": producer.decode,
            "preprocess": producer.preprocess,
            "submit": producer.submit,
            "waited for a request": producer.wait_request,
            "waited for the encoding thread": producer.wait_in_flight,
        },
        "encoding": {
            "postprocess": consumer.postprocess,
            "annotate": consumer.annotate,
            "encode": consumer.encode,
            "write": consumer.write,
            "waited for inference": consumer.wait_inference,
        },
    }
    return {
        thread: {part: clock.wall_ns / 1e9 for part, clock in parts.items()}
        for thread, parts in named.items()
    }


def other_threads_cpu_seconds(stats: RunStats) -> float:
    """CPU time of threads that do not work on frames: of a host program or a library."""
    return sum(seconds for name, seconds in stats.thread_cpu_seconds.items() if name not in KNOWN)


def other_threads_warning(stats: RunStats) -> str | None:
    """A warning if threads that do not work on frames used much CPU time; else None."""
    seconds = other_threads_cpu_seconds(stats)
    share = seconds / (stats.frames_cpu_seconds or 1.0)
    if share <= MOST_OTHER_THREADS or seconds < _LEAST_OTHER_SECONDS:
        return None
    others = [name for name, _ in _most_first(stats.thread_cpu_seconds) if name not in KNOWN]
    return (
        f"{100 * share:.0f}% of the CPU time was used by threads of this process that do not work "
        f"on frames ({', '.join(others[:3])}): see cpu_threads in {REPORT_JSON_NAME}"
    )


def cpu_threads(stats: RunStats) -> list[dict[str, Any]]:
    """The CPU time of each thread that used any, most first, in milliseconds per frame."""
    return [
        {"thread": name, "cpu_ms": 1000 * seconds / stats.num_frames, "on_frames": name in KNOWN}
        for name, seconds in _most_first(stats.thread_cpu_seconds)
        if seconds > 0
    ]


def _most_first(seconds: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(seconds.items(), key=lambda entry: -entry[1])


def bottleneck(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The step that would be the slowest if each had the machine to itself."""
    ranked = sorted(
        (step for step in steps if step["alone_fps"] is not None),
        key=lambda step: float(step["alone_fps"]),
    )
    first, second = ranked[0], ranked[1]
    return {
        "step": first["step"],
        "alone_fps": first["alone_fps"],
        "next_step": second["step"],
        "next_alone_fps": second["alone_fps"],
        "margin": second["alone_fps"] / first["alone_fps"],
        "share_of_cpu": first["cpu_ms"] / sum(step["cpu_ms"] for step in steps),
    }


def speed_over_time(stats: RunStats) -> list[dict[str, float]]:
    """Frames per second and detections per frame, in equal time slices."""
    finished, detections = np.asarray(stats.finished_seconds), stats.detections_per_frame
    end = float(finished.max())
    num_points = min(_NUM_SPEED_POINTS, max(1, int(end / _LEAST_SLICE_SECONDS)))
    frames, edges = np.histogram(finished, num_points, (0.0, end))
    boxes, _ = np.histogram(finished, num_points, (0.0, end), weights=detections)
    return [
        {
            "seconds": round(edge, 3),
            "fps": round(number * num_points / end, 2),
            "detections_per_frame": round(found / number, 3) if number else 0.0,
        }
        for edge, number, found in zip(
            edges[1:].tolist(), frames.tolist(), boxes.tolist(), strict=True
        )
    ]
