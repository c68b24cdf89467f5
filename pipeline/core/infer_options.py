"""The options that say how the model runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated

from pipeline.core.options import Option, require, validate

_MOST_REQUESTS = 1024

_DEVICE = Option("--device", "OpenVINO device", metavar="NAME", parse=str.upper)
_HINT = Option(
    "--hint",
    "performance hint",
    choices=("THROUGHPUT", "LATENCY", "CUMULATIVE_THROUGHPUT", "NONE"),
)
_PRECISION = Option(
    "--precision",
    "precision of inference (default: auto)",
    choices=("auto", "f32", "bf16", "int8"),
)
_STREAMS = Option(
    "--streams",
    "inference streams, at most one per core",
    metavar="N",
    lowest=1,
    highest=_MOST_REQUESTS,
)
_REQUESTS = Option(
    "--requests", "inference requests", metavar="N", lowest=1, highest=_MOST_REQUESTS
)
_BATCH = Option("--batch", "frames per request", metavar="N", lowest=1, highest=64)


@dataclass(frozen=True, kw_only=True, slots=True)
class InferOptions:
    """How the model runs.

    engine: "openvino", or "pytorch", which runs the checkpoint itself, one frame at a time; all
        other options are for OpenVINO.
    device: an OpenVINO device name ("CPU", "GPU.0", "AUTO", ...).
    hint: OpenVINO's performance hint; "NONE" sets none.
    precision: "auto" selects bf16 if this processor is faster in it, else f32; "int8" is the
        quantised model.
    num_streams, num_threads: None leaves the number to OpenVINO.
    num_requests: None selects enough for one to wait for each stream.
    pinning: whether threads are pinned to cores; None leaves that to OpenVINO.
    """

    engine: Annotated[str, Option(choices=("openvino", "pytorch"))] = "openvino"
    device: Annotated[str, _DEVICE] = "CPU"
    hint: Annotated[str, _HINT] = "THROUGHPUT"
    precision: Annotated[str, _PRECISION] = "auto"
    batch: Annotated[int, _BATCH] = 1
    num_streams: Annotated[int | None, _STREAMS] = None
    num_requests: Annotated[int | None, _REQUESTS] = None
    num_threads: Annotated[int | None, Option(name="threads", lowest=1, highest=_MOST_REQUESTS)] = (
        None
    )
    pinning: bool | None = None

    def __post_init__(self) -> None:
        validate(self)
        require(self.device != "", "--device: the name is empty")
        require(
            self.engine == "openvino" or (self.batch == 1 and self.precision in ("auto", "f32")),
            "PyTorch runs one frame at a time, in f32",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoOptions:
    """Select the tuned configuration of this machine, else a rule; overridden by values here."""

    device: Annotated[str | None, _DEVICE] = None
    hint: Annotated[str | None, _HINT] = None
    precision: Annotated[str | None, _PRECISION] = None
    num_streams: Annotated[int | None, _STREAMS] = None
    num_requests: Annotated[int | None, _REQUESTS] = None
    batch: Annotated[int | None, _BATCH] = None

    def __post_init__(self) -> None:
        validate(self)
        self.over(InferOptions())  # Validates them together.

    def over(self, selected: InferOptions) -> InferOptions:
        """The selected options, with the values here in place of theirs."""
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            selected, **{key: value for key, value in asked.items() if value is not None}
        )
