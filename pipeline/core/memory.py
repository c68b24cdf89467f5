"""Gives memory that is not used any more back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys


def release_memory() -> None:
    """Return freed memory to the system; on Linux with glibc, elsewhere only unused objects go.

    An encoder allocates on threads of its own, each of which may have an arena of glibc: what it
    frees stays in there, in pieces that the next encoder, on other threads, does not find.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # Another C library.
            ctypes.CDLL(None).malloc_trim(0)
