"""What this machine is, as far as speed depends on it."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path

_REPORTED_PACKAGES = ("openvino", "av", "numpy", "opencv-python")


def available_cores() -> int:
    """Cores this process may use: its affinity, cut to the quota of its cgroup."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def has_native_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices natively (AMX).

    AVX-512 has bf16 instructions too, and OpenVINO then takes bf16 by default, but without AMX
    it was measured to be slower than float32.
    """
    return "amx_bf16" in _line_of("/proc/cpuinfo", "flags").split()


def processor_name() -> str:
    return _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """The most resident memory this process ever had, in 10^6 bytes."""
    high_water = _line_of("/proc/self/status", "VmHWM")
    if high_water:
        return int(high_water.split()[0]) * 1024 / 1e6
    # Elsewhere than on Linux; there, this would count what the parent had before exec too.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def process_cpu_seconds() -> float:
    """CPU time, user and system, of all threads of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {name: version(name) for name in _REPORTED_PACKAGES}
    return {"python": platform.python_version(), "pipeline": version("pipeline"), **found}


def _line_of(path: str, key: str) -> str:
    """What stands behind "key:" in a file of the kernel; empty where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
