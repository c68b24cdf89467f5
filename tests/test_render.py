"""Existing detections drawn onto their clip: no model, the pixels of the run that found them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.arguments import render_config
from pipeline.cli.commands import main
from pipeline.cli.parsers import parse_arguments
from pipeline.core.boxes import Detections
from pipeline.core.config import SyntheticOptions
from pipeline.core.detection_lines import DetectionLine
from pipeline.core.errors import Interrupted
from pipeline.run.recorded import read_recorded
from pipeline.run.render import render_clip
from tests.conftest import gray, process, with_light, write_clip
from tests.recordings import Track, numbered, record_with_tracks
from tests.resuming import KEYS, interrupted_at, run
from tests.schemas import schema_errors

NUM_FRAMES = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames with a key frame at every tenth: three segments."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [numbered(i) for i in range(NUM_FRAMES)], options=KEYS)


@pytest.fixture(scope="module")
def fused(clip: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run with video."""
    out = tmp_path_factory.mktemp("fused")
    run(clip, out, tiny_weights)
    return out


def render(clip: Path, found: Path, out: Path, *options: str) -> int:
    detections = str(found / "detections.jsonl")
    return main(["render", str(clip), detections, "--output-dir", str(out), *options])


def copied(found: Path, to: Path) -> Path:
    """A copy of detections and their report, to be changed."""
    to.mkdir()
    for name in ("detections.jsonl", "report.json"):
        (to / name).write_bytes((found / name).read_bytes())
    return to


@given(
    arrays.arrays(np.float32, (3, 4), elements=st.floats(0, 32768, width=32)),
    arrays.arrays(np.float32, 3, elements=st.floats(0, 1, width=32)),
)
def test_rounded_detections_are_those_that_are_read_from_their_line(
    xyxy: np.ndarray, confidence: np.ndarray
) -> None:
    detections = Detections(xyxy, confidence, np.zeros(3, np.int64))
    read = DetectionLine.from_json(DetectionLine(0, 0, 0.0, detections).to_json(["x"])).detections
    rounded = detections.rounded()
    assert read.xyxy.tolist() == rounded.xyxy.tolist()
    assert read.confidence.tolist() == rounded.confidence.tolist()
    # Python's own rounding is that of the exact decimal value.
    records = detections.as_records(["x"])
    assert [record["confidence"] for record in records] == [
        round(value, 4) for value in confidence.tolist()
    ]
    assert [record["xyxy"] for record in records] == [
        [round(value, 2) for value in box] for box in xyxy.tolist()
    ]


