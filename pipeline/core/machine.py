"""The properties of this machine that decide its speed."""

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
"""Distributions with the same modules that a light install has instead of others."""


def available_cores(
    cgroup_file: Path = Path("/proc/self/cgroup"), cgroup_root: Path = Path("/sys/fs/cgroup")
) -> int:
    """The number of cores of this process: its affinity, limited by its control groups."""
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
    """The quotas, in cores, of the groups of this process, up to the root; None for no limit.

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
        # A container may see its own group as the root, under the path on the host.
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
    """The instruction set for bf16: "amx", "avx512", or None."""
    flags = _line_of("/proc/cpuinfo", "flags").split()
    if "amx_bf16" in flags:
        return "amx"
    return "avx512" if "avx512_bf16" in flags else None


@functools.cache
def processor_name() -> str:
    return _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def peak_memory_mb() -> float:
    """The peak resident memory of this process, in 10^6 bytes."""
    high_water = _line_of("/proc/self/status", "VmHWM")
    if high_water:
        return int(high_water.split()[0]) * 1024 / 1e6
    # Not on Linux, where this includes the memory of the parent before exec.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def process_cpu_seconds() -> float:
    """CPU time, user and system, of all threads of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def versions() -> dict[str, str]:
    """The versions that a result depends on: Python, this package, its libraries."""
    found = {name: package_version(name) for name in _REPORTED_PACKAGES}
    return {"python": platform.python_version(), "pipeline": package_version("pipeline"), **found}


def tracker_versions() -> dict[str, str]:
    """The versions that the ids of tracks depend on. Raises PackageNotFoundError."""
    return {name: package_version(name) for name in ("trackers", "supervision", "scipy")}


@functools.cache
def package_version(package: str) -> str:
    """The version that is installed. Raises PackageNotFoundError."""
    try:
        return version(package)  # Cached: reads all metadata of the package.
    except PackageNotFoundError:
        if package not in _SAME_PACKAGES:
            raise
        return version(_SAME_PACKAGES[package])


def _line_of(path: str, key: str) -> str:
    """The value of "key:" in a file of the kernel; empty if there is none."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


def thread_ids() -> frozenset[int]:
    """The kernel's ids of this process's threads; empty if they cannot be listed."""
    try:
        return frozenset(map(int, os.listdir("/proc/self/task")))  # noqa: PTH208
    except OSError:
        return frozenset()


def nicer(increment: int, work: Callable[[], Result]) -> Result:
    """Run work on a new thread with a higher niceness, which its own threads inherit.

    On other systems than Linux, niceness is a property of processes and does not change.
    """

    def do() -> Result:
        if sys.platform == "linux":
            os.nice(increment)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(do).result()


def thread_cpu_seconds() -> dict[int, float]:
    """CPU time, user and system, of each thread by its id; empty if threads cannot be listed."""
    seconds = {}
    for thread_id in thread_ids():
        with contextlib.suppress(OSError):  # It has ended.
            # The clock id of one thread on Linux: see pthread_getcpuclockid(3).
            seconds[thread_id] = time.clock_gettime((~thread_id << 3) | 6)
    return seconds
