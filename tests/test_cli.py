"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import functools
import itertools
import os
import platform
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import cv2
import openvino
import pytest

from pipeline.cli.commands import main
from pipeline.cli.parsers import parse_arguments
from pipeline.cli.terminal import ProgressPrinter
from pipeline.core.errors import ModelError
from pipeline.core.machine import available_cores
from pipeline.core.progress import Progress
from pipeline.inference.configurations import BATCH_SIZES, configurations, named_options
from tests.checkpoints import save, three_convolutions
from tests.commands import Command, run
from tests.conftest import RESULT_NAMES, TINY_INPUT_WH, with_light, without_progress, write_clip

PROJECT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "pipeline"]
COMMANDS = [
    *("process", "render", "track", "export", "events", "highlights", "crops", "evaluate"),
    *("bench", "tune", "plan", "configs", "models"),
]
CONFIGURATIONS = ["auto", *configurations(2)]
FULL = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
SMALL = ["--size", "128x96", "--frames", "12"]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", [with_light((i, 3)) for i in range(8)])


@pytest.fixture
def usual(tiny_weights: Path, tmp_path: Path) -> list[str]:
    """Options that make `process` quick and keep it in its place."""
    return ["--weights", str(tiny_weights), "--output-dir", str(tmp_path / "out")]


def exit_code_of(arguments: list[str]) -> int:
    """argparse leaves by SystemExit, everything else by the exit code of main."""
    try:
        return main(arguments)
    except SystemExit as left:
        return int(str(left.code))


def test_a_run_prints_seven_lines_and_nothing_on_stderr(
    clip: Path, usual: list[str], tmp_path: Path
) -> None:
    done = run("process", str(clip), *usual, cwd=tmp_path)
    assert done.returncode == 0
    assert without_progress(done.stderr) == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert re.match(
        r"8 frames in \d+\.\d+ s: \d+\.\d fps from file to file, \d+\.\d times real", lines[0]
    )
    assert re.match(
        r"model alone \d+\.\d fps \(CPU, hint THROUGHPUT, (f32|bf16), \d+ streams?, "
        r"\d+ requests\); cores \d+% busy",
        lines[1],
    )
    assert re.match(
        r"bottleneck \w+: \d+% of the CPU time; next \w+, \d+\.\d times faster", lines[2]
    )
    assert lines[3] == "8 boxes in 8 frames"
    assert lines[4] == "light  ███  per 0.1 s, up to 1 in a frame"
    assert lines[5] == (
        f"{tmp_path / 'out' / 'annotated.mp4'}, report in {tmp_path / 'out' / 'report.html'}"
    )
    assert lines[6] == f"look at it in {tmp_path / 'out' / 'viewer.html'}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == RESULT_NAMES


@pytest.mark.parametrize("arguments", [["synthetic"], []], ids=["by name", "by default"])
def test_a_synthetic_clip_needs_no_file(
    arguments: list[str], usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", *arguments, *SMALL, *usual]) == 0
    assert capsys.readouterr().out.startswith("12 frames in")


@pytest.mark.parametrize(
    ("arguments", "asked_for", "default"),
    [
        ([], None, "demo"),
        (["synthetic"], None, "demo"),
        (["--weights", "own.pt"], Path("own.pt"), "demo"),
        (["--model", "official"], "official", "demo"),
        (["--image", "picture.png"], None, "official"),
        (["clip.mp4"], None, "official"),
        (["clip.mp4", "--model", "demo"], "demo", "official"),
    ],
    ids=str,
)
def test_only_the_scene_is_given_to_the_demo_model_unasked(
    arguments: list[str],
    asked_for: Path | str | None,
    default: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", [with_light((1, 1))])
    cv2.imwrite("picture.png", with_light((1, 1)))
    seen: list[tuple[object, str]] = []

    def look_no_further(given: object, _: object, default: str) -> None:
        seen.append((given, default))
        raise ModelError("seen")

    monkeypatch.setattr("pipeline.run.opening.find_weights", look_no_further)
    assert main(["process", *arguments]) == 1
    assert seen == [(asked_for, default)]


@pytest.mark.parametrize(
    "command", [["process"], ["bench"], ["tune"], ["evaluate", "--data", "."]], ids=str
)
def test_every_command_takes_a_model_by_name_or_file(command: list[str]) -> None:
    assert parse_arguments(command).weights is None
    assert parse_arguments([*command, "--model", "demo"]).weights == "demo"
    for option in ("--weights", "--model"):
        assert parse_arguments([*command, option, "own.pt"]).weights == Path("own.pt")


@pytest.mark.parametrize(
    "command", [["process", "clip.mp4"], ["bench"], ["tune", "clip.mp4"]], ids=str
)
def test_where_the_official_model_is_nowhere_the_error_names_it_and_the_demo_model(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pipeline.model.weights.OFFICIAL_URL", "http://127.0.0.1:1/nowhere")
    write_clip(project / "clip.mp4", [with_light((1, 1))])
    assert main(command) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(
        r"pipeline: yolov5n\.pt is in none of weights, .*--weights.*MODEL=demo.*\n", error
    )


def test_results_go_to_a_folder_named_after_the_clip(
    clip: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["process", str(clip), "--weights", str(tiny_weights)]) == 0
    assert (tmp_path / "output" / "clip" / "annotated.mp4").is_file()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["A", "--output-dir", "X", "B"], ["A", "B"]),
        (["--every", "2", "A", "--no-reuse", "B", "C", "--debug"], ["A", "B", "C"]),
        (["--classes", "person", "car", "--", "A", "B"], ["A", "B"]),
        (["A", "--classes", "person", "--", "B"], ["A", "B"]),
        (["--", "-x.mp4", "--debug"], ["./-x.mp4", "./--debug"]),
        (["--debug", "--", "-"], ["-"]),
        (["-", "--debug"], ["-"]),
        (["--debug", "--"], []),
        ([], []),
    ],
    ids=" ".join,
)
def test_clips_and_options_may_be_mixed(words: list[str], names: list[str]) -> None:
    assert parse_arguments(["process", *words]).videos == names


