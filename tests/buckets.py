"""An object store for a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import s3fs

SECRET = "do-not-print-this"


def settings_of(server: str) -> dict[str, str]:
    """What tells the packages of the store where it is, and who asks."""
    return {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextlib.contextmanager
def a_bucket() -> Iterator[Any]:
    """A bucket named footage, for as long as the context lasts."""
    s3fs.S3FileSystem.clear_instance_cache()
    filesystem = s3fs.S3FileSystem()
    filesystem.mkdir("footage")
    yield filesystem
    filesystem.rm("footage", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
