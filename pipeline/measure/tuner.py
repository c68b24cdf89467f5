"""Finds the configuration with the highest file-to-file throughput on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.cache import NotKept
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InferenceError, InputError, ModelError, PipelineError, UsageError
from pipeline.core.machine import available_cores, bf16_instructions
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.core.text import counted
from pipeline.core.typed import converted
from pipeline.frames.source import open_source
from pipeline.inference.openvino import resolved_precision
from pipeline.inference.possible import require_possible
from pipeline.inference.selection import Measured, Selection, SpeedOptions, rule, tuning_of
from pipeline.measure.adaptive_gain import AdaptiveGain, adaptive_gain
from pipeline.measure.own_process import in_own_process
from pipeline.model.compiled import core
from pipeline.model.prepare import note_model, prepare_model
from pipeline.model.weights import find_weights
from pipeline.run.process import process_video

MOST_SECONDS = 100.0
"""Of all of it, once the weights are there; what is known by then decides."""

_INT8_SECONDS = 30.0
"""What of it is left for INT8."""

_ADAPTIVE_SECONDS = 12.0
"""What of it is left for --adaptive, last of all."""

HALVING = (1, 2, 3)
"""Rounds for all candidates, then for the better half of them, then for the half of those."""
MEASUREMENT_SECONDS = 2.0
_FIRST_LOOK_FRAMES, _LEAST_FRAMES, _MOST_FRAMES = 48, 24, 2000
_LEAST_GAIN = 1.02
_NO_TIME = (
    f"no configuration could be measured within {MOST_SECONDS:.0f} s: tune when the machine is idle"
)
INT8_ROUNDS = 3

Measure = Callable[[SpeedOptions], float]
"""Frames per second with some options. Raises TimeoutError where there is no time to find out."""

Run = Callable[[SpeedOptions, float], float]
"""The same; the second argument is the most seconds that it may take."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found, and where it is kept; None where nothing can be written.

    int8_gain: over the winner in float, if measured.
    adaptive: what --adaptive gains and costs with the winner, if measured.
    """

    selection: Selection
    path: Path | None
    int8_gain: float | None
    adaptive: AdaptiveGain | None


def tune(config: ProcessConfig, on_progress: ProgressCallback = no_progress) -> Tuned:
    """Measure candidates on the first frames of a source, and keep the fastest.

    With the model, the frame shape and the codec of the config; every measurement is a run of
    its own from file to file. Takes MOST_SECONDS at the most, also on a machine that is busy with
    other things: it measures less then. Raises PipelineError if nothing can be run.
    """
    config = converted("config", config, ProcessConfig)
    require_possible(config.infer, available_cores())
    precision = config.infer.precision or "auto"
    weights = find_weights(config.weights, on_progress, config.default_model)
    end_seconds = time.perf_counter() + MOST_SECONDS
    prepared = prepare_model(
        weights, _size_of(config), config.imgsz, on_progress, nms_free=config.nms_free
    )
    note_model(prepared, config.imgsz)
    devices = core().available_devices
    among = candidates(available_cores(), devices, precision, prepared.source_wh)
    with tempfile.TemporaryDirectory() as scratch:
        config = dataclasses.replace(
            config,
            weights=weights,
            output_dir=Path(scratch),
            overwrite=True,
            every=1,
            reuse_duplicates=False,
        )
        tuned = _measure(config, among, end_seconds, on_progress)
    tuning = tuning_of(prepared, config.encode, precision, devices=devices)
    try:
        tuning.store(tuned.selection)
    except NotKept:
        return tuned
    return dataclasses.replace(tuned, path=tuning.path)


def _measure(
    config: ProcessConfig,
    among: dict[str, SpeedOptions],
    end_seconds: float,
    on_progress: ProgressCallback,
) -> Tuned:
    """The fastest of the candidates, and what INT8 and --adaptive gain over it."""
    num_frames = _frames_to_measure(config, next(iter(among.values())), end_seconds)

    def run(options: SpeedOptions, most_seconds: float) -> float:
        fps, _ = in_own_process(_frames_fps, _trial(config, options, num_frames), most_seconds)
        return fps

    int8_gain, int8_end_seconds = None, end_seconds - _ADAPTIVE_SECONDS
    if config.infer.precision == "int8":
        selection = halve(among, in_time(run, int8_end_seconds), on_progress)
    else:
        selection = halve(among, in_time(run, int8_end_seconds - _INT8_SECONDS), on_progress)
        int8_gain = int8_gain_of(selection.options, run, int8_end_seconds)
    adaptive = adaptive_gain_of(_trial(config, selection.options, num_frames), end_seconds)
    return Tuned(selection, None, int8_gain, adaptive)


def _frames_to_measure(config: ProcessConfig, usual: SpeedOptions, end_seconds: float) -> int:
    """The number of frames that take about MEASUREMENT_SECONDS with the usual options."""
    trial, left = _trial(config, usual, _FIRST_LOOK_FRAMES), end_seconds - time.perf_counter()
    try:
        fps, available = in_own_process(_frames_fps, trial, max(0.0, left))
    except TimeoutError as error:
        raise InferenceError(_NO_TIME) from error
    if available < _LEAST_FRAMES:
        raise InputError(
            f"too short to tune on: {counted(available, 'frame')}, of at least {_LEAST_FRAMES}"
        )
    return min(_MOST_FRAMES, max(_LEAST_FRAMES, round(fps * MEASUREMENT_SECONDS)))


def candidates(
    cores: int, devices: Sequence[str], precision: str, frame_wh: tuple[int, int]
) -> dict[str, SpeedOptions]:
    """A coarse grid of options by name; the rule comes first."""
    usual = rule(frame_wh)
    infer = dataclasses.replace(usual.infer, precision=precision)
    by_hand = dataclasses.replace(infer, hint="NONE", num_threads=cores)
    grid = {
        "rule: THROUGHPUT hint, not pinned": infer,
        "THROUGHPUT hint, pinned": dataclasses.replace(infer, pinning=True),
        f"{counted(cores, 'stream')}, {counted(4 * cores, 'request')}": dataclasses.replace(
            by_hand, num_streams=cores, num_requests=4 * cores
        ),
        "THROUGHPUT hint, batch 2": dataclasses.replace(infer, batch=2),
        "no hint": dataclasses.replace(infer, hint="NONE"),
    }
    if cores > 1:
        half = max(1, cores // 2)
        grid[f"{counted(half, 'stream')} on all cores"] = dataclasses.replace(
            by_hand, num_streams=half, num_requests=2 * half + 1
        )
    if precision == "auto" and bf16_instructions() == "avx512":
        other = "f32" if resolved_precision("auto") == "bf16" else "bf16"
        grid[f"THROUGHPUT hint, {other}"] = dataclasses.replace(infer, precision=other)
    for device in devices:
        if device != "CPU":
            grid[f"THROUGHPUT hint on {device}"] = dataclasses.replace(infer, device=device)
    if len(devices) > 1:
        grid["all devices together"] = dataclasses.replace(
            infer, device="AUTO", hint="CUMULATIVE_THROUGHPUT"
        )
    named = {name: SpeedOptions(options, usual.encoder_threads) for name, options in grid.items()}
    for threads in sorted({1, cores} - {usual.encoder_threads}):
        named[f"rule, encoder on {counted(threads, 'thread')}"] = SpeedOptions(infer, threads)
    return named


def in_time(run: Run, end_seconds: float) -> Measure:
    """Measurements until a time of `time.perf_counter`.

    One that, taking as long as the longest so far, would end later is not begun; one that turns
    out to take longer still is ended.
    """
    longest_seconds = 0.0

    def measure(options: SpeedOptions) -> float:
        nonlocal longest_seconds
        started = time.perf_counter()
        if started + longest_seconds >= end_seconds:
            raise TimeoutError
        fps = run(options, end_seconds - started)
        longest_seconds = max(longest_seconds, time.perf_counter() - started)
        return fps

    return measure


def halve(
    among: dict[str, SpeedOptions],
    measure: Measure,
    on_progress: ProgressCallback = no_progress,
) -> Selection:
    """Successive halving: all candidates once, the better half more often, half of those again.

    The first candidate stays to the end: another wins only if it was ahead of it in every round
    that both ran, and by more than 2% in the median. A candidate that cannot run drops out. What
    was measured when there is no more time decides. Raises InferenceError if the first cannot run,
    or not in time.
    """
    usual = next(iter(among))
    fps: dict[str, list[float]] = {name: [] for name in among}
    alive, done = list(among), 0
    total = _num_measurements(len(among))
    with contextlib.suppress(TimeoutError):
        for stage, rounds in enumerate(HALVING):
            if stage:
                alive = _better_half(alive, fps, usual)
            for _ in range(rounds):
                for name in list(alive):
                    on_progress(Progress("tune", done, total, unit="run"))
                    done += 1
                    try:
                        fps[name].append(measure(among[name]))
                    except (InferenceError, ModelError, UsageError, RuntimeError):
                        if name == usual:
                            raise
                        alive.remove(name)
    if not fps[usual]:
        raise InferenceError(_NO_TIME)
    on_progress(Progress("tune", total, total, unit="run"))
    measured = sorted(
        (Measured(name, tuple(values)) for name, values in fps.items() if values),
        key=lambda entry: entry.median_fps,
        reverse=True,
    )
    best = next(entry for entry in measured if entry.name in alive)
    ratios = [a / b for a, b in zip(fps[best.name], fps[usual], strict=False)]
    gain = statistics.median(ratios)
    winner, reason = usual, "no configuration was faster than the rule by more than the noise"
    if best.name != usual and min(ratios) > 1.0 and gain >= _LEAST_GAIN:
        winner, reason = best.name, f"{best.name} was {gain:.2f} times as fast as the rule"
    return Selection(among[winner], "tune", reason, tuple(measured))


def _num_measurements(num_candidates: int) -> int:
    total = 0
    for rounds in HALVING:
        total += rounds * num_candidates
        num_candidates = max(2, -(-num_candidates // 2))
    return total


def _better_half(alive: list[str], fps: dict[str, list[float]], usual: str) -> list[str]:
    ranked = sorted(alive, key=lambda name: statistics.median(fps[name]), reverse=True)
    kept = ranked[: max(2, -(-len(ranked) // 2))]
    return kept if usual in kept else [usual, *kept[:-1]]


def int8_gain_of(options: SpeedOptions, run: Run, end_seconds: float) -> float | None:
    """How many times as fast INT8 is; None where that cannot be had, or not by then."""
    quantized = dataclasses.replace(
        options, infer=dataclasses.replace(options.infer, precision="int8")
    )
    ratios: list[float] = []
    with contextlib.suppress(PipelineError, TimeoutError):
        in_time(run, end_seconds)(quantized)  # Quantises, which takes longer than the others.
        measure = in_time(run, end_seconds)
        for _ in range(INT8_ROUNDS):
            ratios.append(measure(quantized) / measure(options))
    return statistics.median(ratios) if ratios else None


def adaptive_gain_of(trial: ProcessConfig, end_seconds: float) -> AdaptiveGain | None:
    """What --adaptive gains and costs; None where that cannot be had, or not by then."""
    with contextlib.suppress(PipelineError, TimeoutError):
        return adaptive_gain(trial, 1, end_seconds - time.perf_counter())
    return None


def _trial(config: ProcessConfig, options: SpeedOptions, num_frames: int) -> ProcessConfig:
    source = config.source
    if config.synthetic:
        source = dataclasses.replace(config.synthetic, num_frames=num_frames)
    return dataclasses.replace(
        config,
        source=source,
        num_frames=num_frames,
        infer=options.infer,
        encode=dataclasses.replace(config.encode, threads=options.encoder_threads),
    )


def _frames_fps(config: ProcessConfig) -> tuple[float, int]:
    """Frames per second from the first frame decoded to the last one encoded, and their number."""
    report = process_video(config)
    return float(report["speed"]["frames_fps"]), int(report["output"]["num_frames"])


def _size_of(config: ProcessConfig) -> tuple[int, int]:
    source = open_source(config, 1)
    source.close()
    return source.info.size_wh
