"""The throughput configurations by name, after OpenVINO's throughput tutorial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from pipeline.core.config import InferOptions
from pipeline.core.errors import UsageError

AUTO = "auto"
"""Not a configuration: the one that was tuned for this machine, else a rule."""
BASELINE = "pytorch"
INT8 = "int8"
UNDER = "under"
"""Between INT8 and the configuration that the benchmark ran it under."""
BATCH_SIZES = (2, 4, 8, 16)

_VIRTUAL_DEVICES = ("AUTO", "MULTI", "HETERO", "BATCH")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a configuration; label: follows the name, to distinguish variants."""

    label: str
    options: InferOptions


@dataclass(frozen=True, slots=True)
class Configuration:
    """A name for one way to run the model, or for a few of which the best counts.

    family: what goes together in a chart.
    """

    name: str
    family: str
    description: str
    variants: tuple[Variant, ...]

    @property
    def options(self) -> InferOptions:
        """What `process` takes: the first of the variants."""
        return self.variants[0].options

    def why_unavailable(self, devices: Sequence[str]) -> str | None:
        """Why this is unavailable on a machine with these devices; None if it is available."""
        missing = missing_devices(self.options.device, devices)
        if not missing:
            return None
        return f"unavailable: no {', '.join(missing)}, only {', '.join(devices)}"


@cache
def configurations(cores: int) -> dict[str, Configuration]:
    """All of them, by name, in the order of the tutorial; the grid of streams fits the cores."""
    one_by_one = InferOptions(hint="NONE", num_requests=1)
    return {
        configuration.name: configuration
        for configuration in (
            _single(
                BASELINE,
                "PyTorch",
                "the float model in PyTorch, one frame at a time: the baseline",
                InferOptions(engine="pytorch", hint="NONE"),
            ),
            _single("openvino", "OpenVINO", "IR, synchronous, one frame at a time", one_by_one),
            Configuration(
                "openvino-batch",
                "OpenVINO",
                f"IR, synchronous, in batches of {', '.join(map(str, BATCH_SIZES))}",
                tuple(
                    Variant(str(batch), InferOptions(hint="NONE", num_requests=1, batch=batch))
                    for batch in BATCH_SIZES
                ),
            ),
            _single("async", "asynchronous", "asynchronous requests, no hint", _hinted("NONE")),
            _single("throughput", "hints", "THROUGHPUT hint on the CPU", _hinted("THROUGHPUT")),
            _single(
                "latency",
                "hints",
                "LATENCY hint on the CPU, for comparison",
                InferOptions(hint="LATENCY", num_requests=1),
            ),
            _single(
                "gpu",
                "devices",
                "THROUGHPUT hint on an Intel GPU",
                _hinted("THROUGHPUT", device="GPU"),
            ),
            _single(
                "npu",
                "devices",
                "THROUGHPUT hint on an Intel NPU",
                _hinted("THROUGHPUT", device="NPU"),
            ),
            _single(
                "auto-device",
                "devices",
                "OpenVINO's AUTO device, THROUGHPUT hint",
                _hinted("THROUGHPUT", device="AUTO"),
            ),
            _single(
                "cumulative",
                "devices",
                "AUTO device, CUMULATIVE_THROUGHPUT hint: all devices together",
                _hinted("CUMULATIVE_THROUGHPUT", device="AUTO"),
            ),
            _single(
                "batch-device",
                "devices",
                "the BATCH device, which gathers requests into batches of 4",
                _hinted("THROUGHPUT", device="BATCH:CPU(4)"),
            ),
            Configuration(
                "streams",
                "streams",
                "streams, requests, threads and pinning set by hand, as a grid",
                _stream_grid(cores),
            ),
            _single(
                INT8,
                "INT8",
                "the quantised model under the best of these",
                InferOptions(precision="int8"),
            ),
        )
    }


def named_options(name: str, cores: int) -> InferOptions:
    """What a run takes for the name of a configuration, or of one of its variants.

    Also for that of a row of the benchmark. Raises UsageError for a name that is not known.
    """
    int8, _, under = name.partition(f" {UNDER} ")
    if under and int8 == INT8:
        return replace(named_options(under, cores), precision="int8")
    for entry in configurations(cores).values():
        for variant in entry.variants:
            if name == f"{entry.name} {variant.label}":
                return variant.options
    return configuration(name, cores).options


def configuration(name: str, cores: int) -> Configuration:
    """Raises UsageError for an unknown name."""
    known = configurations(cores)
    if name not in known:
        raise UsageError(
            f"unknown configuration {name!r}; configurations are: {AUTO}, {', '.join(known)}"
        )
    return known[name]


def missing_devices(device: str, available: Sequence[str]) -> list[str]:
    """The devices that an OpenVINO device name needs and that are missing.

    "AUTO:GPU,CPU" stands for two devices, "GPU" also for "GPU.0", "AUTO" for what there is.
    """
    present = {*available, *(entry.partition(".")[0] for entry in available)}
    return [entry for entry in _named_devices(device) if entry not in present]


def is_cpu(device: str, available: Sequence[str]) -> bool:
    """Whether a name of OpenVINO can stand for nothing but the CPU on this machine."""
    left_out = {part[1:] for part in device.partition(":")[2].split(",") if part.startswith("-")}
    devices = _named_devices(device) or [entry for entry in available if entry not in left_out]
    return all(entry.partition(".")[0] == "CPU" for entry in devices)


def possible_devices(device: str, available: Sequence[str]) -> list[str]:
    """Those of the available devices on which a name of OpenVINO may run the model."""
    left_out = {part[1:] for part in device.partition(":")[2].split(",") if part.startswith("-")}
    named = _named_devices(device) or [entry for entry in available if entry not in left_out]
    return [entry for entry in available if {entry, entry.partition(".")[0]} & {*named}]


def _named_devices(device: str) -> list[str]:
    """The devices that a name lists; none for "AUTO" alone."""
    name, _, members = device.partition(":")
    if name not in _VIRTUAL_DEVICES:
        return [device]
    # "-GPU" leaves a device out, which it need not be there for; "(4)" is a batch size.
    return [
        part.partition("(")[0] for part in members.split(",") if part and not part.startswith("-")
    ]


def _single(name: str, family: str, description: str, options: InferOptions) -> Configuration:
    return Configuration(name, family, description, (Variant("", options),))


def _hinted(hint: str, device: str = "CPU") -> InferOptions:
    return InferOptions(hint=hint, device=device)


def _stream_grid(cores: int) -> tuple[Variant, ...]:
    """(streams, requests, pinned) around one stream per core, on all cores."""
    grid = dict.fromkeys(
        (
            (cores, 2 * cores, False),
            (cores, 2 * cores, True),
            (cores, cores, False),
            (cores, 4 * cores, False),
            (max(1, cores // 2), cores, False),
            (1, 2, False),
        )
    )
    return tuple(
        Variant(
            f"{streams}, requests {requests}{', pinned' if pinned else ''}",
            InferOptions(
                hint="NONE",
                num_streams=streams,
                num_requests=requests,
                num_threads=cores,
                pinning=pinned,
            ),
        )
        for streams, requests, pinned in grid
    )