def test_the_file_is_that_of_the_run_with_video_in_segments_too(
    clip: Path, fused: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    run(clip, tmp_path / "found", tiny_weights, video=False)
    assert render(clip, tmp_path / "found", tmp_path / "out") == 0
    assert (tmp_path / "out" / "annotated.mp4").read_bytes() == (
        fused / "annotated.mp4"
    ).read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["annotated.mp4"]


def test_sound_options_of_the_run_and_interpolated_boxes_are_as_in_it(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = record_with_tracks(tmp_path / "clip.mkv", [], [Track("pcm_s16le"), Track("subrip")])
    command = ["process", str(clip), "--weights", str(tiny_weights), "--every", "3"]
    command += ["--frames", "15", "--output-dir"]
    assert main([*command, str(tmp_path / "with"), "--codec", "hevc", "--crf", "20"]) == 0
    assert render(clip, tmp_path / "with", tmp_path / "out") == 0
    rendered = (tmp_path / "out" / "annotated.mp4").read_bytes()
    assert rendered == (tmp_path / "with" / "annotated.mp4").read_bytes()
    # An option replaces that of the run.
    assert render(clip, tmp_path / "with", tmp_path / "h264", "--codec", "h264") == 0
    assert main([*command, str(tmp_path / "other")]) == 0
    rendered = (tmp_path / "h264" / "annotated.mp4").read_bytes()
    assert rendered == (tmp_path / "other" / "annotated.mp4").read_bytes()


def test_a_picture_is_drawn_too(tmp_path: Path, tiny_weights: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), with_light((3, 3)))
    process(tmp_path / "a.png", tmp_path / "fused", tiny_weights)
    process(tmp_path / "a.png", tmp_path / "found", tiny_weights, video=False)
    # The usual place is beside the detections.
    assert (
        main(["render", str(tmp_path / "a.png"), str(tmp_path / "found" / "detections.jsonl")]) == 0
    )
    found, fused = (tmp_path / name / "annotated.png" for name in ("found", "fused"))
    assert found.read_bytes() == fused.read_bytes()


def test_neither_openvino_nor_a_model_is_needed(clip: Path, fused: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['openvino'] = None\n"
        "from pipeline.cli.arguments import render_config\n"
        "from pipeline.cli.commands import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["render", str(clip), str(fused / "detections.jsonl"), "--output-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "annotated.mp4").exists()


def test_an_existing_file_is_replaced_on_request_only(
    clip: Path, fused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "annotated.mp4").write_bytes(b"mine")
    assert render(clip, fused, tmp_path) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "annotated.mp4").read_bytes() == b"mine"
    assert render(clip, fused, tmp_path, "--overwrite") == 0
    assert (tmp_path / "annotated.mp4").read_bytes() != b"mine"


def test_an_interrupted_render_resumes_to_the_same_bytes(
    clip: Path, fused: Path, tmp_path: Path
) -> None:
    detections = fused / "detections.jsonl"
    words = ["render", str(clip), str(detections), "--output-dir", str(tmp_path / "out")]
    recorded = read_recorded(detections)
    config = render_config(parse_arguments(words), recorded)
    with pytest.raises(Interrupted, match="2 of 3 segments are kept"):
        render_clip(config, recorded, interrupted_at(45, KeyboardInterrupt()))
    done: list[int] = []
    render_clip(config, recorded, lambda progress: done.append(progress.done))
    assert done[0] > 1  # The first segment at once.
    rendered = (tmp_path / "out" / "annotated.mp4").read_bytes()
    assert rendered == (fused / "annotated.mp4").read_bytes()
    assert not (tmp_path / "out" / ".partial").exists()


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    def apply(found: Path) -> None:
        path = found / "detections.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return apply


def _line_3(**values: object) -> Callable[[Path], None]:
    def change(lines: list[str]) -> list[str]:
        lines[3] = json.dumps({**json.loads(lines[3]), **values}) + "\n"
        return lines

    return _lines(change)


def _report(part: str, **values: object) -> Callable[[Path], None]:
    def apply(found: Path) -> None:
        report = json.loads((found / "report.json").read_text())
        report[part] |= values
        (found / "report.json").write_text(json.dumps(report))

    return apply


def _cut_report(found: Path) -> None:
    (found / "report.json").write_text("{")


BOX = {"class_id": 0, "class_name": "light", "confidence": 0.5, "xyxy": [1.0, 2.0, 3.0, 4.0]}
DAMAGE: dict[str, Callable[[Path], None]] = {
    "a line is missing": _lines(lambda lines: [*lines[:5], *lines[6:]]),
    "there is a line more": _lines(lambda lines: [*lines, lines[-1]]),
    "two lines are exchanged": _lines(lambda lines: [lines[1], lines[0], *lines[2:]]),
    "a line is no JSON": _lines(lambda lines: [*lines[:-1], "{\n"]),
    "a line is of another time": _line_3(pts_seconds=9.0),
    "a line has another time stamp": _line_3(pts=12345),
    "a class is unknown": _line_3(detections=[{**BOX, "class_id": 7}]),
    "a number is not finite": _line_3(detections=[{**BOX, "xyxy": [1, 2, 3, float("nan")]}]),
    "a box has three sides": _line_3(detections=[{**BOX, "xyxy": [1, 2, 3]}]),
    "there is no report": lambda found: (found / "report.json").unlink(),
    "the report is no JSON": _cut_report,
    "the report is of no file": _report("source", fingerprint=None),
    "the report names another clip": _report("source", fingerprint="0" * 64),
    "the clip has another size": _report("source", size_wh=[320, 240]),
    "the clip has another time base": _report("source", time_base="1/77"),
    "the time base is none": _report("source", time_base="1/0"),
    "the options are none": _report("configuration", encode={"codec": "divx"}),
}


