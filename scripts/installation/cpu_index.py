"""Print pip's option for an index of CPU builds of PyTorch, if that index answers within seconds.

Elsewhere PyTorch comes with gigabytes of CUDA. An index that does not answer must not hold pip up,
which asks each one again and again.

    python scripts/installation/cpu_index.py https://download.pytorch.org/whl/cpu
"""

from __future__ import annotations

import sys
import urllib.request

TIMEOUT_SECONDS = 5.0


def index_option(url: str) -> str:
    """ "--extra-index-url URL", or nothing where no such index lists torch."""
    if not url.startswith(("http://", "https://")):
        return ""
    page = f"{url.rstrip('/')}/torch/"
    try:
        with urllib.request.urlopen(page, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            found = b"torch" in answer.read()
    except (OSError, ValueError):
        return ""
    return f"--extra-index-url {url}" if found else ""


if __name__ == "__main__":
    print(index_option(sys.argv[1]))
