"""Counts how often each fault did what it must not, and writes the table of docs/reliability.md."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.core.machine import available_cores, processor_name, versions
from tests.tables import write_section


@dataclass
class Row:
    """A line of the table: a fault, how often it was made, and when it did what it must not.

    measured: a figure worth telling.
    """

    fault: str
    how: str
    must_hold: str
    tries: int = 0
    failures: list[str] = field(default_factory=list)
    measured: str = ""
    seconds: float = 0.0

    @contextlib.contextmanager
    def attempt(self, name: object) -> Iterator[None]:
        """One try; what fails in it is noted, and does not keep the others from being made."""
        self.tries += 1
        try:
            yield
        except Exception as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}")


_ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Callable[..., contextlib.AbstractContextManager[Row]]:
    """fault(name, how, must_hold) -> a row, which at its end is in the table and must be clean."""
    rows = request.config.stash.setdefault(_ROWS, [])

    @contextlib.contextmanager
    def make(name: str, how: str, must_hold: str) -> Iterator[Row]:
        row, started = Row(name, how, must_hold), time.monotonic()
        rows.append(row)
        try:
            yield row
        finally:
            row.seconds = time.monotonic() - started
        assert row.tries > 0
        assert not row.failures, "\n".join(row.failures[:20])

    return make


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, [])
    if not rows:
        return
    terminalreporter.section("what was made to fail")
    for row in rows:
        held = row.tries - len(row.failures)
        terminalreporter.line(
            f"{held:>6} of {row.tries:<6} {row.seconds:>5.0f} s  {row.fault}"
            + (f": {row.measured}" if row.measured else "")
        )
    path: Path | None = config.getoption("--table")
    if path is not None:
        write_section(path, "What was made to fail", list(_page(rows)))


def _page(rows: list[Row]) -> Iterator[str]:
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    yield "Written by `make torture`, which makes every fault below on purpose, in real files,"
    yield "processes and disks, and counts how often the requirement was met."
    yield ""
    yield f"{available_cores()} cores of {processor_name() or 'an unnamed processor'}; {packages}."
    yield ""
    yield "| fault | how | must hold | held | measured | seconds |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        held = f"{row.tries - len(row.failures)} of {row.tries}"
        yield (
            f"| {row.fault} | {row.how} | {row.must_hold} | {held} | {row.measured} "
            f"| {row.seconds:.0f} |"
        )
