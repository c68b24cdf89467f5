"""The time that frames take, and the CPU time of every thread meanwhile, by what it does."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pipeline.core.machine import thread_cpu_seconds
from pipeline.frames.stats import ENCODING_THREAD, RunStats

INFERENCE, DECODER, ENCODER = "inference", "decoder", "encoder"
DECODING_THREAD = "decode"
ENDED = "threads that have ended"
KNOWN = (INFERENCE, DECODER, ENCODER, DECODING_THREAD, ENCODING_THREAD)
"""The names of threads that work on frames; others have what they are called by the system."""


def workers(decoders: Iterable[int], encoders: Iterable[int]) -> dict[int, str]:
    """The names of threads that libraries started, by the kernel's ids."""
    return {**dict.fromkeys(decoders, DECODER), **dict.fromkeys(encoders, ENCODER)}


class CpuAccount:
    """Begins to count when it is made, on the thread that encodes.

    alone: whether no other clip is worked on in this process; if not, only threads that certainly
    work on frames of this one count, and those of inference.
    """

    def __init__(self, *, alone: bool = True) -> None:
        self._alone = alone
        self._started = time.perf_counter()
        self._process_seconds = time.process_time()
        self._own_seconds = time.thread_time()
        self._threads_seconds = thread_cpu_seconds()

    def record(
        self,
        stats: RunStats,
        names: Mapping[int, str],
        decoding_seconds: float,
        infers: Callable[[int], bool] = lambda _: False,
        *,
        all_infer: bool = False,
    ) -> None:
        """Record the time since the account was opened, and the CPU time by the name of the thread.

        If alone, all of them together are those of the process.

        names: see `workers`.
        decoding_seconds: of the thread that decodes, as it measured them itself.
        infers: whether a thread, by the kernel's id, infers.
        all_infer: whether other threads that have ended inferred, as PyTorch's have.
        """
        spent = self._spent(names, decoding_seconds, infers, all_infer=all_infer)
        stats.thread_cpu_seconds = spent
        stats.frames_cpu_seconds = sum(spent.values())
        stats.frames_wall_seconds = time.perf_counter() - self._started

    def _spent(
        self,
        names: Mapping[int, str],
        decoding_seconds: float,
        infers: Callable[[int], bool],
        *,
        all_infer: bool,
    ) -> dict[str, float]:
        total = time.process_time() - self._process_seconds
        now = thread_cpu_seconds()
        called = {thread.native_id: thread.name for thread in threading.enumerate()}
        spent: defaultdict[str, float] = defaultdict(float)
        spent[DECODING_THREAD] = decoding_seconds
        spent[ENCODING_THREAD] = time.thread_time() - self._own_seconds
        for thread_id, seconds in now.items():
            if thread_id == threading.get_native_id():
                continue
            name = names.get(thread_id)
            if name is None and infers(thread_id):
                name = INFERENCE
            name = name or called.get(thread_id) or _name_of(thread_id)
            if name != DECODING_THREAD:  # It may be about to end.
                spent[name] += seconds - self._threads_seconds.get(thread_id, 0.0)
        if not self._alone:
            return {name: spent[name] for name in KNOWN if name in spent}
        # Where threads cannot be listed, inference is what nothing else was.
        ended = INFERENCE if all_infer or not now else ENDED
        spent[ended] += max(0.0, total - sum(spent.values()))
        return dict(spent)


def _name_of(thread_id: int) -> str:
    try:
        return Path(f"/proc/self/task/{thread_id}/comm").read_text().strip() or "unnamed"
    except OSError:
        return ENDED
