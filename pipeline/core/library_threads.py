"""The number of threads that libraries in this process use for one call."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import cv2
from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_users = 0
_restore = ExitStack()


@contextmanager
def one_library_thread() -> Iterator[None]:
    """Limit BLAS, OpenCV and OpenMP to one thread per call, and restore the old setting.

    All cores are busy with frames: threads that a library wakes for a small matrix would spin on
    them at a higher priority than inference. BLAS and OpenCV have one setting per process; the
    last of several concurrent blocks restores it. OpenMP has one per thread, here the caller's.
    """
    libraries = _loaded(len(sys.modules))
    _enter(libraries)
    try:
        with libraries.limit(limits=1, user_api="openmp"):
            yield
    finally:
        _leave()


@functools.lru_cache(maxsize=1)
def _loaded(num_modules: int) -> ThreadpoolController:
    """The libraries that are loaded; those of modules that are imported later are more."""
    del num_modules
    return ThreadpoolController()


def _enter(libraries: ThreadpoolController) -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _restore.callback(cv2.setNumThreads, cv2.getNumThreads())
            cv2.setNumThreads(1)
        _restore.enter_context(libraries.limit(limits=1, user_api="blas"))


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _restore.close()