def test_drawn_beside_the_detections_the_result_is_that_of_the_run_with_video(
    clip: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["process", str(clip), "--output-dir", str(out), "--weights", str(tiny_weights)]
    assert main([*command, "--no-video"]) == 0
    detections, page = out / "detections.jsonl", out / "report.html"
    assert main(["render", str(clip), str(detections)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert schema_errors("report", report) == []
    assert report["output"]["size_bytes"] == (out / "annotated.mp4").stat().st_size
    assert "annotated.mp4" in page.read_text()
    assert "<img" in page.read_text()
    for again in (command, [*command, "--no-video"]):
        capsys.readouterr()
        assert main(again) == 0
        assert "skipped" in capsys.readouterr().out
    # Drawn in another way, it is what was asked for in that way.
    assert main(["render", str(clip), str(detections), "--crf", "40", "--overwrite"]) == 0
    assert main([*command, "--crf", "40"]) == 0
    assert "skipped" in capsys.readouterr().out
    assert main(command) == 1


def test_the_result_of_other_detections_is_not_drawn_over(
    clip: Path, fused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = copied(fused, tmp_path / "found")
    report = (found / "report.json").read_bytes()
    assert render(clip, fused, found, "--overwrite") == 1
    assert "--output-dir" in capsys.readouterr().err
    assert (found / "report.json").read_bytes() == report
    assert not (found / "annotated.mp4").exists()


@pytest.mark.parametrize("damage", DAMAGE)
def test_detections_that_are_damaged_or_of_another_clip_are_refused_in_one_line(
    damage: str,
    clip: Path,
    fused: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = copied(fused, tmp_path / "found")
    DAMAGE[damage](found)
    assert render(clip, found, tmp_path / "out") == 1
    shown = [line for line in capsys.readouterr().err.splitlines() if "pipeline:" in line]
    assert len(shown) == 1
    assert "unexpected" not in shown[0]
    assert "decode of frame" not in shown[0]
    assert str(found) in shown[0]
    assert not (tmp_path / "out" / "annotated.mp4").exists()


def test_a_file_that_is_missing_is_the_one_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("detections.jsonl", "report.json"):
        assert render(tmp_path / "clip.mp4", tmp_path, tmp_path / "out") == 1
        assert f"{tmp_path / name}: No such file" in capsys.readouterr().err
        (tmp_path / name).write_text("")


def test_detections_of_the_scene_are_refused_for_that_reason(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = SyntheticOptions(num_frames=2, size_wh=(64, 48))
    process(scene, tmp_path / "out", tiny_weights, video=False)
    assert render(Path("synthetic"), tmp_path / "out", tmp_path / "drawn") == 1
    shown = capsys.readouterr().err
    assert "not a file" in shown
    assert "again" not in shown


def test_another_clip_of_the_same_kind_is_refused_and_a_copy_is_not(
    clip: Path, fused: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_clip(tmp_path / "clip.mp4", [gray(30)] * NUM_FRAMES, options=KEYS)
    assert render(other, fused, tmp_path / "out") == 1
    assert "belong to another clip" in capsys.readouterr().err
    (tmp_path / "renamed.mp4").write_bytes(clip.read_bytes())
    assert render(tmp_path / "renamed.mp4", fused, tmp_path / "out") == 0
