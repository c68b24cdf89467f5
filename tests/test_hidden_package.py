"""A package that is hidden from one thread, while others import it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path

import pytest

from pipeline.core.hidden_package import hidden_package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "hideable").mkdir()
    (tmp_path / "hideable" / "__init__.py").write_text("VALUE = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hideable", raising=False)
    return "hideable"


def test_it_is_hidden_in_this_thread_until_the_end(package: str) -> None:
    before = list(sys.meta_path)
    with hidden_package(package):
        spec = importlib.util.find_spec(package)
        assert spec is None or spec.origin is None
        with pytest.raises(ImportError):
            importlib.import_module(package)
        assert package not in sys.modules
    assert sys.meta_path == before
    assert importlib.import_module(package).VALUE == 7
    del sys.modules[package]


def test_another_thread_imports_it_meanwhile(package: str) -> None:
    found: list[int] = []
    with hidden_package(package):
        thread = threading.Thread(
            target=lambda: found.append(importlib.import_module(package).VALUE)
        )
        thread.start()
        thread.join()
        assert found == [7]
        assert importlib.import_module(package).VALUE == 7  # It is loaded.
    del sys.modules[package]
