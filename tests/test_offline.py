"""Nothing but the download of a checkpoint ever opens a connection, in the libraries either."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import save, three_convolutions
from tests.conftest import gray, with_light, write_clip

# Found by every Python that is started: what looks for another machine is written down, and fails.
GUARD = """
import os, sys, traceback

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(f"{event} {arguments[-2:]}\\n")
            traceback.print_stack(file=file)
        raise OSError(f"{event} is not for an offline tool")

sys.addaudithook(refuse)
"""


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip, labelled pictures, and a model."""
    folder = tmp_path_factory.mktemp("footage")
    save(folder / "model.pt", three_convolutions(2))
    write_clip(folder / "clip.mp4", [gray(50), with_light((3, 3))] * 4)
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "data" / "labels").mkdir()
    import cv2

    for name in ("a", "b"):
        cv2.imwrite(str(folder / "data" / "images" / f"{name}.png"), with_light((2, 2)))
        (folder / "data" / "labels" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    return folder


COMMANDS = {
    "process": ["process", "{footage}/clip.mp4"],
    "process in INT8": ["process", "{footage}/clip.mp4", "--precision", "int8"],
    "process in PyTorch": ["process", "{footage}/clip.mp4", "--config", "pytorch"],
    "evaluate": ["evaluate", "--data", "{footage}/data"],
    "evaluate INT8": ["evaluate", "--data", "{footage}/data", "--precision", "int8"],
    "bench": [
        *("bench", "--frames", "16", "--rounds", "1", "--output-dir", "{out}"),
        *("--configs", "throughput"),
    ],
    "tune": ["tune"],
    "configs": ["configs"],
}
FAST = ("process", "configs")
SMALL = ["--imgsz", "128"]


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whichever command comes first converts the model, so that not every one does."""
    return tmp_path_factory.mktemp("cache")


def environment(tmp_path: Path, cache: Path) -> dict[str, str]:
    """Of a user whose home is new, so that nothing was settled or asked before."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    (tmp_path / "home").mkdir()
    project = str(Path(__file__).resolve().parents[1])
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "guard"), project]),
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(cache),
        "CONNECTIONS": str(tmp_path / "connections"),
        "OMP_WAIT_POLICY": "passive",  # Beside other tests, threads that wait spinning take long.
    }


def command_line(command: list[str], footage: Path, tmp_path: Path) -> list[str]:
    filled = [part.format(footage=footage, out=tmp_path / "out") for part in command]
    weights = [] if command[0] == "configs" else ["--weights", str(footage / "model.pt"), *SMALL]
    output = ["--output-dir", str(tmp_path / "out")] if command[0] == "process" else []
    return [sys.executable, "-m", "pipeline", *filled, *weights, *output]


def run(command: list[str], tmp_path: Path, settings: dict[str, str]) -> None:
    found = subprocess.run(
        command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    connections = Path(settings["CONNECTIONS"])
    assert not connections.exists(), connections.read_text()


def marked(names: dict[str, list[str]]) -> list[object]:
    return [
        pytest.param(
            command,
            id=name,
            marks=[] if name in FAST else [pytest.mark.slow, pytest.mark.timeout(400)],
        )
        for name, command in names.items()
        if name != "tune"  # Takes minutes, and runs nothing that the others do not.
    ]


def test_the_guard_sees_a_connection(tmp_path: Path) -> None:
    settings = environment(tmp_path, tmp_path / "cache")
    code = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    found = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True)
    assert found.returncode
    assert "socket." in Path(settings["CONNECTIONS"]).read_text()


@pytest.mark.parametrize("command", marked(COMMANDS))
def test_no_command_looks_for_another_machine(
    command: list[str], footage: Path, shared_cache: Path, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    line = [*without_network(), *traced(log), *command_line(command, footage, tmp_path)]
    run(line, tmp_path, environment(tmp_path, shared_cache))
    # Nor does any library behind Python's back.
    assert not log.exists() or "AF_INET" not in log.read_text()


def without_network() -> list[str]:
    """What a command begins with to have no network either; nothing where that is not permitted."""
    for prefix in (["unshare", "-n"], ["unshare", "-r", "-n"]):
        if shutil.which("unshare") and runs([*prefix, "true"]):
            return prefix
    return []


def traced(log: Path) -> list[str]:
    """What a command begins with so that its calls to the network are logged, where possible."""
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    prefix = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", str(log)]
    return prefix if shutil.which("strace") and runs([*prefix, "true"]) else []


def runs(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
