"""The targets of the Makefile: what they take, and what they refuse."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")


def make(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What make would do."""
    # As from a shell, though the tests themselves are run by make.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--dry-run", *words],
        cwd=PROJECT,
        env={**own, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["process", "VIEDO=clip.mp4"], "VIEDO is not for `make process`. Did you mean VIDEO? It"),
        (["process", "video=clip.mp4"], "video is not for `make process`. Did you mean VIDEO? It"),
        (["process", "FRAMES=5"], "FRAMES is not for `make process`. It takes PYTHON "),
        (["tune", "OUTPUT=folder"], "OUTPUT is not for `make tune`. It takes "),
        (["lint", "ARGS=x"], "ARGS is not for `make lint`. It takes PYTHON VENV TORCH_INDEX."),
        (["VIDEO=clip.mp4"], "VIDEO is not for `make help`. It takes PYTHON VENV TORCH_INDEX."),
    ],
    ids=str,
)
def test_a_variable_that_a_target_does_not_take_is_refused_in_one_line(
    words: list[str], said: str
) -> None:
    done = make(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert said in line
    assert ('options of the command go into ARGS="..."' in line) == (
        words[0] in ("process", "tune")
    )


@pytest.mark.parametrize(
    "words",
    [
        ["process", "VIDEO=", "CONFIG=latency"],
        ["process", "VIDEO=a b.mp4", "OUTPUT=o", "MODEL=demo", "ARGS=--every 2"],
        ["bench", "FRAMES=5", "ROUNDS=1", "IMAGE="],
        ["bench-e2e", "VIDEO=clip.mp4", "ROUNDS=2"],
        ["evaluate", "DATA=folder"],
        ["lint", "PYTHON=python3", "VENV=.venv"],
        ["lint", "test", "ARGS=-x"],
    ],
    ids=str,
)
def test_what_a_target_takes_passes(words: list[str]) -> None:
    done = make(*words)
    assert (done.returncode, done.stderr) == (0, "")


def test_variables_of_the_environment_are_no_slip() -> None:
    assert make("process", VIEDO="clip.mp4", FRAMES="5").returncode == 0


def test_what_targets_take_is_what_help_says() -> None:
    told = {
        target: set(re.findall(r"\b([A-Z]+)=", text))
        for target, text in re.findall(r"^([a-z0-9-]+):.*## (.*)", MAKEFILE, re.MULTILINE)
    }
    taken = {
        target: set(names.split())
        for target, names in re.findall(r"^TAKES_(\S+) := (.*)", MAKEFILE, re.MULTILINE)
    }
    assert {target: names for target, names in told.items() if names - {"ARGS"}} == {
        target: names for target, names in taken.items() if names - {"ARGS"}
    }


@pytest.mark.parametrize("target", re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
def test_args_are_taken_where_the_recipe_passes_them_on(target: str) -> None:
    recipe = re.search(rf"^{target}:.*## .*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    taken = re.search(rf"^TAKES_{target} := (.*)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    assert ("$(ARGS)" in recipe[1]) == (taken is not None and "ARGS" in taken[1].split())