@pytest.mark.parametrize(
    ("command", "name", "found"),
    [
        (["tune", "--imgsz", "320", "A", "--crf", "20"], "clip", "A"),
        (["tune", "--imgsz", "320"], "clip", "synthetic"),
        (["tune", "--", "-x.mp4"], "clip", "./-x.mp4"),
        (["plan", "A", "--cores", "8", "B", "--fps-per-core", "9"], "footage", ["A", "B"]),
        (["plan", "--cores", "8", "--fps-per-core", "9", "--", "A"], "footage", ["A"]),
    ],
    ids=str,
)
def test_names_may_stand_anywhere_in_other_commands_too(
    command: list[str], name: str, found: object
) -> None:
    assert getattr(parse_arguments(command), name) == found


def test_a_clip_whose_name_begins_with_a_dash_is_processed(
    tmp_path: Path, clip: Path, usual: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip.rename("-x.mp4")
    assert main(["process", *usual, "--", "-x.mp4"]) == 0


def test_a_clip_that_is_taken_for_a_class_is_told_where_clips_stand(
    tmp_path: Path,
    clip: Path,
    usual: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    classes = ["--classes", "horse", "light", clip.name]
    assert main(["process", *SMALL, *usual, *classes]) == 2
    assert capsys.readouterr().err == (
        "pipeline: 'clip.mp4' is taken for a class, and there is a file of this name: clips come "
        "before --classes, or after --, as in --classes person -- clip.mp4; "
        "see pipeline process --help\n"
    )


@pytest.mark.parametrize("command", ["process", "tune"])
@pytest.mark.parametrize(
    "option",
    [["--size", "640x480"], ["--frame-rate", "30"], ["--seed", "0"], ["--image", "picture.png"]],
    ids=" ".join,
)
def test_an_option_of_the_synthetic_source_is_refused_with_a_clip(
    command: str, option: list[str], clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(clip), *option]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pipeline: {option[0]} is ")
    assert "synthetic scene" in line
    assert str(clip) in line
    assert line.endswith(f"; see pipeline {command} --help")


WRONG_USE = [
    (["tune", "A", "B"], ["unrecognized arguments: B"]),
    (["process", "--classes", "horse"], ["'horse'", "light, shade"]),
    (["process", "--classes", "2"], ["'2'", "light, shade"]),
    (["process", "--device", "NPU.9"], ["NPU.9", "devices are: CPU"]),
    (["process", "--device", "MULTI:CPU,NPU.9"], ["NPU.9", "devices are: CPU"]),
    (["process", "--config", "fastest"], ["'fastest'", ", ".join(CONFIGURATIONS)]),
    (["evaluate", "--data", ".", "--config", "fastest"], ["'fastest'", ", ".join(CONFIGURATIONS)]),
    (["process", "--hint", "QUICK"], ["QUICK", "THROUGHPUT", "LATENCY", "CUMULATIVE", "NONE"]),
    (["process", "--precision", "int4"], ["int4", "auto", "f32", "bf16", "int8"]),
    (["process", "--codec", "mpeg2"], ["mpeg2", "h264", "hevc", "av1", "vp9"]),
    (["process", "--conf", "1.5"], ["--conf", "1.5"]),
    (["process", "--conf", "0"], ["--conf", "0.0"]),
    (["process", "--conf", "nan"], ["--conf", "nan"]),
    (["process", "--conf", "light=1.5"], ["--conf", "'light'", "1.5"]),
    (["process", "--conf", "light=much"], ["'light=much'", "person=0.4"]),
    (["process", "--conf", "lihgt=0.5"], ["'lihgt'", "did you mean light?"]),
    (["process", "--conf", "0=0.5", "light=0.4"], ["'light'", "twice"]),
    (["process", "--classes", "ligth"], ["'ligth'", "did you mean light?"]),
    (["process", "--model", "offical"], ["did you mean official?"]),
    (["process", "--iou", "0"], ["--iou", "0.0"]),
    (["process", "--max-det", "0"], ["max-det", "0"]),
    (["process", "--imgsz", "100"], ["imgsz", "multiple of 32", "100"]),
    (["process", "--imgsz", "0"], ["imgsz", "0"]),
    (["process", "--crf", "64"], ["crf", "64"]),
    (["process", "--streams", "0"], ["streams", "0"]),
    (["process", "--requests", "-1"], ["requests", "-1"]),
    (["process", "--batch", "0"], ["batch", "between 1 and 64", "0"]),
    (["process", "--batch", "65"], ["batch", "between 1 and 64", "65"]),
    (["process", "--every", "0"], ["every", "between 1 and 60", "0"]),
    (["process", "--every", "61"], ["every", "between 1 and 60", "61"]),
    (["process", "--config", "pytorch", "--precision", "int8"], ["PyTorch", "f32"]),
    (["process", "--config", "gpu", "--device", "gpu.1"], ["--config gpu", "--device GPU.1"]),
    (["process", "--config", "throughput", "--batch", "2"], ["--config throughput", "--batch 2"]),
    (["process", "--config", "latency", "--streams", "1"], ["--config latency", "--streams 1"]),
    (["process", "--config", "async", "--requests", "3"], ["--config async", "--requests 3"]),
    (["process", "--config", "async", "--hint", "NONE"], ["--config async", "--hint NONE"]),
    (["process", "--config", "int8", "--precision", "f32"], ["--config int8", "--precision f32"]),
    (["process", "--config", "openvino-batch 3"], ["'openvino-batch 3'", "openvino-batch"]),
    (["process", "--streams", "1000"], ["--streams 1000", "core"]),
    (["process", "--preset", "hurried"], ["'hurried'", "h264", "veryfast"]),
    (["process", "--codec", "hevc", "--crf", "52"], ["between 0 and 51", "hevc", "52"]),
    (["process", "--classes", ""], ["classes", "empty"]),
    (["tune", ""], ["video", "empty"]),
    (["process", "--events", ""], ["--events", "empty"]),
    (["crops", "result", "--clips", ""], ["--clips", "empty"]),
    (["evaluate", "--data", ""], ["--data", "empty"]),
    (["render", "a.mp4", ""], ["detections", "empty"]),
    (["process", "--output-dir", ""], ["--output-dir", "empty"]),
    (["process", "--weights", ""], ["--weights", "empty"]),
    (["export", "", "--to", "coco"], ["result", "empty"]),
    (["process", "", "--frame-rate", "25"], ["empty name"]),
    (["process", "rtsp://me:word@host/1"], ["rtsp://...:", "only files", "s3://", "gs://"]),
    (["process", "a.mp4", "http://host/b.mp4"], ["http://...:", "only files", "s3://"]),
    (["tune", "http://host/b.mp4"], ["http://...:", "only files", "s3://"]),
    (["process", "--segment-seconds", "inf"], ["--segment-seconds", "inf"]),
    (["process", "--segment-seconds", "nan"], ["--segment-seconds", "nan"]),
    (["process", "--stall-seconds", "inf"], ["--stall-seconds", "inf"]),
    (["process", "--conf", "-0.0"], ["--conf", "-0.0"]),
    (["process", "--max-frame-rate", "inf"], ["'inf'", "30000/1001"]),
    (["process", "--size", "99999x99999"], ["32768x32768", "99999x99999"]),
    (["process", "--model", "nano"], ["nano", "official", "demo"]),
    (["process", "--model", "demo", "--config", "auto"], ["--model", "--weights"]),
    (["process", "--calibration", "."], ["calibration", "--precision int8"]),
    (
        ["evaluate", "--data", ".", "--precision", "int8", "--calibration", "clip"],
        ["--calibration a folder"],
    ),
    (["evaluate", "--data", ".", "--calibration", "."], ["--precision int8"]),
    (["process", "--frames", "0"], ["frames", "0"]),
    (["process", "--size", "8x8"], ["size", "16x16"]),
    (["process", "--size", "big"], ["'big'", "WIDTHxHEIGHT"]),
    (["process", "--frame-rate", "1/0"], ["'1/0'", "30000/1001"]),
    (["process", "--frame-rate", "-5"], ["-5"]),
    (["evaluate", "--data", ".", "--imgsz", "100"], ["imgsz", "multiple of 32", "100"]),
    (["evaluate", "--data", ".", "--imgsz", "-32"], ["imgsz", "-32"]),
    (["evaluate"], ["--data"]),
    (["nonsense"], ["nonsense", "process", "evaluate", "configs"]),
    (
        [],
        ["no command given", "process, render, track, export, events, highlights, crops, evaluate"],
    ),
    (["--debug", "process"], ["--debug", "after the command"]),
    (["proces", "clip.mp4"], ["'proces'", "`pipeline process`"]),
    (["pyproject.toml"], ["`pipeline process pyproject.toml`"]),
    (["process", "--class", "light"], ["--class;", "did you mean --classes?"]),
    (["process", "--overwrit"], ["--overwrit;", "did you mean --overwrite?"]),
    (["process", "--nothing-like-it"], ["unrecognized arguments: --nothing-like-it;"]),
    (["process", "--batch"], ["--batch", "expected one argument"]),
]


def test_a_name_from_a_file_shows_escaped_in_a_complaint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of(["process", "--hint", "\x1b[31m\nred"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert error.count("\n") == 1


def test_the_version_names_what_a_result_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(["--version"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(
        rf"pipeline \d\S* \(python {platform.python_version()}, "
        rf"openvino {version('openvino')}, av {version('av')}, .*\)\n",
        printed.out,
    )
    assert printed.err == ""


def test_quiet_leaves_errors_and_notes_only(clip: Path, usual: list[str], tmp_path: Path) -> None:
    done = run("process", str(clip), *usual, "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out" / "annotated.mp4").is_file()
    failed = run("process", "missing.mp4", *usual, "--quiet", "--overwrite", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert re.fullmatch(r"pipeline: missing\.mp4: [^\n]+\n", failed.stderr)


def test_a_quiet_batch_names_only_what_failed(
    clip: Path, usual: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "in the way"))
    (tmp_path / "broken.mp4").write_text("no video")
    done = run("process", str(clip), "broken.mp4", *usual, "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    noted, failed, last = done.stderr.splitlines()
    assert noted.startswith("note: ")
    assert failed.startswith("broken.mp4  ")
    assert last == "pipeline: 1 of 2 clips failed"


@pytest.mark.parametrize(
    "command",
    [
        "process ADDRESS",
        "process --output-dir ADDRESS",
        "tune ADDRESS",
        "render ADDRESS detections.jsonl",
        "plan ADDRESS --fps-per-core 9 --cores 9",
    ],
)
def test_an_address_is_not_repeated_for_it_may_have_a_password_in_it(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.replace("ADDRESS", "rtsp://me:word@host/1").split()) == 2
    shown = capsys.readouterr()
    assert "word" not in shown.err + shown.out
    assert "rtsp://...: only files" in shown.err


@pytest.mark.parametrize(
    ("arguments", "named"), WRONG_USE, ids=[" ".join(arguments) for arguments, _ in WRONG_USE]
)
def test_wrong_use_is_exit_code_2_and_says_what_there_is(
    arguments: list[str],
    named: list[str],
    usual: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if arguments and arguments[0] == "process":
        arguments = [*arguments, *usual]
        if not {"--size", "--frames"} & set(arguments):
            arguments += SMALL
    assert exit_code_of(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(r"pipeline: [^\n]+; see pipeline( \w+)? --help\n", printed.err)
    assert all(name in printed.err for name in named)
    out = tmp_path / "out"
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.pt", "no such model file"),
        ("broken.onnx", "not a model that OpenVINO reads"),
        ("broken.xml", r"broken\.bin, which belongs to it, is not a regular file"),
        ("broken.pt", "not a PyTorch checkpoint|refused"),
        ("broken.txt", r"expected a model file ending in \.pt, \.onnx, \.xml"),
    ],
)
def test_a_model_that_cannot_be_used_is_exit_code_1_and_one_line(
    tmp_path: Path, clip: Path, name: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if name.startswith("broken"):
        path.write_bytes(b"\x08\x07\x12garbage" * 50)
    out = tmp_path / "out"
    options = ["--weights", str(path), "--output-dir", str(out)]
    assert main(["process", str(clip), *options]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    # Of the whole process: libraries that talk behind Python's back count too.
    assert re.fullmatch(rf"pipeline: {re.escape(str(path))}: .*({message}).*\n", printed.err)
    assert not out.exists()


@pytest.mark.parametrize("kind", ["missing", "a text", "empty", "truncated"])
def test_a_clip_that_cannot_be_read_is_exit_code_1_and_one_line(
    tmp_path: Path, usual: list[str], kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.mp4"
    if kind == "a text":
        path.write_text("no video\n" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        write_clip(path, [with_light((1, 1))] * 4)
        path.write_bytes(path.read_bytes()[:200])
    assert main(["process", str(path), *usual]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"pipeline: {re.escape(str(path))}: .+\n", printed.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["no video", "cut short"])
def test_an_error_about_standard_input_says_so(
    kind: str, clip: Path, usual: list[str], tmp_path: Path
) -> None:
    sent = tmp_path / "sent"
    sent.write_bytes(b"no video\n" * 50 if kind == "no video" else clip.read_bytes()[:200])
    with sent.open("rb") as stream:
        done = run("process", "-", *usual, cwd=tmp_path, stdin=stream)
    assert done.returncode == 1
    assert re.fullmatch(
        r"pipeline: standard input: not a video that can be read: .+\n", done.stderr
    )
    assert ".partial" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_clip_is_wrong_use(
    tmp_path: Path, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.mp4"
    path.mkdir()
    assert main(["process", str(path), *usual]) == 2
    assert re.fullmatch(
        rf"pipeline: {re.escape(str(path))}: contains no clip and no picture; .*\n",
        capsys.readouterr().err,
    )
    assert not (tmp_path / "out").exists()


def test_an_existing_output_is_only_replaced_when_asked(
    clip: Path, usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", str(clip), *usual]) == 0
    annotated = tmp_path / "out" / "annotated.mp4"
    first = annotated.stat()
    capsys.readouterr()
    assert main(["process", str(clip), *usual, "--conf", "0.4"]) == 1
    error = capsys.readouterr().err
    assert str(annotated) in error
    assert "--overwrite" in error
    assert annotated.stat() == first
    assert main(["process", str(clip), *usual, "--overwrite"]) == 0
    assert annotated.stat().st_ino != first.st_ino


@pytest.mark.parametrize("linked", [False, True])
def test_a_clip_never_overwrites_itself(
    tmp_path: Path, tiny_weights: Path, linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    clip = write_clip(folder / "annotated.mp4", [with_light((1, 1))] * 3)
    before = clip.read_bytes()
    source = clip
    if linked:
        source = tmp_path / "link.mp4"
        source.symlink_to(clip)
    options = ["--weights", str(tiny_weights), "--output-dir", str(folder), "--overwrite"]
    assert main(["process", str(source), *options]) == 2
    assert "both input and output" in capsys.readouterr().err
    assert clip.read_bytes() == before


def test_an_output_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, clip: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    options = ["--weights", str(tiny_weights), "--output-dir", str(in_the_way / "out")]
    assert main(["process", str(clip), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pipeline: ")
    assert error.count("\n") == 1
    assert str(in_the_way) in error


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_is_shown_only_for_debugging(
    tmp_path: Path, usual: list[str], debug: bool
) -> None:
    done = run("process", "missing.mp4", *usual, *(["--debug"] if debug else []), cwd=tmp_path)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) == debug
    assert done.stderr.splitlines()[-1].startswith("pipeline: missing.mp4: no such file")
    assert debug or done.stderr.count("\n") == 1


def test_what_nobody_expected_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("pipeline.run.process.process_video", fail)
    assert main(["process", *SMALL, *usual]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pipeline: unexpected ZeroDivisionError: first line second line")
    assert "--debug" in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_so_by_its_exit_code_and_leaves_nothing(
    tmp_path: Path, usual: list[str], stop: signal.Signals, code: int
) -> None:
    endless = ["process", "synthetic", "--size", "128x96", "--frames", "10000000"]
    endless += ["--segment-seconds", "1000000"]  # None of them is ever kept.
    with Command(*endless, *usual, cwd=tmp_path) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        while "left" not in (progress := running.stderr.readline()):
            assert progress  # The first line may come before there is anything to go by.
        running.send_signal(stop)
        last_words = running.stderr.read()
        printed = running.stdout.read()
        exit_code = running.wait()
    assert re.match(r"frames: \d+ of 10000000, \d+\.\d frame/s, \d+ s left", progress)
    assert exit_code == code
    assert printed == ""
    assert re.fullmatch(r"(frames: .*\n)*pipeline: interrupted.*\n", last_words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_command_that_is_stopped_while_standard_input_is_read_leaves_nothing(
    tmp_path: Path, usual: list[str], stop: signal.Signals, code: int
) -> None:
    with Command("process", "-", *usual, cwd=tmp_path, stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        # More than a pipe holds: a part of it has been read when all is written.
        running.stdin.write("x" * (4 << 20))
        running.stdin.flush()
        assert (tmp_path / "out").exists()
        running.send_signal(stop)
        words = running.stderr.read()
        assert running.wait() == code
        assert running.stdout.read() == ""
    assert words == "pipeline: interrupted\n"
    assert not (tmp_path / "out").exists()


SIGNAL_AT_IMPORT = """
import os, sys

def send(event, arguments):
    if event == "import" and arguments[0] == os.environ["SIGNAL_AT"]:
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.addaudithook(send)
"""
"""Found by every Python that is started."""


@pytest.mark.parametrize("module", ["pipeline.cli.commands", "pipeline.core.config", "argparse"])
@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_that_comes_while_modules_are_loaded_ends_the_command_without_a_word(
    module: str, stop: signal.Signals, code: int, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_AT_IMPORT)
    done = subprocess.run(
        [*COMMAND, "process", *SMALL],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(PROJECT)]),
            "SIGNAL_AT": module,
            "SIGNAL": str(int(stop)),
        },
        capture_output=True,
        timeout=60,
        # A shell that runs the tests in the background makes its children deaf to SIGINT.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
    assert [path.name for path in tmp_path.glob("output*")] == []


def test_notes_are_lines_of_their_own_after_the_summary(
    clip: Path, usual: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in the way").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "in the way"))
    done = run("process", str(clip), *usual, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[3] == "8 boxes in 8 frames"
    assert re.fullmatch(
        rf"note: {re.escape(str(tmp_path / 'in the way'))}\S*: cannot be written .*\n",
        without_progress(done.stderr),
    )


def test_a_summary_that_nobody_reads_is_no_failure(
    clip: Path, usual: list[str], tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        done = run("process", clip, *usual, stdout=nobody)
    assert (done.returncode, without_progress(done.stderr)) == (0, "")
    assert (tmp_path / "out" / "annotated.mp4").is_file()


@needs_full_device
def test_a_summary_that_finds_no_room_is_told_and_the_output_is_there(
    clip: Path, usual: list[str], tmp_path: Path
) -> None:
    with FULL.open("wb") as full:
        done = run("process", clip, *usual, stdout=full)
    annotated = tmp_path / "out" / "annotated.mp4"
    assert done.returncode == 0
    assert without_progress(done.stderr) == (
        f"pipeline: {annotated} is complete; its summary could not be shown "
        "(standard output: No space left on device)\n"
    )
    assert annotated.is_file()


@needs_full_device
def test_figures_that_find_no_room_are_a_failure() -> None:
    with FULL.open("wb") as full:
        done = run("configs", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "pipeline: standard output: No space left on device\n"


@needs_full_device
def test_progress_and_errors_that_find_no_room_change_nothing(
    clip: Path, usual: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FULL.open("wb") as full:
        done = run("process", "missing.mp4", *usual, stderr=full)
        assert done.returncode == 1
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(
        "pipeline.cli.terminal.time", SimpleNamespace(monotonic=lambda: now.seconds)
    )
    with FULL.open("w") as full, ProgressPrinter() as progress:
        monkeypatch.setattr("sys.stderr", full)
        for done_frames in (1, 2, 3):
            now.seconds += 60
            progress(Progress("frames", done_frames, 3))


def test_away_from_a_terminal_progress_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(
        "pipeline.cli.terminal.time", SimpleNamespace(monotonic=lambda: now.seconds)
    )
    with ProgressPrinter() as progress:
        for done in range(1, 6001):
            now.seconds += 0.01
            progress(Progress("frames", done, 6000))
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert 6 <= len(lines) <= 20
    assert all(
        re.fullmatch(r"frames: \d+ of 6000, (99|100)\.\d frame/s, \d+ s left", line)
        for line in lines
    )


def test_progress_on_many_clips_names_the_clip_and_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(
        "pipeline.cli.terminal.time", SimpleNamespace(monotonic=lambda: now.seconds)
    )
    with ProgressPrinter() as progress:
        for name in ("name.mp4", "\x1b[31m" + 60 * "x"):
            now.seconds += 60
            progress(Progress("frames", 70, None, subject=f"3 of 20 {name}"))
    plain, hostile = capsys.readouterr().err.splitlines()
    assert plain == "3 of 20 name.mp4: frames: 70"
    assert re.fullmatch(r"3 of 20 [^\x1b]+xxx\.\.\.: frames: 70", hostile)


def test_work_of_unknown_length_tells_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(
        "pipeline.cli.terminal.time", SimpleNamespace(monotonic=lambda: now.seconds)
    )
    with ProgressPrinter() as progress:
        progress(Progress("frames", 1, None))
        now.seconds += 60
        progress(Progress("frames", 70, None))
    assert capsys.readouterr().err == "frames: 70\n"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=str)
def test_every_command_explains_itself(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of([*command, "--help"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("usage: pipeline")
    assert printed.err == ""
    assert "default: None" not in printed.out
    assert printed.out.count("(default: ") == len(re.findall(r"\(default: [^()]+\)", printed.out))
    assert not re.search(r"\(default:[^)]*\)\s*\(default:", printed.out)


def test_help_names_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code_of(["process", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option, default in [
        (r"--conf \[CLASS=\]P", "0.25"),
        ("--iou P", "0.45"),
        ("--max-det N", "1000"),
        ("--imgsz PX", "640"),
        ("--config NAME", "auto"),
        ("--frames N", "1024"),
    ]:
        assert re.search(rf"{option} [^-]*\(default: {re.escape(default)}\)", text)
    assert "640x480" in text


def test_configs_lists_every_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    printed = capsys.readouterr()
    listed = [line for line in printed.out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in listed] == CONFIGURATIONS
    assert all(len(line.split()) > 1 for line in printed.out.splitlines())
    assert printed.err == ""
    variants = re.findall(r"--config '(.+)'", printed.out)
    assert len(variants) > len(BATCH_SIZES)
    for name in variants:
        assert parse_arguments(["process", "--config", name]).config == name
        named_options(name, available_cores())


def test_configs_says_which_cannot_run_here_and_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openvino.Core", lambda: SimpleNamespace(available_devices=["CPU"]))
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    lacking = {
        before.split()[0]: line.strip()
        for before, line in itertools.pairwise(lines)
        if line.startswith(" ") and "--config" not in line
    }
    assert lacking == {
        "gpu": "unavailable: no GPU, only CPU",
        "npu": "unavailable: no NPU, only CPU",
    }
    assert "default" in lines[0]


def test_a_configuration_of_a_device_that_is_not_there_is_wrong_use(
    usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, device in (("gpu", "GPU"), ("npu", "NPU")):
        if device in " ".join(openvino.Core().available_devices):
            continue
        assert main(["process", *SMALL, *usual, "--config", name]) == 2
        assert f"device {device} is unavailable on this machine" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_pytorch_with_anything_but_a_checkpoint_is_one_line(
    usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", *SMALL, *usual, "--config", "pytorch"]) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(
        r"pipeline: .*light\.xml: PyTorch runs \.pt checkpoints only\n", printed.err
    )
    assert not (tmp_path / "out").exists()


def test_pytorch_says_what_it_ran(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = save(tmp_path / "model.pt", three_convolutions(1))
    options = ["--weights", str(weights), "--output-dir", str(tmp_path / "out"), "--imgsz", "128"]
    assert main(["process", str(clip), *options, "--config", "pytorch"]) == 0
    assert re.search(r"\(.*CPU.*f32, 1 stream, 1 request\)", capsys.readouterr().out)


def test_what_there_is_one_of_is_not_called_many(
    tmp_path: Path, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "one.mp4", [with_light((4, 4))])
    assert main(["process", str(clip), *usual, "--streams", "1", "--requests", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1 frame in ")
    assert ", 1 stream, 1 request)" in printed
    assert "\n1 box in 1 frame\n" in printed
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "1 frame of 128" in page
    assert "1 box, in" in page


def test_frames_that_were_not_inferred_are_counted(
    tmp_path: Path, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "still.mp4", [with_light((4, 4))] * 9, options={"qp": "0"})
    command = ["process", str(clip), *usual, "--overwrite"]
    assert main(command) == 0
    assert (
        "9 boxes in 9 frames; 8 frames identical to the one before, not inferred"
        in capsys.readouterr().out
    )
    assert main([*command, "--no-reuse"]) == 0
    assert "9 boxes in 9 frames\n" in capsys.readouterr().out
    assert main([*command, "--no-reuse", "--every", "4", "--batch", "2"]) == 0
    assert (
        "9 boxes in 9 frames; boxes of 6 frames interpolated, not inferred"
        in capsys.readouterr().out
    )


def test_int8_says_what_is_known_of_its_accuracy(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = save(tmp_path / "model.pt", three_convolutions(1))
    options = ["--weights", str(weights), "--output-dir", str(tmp_path / "out"), "--imgsz", "128"]
    assert main(["process", str(clip), *options, "--config", "int8"]) == 0
    printed = capsys.readouterr().out
    assert "int8" in printed
    assert "INT8, accuracy not evaluated" in printed


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_a_calibration_folder_without_pictures_is_one_line(
    tmp_path: Path, usual: list[str], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "calibration"
    if kind == "empty":
        folder.mkdir()
    options = ["--precision", "int8", "--calibration", str(folder)]
    assert main(["process", *SMALL, *usual, *options]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(rf"pipeline: {re.escape(str(folder))}: .+\n", error)
    assert not (tmp_path / "out").exists()


def test_options_given_by_themselves_are_what_runs(
    usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--hint", "LATENCY", "--precision", "f32", "--requests", "3", "--streams", "1"]
    assert main(["process", *SMALL, *usual, *chosen]) == 0
    assert "hint LATENCY, f32, 1 stream, 3 requests" in capsys.readouterr().out


def test_a_precision_may_be_given_with_a_configuration_that_leaves_it_open(
    usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--config", "latency", "--precision", "f32"]
    assert main(["process", *SMALL, *usual, *chosen]) == 0
    assert "hint LATENCY, f32, " in capsys.readouterr().out


BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("command", ["process", "evaluate", "tune"])
@pytest.mark.skipif(BF16, reason="needs a processor without bf16")
def test_a_precision_that_the_processor_does_not_have_is_refused(
    command: str,
    usual: list[str],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = {
        "process": [*SMALL, *usual],
        "evaluate": ["--data", str(tmp_path), "--weights", str(tiny_weights)],
        "tune": ["--size", "128x96", "--weights", str(tiny_weights)],
    }
    assert main([command, *words[command], "--precision", "bf16"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pipeline: --precision bf16 is unavailable here")
    assert "CPU: FP32, INT8" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not BF16, reason="needs a processor with bf16")
def test_a_precision_that_the_processor_has_is_what_runs(
    usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", *SMALL, *usual, "--precision", "bf16"]) == 0
    assert ", bf16, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("classes", "boxes"), [(["light"], 8), (["0"], 8), (["shade"], 0), (["light", "shade"], 8)]
)
def test_only_the_classes_asked_for_are_counted(
    clip: Path,
    usual: list[str],
    classes: list[str],
    boxes: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["process", str(clip), *usual, "--classes", *classes]) == 0
    assert f"{boxes} boxes in {boxes} frames" in capsys.readouterr().out


def test_a_picture_can_be_repeated(
    tmp_path: Path, usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), with_light((4, 4), TINY_INPUT_WH))
    assert main(["process", *SMALL, *usual, "--image", str(picture)]) == 0
    assert "12 boxes in 12 frames" in capsys.readouterr().out


def test_the_same_command_on_a_finished_clip_is_done_before(
    clip: Path, usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["process", str(clip), *usual]
    assert main(command) == 0
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == (
        f"{clip}: skipped, already done with the same model and options; --overwrite repeats it"
    )
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert main([*command, "--conf", "0.5"]) == 1
    assert "exists already: --overwrite replaces it" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert "already done" not in capsys.readouterr().out
    write_clip(clip, [with_light((3, 3))] * 5)
    assert main(command) == 1
    (out / "detections.jsonl").unlink()
    assert main([*command, "--overwrite"]) == 0
    assert main(command) == 0


def test_the_same_command_on_the_finished_scene_is_done_before(
    usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["process", *SMALL, *usual]
    assert main(command) == 0
    assert main(command) == 0
    assert "synthetic: skipped, already done" in capsys.readouterr().out


def test_bench_without_its_extra_is_refused_in_one_line_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "pipeline.measure.chart.find_spec", lambda name: None if name == "matplotlib" else name
    )
    assert main(["bench", "--output-dir", str(tmp_path / "bench")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("pipeline: bench needs the extra bench: pip install matplotlib;")
    assert message.count("\n") == 1
    assert not (tmp_path / "bench").exists()
