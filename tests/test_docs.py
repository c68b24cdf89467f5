"""The README and the pages in docs/ are short enough, and name only what exists."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from pipeline.cli.parsers import COMMANDS, parse_arguments

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)#:]*)(?:#([^)]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The names under which GitHub links to the headings of a page."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for name, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {name}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {name}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_in_the_pages_exist(page: Path) -> None:
    named = re.findall(r"(?:`|^    )make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.M)
    assert set(named) <= TARGETS


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Of all commands."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for command in ([], *([name] for name in COMMANDS)):
            with pytest.raises(SystemExit):
                parse_arguments([*command, "--help"])
    return set(re.findall(r"--[a-z][a-z-]+", printed.getvalue()))


@pytest.mark.parametrize("name", ["README.md", "docs/usage.md", "docs/models.md"])
def test_options_in_the_pages_exist(name: str, options: set[str]) -> None:
    named = set(re.findall(r"--[a-z][a-z-]+", (ROOT / name).read_text(encoding="utf-8")))
    pip = {"--no-deps", "--extra-index-url"}
    assert named - pip <= options


def test_modules_in_the_table_of_steps_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = re.findall(r"`((?:core|media|model|inference|frames|execution|run)/\w+\.py)`", text)
    assert len(modules) > 15
    assert [name for name in modules if not (ROOT / "pipeline" / name).is_file()] == []
