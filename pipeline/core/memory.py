"""When memory that is not used any more goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""The numbers of M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h."""
_MOST_FREE_BYTES, _LARGEST_FREE_BYTES = 64 << 20, 32 << 20
"""glibc takes no larger second one."""


def keep_memory() -> None:
    """Keep what is freed for the next clip, up to 64 MB in each arena, until `release_memory`.

    By default glibc returns it at once, and each page that is taken again costs a page fault:
    of a short clip with its decoder and encoder, thousands.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # Another C library.
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, _MOST_FREE_BYTES)
            libc.mallopt(_MMAP_THRESHOLD, _LARGEST_FREE_BYTES)


def release_memory() -> None:
    """Return freed memory to the system; on Linux with glibc, elsewhere only unused objects go.

    An encoder allocates on threads of its own, each of which may have an arena of glibc: what it
    frees stays in there, in pieces that the next encoder, on other threads, does not find.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # Another C library.
            ctypes.CDLL(None).malloc_trim(0)
