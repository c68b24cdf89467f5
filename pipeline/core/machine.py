"""What this machine is, as far as speed depends on it."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_REPORTED_PACKAGES = ("openvino", "av", "numpy", "opencv-python")
_SAME_PACKAGES = {"opencv-python": "opencv-python-headless"}
"""Distributions that a light install has in place of others: the same modules."""


def available_cores(
    cgroup_file: Path = Path("/proc/self/cgroup"), cgroup_root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Cores this process may use: its affinity, cut to the quota of its control groups."""
    quotas = [quota for quota in _cpu_quotas(cgroup_file, cgroup_root) if quota is not None]
    return max(1, min([_cores_of_affinity(), *(int(quota) for quota in quotas)]))


def has_core_quota() -> bool:
    """Whether a control group allows less than the affinity does."""
    return available_cores() < _cores_of_affinity()


def _cores_of_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quotas(cgroup_file: Path, cgroup_root: Path) -> Iterator[float | None]:
    """The quota in cores of every group this process is in, up to the root; None for no limit.

    Lines are "0::/path" for version 2, and "number:controllers:/path" for version 1.
    """
    try:
        lines = cgroup_file.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root = cgroup_root
        elif "cpu" in controllers.split(","):
            root = cgroup_root / "cpu"
        else:
            continue
        group = root / path.lstrip("/")
        # A container may see its own group as the root, under the path that the host knows.
        for folder in {group, *(p for p in group.parents if p.is_relative_to(root)), root}:
            yield _quota_of(folder)


def _quota_of(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None  # No such group, or "max".


def bf16_instructions() -> str | None:
    """What multiplies bf16 here: "amx" (matrices), "avx512", or None."""
    flags = _line_of("/proc/cpuinfo", "flags").split()
    if "amx_bf16" in flags:
        return "amx"
    return "avx512" if "avx512_bf16" in flags else None


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
    found = {name: _version(name) for name in _REPORTED_PACKAGES}
    return {"python": platform.python_version(), "pipeline": _version("pipeline"), **found}


@functools.cache
def _version(package: str) -> str:
    try:
        return version(package)  # Reads all that is known of the package, each time.
    except PackageNotFoundError:
        if package not in _SAME_PACKAGES:
            raise
        return version(_SAME_PACKAGES[package])


def _line_of(path: str, key: str) -> str:
    """What stands behind "key:" in a file of the kernel; empty where there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def thread_ids() -> frozenset[int]:
    """The kernel's ids of this process's threads; empty where they cannot be listed."""
    try:
        return frozenset(int(entry.name) for entry in Path("/proc/self/task").iterdir())
    except OSError:
        return frozenset()


def nicer(increment: int, work: Callable[[], Result]) -> Result:
    """Do work on a thread of its own that is nicer by so much; threads that it starts are too.

    Elsewhere than on Linux, where niceness is of whole processes, they stay as they are.
    """

    def do() -> Result:
        if sys.platform == "linux":
            os.nice(increment)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(do).result()


def thread_cpu_seconds() -> dict[int, float]:
    """CPU time, user and system, of every thread so far, by its id; empty where none is listed."""
    seconds = {}
    for thread_id in thread_ids():
        with contextlib.suppress(OSError):  # It has ended.
            # What Linux names the clock of one thread: see pthread_getcpuclockid(3).
            seconds[thread_id] = time.clock_gettime((~thread_id << 3) | 6)
    return seconds
