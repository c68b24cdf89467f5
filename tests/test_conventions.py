"""What the tests themselves keep to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MODULES = sorted(Path(__file__).parent.rglob("*.py"))
FROM_A_TEST = re.compile(r"^\s*(from|import) tests\.([a-z]+\.)?test_", re.MULTILINE)
PRIVATE = re.compile(r'setattr\((\s*"pipeline[\w.]*\._|(?!jinja2)[\w.]+, "_)(?!_)')


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_what_tests_share_is_in_modules_of_its_own_and_they_patch_public_names(
    module: Path,
) -> None:
    text = module.read_text(encoding="utf-8")
    assert not FROM_A_TEST.search(text)
    assert not PRIVATE.search(text)
