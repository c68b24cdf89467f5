"""A package counts as not installed in one thread: for libraries that import it needlessly."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import NoReturn


@contextmanager
def hidden_package(name: str) -> Iterator[None]:
    """Make imports of a package fail in this thread, unless it is loaded already.

    Other threads may import it meanwhile.
    """
    hidden = _Hidden(name)
    # A new list: other threads may be going through the old one.
    sys.meta_path = [hidden, *sys.meta_path]
    try:
        yield
    finally:
        sys.meta_path = [finder for finder in sys.meta_path if finder is not hidden]


class _Hidden(MetaPathFinder, Loader):
    """Finds the package in one thread, and refuses to load it; its spec has no origin."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname == self._name and threading.get_ident() == self._thread:
            return ModuleSpec(fullname, self)
        return None

    def create_module(self, spec: ModuleSpec) -> NoReturn:
        # Here rather than in exec_module, before which other threads would see an empty module.
        raise ModuleNotFoundError(f"{spec.name} is hidden", name=spec.name)

    def exec_module(self, module: object) -> None:
        """Is not reached."""
