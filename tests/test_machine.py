"""How many cores there are for this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.machine import available_cores

HOST_CORES = 16


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(HOST_CORES)), raising=False)


class Groups:
    """A tree of control groups as the kernel shows it, and which of them the process is in."""

    def __init__(self, folder: Path) -> None:
        self.root, self.file = folder / "fs", folder / "cgroup"
        self.root.mkdir()

    def v2(self, path: str, limit: str) -> None:
        group = self.root / path.lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.max").write_text(f"{limit}\n")

    def v1(self, path: str, quota_us: int, period_us: int = 100_000) -> None:
        group = self.root / "cpu" / path.lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.cfs_quota_us").write_text(f"{quota_us}\n")
        (group / "cpu.cfs_period_us").write_text(f"{period_us}\n")

    def cores(self, *lines: str) -> int:
        self.file.write_text("".join(f"{line}\n" for line in lines))
        return available_cores(self.file, self.root)


@pytest.fixture
def groups(tmp_path: Path, sixteen_cores: None) -> Groups:
    return Groups(tmp_path)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", HOST_CORES),
        ("400000 100000", 4),
        ("100000 100000", 1),
        ("350000 100000", 3),
        ("50000 100000", 1),
        ("20000 10000", 2),
        ("6400000 100000", HOST_CORES),
    ],
)
def test_a_quota_of_version_2_bounds_the_cores(groups: Groups, limit: str, cores: int) -> None:
    groups.v2("/user/session", limit)
    assert groups.cores("0::/user/session") == cores


@pytest.mark.parametrize(
    ("quota_us", "cores"),
    [(-1, HOST_CORES), (0, HOST_CORES), (400_000, 4), (250_000, 2), (10_000, 1)],
)
@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_a_quota_of_version_1_bounds_the_cores(
    groups: Groups, controllers: str, quota_us: int, cores: int
) -> None:
    groups.v1("/docker/abc", quota_us)
    lines = (f"4:{controllers}:/docker/abc", "3:memory:/elsewhere", "1:name=systemd:/")
    assert groups.cores(*lines) == cores


def test_only_the_controller_of_the_cpu_counts(groups: Groups) -> None:
    groups.v1("/small", 100_000)
    assert groups.cores("3:cpuset:/small", "2:cpuacct:/small") == HOST_CORES


def test_the_smallest_quota_on_the_way_to_the_root_counts(groups: Groups) -> None:
    groups.v2("/a", "300000 100000")
    groups.v2("/a/b", "max 100000")
    groups.v2("/a/b/c", "500000 100000")
    assert groups.cores("0::/a/b/c") == 3
    groups.v2("/a/b/c", "200000 100000")
    assert groups.cores("0::/a/b/c") == 2
    groups.v1("/x", 800_000)
    groups.v1("/x/y", 1_000_000)
    assert groups.cores("2:cpu:/x/y") == 8


def test_the_quotas_of_both_versions_count_where_both_are_mounted(groups: Groups) -> None:
    groups.v2("/a", "300000 100000")
    groups.v1("/b", 200_000)
    assert groups.cores("2:cpu:/b", "0::/a") == 2


def test_a_container_that_sees_its_own_group_as_the_root_is_bounded_by_it(groups: Groups) -> None:
    groups.v2("/", "200000 100000")
    assert groups.cores("0::/") == 2
    # Where the path is the one that the host knows, and the folder is not there.
    assert groups.cores("0::/kubepods/pod/xyz") == 2


def test_a_container_of_version_1_is_bounded_by_what_it_sees_as_the_root(groups: Groups) -> None:
    groups.v1("/", 300_000)
    assert groups.cores("5:cpu,cpuacct:/docker/known-to-the-host") == 3


def test_a_sibling_does_not_count(groups: Groups) -> None:
    groups.v2("/a", "100000 100000")
    groups.v2("/ab", "max 100000")
    assert groups.cores("0::/ab") == HOST_CORES


@pytest.mark.parametrize("content", ["", "nonsense", "100000", "100000 0 0", "a b", "-1 -1"])
def test_a_limit_that_cannot_be_read_is_none(groups: Groups, content: str) -> None:
    groups.v2("/a", content)
    assert groups.cores("0::/a") == HOST_CORES


def test_without_control_groups_the_affinity_counts(tmp_path: Path, sixteen_cores: None) -> None:
    assert available_cores(tmp_path / "missing", tmp_path) == HOST_CORES


RUN = """
from pipeline.cli.commands import main
from pipeline.core.machine import available_cores
print(available_cores())
sys.exit(main(sys.argv[1:]))
"""


def run_with_one_core(tmp_path: Path, weights: Path, restrict: str) -> tuple[int, dict[str, Any]]:
    """What a process sees that is restricted as it begins, and the report of a run in it."""
    out = tmp_path / "out"
    options = ["--size", "128x96", "--frames", "30", "--weights", weights, "--output-dir", out]
    done = subprocess.run(
        [sys.executable, "-c", f"import os, sys\n{restrict}{RUN}", "process", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return int(done.stdout.splitlines()[0]), report


def assert_one_core_is_used(cores: int, report: dict[str, Any]) -> None:
    assert cores == 1
    assert report["machine"]["cores"] == 1
    assert report["configuration"]["num_streams"] == 1
    assert report["configuration"]["num_threads"] == 1
    # Those of the encoder decide bytes: they are the same on every machine.
    assert report["output"]["threads"] == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs the affinity of Linux")
def test_a_process_bound_to_one_core_runs_one_stream(tmp_path: Path, tiny_weights: Path) -> None:
    core = min(os.sched_getaffinity(0))
    bind = f"os.sched_setaffinity(0, {{{core}}})"
    assert_one_core_is_used(*run_with_one_core(tmp_path, tiny_weights, bind))


@pytest.fixture
def group_of_one_core() -> Iterator[Path]:
    """A control group of this machine with a quota of one core."""
    name = f"pipeline-test-{os.getpid()}"
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "cpu" / "cpu.cfs_quota_us").exists() or (root / "cpu" / "tasks").exists()
    group = (root / "cpu" if version_1 else root) / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"needs to be allowed to make a control group ({error.strerror})")
    try:
        try:
            if version_1:
                (group / "cpu.cfs_period_us").write_text("100000")
                (group / "cpu.cfs_quota_us").write_text("100000")
            else:
                (group / "cpu.max").write_text("100000 100000")
        except OSError as error:
            pytest.skip(f"needs control groups with a quota of cores ({error.strerror})")
        yield group
    finally:
        group.rmdir()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to be held to one")
def test_a_process_with_a_quota_of_one_core_runs_one_stream(
    tmp_path: Path, tiny_weights: Path, group_of_one_core: Path
) -> None:
    procs = str(group_of_one_core / "cgroup.procs")
    join = f"with open({procs!r}, 'w') as procs: procs.write(str(os.getpid()))"
    assert_one_core_is_used(*run_with_one_core(tmp_path, tiny_weights, join))
