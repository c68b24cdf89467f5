"""`--progress json`: every line on stderr is an object, and the last one says how it ended."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.cli.relay import relay
from tests.commands import Command, run
from tests.conftest import with_light, write_clip

FIELDS = {
    "start": {"event", "version", "command"},
    "progress": {"event", "stage", "frame", "total", "unit", "fps", "eta", "clip"},
    "note": {"event", "message"},
    "error": {"event", "message"},
    "log": {"event", "message"},
    "clip": {"event", "clip", "status", "outputs"},
    "end": {"event", "exit_code", "status", "message", "outputs"},
}
"""As documented in docs/formats.md."""
NOISE = b'a library says {"event": "end"} and \xff\r\n\n{"event": "end", "exit_code": 7}\n'


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", [with_light((3, 3))] * 4)


def objects(said: str) -> list[dict[str, Any]]:
    """The objects of all lines; the first and the last are what they should be."""
    found = [json.loads(line) for line in said.splitlines()]
    assert [entry.keys() for entry in found] == [FIELDS[entry["event"]] for entry in found]
    assert [entry["event"] for entry in found].count("end") == 1
    assert (found[0]["event"], found[-1]["event"]) == ("start", "end")
    return found


def of(event: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in found if entry["event"] == event]


def noisy_children() -> None:
    os.register_at_fork(after_in_child=lambda: os.write(2, NOISE))


def test_a_run_tells_of_its_frames_its_libraries_and_its_files(
    clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = ["--weights", tiny_weights, "--output-dir", out, "--progress", "json"]
    done = run("process", clip, *asked, before=noisy_children)
    found = objects(done.stderr)
    frames = [entry for entry in of("progress", found) if entry["stage"] == "frames"]
    assert {(entry["total"], entry["unit"], entry["clip"]) for entry in frames} == {
        (4, "frame", str(clip))
    }
    assert frames[-1]["frame"] == 4
    said = [entry["message"] for entry in of("log", found)]
    assert r'a library says {"event": "end"} and \xff' in said
    assert '{"event": "end", "exit_code": 7}' in said
    assert (found[-1]["exit_code"], found[-1]["status"]) == (done.returncode, "done") == (0, "done")
    assert {Path(path).name for path in found[-1]["outputs"]} == {
        path.name for path in out.iterdir() if not path.name.startswith(".")
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["process", "--progress", "json", "--bogus"], 2),
        (["proces", "--progress=json"], 2),
        (["process", "missing.mp4", "--progress", "json", "--debug"], 1),
        (["process", "a\udcff\n.mp4", "--progress=json"], 1),
    ],
)
def test_an_error_is_an_object_and_the_reason_at_the_end(words: list[str], code: int) -> None:
    done = run(*words)
    found = objects(done.stderr)
    (error,) = of("error", found)
    assert done.returncode == found[-1]["exit_code"] == code
    assert found[-1]["message"] == error["message"]
    assert (found[-1]["status"], found[-1]["outputs"]) == ("failed", [])
    assert not any(0xD800 <= ord(char) < 0xE000 for char in error["message"])


def test_each_clip_of_a_batch_has_its_outcome_and_its_files(
    clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video\n" * 50)
    out = tmp_path / "out"
    asked = ["--weights", tiny_weights, "--output-dir", out, "--progress", "json", "--quiet"]
    done = run("process", clip, broken, *asked)
    found = objects(done.stderr)
    outcomes = {entry["clip"]: entry for entry in of("clip", found)}
    assert len(outcomes) == len(of("clip", found))
    assert outcomes[str(clip)]["status"] == "done"
    assert {Path(path).name for path in outcomes[str(clip)]["outputs"]} == {
        path.name for path in out.rglob("clip.mp4/*") if not path.name.startswith(".")
    }
    assert (outcomes[str(broken)]["status"], outcomes[str(broken)]["outputs"]) == ("failed", [])
    assert any(entry["message"].startswith(f"{broken}: ") for entry in of("error", found))
    assert not of("progress", found)
    assert found[-1]["exit_code"] == done.returncode == 1
    assert found[-1]["outputs"] == [str(out / "batch.json"), str(out / "batch.html")]


def test_clips_of_a_batch_that_ends_before_the_first_one_were_not_reached(
    clip: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    asked = ["--weights", tmp_path / "missing.pt", "--output-dir", tmp_path / "out"]
    done = run("process", clip, other, *asked, "--progress", "json")
    found = objects(done.stderr)
    assert {(entry["clip"], entry["status"]) for entry in of("clip", found)} == {
        (str(clip), "not reached"),
        (str(other), "not reached"),
    }
    assert found[-1]["status"] == "failed"


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGKILL, None, "died")],
)
def test_a_command_that_is_stopped_says_so(
    number: signal.Signals, code: int | None, status: str, tiny_weights: Path, tmp_path: Path
) -> None:
    endless = ["process", "synthetic", "--size", "128x96", "--frames", "10000000"]
    endless += ["--segment-seconds", "1000000"]
    asked = ["--weights", tiny_weights, "--output-dir", tmp_path / "out", "--progress", "json"]
    with Command(*endless, *asked) as running:
        assert running.stderr is not None
        said = ""
        while '"stage": "frames"' not in said:
            line = running.stderr.readline()
            assert line, said
            said += line
        running.send_signal(number)
        found = objects(said + running.stderr.read())
        assert (found[-1]["exit_code"], found[-1]["status"]) == (code, status)
        assert running.wait() == (code or -number)


def test_without_a_reader_the_work_goes_on(clip: Path, tiny_weights: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    out = tmp_path / "out"
    asked = ["--weights", tiny_weights, "--output-dir", out, "--progress", "json"]
    try:
        assert run("process", clip, *asked, stderr=writing).returncode == 0
    finally:
        os.close(writing)
    assert (out / "report.json").exists()


def test_a_line_without_an_end_and_one_without_bounds_become_objects(tmp_path: Path) -> None:
    read_objects, write_objects = os.pipe()
    read_texts, write_texts = os.pipe()
    shown = tmp_path / "shown"
    with (
        shown.open("wb") as out,
        os.fdopen(write_objects, "wb") as objects_pipe,
        os.fdopen(write_texts, "wb") as texts,
    ):

        def write(pipe: IO[bytes], said: bytes) -> None:
            pipe.write(said)
            pipe.flush()

        # Both are there when it begins to read: on a busy machine it begins late.
        write(texts, b"early\n")
        write(objects_pipe, b'{"event": "start"}\n')
        relaying = threading.Thread(target=relay, args=(read_objects, read_texts, out.fileno()))
        relaying.start()
        write(texts, 3 * (1 << 16) * b"x" + b"\nlast words")
        write(objects_pipe, b'{"event": "end", "exit_code": 0}\n')
        relaying.join()
    start, early, *logged, end = map(json.loads, shown.read_text().splitlines())
    assert (start, early["message"]) == ({"event": "start"}, "early")
    assert "".join(line["message"] for line in logged) == 3 * (1 << 16) * "x" + "last words"
    assert end == {"event": "end", "exit_code": 0}
    for pipe in (read_objects, read_texts):
        os.close(pipe)
