"""The work folder is had by one run at a time, whatever others remove meanwhile."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

import pytest

from pipeline.core.errors import FolderInUse, InputError
from pipeline.core.work_folder import MARK_NAME, locked_work_folder
from pipeline.execution.journal import tidy


def test_an_output_folder_that_another_run_removes_is_made_again(tmp_path: Path) -> None:
    """A run that ends removes the output folder if it is empty, as two batches at once do."""
    folder, ended = tmp_path / "out", threading.Event()

    def remove() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                folder.rmdir()

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(300):
            with locked_work_folder(folder) as work:
                assert (work / MARK_NAME).is_file()
                (work / MARK_NAME).unlink()
                work.rmdir()
    finally:
        ended.set()
        remover.join()


def test_what_is_no_folder_is_not_taken_for_one_that_another_run_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for place in (tmp_path / "file" / "out", Path("out")):
        with pytest.raises(InputError, match="cannot write there"), locked_work_folder(place):
            pass
    for place in (tmp_path / "file", tmp_path / "link", tmp_path / "link" / "out"):
        with pytest.raises(InputError, match="is not a folder"), locked_work_folder(place):
            pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_where_no_folder_can_be_made_a_run_does_not_try_for_ever() -> None:
    with (
        pytest.raises(InputError, match="cannot write there"),
        locked_work_folder(Path("/proc/out")),
    ):
        pass


def test_two_runs_never_hold_one_output_folder(tmp_path: Path) -> None:
    folder, holders, most = tmp_path / "out", [0], [0]

    def run() -> None:
        for _ in range(500):
            with contextlib.suppress(FolderInUse), locked_work_folder(folder) as work:
                holders[0] += 1
                most[0] = max(most[0], holders[0])
                (work / MARK_NAME).unlink()
                holders[0] -= 1
                work.rmdir()
                with contextlib.suppress(OSError):
                    folder.rmdir()

    runs = [threading.Thread(target=run) for _ in range(3)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert most == [1]


def test_what_a_killed_run_left_is_not_removed_under_another_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with locked_work_folder(folder) as work:
        (work / MARK_NAME).unlink()
        work.rmdir()  # As before the other run has made it.
        assert tidy(folder, created=True) == ""
        assert folder.is_dir()
