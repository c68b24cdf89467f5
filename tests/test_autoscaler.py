"""A cluster of Ray's that grows: its autoscaler launches nodes while a run asks for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands import run
from tests.conftest import write_clip
from tests.recordings import numbered

PROJECT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef0123456789abcdef"
MOST_NODES = 1
LOOK_SECONDS = 0.1
BY_CHANCE = ("Failed to start the grpc server", "timed out during startup")
"""What Ray says where another program has the port by now, and after 30 s without an answer."""


def settings_of(address: str) -> dict[str, Any]:
    """Ray's provider of nodes for tests: they are processes of this machine."""
    return {
        "cluster_name": "growing",
        "max_workers": MOST_NODES,
        "upscaling_speed": 100,
        "idle_timeout_minutes": 0.02,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "docker": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": MOST_NODES,
            },
        },
        **{key: [] for key in ("initialization_commands", "setup_commands")},
        **{key: [] for key in ("head_setup_commands", "worker_setup_commands")},
        **{key: [] for key in ("head_start_ray_commands", "worker_start_ray_commands")},
        **{key: [] for key in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
    }


@dataclass(frozen=True)
class Growing:
    address: str
    head: psutil.Popen
    log: Path

    def gets_ready(self) -> bool:
        """Wait until the head is ready, or has ended."""
        while "Ray runtime started" not in self.log.read_text():
            if self.head.poll() is not None:
                return False
            time.sleep(LOOK_SECONDS)
        return True

    def num_nodes(self) -> int:
        """Those that the autoscaler launched; the head, without cores, is not counted."""
        found = 0
        for process in self.head.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                found += process.name() == "raylet"
        return found - 1


@contextlib.contextmanager
def a_head(tmp_path: Path) -> Iterator[Growing]:
    """Without cores; it asks for a token, and its autoscaler may launch a node.

    The port is free when it is chosen, which need not last until Ray has it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = tmp_path / "cluster.yaml"
    settings.write_text(json.dumps(settings_of(address)))
    # Ray's sockets are in it, whose paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1", "--port", address.rpartition(":")[2]),
        *("--num-cpus", "0", "--include-dashboard", "false", "--temp-dir", str(folder)),
        *("--autoscaling-config", str(settings)),
    ]
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    log = tmp_path / "head.log"
    with log.open("wb") as output:
        head = psutil.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield Growing(address, head, log)
    finally:
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):  # It has ended with all of its own.
            family = [*head.children(recursive=True), head]
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Growing]:
    for name, value in {
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": str(PROJECT),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    with contextlib.ExitStack() as running:
        found = running.enter_context(a_head(tmp_path))
        if not found.gets_ready() and any(words in found.log.read_text() for words in BY_CHANCE):
            running.close()
            found = running.enter_context(a_head(tmp_path))
        assert found.gets_ready(), found.log.read_text()
        yield found


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install ray")
def test_nodes_come_for_the_segments_of_a_run_and_go_after_it(
    growing: Growing, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4",
        [numbered(i) for i in range(60)],
        options={"g": "10", "sc_threshold": "0"},
    )
    command = [
        *("process", str(clip)),
        *("--weights", str(tiny_weights), "--precision", "f32", "--segment-seconds", "0.8"),
        *("--output-dir", str(tmp_path / "out"), "--executor", "ray"),
        *("--address", growing.address, "--cores-per-actor", "1"),
    ]
    without = run(*command, timeout=200)
    assert without.returncode != 0
    assert "RAY_AUTH_MODE=token" in without.stderr.splitlines()[-1]
    assert growing.num_nodes() == 0

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    nowhere = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_TOKEN"}
    nowhere["HOME"] = str(tmp_path)  # Without ~/.ray/auth_token.
    refused = run(*command, timeout=200, env=nowhere)
    assert refused.returncode == 2
    assert "RAY_AUTH_TOKEN" in refused.stderr.splitlines()[-1]

    done = run(*command, timeout=200)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["output"]["num_frames"] == 60
    # The head has no core: all was done on nodes that were not there before.
    assert report["configuration"]["nodes"] == MOST_NODES
    while growing.num_nodes():  # Idle ones go, as nothing asks for them any more.
        time.sleep(LOOK_SECONDS)
