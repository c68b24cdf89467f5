"""Templates are compiled once, and pages come out whatever the cache folder is like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest

from pipeline.core.cache import cache_dir
from pipeline.run.page import render_page, templates


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The templates that were compiled, in an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: list[str] = []
    generate = jinja2.Environment._generate

    def noting(self: jinja2.Environment, source: Any, name: str, *rest: Any, **more: Any) -> str:
        names.append(name)
        return generate(self, source, name, *rest, **more)

    monkeypatch.setattr(jinja2.Environment, "_generate", noting)
    return names


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One small template in place of the package's own."""
    templates.cache_clear()
    loader = jinja2.DictLoader({"hello.jinja": "<p>{{ name }}</p>"})
    monkeypatch.setattr(jinja2, "PackageLoader", lambda *_: loader)
    yield
    templates.cache_clear()


def test_a_template_is_compiled_once(compiled: list[str]) -> None:
    pages = []
    for name in ("<b>", "you"):
        templates.cache_clear()  # As in a new process.
        pages.append(render_page("hello.jinja", name=name))
    assert pages == ["<p>&lt;b&gt;</p>", "<p>you</p>"]
    assert compiled == ["hello.jinja"]


def test_what_is_missing_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render_page("hello.jinja")


@pytest.mark.parametrize("kept_bytes", [0, 10, 40, -1])
def test_a_damaged_compiled_template_is_not_run(compiled: list[str], kept_bytes: int) -> None:
    render_page("hello.jinja", name="you")
    (file,) = (cache_dir() / "pages").iterdir()
    file.write_bytes(file.read_bytes()[:kept_bytes])
    for _ in range(2):
        templates.cache_clear()  # As in a new process.
        assert render_page("hello.jinja", name="you") == "<p>you</p>"
    assert len(compiled) == 2


def test_a_cache_folder_that_cannot_be_written_costs_only_time(compiled: list[str]) -> None:
    cache_dir().parent.mkdir()
    cache_dir().write_text("not a folder")
    for _ in range(2):
        templates.cache_clear()  # As in a new process.
        assert render_page("hello.jinja", name="you") == "<p>you</p>"
    assert len(compiled) == 2
