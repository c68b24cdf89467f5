"""Keeps threads and processes to some of the cores of this machine."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.core.errors import UsageError
from pipeline.core.machine import thread_ids

_LOOK_SECONDS = 0.1
_IDLE, _IO_WAIT = 4, 5
"""Fields of a line of /proc/stat."""


@contextlib.contextmanager
def on_cores(ids: Collection[int], thread_id: int = 0) -> Iterator[None]:
    """Keep a thread, and the threads and processes that it starts meanwhile, to these cores.

    thread_id: of the kernel; 0 is the calling thread. Without ids, elsewhere than on Linux, and for
    a thread that has ended, nothing changes.
    """
    if not ids or not hasattr(os, "sched_setaffinity"):
        yield
        return
    try:
        before = os.sched_getaffinity(thread_id)
        os.sched_setaffinity(thread_id, ids)
    except ProcessLookupError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread_id, before)


@contextlib.contextmanager
def limited_cores(number: int | None) -> Iterator[None]:
    """Keep all threads of this process, and what they start meanwhile, to so many cores.

    They are those that are least busy. None, and more than there are, change nothing. Raises
    UsageError elsewhere than on Linux.
    """
    if number is not None and not hasattr(os, "sched_getaffinity"):
        raise UsageError("--cores needs Linux: elsewhere, a process cannot be kept to some cores")
    if number is None or number >= len(os.sched_getaffinity(0)):
        yield
        return
    ids = _least_busy(number)
    with contextlib.ExitStack() as stack:
        for thread_id in thread_ids():
            stack.enter_context(on_cores(ids, thread_id))
        yield


def core_shares(num_processes: int) -> list[list[int]]:
    """The cores of this process, by their ids, divided among so many; empty lists elsewhere than
    on Linux."""
    if not hasattr(os, "sched_getaffinity"):
        return [[] for _ in range(num_processes)]
    ids = sorted(os.sched_getaffinity(0))
    bounds = [len(ids) * n // num_processes for n in range(num_processes + 1)]
    return [ids[begin:end] for begin, end in itertools.pairwise(bounds)]


def _least_busy(number: int) -> list[int]:
    before = _idle_ticks()
    time.sleep(_LOOK_SECONDS)
    idle = {core: ticks - before.get(core, 0) for core, ticks in _idle_ticks().items()}
    ids = sorted(os.sched_getaffinity(0), key=lambda core: (-idle.get(core, 0), core))
    return ids[:number]


def _idle_ticks() -> dict[int, int]:
    """How long each core has been idle, by its id; empty if that is not known."""
    try:
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    except OSError:
        return {}
    return {
        int(words[0][3:]): int(words[_IDLE]) + int(words[_IO_WAIT])
        for words in lines
        if words and words[0][:3] == "cpu" and words[0][3:].isdecimal()
    }
