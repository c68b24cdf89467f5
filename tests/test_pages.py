"""The pages of real runs: readable on a telephone, with links that lead somewhere."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline.batch.page import update_batch_page
from pipeline.cli.commands import main
from pipeline.core.config import SyntheticOptions
from pipeline.measure.benchmark import BenchOptions, benchmark
from pipeline.measure.chart import write_bench
from tests.browser import load, open_page, violations
from tests.conftest import TINY_INPUT_WH, with_light, write_clip

NAME = "camera <i>&amp; with a long name 2026-11-25T20-00-00.mp4"
PAGES = ["report.html", "batch.html", "bench.html"]


@pytest.fixture(scope="module")
def pages(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the pages are, of two clips, one broken, and of two configurations."""
    folder = tmp_path_factory.mktemp("pages")
    footage, out = folder / "footage", folder / "out"
    footage.mkdir()
    write_clip(footage / NAME, [with_light((i, 3)) for i in range(8)])
    (footage / "broken.mp4").write_text("no video")
    options = ["--weights", str(tiny_weights), "--output-dir", str(out), "--quiet"]
    assert main(["process", str(footage), *options]) == 1
    bench = BenchOptions(
        source=SyntheticOptions(num_frames=6, size_wh=TINY_INPUT_WH),
        num_frames=8,
        num_rounds=1,
        weights=tiny_weights,
        names=("openvino", "gpu"),
    )
    write_bench(benchmark(bench, devices=["CPU"]), folder / "bench")
    (report,) = out.rglob("report.html")
    return {
        "report.html": report,
        "batch.html": out / "batch.html",
        "bench.html": folder / "bench" / "bench.html",
    }


def links_of(page: Path) -> list[Path]:
    text = page.read_text(encoding="utf-8")
    hrefs = [html.unescape(link) for link in re.findall(r'href="([^"]*)"', text)]
    return [page.parent / unquote(link.partition("#")[0]) for link in hrefs]


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_beside_the_page(name: str, pages: dict[str, Path]) -> None:
    links = links_of(pages[name])
    assert links
    assert all(link.is_file() for link in links)


@pytest.mark.parametrize("name", ["report.html", "batch.html"])
def test_the_annotated_clip_is_linked(name: str, pages: dict[str, Path]) -> None:
    assert pages["report.html"].parent / "annotated.mp4" in links_of(pages[name])


def test_the_page_of_a_batch_shows_each_result_with_a_picture_its_boxes_and_its_viewer(
    pages: dict[str, Path],
) -> None:
    page = pages["batch.html"]
    assert pages["report.html"].parent / "viewer.html" in links_of(page)
    text = page.read_text(encoding="utf-8")
    assert text.count('<img src="data:image/jpeg;base64,') == 1
    assert "8 boxes: light 8" in text


def test_the_page_of_a_batch_has_what_the_reports_say_of_lines_and_zones_now(
    pages: dict[str, Path],
) -> None:
    page = pages["batch.html"]
    before = page.read_text(encoding="utf-8")
    path = pages["report.html"].parent / "report.json"
    kept = path.read_text(encoding="utf-8")
    line = {"name": "gate <1>", "crossings": {"in": {"light": 3}, "out": {}}}
    zone = {"name": "yard", "visits": {"light": {"visits": 1}}}
    report = {**json.loads(kept), "events": {"lines": [line], "zones": [zone]}}
    path.write_text(json.dumps(report), encoding="utf-8")
    update_batch_page(page.parent)
    text = html.unescape(page.read_text(encoding="utf-8"))
    assert "line gate <1>: 3 in, 0 out" in text
    assert "zone yard: 1 visit<" in text
    path.write_text(kept, encoding="utf-8")
    update_batch_page(page.parent)
    assert page.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("name", PAGES)
def test_wide_tables_have_a_label_for_every_cell_of_a_number(
    name: str, pages: dict[str, Path]
) -> None:
    text = pages[name].read_text(encoding="utf-8")
    assert "width=device-width" in text
    assert "@media (max-width: 720px)" in text
    for table in re.findall(r"<table[^>]*>.*?</table>", text, re.DOTALL):
        most = max(row.count("<td") for row in table.split("<tr"))
        assert most <= 5 or 'class="stack"' in table


def test_what_is_the_fastest_stands_there_as_it_is_typed(pages: dict[str, Path]) -> None:
    text = html.unescape(pages["bench.html"].read_text(encoding="utf-8"))
    assert "<code>make process VIDEO=clip.mp4 CONFIG=openvino</code>" in text


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with open_page() as opened:
        yield opened


NARROW_CELLS = """[...document.querySelectorAll("td, th")].filter(cell =>
  cell.textContent.trim().length > 4 && cell.getClientRects().length && cell.clientWidth < 30)"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_needs_no_scrolling_to_the_side(
    name: str, width: int, page: Any, pages: dict[str, Path]
) -> None:
    load(page, pages[name].as_uri(), (width, 800))
    root = "document.documentElement"
    client_width = page.evaluate(f"{root}.clientWidth")
    assert width - 20 <= client_width <= width
    assert page.evaluate(f"{root}.scrollWidth") <= client_width
    assert page.evaluate(f"{NARROW_CELLS}.length") == 0


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(name: str, page: Any, pages: dict[str, Path]) -> None:
    load(page, pages[name].as_uri(), (390, 844))
    assert violations(page) == []
