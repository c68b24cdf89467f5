"""Writes a section of a page in docs/ that tests measured, and leaves the others as they are."""

from __future__ import annotations

import re
from pathlib import Path


def write_section(page: Path, title: str, lines: list[str]) -> None:
    """Put lines under the heading `## title`; at the end of the page if it has none."""
    text = page.read_text(encoding="utf-8") if page.exists() else "# Reliability\n"
    section = "\n".join([f"## {title}", "", *lines, ""])
    heading = re.compile(rf"^## {re.escape(title)}$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if heading.search(text):
        text = heading.sub(lambda _: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    page.write_text(text.rstrip() + "\n", encoding="utf-8")
