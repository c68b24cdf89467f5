"""A template of this package and values -> an HTML page."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from jinja2.bccache import Bucket

from pipeline.core.cache import cache_dir, publish
from pipeline.core.errors import ModelError
from pipeline.core.machine import package_version
from pipeline.core.text import counted, duration, printable

_SETTINGS_VERSION = 1
"""The version of the template environment: raise it with each change to that."""


def render_page(template: str, **values: Any) -> str:
    """Render a template, given by its path inside the package."""
    return templates().get_template(template).render(**values)


@functools.cache
def templates() -> jinja2.Environment:
    """The templates of this package; compiled once in a process."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        bytecode_cache=_CompiledTemplates(),
    )
    environment.filters |= {"counted": counted, "duration": duration}
    return environment


def _shown(value: object) -> object:
    """Escape plain text, which may come from hostile files; markup is trusted."""
    return printable(value) if type(value) is str else value


class _CompiledTemplates(jinja2.BytecodeCache):
    """Keeps compiled templates in the cache folder, if that can be written.

    Compiling takes twenty times as long as rendering. Jinja's own cache runs damaged files and
    ignores the settings above; here each file begins with a digest of both.
    """

    def load_bytecode(self, bucket: Bucket) -> None:
        with contextlib.suppress(OSError):
            kept = _file(bucket).read_bytes()
            digest, code = kept[:32], kept[32:]
            if digest == _digest(code):
                bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        code = bucket.bytecode_to_string()
        with contextlib.suppress(ModelError):
            publish(_file(bucket), lambda path: path.write_bytes(_digest(code) + code))


def _file(bucket: Bucket) -> Path:
    return cache_dir() / "pages" / f"{bucket.key}.jinja-code"


def _digest(code: bytes) -> bytes:
    settings = f"{_SETTINGS_VERSION} {package_version('jinja2')}".encode()
    return hashlib.sha256(settings + code).digest()
