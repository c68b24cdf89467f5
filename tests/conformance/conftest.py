"""Counts how clips came out, and writes the table of docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.verdict import Outcome, Verdict
from tests.tables import write_section

_TITLE = "Clips of every kind"
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
        write_section(path, _TITLE, list(_page(table)))


def _page(table: Table) -> Iterator[str]:
    yield "Written by `make conformance`. FFmpeg's program makes each clip. What it shows of the"
    yield "result is held against what it shows of the source: number and times of frames, start"
    yield "and end of each sound, pictures. A warning names what the result does not have; a"
    yield "refusal is one line that says why."
    yield ""
    yield "| clips | tried | right | right, with a warning | refused | wrong |"
    yield "| --- | --- | --- | --- | --- | --- |"
    total: Counter[str] = Counter()
    for family, verdicts in table.rows.items():
        counts = Counter(str(verdict.outcome) for verdict in verdicts)
        total += counts
        cells = " | ".join(str(counts[column]) for column in _COLUMNS)
        yield f"| {family} | {len(verdicts)} | {cells} |"
    yield f"| all | {total.total()} | {' | '.join(str(total[column]) for column in _COLUMNS)} |"
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
