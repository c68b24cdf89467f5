"""No checkpoint runs anything, and none takes more memory or time than its size explains."""

from __future__ import annotations

import contextlib
import copyreg
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import ModelError
from pipeline.model.layers import build_graph
from tests.checkpoints import save, small_yolov5
from tests.malicious import ATTACKS, BOMBS, LIVE, WRAPPINGS, line

MOST_MEGABYTES, MOST_SECONDS = 600, 15.0

READ_ALL = """
import json, resource, sys, time
from pathlib import Path
from pipeline.core.errors import ModelError
from pipeline.model.layers import build_graph

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

whole, *bombs = map(Path, sys.argv[1:])
build_graph(whole)
result = {"": [0.0, peak_mb(), ""]}
for path in bombs:
    started = time.process_time()
    try:
        build_graph(path)
        message = "read"
    except ModelError as error:
        message = str(error)
    result[path.stem] = [time.process_time() - started, peak_mb(), message]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing that an attack creates may show up where the tests themselves are."""
    folder, before = tmp_path_factory.mktemp("attacks"), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def test_there_are_many_attacks_by_every_instruction_that_can_call() -> None:
    assert len(ATTACKS) >= 50
    by = " ".join(ATTACKS)
    calls = "GLOBAL STACK_GLOBAL INST OBJ NEWOBJ NEWOBJ_EX REDUCE BUILD EXT1 EXT2 EXT4 PERSID"
    for instruction in (*calls.split(), "BINPERSID"):
        assert instruction in by


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_no_attack_runs_and_each_is_refused_in_one_line(folder: Path, attack: object) -> None:
    path, canary = folder / "model.pt", folder / "canary"
    attack(path, canary)  # type: ignore[operator]
    with pytest.raises(ModelError) as caught:
        build_graph(path)
    assert not canary.exists()
    message = str(caught.value)
    assert str(path) in message
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("payload", LIVE.values(), ids=LIVE.keys())
def test_an_ordinary_reader_would_have_run_it(folder: Path, payload: object) -> None:
    canary = folder / "alive"
    with contextlib.suppress(RuntimeError):  # What comes of it may be no checkpoint.
        pickle.loads(line(payload(canary)))  # type: ignore[operator]
    assert canary.exists()
    canary.unlink()


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_an_attack_leaves_nothing_in_the_process(folder: Path, wrap: object) -> None:
    registered = dict(copyreg.dispatch_table)
    before = set(sys.modules)
    data = line(b"cthis\nc\n)R")
    with pytest.raises(ModelError):
        build_graph(wrap(folder / "model.pt", data))  # type: ignore[operator]
    assert "this" not in set(sys.modules) - before
    assert copyreg.dispatch_table == registered


@pytest.mark.slow
def test_no_bomb_takes_memory_or_time(tmp_path: Path) -> None:
    bombs = []
    for number, make in enumerate(BOMBS.values()):
        bombs.append(tmp_path / f"{number}.pt")
        make(bombs[-1])
    command = [sys.executable, "-c", READ_ALL, str(save(tmp_path / "whole.pt", small_yolov5(2)))]
    found = subprocess.run(
        [*command, *map(str, bombs)], check=True, capture_output=True, text=True, timeout=110
    )
    result = json.loads(found.stdout)
    assert len(result) == 1 + len(BOMBS)
    _, usual_mb, _ = result.pop("")
    for number, title in enumerate(BOMBS):
        seconds, peak_mb, message = result[str(number)]
        assert seconds < MOST_SECONDS, title
        assert peak_mb < usual_mb + MOST_MEGABYTES, title
        assert message.isprintable(), title
        assert len(message) < 600, title
