"""The throughput configurations by name, after OpenVINO's throughput tutorial."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import InferOptions
from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Configuration:
    """A name for one way to run the model."""

    name: str
    description: str
    options: InferOptions


CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        Configuration(
            "throughput", "THROUGHPUT hint on the CPU, the default", InferOptions(hint="THROUGHPUT")
        ),
        Configuration("latency", "LATENCY hint on the CPU", InferOptions(hint="LATENCY")),
        Configuration("async", "asynchronous requests, no hint", InferOptions(hint="NONE")),
        Configuration(
            "openvino",
            "one request at a time, no hint",
            InferOptions(hint="NONE", num_requests=1),
        ),
        Configuration(
            "gpu", "THROUGHPUT hint on an Intel GPU", InferOptions(device="GPU", hint="THROUGHPUT")
        ),
        Configuration(
            "npu", "THROUGHPUT hint on an Intel NPU", InferOptions(device="NPU", hint="THROUGHPUT")
        ),
        Configuration(
            "auto",
            "OpenVINO chooses the device, THROUGHPUT hint",
            InferOptions(device="AUTO", hint="THROUGHPUT"),
        ),
        Configuration(
            "cumulative",
            "all devices together",
            InferOptions(device="AUTO", hint="CUMULATIVE_THROUGHPUT"),
        ),
    )
}
DEFAULT = "throughput"


def configuration(name: str) -> Configuration:
    """Raises UsageError for a name that is not known."""
    if name not in CONFIGURATIONS:
        raise UsageError(
            f"configuration {name!r} is unknown; there are: {', '.join(CONFIGURATIONS)}"
        )
    return CONFIGURATIONS[name]
