"""Runs without an annotated file: detections and report, with everything else as ever."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import pytest

from pipeline.cli.commands import main
from pipeline.core.config import RemoteOptions
from pipeline.core.errors import Interrupted, PipelineError
from pipeline.core.position import Position
from pipeline.core.progress import no_progress
from pipeline.frames.annotate import Annotator
from pipeline.frames.encode import VideoEncoder
from pipeline.run.outputs import finished_report
from pipeline.run.process import process_video
from pipeline.run.remote import process_or_skip
from tests.conftest import process, read_detections, with_light, write_clip
from tests.recordings import Track, numbered, record_with_tracks
from tests.resuming import KEYS, config_of, interrupted_at, run
from tests.schemas import schema_errors

NUM_FRAMES = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames with a key frame at every tenth: three segments."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [numbered(i) for i in range(NUM_FRAMES)], options=KEYS)


WITHOUT_VIDEO = ["detections.jsonl", "report.html", "report.json", "viewer.html", "viewer_data"]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_detections_are_those_of_the_run_with_video_and_nothing_is_drawn_or_encoded(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = run(clip, tmp_path / "with", tiny_weights)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a frame was drawn or encoded")

    monkeypatch.setattr(Annotator, "__init__", forbidden)
    monkeypatch.setattr(VideoEncoder, "__init__", forbidden)
    report = run(clip, tmp_path / "without", tiny_weights, video=False)
    assert names_in(tmp_path / "without") == WITHOUT_VIDEO
    assert read_detections(tmp_path / "without") == read_detections(tmp_path / "with")
    assert report["segments"]["number"] == 3
    assert report["output"]["file"] is report["output"]["codec"] is None
    left_out = {step["step"] for step in usual["steps"]} - {
        step["step"] for step in report["steps"]
    }
    assert left_out == {"annotate", "encode"}


def test_the_report_is_valid_and_its_page_says_that_there_is_no_annotated_file(
    clip: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["process", str(clip), "--output-dir", str(out), "--weights", str(tiny_weights)]
    assert main([*command, "--no-video"]) == 0
    assert f"{out}/detections.jsonl" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert not list(schema_errors("report", report))
    page = (out / "report.html").read_text()
    assert 'href="annotated' not in page
    assert "<img" not in page
    assert "--no-video" in page
    assert "--no-video" in report["command"]


def test_sound_that_could_not_be_carried_is_of_no_interest(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = record_with_tracks(tmp_path / "clip.asf", [], [Track("wmav2")])
    assert process(clip, tmp_path / "with", tiny_weights)["output"]["notes"]
    report = process(clip, tmp_path / "without", tiny_weights, video=False)
    assert report["output"]["notes"] == []


def test_the_same_command_is_done_before_and_one_with_video_is_not(
    clip: Path, tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["process", str(clip), "--output-dir", str(out), "--weights", str(tiny_weights)]
    assert main([*command, "--no-video"]) == 0
    assert main([*command, "--no-video"]) == 0
    assert "skipped" in capsys.readouterr().out
    assert main(command) == 1
    assert main([*command, "--overwrite"]) == 0
    assert (out / "annotated.mp4").is_file()
    assert main([*command, "--no-video", "--overwrite"]) == 0
    assert names_in(out) == WITHOUT_VIDEO


def test_a_missing_input_is_reported_before_an_existing_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "annotated.mp4").write_bytes(b"mine")
    (tmp_path / "report.json").write_text("{}")
    missing = str(tmp_path / "missing.mp4")
    assert main(["process", missing, "--output-dir", str(tmp_path), "--model", "demo"]) == 1
    assert "exists already" not in capsys.readouterr().err
    assert (tmp_path / "annotated.mp4").read_bytes() == b"mine"


def test_a_result_whose_page_is_missing_is_not_complete(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    process(clip, tmp_path / "out", tiny_weights, video=False)
    assert finished_report(tmp_path / "out") is not None
    (tmp_path / "out" / "report.html").unlink()
    assert finished_report(tmp_path / "out") is None


def test_an_interrupted_run_resumes_to_the_same_bytes(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    run(clip, tmp_path / "whole", tiny_weights, video=False)
    config = dataclasses.replace(config_of(clip, tmp_path / "cut", tiny_weights), video=False)
    with pytest.raises(Interrupted, match="kept"):
        process_video(config, interrupted_at(45, KeyboardInterrupt()))
    report = process_video(config)
    assert report["segments"]["done_before"] == 2
    whole, cut = (tmp_path / name / "detections.jsonl" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_a_batch_has_a_page_without_links_to_annotated_files(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, [numbered(i) for i in range(4)])
    command = ["process", "a.mp4", "b.mp4", "--output-dir", "out", "--no-video"]
    assert main([*command, "--weights", str(tiny_weights)]) == 0
    record = json.loads(Path("out/batch.json").read_text())
    assert not list(schema_errors("batch", record))
    assert [entry["annotated"] for entry in record["clips"]] == [None, None]
    assert "annotated" not in Path("out/batch.html").read_text()


def test_a_picture_gives_detections_only(tmp_path: Path, tiny_weights: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), with_light((3, 3)))
    report = process(tmp_path / "a.png", tmp_path / "out", tiny_weights, video=False)
    assert report["output"]["file"] is None
    assert len(read_detections(tmp_path / "out")[0]["detections"]) == 1
    assert names_in(tmp_path / "out") == ["detections.jsonl", "report.html", "report.json"]


def test_results_in_a_store_end_with_the_report_and_are_done_before(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    # fsspec's store in memory.
    remote = RemoteOptions(output_url="memory://no-video/out")
    config = dataclasses.replace(
        config_of(clip, tmp_path / "out", tiny_weights), video=False, remote=remote
    )
    assert not process_or_skip(config, no_progress, Position())["done_before"]
    assert process_or_skip(config, no_progress, Position())["done_before"]
    other = dataclasses.replace(config, num_frames=3)
    with pytest.raises(PipelineError, match=r"report\.json exists already"):
        process_or_skip(other, no_progress, Position())


def test_options_of_the_encoder_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["process", "clip.mp4", "--no-video", "--crf", "20"]) == 2
    assert "--no-video" in capsys.readouterr().err
