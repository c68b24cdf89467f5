"""The command that repeats a run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.core.config import (
    STANDARD_INPUT,
    SYNTHETIC,
    AutoOptions,
    InferOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.machine import available_cores
from pipeline.core.options import Option, as_text, changed
from pipeline.core.work_folder import SPOOL_NAME
from pipeline.inference.configurations import configurations


def repeat_command(config: ProcessConfig) -> str | None:
    """The command line of a run; None if an option was used that only Python offers.

    Options with their default values are left out.
    """
    infer = _infer_words(config.infer)
    options = [entry for group in _groups(config) for entry in changed(group)]
    if infer is None or any(option.flag is None for _, option, _ in options):
        return None
    output = config.remote.output_url or str(config.output_dir)
    words = ["pipeline", "process", "--output-dir", output, *_words(options), *infer]
    words += [*_source_words(config), *_cluster_words(config)]
    return shlex.join([*words, "--", _source_name(config)])


def _groups(config: ProcessConfig) -> list[Any]:
    """The dataclasses with options, besides those for which there are other words."""
    values = [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]
    others = ("source", "infer", "cluster")
    within = [v for name, v in values if dataclasses.is_dataclass(v) and name not in others]
    return [config, *within]


def _words(options: Iterable[tuple[str, Option, Any]]) -> Iterator[str]:
    for name, option, value in options:
        if name == "num_frames":  # The source has one, too.
            continue
        yield "--model" if name == "weights" and isinstance(value, str) else str(option.flag)
        if not isinstance(value, bool):
            yield from _values(name, value)


def _values(name: str, value: Any) -> Iterator[str]:
    if name in ("classes", "covered"):
        yield from value
    elif name == "class_thresholds":
        yield from (f"{class_name}={threshold!r}" for class_name, threshold in value)
    else:
        yield as_text(value)


def _infer_words(infer: InferOptions | AutoOptions) -> list[str] | None:
    """The options that select these; None if there are none."""
    if isinstance(infer, AutoOptions):
        return list(_words(changed(infer)))
    for entry in configurations(available_cores()).values():
        for variant in entry.variants:
            name = f"{entry.name} {variant.label}".strip()
            if variant.options == infer:
                return ["--config", name]
            # Some configurations do not set the precision.
            if variant.options == dataclasses.replace(infer, precision="auto"):
                return ["--config", name, "--precision", infer.precision]
    return None


def _source_words(config: ProcessConfig) -> Iterator[str]:
    counts = [config.num_frames]
    if config.synthetic:
        yield from _words(changed(config.synthetic))
        if config.synthetic.num_frames != SyntheticOptions().num_frames:
            counts.append(config.synthetic.num_frames)
    elif config.pictures:
        yield from ("--frame-rate", str(config.pictures.frame_rate))
    if found := [count for count in counts if count is not None]:
        yield from ("--frames", str(min(found)))


def _cluster_words(config: ProcessConfig) -> Iterator[str]:
    if config.cluster is not None:
        yield from ("--executor", "ray")
        yield from _words(changed(config.cluster))


def _source_name(config: ProcessConfig) -> str:
    if config.synthetic:
        return SYNTHETIC
    if config.clip and config.clip.name == SPOOL_NAME:
        return STANDARD_INPUT  # Of which the file was a copy.
    name = config.remote.source_url or config.source_name
    return f"./{name}" if name in (SYNTHETIC, STANDARD_INPUT) else name
