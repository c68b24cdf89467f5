"""How many threads the libraries in this process take for one call of theirs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import cv2
from threadpoolctl import threadpool_limits

_lock = threading.Lock()
_users = 0
_restore = ExitStack()


@contextmanager
def one_library_thread() -> Iterator[None]:
    """Hold BLAS, OpenCV and OpenMP to one thread a call, and restore what was set before.

    All cores are busy with frames: threads that a library wakes for a small matrix spin on them,
    at a higher priority than inference has. BLAS and OpenCV have one setting for the process; the
    last of several blocks at once restores it. OpenMP has one for each thread, here the caller's.
    """
    _enter()
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        _leave()


def _enter() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _restore.callback(cv2.setNumThreads, cv2.getNumThreads())
            cv2.setNumThreads(1)
        # Each time: more libraries may have been loaded.
        _restore.enter_context(threadpool_limits(1, user_api="blas"))


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _restore.close()
