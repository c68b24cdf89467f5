"""Text for people: numbers with the right form of what they count."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

import pipeline
from pipeline.core.text import are, counted

_NOUNS = "frame|line|segment|clip|picture|stream|core|round|request|box|packet|image|photograph"
_PLURAL = re.compile(rf" (?:\w+ )?(?:{_NOUNS})e?s\b(?! per)")
PACKAGE = Path(pipeline.__file__).parent


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 boxes are"), (1, "1 box is"), (2, "2 boxes are"), (1234, "1,234 boxes are")],
)
def test_one_is_singular(number: int, text: str) -> None:
    assert f"{counted(number, 'box', 'boxes')} {are(number)}" == text


def _plurals(tree: ast.AST) -> list[int]:
    """The lines of f-strings in which a number that may be one stands before a plural."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        for number, text in itertools.pairwise(node.values):
            if isinstance(number, ast.FormattedValue) and isinstance(text, ast.Constant):
                value = ast.unparse(number.value)
                is_constant = re.fullmatch(r"[A-Z_]+", value)
                is_text = "counted(" in value or ".join(" in value
                if _PLURAL.match(str(text.value)) and not is_constant and not is_text:
                    found.append(node.lineno)
    return found


def test_a_plural_behind_a_number_that_may_be_one_is_found() -> None:
    assert _plurals(ast.parse('f"{n} frames"\nf"{n} bad packets"')) == [1, 2]
    assert not _plurals(ast.parse("f\"{fps} frames per second, {counted(n, 'box')}\""))


def test_no_message_has_a_plural_behind_a_number_that_may_be_one() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in _plurals(ast.parse(path.read_text(encoding="utf-8")))
    ]
    pages = [
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in sorted(PACKAGE.rglob("*.jinja"))
        for text in re.findall(rf"}}}}(?:{_PLURAL.pattern})", path.read_text(encoding="utf-8"))
    ]
    assert found + pages == []
