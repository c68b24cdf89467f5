"""A worker that may die, hang or be told to stop, and what its parent makes of it."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import ProcessConfig, SyntheticOptions
from pipeline.core.errors import EncodeError, InputError, Interrupted, PipelineError, WorkerDied
from pipeline.core.progress import Progress, no_progress
from pipeline.core.work_folder import SPOOL_NAME, WORK_NAME
from pipeline.execution.supervise import ChildProcess, supervise
from pipeline.execution.watch import SAME_SIGNAL_SECONDS, STOP_SECONDS
from tests.commands import HEAVY, Command, faulty, last_words, run, wait_until, worker_pid
from tests.conftest import RESULT_NAMES, with_light, write_clip
from tests.faulty import allow_seconds
from tests.toy_work import (
    Counting,
    ask_for_death,
    count_to_five,
    fail_to_encode,
    interrupt_the_parent,
    leave_a_mark,
    need_the_impossible,
)

NUM_FRAMES = 60
OTHERS = ["preprocess", "callback", "postprocess", "annotate", "write"]
"""Steps besides decode and encode."""


def slow(steps: list[str]) -> list[Any]:
    return [pytest.param(step, marks=pytest.mark.slow) for step in steps]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    images = [with_light((i % 16, i // 16)) for i in range(NUM_FRAMES)]
    return write_clip(tmp_path / "clip.mp4", images)


@pytest.fixture
def options(tiny_weights: Path, tmp_path: Path) -> list[str]:
    return ["--weights", str(tiny_weights), "--output-dir", str(tmp_path / "out")]


ENDLESS = ["process", "synthetic", "--size", "128x96", "--frames", "10000000"]
ENDLESS += ["--segment-seconds", "1000000"]
"""No segment of it is ever kept."""


KEPT = "1 segment is kept: rerun the command to resume"


def assert_nothing_final(out: Path, *, kept: bool) -> None:
    """Nothing is left but, once all frames are done, what another run can go on from."""
    assert ([path.name for path in out.iterdir()] if out.exists() else []) == [WORK_NAME] * kept


def assert_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        ("kill", "encode"),
        ("segv", "encode"),
        *(
            pytest.param(fault, step, marks=pytest.mark.slow)
            for fault, steps in (
                ("kill", ["prepare", "decode", *OTHERS, "join"]),
                ("segv", ["prepare", "callback"]),  # It ends on the thread that it came from.
            )
            for step in steps
        ),
    ],
)
def test_a_worker_that_dies_in_any_step_is_exit_code_1_with_what_it_was_at(
    fault: str, step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    frame = 0 if step in ("prepare", "join") else 30
    with faulty(fault, step, frame, "process", str(clip), *options) as running:
        pid = worker_pid(running)
        words = last_words(running)
        assert running.wait() == 1
    name = {"kill": "SIGKILL, possibly out of memory", "segv": "SIGSEGV"}[fault]
    told = re.fullmatch(rf"pipeline: {clip}: the worker was killed by {name}; (.*)\n", words)
    assert told, words
    place = {
        "prepare": "while preparing",
        "join": f"encoding thread at join; {KEPT}",
        "callback": r"decoding thread at .+, encoding thread at .+ of frame \d+",
        "decode": "decoding thread at decode of frame 30.*",
        "preprocess": "decoding thread at preprocess of frame 30.*",
    }.get(step, rf".*encoding thread at {step} of frame 30")
    assert re.fullmatch(place, told[1]), told[1]
    assert_gone(pid)
    assert_nothing_final(tmp_path / "out", kept=step == "join")


def test_a_worker_killed_from_outside_while_frames_run_is_told(
    options: list[str], tmp_path: Path
) -> None:
    with faulty("tell", "encode", 50, *ENDLESS, *options) as running:
        pid = worker_pid(running)
        os.kill(pid, signal.SIGKILL)
        words = last_words(running)
        assert running.wait() == 1
    assert re.fullmatch(
        r"pipeline: synthetic: the worker was killed by SIGKILL, possibly out of memory; "
        r"decoding thread at [\w ]+ of frame \d+, encoding thread at [\w ]+ of frame \d+\n",
        words,
    )
    assert_gone(pid)
    assert not (tmp_path / "out").exists()


def test_only_what_the_dead_worker_left_is_removed(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    of_another = tmp_path / "out" / ".partial-1-another"
    of_another.mkdir(parents=True)
    with faulty("kill", "encode", 9, "process", str(clip), *options) as running:
        last_words(running)
        assert running.wait() == 1
    assert list((tmp_path / "out").iterdir()) == [of_another]


def test_a_worker_that_leaves_without_a_word_is_told(clip: Path, options: list[str]) -> None:
    with faulty("exit", "encode", 9, "process", str(clip), *options) as running:
        words = last_words(running)
        assert running.wait() == 1
    assert "the worker ended without an answer (exit code 3)" in words
    assert words.count("\n") == 1


def test_a_parent_that_is_killed_takes_its_worker_along(options: list[str]) -> None:
    with faulty("tell", "encode", 50, *ENDLESS, *options) as running:
        worker_pid(running)
        os.kill(running.pid, signal.SIGKILL)
        # Ends when the worker, which has it too, is gone.
        assert last_words(running) == ""


def test_what_a_killed_parent_left_of_standard_input_is_removed_by_the_next_run(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with (
        clip.open("rb") as stream,
        faulty("hang", "encode", 9, "process", "-", *options, stdin=stream) as running,
    ):
        worker_pid(running)
        running.kill()
        last_words(running)
    assert (out / WORK_NAME / SPOOL_NAME).read_bytes() == clip.read_bytes()
    assert run("process", clip, *options).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == RESULT_NAMES


def test_of_two_runs_on_standard_input_one_is_refused_and_neither_takes_the_others_footage(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = write_clip(tmp_path / "other.mp4", [with_light((2, 2))] * 9)
    reading, writing = os.pipe()
    with Command("process", "-", *options, stdin=reading) as first:
        os.close(reading)
        with os.fdopen(writing, "wb") as footage:
            wait_until((out / WORK_NAME / SPOOL_NAME).exists)
            with other.open("rb") as stream:
                refused = run("process", "-", *options, stdin=stream)
            footage.write(clip.read_bytes())
        words = first.communicate()[1]
        assert first.wait() == 0, words
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"pipeline: {out}: another run is writing there; wait ")
    assert refused.stderr.count("\n") == 1
    assert len((out / "detections.jsonl").read_text().splitlines()) == NUM_FRAMES


def test_a_worker_that_dies_over_standard_input_says_so(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    with (
        clip.open("rb") as stream,
        faulty("kill", "encode", 9, "process", "-", *options, stdin=stream) as running,
    ):
        words = last_words(running)
        assert running.wait() == 1
    assert words.startswith("pipeline: standard input: the worker was killed by SIGKILL")
    assert WORK_NAME not in words


@pytest.mark.parametrize("step", ["encode", *slow(["decode", *OTHERS])])
def test_an_exception_in_the_worker_names_step_and_frame_to_the_user(
    step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    with faulty("raise", step, 30, "process", str(clip), *options) as running:
        words = last_words(running)
        assert running.wait() == 1
    frame = r"\d+" if step == "callback" else "30"
    assert re.fullmatch(
        rf"pipeline: {clip}: {step} of frame {frame} failed: unexpected ZeroDivisionError: "
        r"made on purpose \(--debug shows where\)\n",
        words,
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["prepare", "decode", "encode"])
def test_after_an_exception_clean_up_that_hangs_ends_with_it(
    step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    frame = 0 if step == "prepare" else 30
    with faulty("stick", step, frame, "process", str(clip), *options) as running:
        pid = worker_pid(running)
        words = last_words(running)
        assert running.wait() == 1
    place = "" if step == "prepare" else f"{clip}: {step} of frame 30 failed: "
    assert words == (
        f"pipeline: {place}unexpected ZeroDivisionError: made on purpose (--debug shows where)\n"
    )
    assert_gone(pid)
    assert not (tmp_path / "out").exists()


def test_for_debugging_the_place_in_the_worker_is_shown(clip: Path, options: list[str]) -> None:
    with faulty("raise", "encode", 3, "process", str(clip), *options, "--debug") as running:
        words = last_words(running)
    assert re.search(r"loop\.py.*in run_frames\n", words)
    assert "ZeroDivisionError: made on purpose" in words


@pytest.mark.parametrize("step", ["decode", "encode"])
def test_a_step_that_does_not_come_back_ends_the_run_with_its_frame(
    step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    limit = ["--stall-seconds", "1.5"]
    began = time.monotonic()
    with faulty("hang", step, 30, "process", str(clip), *options, *limit) as running:
        pid = worker_pid(running)
        words = last_words(running)
        assert running.wait() == 1
    assert time.monotonic() - began > 1
    assert words == (
        f"pipeline: {clip}: {step} of frame 30 failed: no progress for 1.5 s; "
        "--stall-seconds allows more\n"
    )
    assert_gone(pid)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", ["prepare", "join"])
def test_preparing_and_joining_that_do_not_come_back_end_by_the_same_limit(
    step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    limit = ["--stall-seconds", "1.5"]
    began = time.monotonic()
    with faulty("hang", step, 0, "process", str(clip), *options, *limit) as running:
        pid = worker_pid(running)
        words = last_words(running)
        assert running.wait() == 1
    assert time.monotonic() - began > 1
    place, kept = {"prepare": ("while preparing", ""), "join": ("encoding thread at join", KEPT)}[
        step
    ]
    assert words == (
        f"pipeline: {clip}: no progress for 1.5 s ({place}); --stall-seconds allows more"
        f"{kept and '; ' + kept}\n"
    )
    assert_gone(pid)
    assert_nothing_final(tmp_path / "out", kept=step == "join")


@pytest.mark.alone
def test_a_step_that_works_without_end_is_ended_by_its_cpu_time(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    limit = ["--stall-seconds", "1"]
    with faulty("spin", "encode", 30, "process", str(clip), *options, *limit) as running:
        pid = worker_pid(running)
        words = last_words(running)
        assert running.wait() == 1
    assert words == (
        f"pipeline: {clip}: encode of frame 30 failed: no end after 1 s of CPU time; "
        "--stall-seconds allows more\n"
    )
    assert_gone(pid)
    assert not (tmp_path / "out").exists()


@pytest.mark.alone
@pytest.mark.slow
def test_a_step_that_others_leave_little_of_the_machine_may_take_longer_than_the_limit(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    limit = ["--stall-seconds", "1"]
    with faulty("crowd", "encode", 30, "process", str(clip), *options, *limit) as running:
        worker_pid(running)
        assert running.stdout is not None
        took = running.stdout.readline()
        words = last_words(running)
        assert running.wait() == 0, words
    assert (tmp_path / "out" / "annotated.mp4").is_file()
    if float(took.removeprefix("took ")) <= 1.5:
        pytest.skip("the others left it so much of the machine that it was done within the limit")


@pytest.mark.parametrize("step", ["prepare", "join"])
def test_long_work_without_frames_is_no_stall(
    step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    limit = ["--stall-seconds", "1"]
    with faulty("work", step, 0, "process", str(clip), *options, *limit) as running:
        words = last_words(running)
        assert running.wait() == 0, words
    assert (tmp_path / "out" / "annotated.mp4").is_file()


def status_of(pid: int, name: str) -> str:
    """What the kernel tells: State is T if it is stopped, ShdPnd has a bit per waiting signal."""
    return Path(f"/proc/{pid}/status").read_text().partition(f"{name}:")[2].split()[0]


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("whole_group", [False, True], ids=["parent", "group"])
@pytest.mark.parametrize(("stop", "code"), STOPS)
def test_a_signal_ends_the_run_in_order_and_leaves_nothing(
    stop: signal.Signals, code: int, whole_group: bool, options: list[str], tmp_path: Path
) -> None:
    patient = functools.partial(allow_seconds, to_stop=3600, for_the_same_signal=3600)
    with faulty("tell", "encode", 50, *ENDLESS, *options, before=patient) as running:
        pid = worker_pid(running)
        if whole_group:  # As Ctrl-C and many a service manager do.
            os.kill(pid, signal.SIGSTOP)  # The run does not end before both have come.
            wait_until(lambda: status_of(pid, "State") == "T")
            os.killpg(running.pid, stop)
            wait_until(lambda: int(status_of(pid, "ShdPnd"), 16) >> (signal.SIGTERM - 1) & 1)
            running.send_signal(stop)  # And make, which got it too, passes it on.
            os.kill(pid, signal.SIGCONT)
        else:
            running.send_signal(stop)
        words = last_words(running)
        assert running.wait() == code
    assert words == "pipeline: interrupted; no output was written\n"
    assert_gone(pid)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stop", "code", "step"),
    [
        (signal.SIGINT, 130, "encode"),
        (signal.SIGTERM, 143, "encode"),
        (signal.SIGINT, 130, "join"),
        (signal.SIGTERM, 143, "prepare"),
    ],
)
def test_a_worker_that_does_not_stop_is_killed_when_its_time_is_over(
    stop: signal.Signals, code: int, step: str, clip: Path, options: list[str], tmp_path: Path
) -> None:
    assert 3 < STOP_SECONDS < 4  # Of the five that the user is told.
    hasty = functools.partial(allow_seconds, to_stop=0.5)
    with faulty("hang", step, 0, "process", str(clip), *options, before=hasty) as running:
        pid = worker_pid(running)
        sent = time.monotonic()
        running.send_signal(stop)
        words = last_words(running)
        assert running.wait() == code
        assert time.monotonic() - sent > 0.5
    kept = f"; {KEPT}" if step == "join" else ""
    assert words == f"pipeline: interrupted; the worker did not stop and was killed{kept}\n"
    assert_gone(pid)
    assert_nothing_final(tmp_path / "out", kept=step == "join")


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("first", "code"), STOPS)
def test_a_second_signal_ends_the_run_at_once(
    first: signal.Signals,
    second: signal.Signals,
    code: int,
    clip: Path,
    options: list[str],
    tmp_path: Path,
) -> None:
    patient = functools.partial(allow_seconds, to_stop=3600)
    with faulty("hang", "encode", 9, "process", str(clip), *options, before=patient) as running:
        pid = worker_pid(running)
        running.send_signal(first)
        assert running.stdout is not None
        assert running.stdout.readline() == "told to stop\n"
        if second == first:
            time.sleep(SAME_SIGNAL_SECONDS)  # Before that it would be part of the first.
        running.send_signal(second)
        words = last_words(running)
        assert running.wait() == code
    assert words == "pipeline: interrupted; the worker did not stop and was killed\n"
    assert_gone(pid)
    assert not (tmp_path / "out").exists()


SHORT = ["process", "synthetic", "--size", "128x96", "--frames", "300"]


def test_a_run_that_is_to_ignore_the_end_of_its_terminal_goes_on(
    options: list[str], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    deaf = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)  # As nohup does it.
    with faulty(f"until:{go}", "encode", 50, *SHORT, *options, before=deaf) as running:
        worker_pid(running)
        os.killpg(running.pid, signal.SIGHUP)
        go.touch()
        words = last_words(running)
        assert running.wait() == 0, words
    assert (tmp_path / "out" / "annotated.mp4").is_file()


@pytest.mark.slow
def test_a_run_that_the_shell_stopped_for_longer_than_the_limit_goes_on(
    options: list[str], tmp_path: Path
) -> None:
    go, limit = tmp_path / "go", ["--stall-seconds", "1"]
    with faulty(f"until:{go}", "encode", 50, *SHORT, *options, *limit) as running:
        worker_pid(running)
        os.killpg(running.pid, signal.SIGSTOP)
        time.sleep(3)
        os.killpg(running.pid, signal.SIGCONT)
        go.touch()
        words = last_words(running)
        assert running.wait() == 0, words
    assert (tmp_path / "out" / "annotated.mp4").is_file()


def test_the_parent_of_a_run_has_imported_nothing_heavy(
    clip: Path, options: list[str], tmp_path: Path
) -> None:
    code = (
        "import sys; from pipeline.cli.commands import main; exit_code = main(sys.argv[1:]); "
        f"print(exit_code, *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "process", str(clip), *options],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1].split() == ["0"]
    assert (tmp_path / "out" / "annotated.mp4").is_file()


def config_in(folder: Path) -> ProcessConfig:
    return ProcessConfig(source=SyntheticOptions(), output_dir=folder, stall_seconds=60.0)


# This process has many threads, so that here the worker is a new interpreter.


def test_the_result_and_the_progress_of_the_work_come_back(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = supervise(count_to_five, config_in(tmp_path), seen.append)
    assert isinstance(result, dict)
    assert result["counted"] == 5
    assert result["pid"] != os.getpid()
    assert seen[0] == Progress("counting", 1, 5)
    assert seen[-1] == Progress("counting", 5, 5)


def test_an_error_of_the_work_keeps_its_class_and_its_place(tmp_path: Path) -> None:
    with pytest.raises(EncodeError) as caught:
        supervise(fail_to_encode, config_in(tmp_path), no_progress)
    error = caught.value
    assert (error.file, error.step, error.frame_index) == ("clip.mp4", "encode", 412)
    assert str(error) == "clip.mp4: encode of frame 412 failed: too hard"
    assert "fail_to_encode" in str(error.__cause__)


def test_an_error_that_cannot_travel_is_told_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="unexpected OfNobodyElseError: secret"):
        supervise(need_the_impossible, config_in(tmp_path), no_progress)


def test_a_signal_that_comes_when_all_is_done_is_not_lost(tmp_path: Path) -> None:
    # Of a batch, the next clip must not be begun.
    with pytest.raises(Interrupted, match="complete") as caught:
        supervise(interrupt_the_parent, config_in(tmp_path), no_progress)
    assert caught.value.signal_number == signal.SIGTERM


def test_afterwards_the_process_is_as_it_was_before(tmp_path: Path) -> None:
    def state() -> list[object]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return [
            *handlers,
            masked,
            threading.active_count(),
            len([*Path("/proc/self/fd").iterdir()]),
        ]

    supervise(count_to_five, config_in(tmp_path), no_progress)  # Starts what spawning needs once.
    before = state()
    for work, error in (
        (count_to_five, None),
        (fail_to_encode, EncodeError),
        (ask_for_death, WorkerDied),
        (interrupt_the_parent, Interrupted),
    ):
        with pytest.raises(error) if error else contextlib.nullcontext():
            supervise(work, config_in(tmp_path), no_progress)
        assert state() == before


def test_a_progress_callback_that_fails_ends_the_worker(tmp_path: Path) -> None:
    def refuse(_: Progress) -> None:
        raise BrokenPipeError("nobody looks any more")

    with pytest.raises(BrokenPipeError):
        supervise(count_to_five, config_in(tmp_path), refuse)
    assert multiprocessing.active_children() == []


def named(name: str, folder: Path) -> ProcessConfig:
    return ProcessConfig(source=Path(name), output_dir=folder / name)


def test_one_worker_does_one_run_after_the_other_and_keeps_what_it_has(tmp_path: Path) -> None:
    with ChildProcess(Counting()) as worker:
        first = worker.run(named("a", tmp_path), no_progress)
        with pytest.raises(InputError, match="no video"):
            worker.run(named("unreadable", tmp_path), no_progress)
        last = worker.run(named("b", tmp_path), no_progress)
    assert first[0] == last[0] != os.getpid()
    assert (first[1], last[1]) == (1, 3)
    assert_gone(first[0])


@pytest.mark.parametrize(("how", "error"), [("dead", WorkerDied), ("unexpected", PipelineError)])
def test_a_worker_that_died_or_may_be_damaged_is_replaced_for_the_next_run(
    how: str, error: type[PipelineError], tmp_path: Path
) -> None:
    with ChildProcess(Counting()) as worker:
        first = worker.run(named("a", tmp_path), no_progress)
        with pytest.raises(error):
            worker.run(named(how, tmp_path), no_progress)
        last = worker.run(named("b", tmp_path), no_progress)
    assert first[0] != last[0]
    assert last[1] == 1
    assert_gone(first[0])


def test_a_worker_that_dies_while_it_waits_costs_no_run(tmp_path: Path) -> None:
    with ChildProcess(Counting()) as worker:
        first = worker.run(named("a", tmp_path), no_progress)
        os.kill(first[0], signal.SIGKILL)
        wait_until_dead(first[0])
        assert worker.run(named("b", tmp_path), no_progress)[1] == 1


def wait_until_dead(pid: int) -> None:
    """Wait for a child of this process without taking its exit code from who will ask for it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_after_a_signal_between_two_runs_there_is_no_further_one(tmp_path: Path) -> None:
    with ChildProcess(Counting()) as worker:
        pid, _ = worker.run(named("a", tmp_path), no_progress)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            worker.run(named("b", tmp_path), no_progress)
    assert caught.value.signal_number == signal.SIGTERM
    assert_gone(pid)


def test_a_worker_that_is_no_longer_needed_ends_in_order(tmp_path: Path) -> None:
    with ChildProcess(Counting(), functools.partial(leave_a_mark, str(tmp_path))) as worker:
        worker.run(named("a", tmp_path), no_progress)
        assert not (tmp_path / "ended").exists()
    assert (tmp_path / "ended").exists()
