"""Selects the configuration of a run: the tuned one, else a rule."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov

from pipeline.core.cache import cache_dir, publish
from pipeline.core.config import AutoOptions, EncodeOptions, InferOptions
from pipeline.core.errors import UsageError
from pipeline.core.machine import available_cores, processor_name
from pipeline.core.notes import note
from pipeline.inference.possible import require_possible
from pipeline.model.compiled import core
from pipeline.model.prepare import PreparedModel

_LARGE_FRAME_PX = 900_000


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """What decides how fast a run is: how the model runs, and the threads of the encoder."""

    infer: InferOptions
    encoder_threads: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Named options, with the frames per second they reached, file to file, in each round."""

    name: str
    throughput_fps: tuple[float, ...]

    @property
    def median_fps(self) -> float:
        return statistics.median(self.throughput_fps)


@dataclass(frozen=True, slots=True)
class Selection:
    """The options of a run and where they came from.

    by: "tune", "rule", or "request" if the caller named the configuration.
    alternatives: what tuning measured, the fastest first.
    """

    options: SpeedOptions
    by: str
    reason: str
    alternatives: tuple[Measured, ...] = ()


def select(
    asked: InferOptions | AutoOptions,
    prepared: PreparedModel,
    encode: EncodeOptions,
    cores: int | None = None,
) -> Selection:
    """The options of a run: what was asked for, what was tuned, or the rule, in this order.

    cores: None takes those of this process. Raises UsageError for what cannot be met here.
    """
    require_possible(asked, cores or available_cores())
    usual = rule(prepared.source_wh)
    if isinstance(asked, InferOptions):
        return Selection(dataclasses.replace(usual, infer=asked), "request", "it was requested")
    tuning = tuning_of(prepared, encode, asked.precision or "auto", cores=cores)
    tuned = tuning.load()
    if tuned is None:
        reason = (
            "no tuned configuration for this machine, model and codec: `pipeline tune` measures one"
        )
        return Selection(_with(usual, asked), "rule", reason)
    return dataclasses.replace(tuned, options=_with(tuned.options, asked))


def rule(frame_wh: tuple[int, int]) -> SpeedOptions:
    """The options that are good on most machines.

    The THROUGHPUT hint gives every core work of its own. Its threads are not pinned to their
    cores, so that they can make room for those that decode and encode. The threads of the encoder
    decide its bytes: they follow from the frame, not from the cores, so that a result does not
    depend on how many cores or processes make it.
    """
    large = frame_wh[0] * frame_wh[1] >= _LARGE_FRAME_PX
    return SpeedOptions(InferOptions(pinning=False), encoder_threads=4 if large else 2)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Where the winner for one machine, model, frame and input shape, precision and codec is."""

    facts: dict[str, Any]

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]
        return cache_dir() / "tuned" / f"{digest}.json"

    def load(self) -> Selection | None:
        """The stored selection; None, with a note, if it is missing or damaged."""
        with contextlib.suppress(OSError):
            if not self.path.exists():
                return None
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            threads = int(kept["encoder_threads"])
            EncodeOptions(threads=threads)  # Validates.
            if not all(entry["throughput_fps"] for entry in kept["alternatives"]):
                raise ValueError("a measurement without a value")
            return Selection(
                options=SpeedOptions(InferOptions(**kept["infer"]), threads),
                by="tune",
                reason=str(kept["reason"]),
                alternatives=tuple(
                    Measured(str(entry["name"]), tuple(entry["throughput_fps"]))
                    for entry in kept["alternatives"]
                ),
            )
        except (OSError, ValueError, KeyError, TypeError, UsageError):
            note(f"the tuned configuration {self.path} is damaged: run `pipeline tune` again")
            return None

    def store(self, selection: Selection) -> None:
        """Store a tuned selection. Raises NotKept if the cache folder cannot be written."""
        text = json.dumps(
            {
                "facts": self.facts,
                "infer": dataclasses.asdict(selection.options.infer),
                "encoder_threads": selection.options.encoder_threads,
                "reason": selection.reason,
                "alternatives": [dataclasses.asdict(entry) for entry in selection.alternatives],
            },
            indent=2,
        )
        publish(self.path, lambda path: path.write_text(text + "\n", encoding="utf-8"))


def tuning_of(
    prepared: PreparedModel,
    encode: EncodeOptions,
    precision: str,
    *,
    cores: int | None = None,
    devices: Sequence[str] | None = None,
) -> Tuning:
    """The tuning that fits: everything that decides which configuration is the fastest."""
    return Tuning(
        {
            "processor": processor_name(),
            "cores": cores or available_cores(),
            "devices": list(devices if devices is not None else available_devices()),
            "openvino": ov.get_version(),
            "model": prepared.weights_sha256,
            "frame_wh": list(prepared.source_wh),
            "input_wh": list(prepared.input_wh),
            "codec": encode.codec,
            "preset": encode.preset,
            "precision": precision,
        }
    )


@functools.cache
def available_devices() -> tuple[str, ...]:
    """What OpenVINO finds on this machine."""
    return tuple(core().available_devices)  # Takes milliseconds, which every clip would pay.


def _with(options: SpeedOptions, asked: AutoOptions) -> SpeedOptions:
    return dataclasses.replace(options, infer=asked.over(options.infer))
