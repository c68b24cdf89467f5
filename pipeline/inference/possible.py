"""Checks options against the devices, because OpenVINO silently runs something else."""

from __future__ import annotations

from pipeline.core.config import AutoOptions, InferOptions
from pipeline.core.errors import UsageError
from pipeline.core.text import are, counted
from pipeline.inference.configurations import possible_devices
from pipeline.model.compiled import core

_CAPABILITIES = {"bf16": "BF16"}
"""Of the precisions that not every device has, what OpenVINO calls them."""


def require_possible(asked: InferOptions | AutoOptions, cores: int) -> None:
    """Raise UsageError for a precision that no device has, and for more streams than cores.

    cores: that the model may use. Devices that are not there are left to `require_device`.
    """
    openvino = core()
    devices = possible_devices(asked.device or "CPU", openvino.available_devices)
    capability = _CAPABILITIES.get(asked.precision or "")
    if capability and devices:
        have = {name: openvino.get_property(name, "OPTIMIZATION_CAPABILITIES") for name in devices}
        if not any(capability in names for names in have.values()):
            told = "; ".join(f"{name}: {', '.join(names)}" for name, names in have.items())
            raise UsageError(
                f"--precision {asked.precision} is unavailable here; OpenVINO supports {told}: "
                "use auto, f32 or int8"
            )
    if devices == ["CPU"] and (asked.num_streams or 0) > cores:
        raise UsageError(
            f"--streams {asked.num_streams} needs as many cores, but there "
            f"{are(cores)} {counted(cores, 'core')}; use fewer streams"
        )
