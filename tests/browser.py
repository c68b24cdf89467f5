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
def open_page() -> Iterator[Any]:
    """A page of Playwright's synchronous API; skips the test where there is no browser.

    For test after test: another page costs more than a second of CPU time, another address of the
    same one a fifth of it. `errors`: the messages of what its scripts raised.
    """
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
            page = browser.new_page()
            page.set_default_timeout(_LONGEST_MS)
            page.errors = []
            page.on("pageerror", lambda error: page.errors.append(str(error)))
            yield page
        finally:
            browser.close()


def load(page: Any, address: str, size_wh: tuple[int, int]) -> None:
    """Load a page anew in a window of this size."""
    page.goto("about:blank")  # Another fragment of the same address would load nothing.
    page.errors.clear()
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": size_wh[0], "height": size_wh[1]})
    page.goto(address)


def load_viewer(
    page: Any, folder: Path, fragment: str = "", size_wh: tuple[int, int] = (1100, 800)
) -> None:
    """The page of a result, once a picture or a message is there."""
    load(page, f"{(folder / 'viewer.html').as_uri()}{fragment}", size_wh)
    settled(page)


def settled(page: Any) -> None:
    """Wait until no seek is under way, or a message says why there is none."""
    page.wait_for_function(
        "document.querySelector('#message').textContent || (player.plays && player.wanted === null)"
    )


_OF_COLORS = ["color-contrast", "link-in-text-block"]
"""The rules of axe that depend on colours, which are all that a dark page has of its own."""


def violations(page: Any) -> list[str]:
    """What axe finds against a page, in light and in dark colours."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page.evaluate(axe.Axe().axe_script)
    found: list[str] = []
    for scheme, options in (("light", {}), ("dark", {"runOnly": _OF_COLORS})):
        page.emulate_media(color_scheme=scheme)
        found += page.evaluate(
            """options => axe.run({...options, resultTypes: ["violations"]}).then(results =>
              results.violations.map(rule => `${rule.id}: ${rule.nodes[0].html}`))""",
            options,
        )
    return found
