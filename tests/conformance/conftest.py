"""Counts how clips came out, and writes the table of docs/reliability.md.

Rows of families that were not run stay as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.verdict import Outcome, Verdict
from tests.tables import write_section

_TITLE = "Clips of every kind"
_ALL = "all"
_COLUMNS: tuple[Outcome, ...] = ("right", "warned", "refused", "wrong")


@dataclass
class Table:
    """A row for each family of clips."""

    rows: dict[str, list[Verdict]] = field(default_factory=dict)

    def add(self, family: str, verdicts: list[Verdict]) -> None:
        self.rows[family] = [v for v in verdicts if v.outcome in _COLUMNS]


_TABLE = pytest.StashKey[Table]()


@pytest.fixture
def conformance_table(request: pytest.FixtureRequest) -> Table:
    return request.config.stash.setdefault(_TABLE, Table())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    table = config.stash.get(_TABLE, None)
    if table is None:
        return
    terminalreporter.section(_TITLE.lower())
    for family, verdicts in table.rows.items():
        counts = Counter(verdict.outcome for verdict in verdicts)
        shown = ", ".join(f"{counts[column]} {column}" for column in _COLUMNS)
        terminalreporter.line(f"{family}: {len(verdicts)} clips, {shown}")
    path: Path | None = config.getoption("--table", None)
    if path is not None:
        write_section(path, _TITLE, list(_page(table, _rows_of(path))))


def _rows_of(page: Path) -> dict[str, list[int]]:
    """The counts of each family as a run before has written them."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    _, _, section = text.partition(f"## {_TITLE}\n")
    rows = re.findall(
        r"^\| (.+?) \| \d+ ((?:\| \d+ ){4})\|$", section.split("\n## ")[0], re.MULTILINE
    )
    found = {family: [int(n) for n in re.findall(r"\d+", cells)] for family, cells in rows}
    return {family: counts for family, counts in found.items() if family != _ALL}


def _page(table: Table, rows: dict[str, list[int]]) -> Iterator[str]:
    """rows: of families that were not run this time."""
    yield "Written by `make conformance`. FFmpeg makes each clip, and decodes both the"
    yield "source and the result, which are compared: number and times of frames, start"
    yield "and end of each sound, pictures. A warning names what the result lacks; a"
    yield "refusal is one line that says why."
    yield ""
    yield "| clips | tried | right | right, with a warning | refused | wrong |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for family, verdicts in table.rows.items():
        found = Counter(verdict.outcome for verdict in verdicts)
        rows[family] = [found[column] for column in _COLUMNS]
    total = [sum(counts) for counts in zip(*rows.values(), strict=True)]
    for family, counts in [*rows.items(), (_ALL, total)]:
        yield f"| {family} | {sum(counts)} | {' | '.join(map(str, counts))} |"
    refusals = Counter(
        _reason(v) for of in table.rows.values() for v in of if v.outcome == "refused"
    )
    if refusals:
        yield ""
        yield "Refused:"
        yield ""
        for reason, count in refusals.most_common():
            yield f"- {count}: {reason}"


def _reason(verdict: Verdict) -> str:
    return verdict.reason.removeprefix(f"{verdict.recipe.file}: ")
