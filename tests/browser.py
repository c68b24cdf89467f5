"""A real browser for tests of pages: Debian's chromium through Playwright's client."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_LONGEST_MS = 100_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def open_browser() -> Iterator[Any]:
    """A browser of Playwright's synchronous API; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu"]
        try:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=switches, timeout=_LONGEST_MS
            )
        except api.Error as error:
            pytest.skip(f"{CHROMIUM} does not start here: {str(error).splitlines()[0]}")
        try:
            yield browser
        finally:
            browser.close()


def open_viewer(browser: Any, folder: Path, address: str = "", **context: Any) -> Any:
    """The page of a result, once a picture or a message is there."""
    context = {"viewport": {"width": 1100, "height": 800}, **context}
    page = browser.new_page(**context)
    page.set_default_timeout(_LONGEST_MS)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(f"{(folder / 'viewer.html').as_uri()}{address}")
    settled(page)
    return page


def settled(page: Any) -> None:
    """Wait until no seek is under way, or a message says why there is none."""
    page.wait_for_function(
        "document.querySelector('#message').textContent || (player.plays && player.wanted === null)"
    )
