"""--highlights and --crops: what is cut out of a result is what it shows there, to the frame."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import signal
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.cli.commands import main
from pipeline.cli.cutting import CutInChild
from pipeline.core.config import ProcessConfig, RedactOptions
from pipeline.core.detection_lines import DetectedBox, DetectedFrame
from pipeline.core.errors import InputError
from pipeline.core.highlight_options import HighlightOptions
from pipeline.core.position import Position
from pipeline.core.progress import no_progress
from pipeline.media.scan import scan_clip
from pipeline.run.exports import clip as exported_clip
from pipeline.run.highlights.cuts import cuts_of, stretches_of_finds
from pipeline.run.highlights.edit_lists import Edit, Medium, write_edl, write_otio
from pipeline.run.highlights.source import SourcePackets
from pipeline.run.outputs import move_into_place, require_free_output, unfinished_folder
from tests.commands import Command
from tests.conftest import read_detections
from tests.programs import ffmpeg, needs_ffmpeg, probed
from tests.recordings import (
    LOSSLESS,
    Track,
    light_cell,
    number_read_from,
    numbered,
    record,
    record_with_tracks,
)
from tests.schemas import schema_errors

FOUND = {5, 6, 15}
"""The frames of the clip with a light."""
PADDING = "0.08"
CUTS = [range(3, 9), range(13, 18)]
"""With two frames of padding."""
WH = (128, 96)

pytestmark = needs_ffmpeg


def image_of(index: int) -> NDArray[np.uint8]:
    """A frame that says its number; only some have a light."""
    image = numbered(index)
    if index not in FOUND:
        x, y = (8 * cell for cell in light_cell(index))
        image[y : y + 8, x : x + 8] = 20
    return image


IMAGES = [image_of(index) for index in range(20)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames at 25 per second with sound and subtitles, B-frames, and 3 open groups."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    tracks = [Track("aac"), Track("mov_text")]
    return record_with_tracks(path, [], tracks, images=IMAGES, options=OPEN_GOP)


OPEN_GOP = {
    **LOSSLESS["libx264"],
    "x264-params": "keyint=7:min-keyint=7:bframes=2:b-adapt=0:open-gop=1:scenecut=0",
}


@pytest.fixture(scope="module")
def result(clip: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run with a clip for each stretch, and crops."""
    out = tmp_path_factory.mktemp("result") / "out"
    words = ["process", str(clip), "--output-dir", str(out), "--weights", str(tiny_weights)]
    assert main([*words, "--track", "--highlights", PADDING, "--crops"]) == 0
    return out


def numbers_in(path: Path, *more: object) -> list[int]:
    """What the frames of a clip say, as ffmpeg decodes them; more: options of another output."""
    width, height = WH
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-")
    pixels = ffmpeg("-xerror", "-i", path, *more, *raw)
    images = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)
    return [number_read_from(image) for image in images]


def report_in(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


def clips_in(out: Path) -> list[Path]:
    return [out / entry["file"] for entry in report_in(out)["highlights"]["clips"]]


def test_each_highlight_has_exactly_its_frames_with_sound_and_subtitles(
    result: Path, tmp_path: Path
) -> None:
    for path, cut, text in zip(clips_in(result), CUTS, ("first", "second"), strict=True):
        written = tmp_path / f"{path.stem}.srt"
        assert numbers_in(path, "-f", "srt", written) == list(cut)
        streams = probed(path)
        (sound,) = (stream for stream in streams if stream["codec_type"] == "audio")
        assert abs(float(sound["duration"]) - len(cut) / 25) < 2 * 1024 / 48000
        (video,) = (stream for stream in streams if stream["codec_type"] == "video")
        assert video["start_time"] == "0.000000"
        subtitles = written.read_text(encoding="utf-8")
        assert text in subtitles
        assert subtitles.count("-->") == 1


def copied(result: Path, tmp_path: Path) -> Path:
    """A result of one's own, without highlights and crops."""
    out = tmp_path / "copy"
    shutil.copytree(result, out, ignore=shutil.ignore_patterns("highlights", "crops"))
    return out


def test_one_clip_of_all_has_their_frames_and_sound_one_after_the_other(
    result: Path, tmp_path: Path
) -> None:
    out = copied(result, tmp_path)
    assert main(["highlights", str(out), "--padding", PADDING, "--as", "one"]) == 0
    (path,) = {*clips_in(out)}
    assert numbers_in(path) == [*CUTS[0], *CUTS[1]]
    (sound,) = probed(path, "a")
    assert abs(float(sound["duration"]) - 11 / 25) < 2 * 1024 / 48000
    offsets = [entry["offset_seconds"] for entry in report_in(out)["highlights"]["clips"]]
    assert offsets == [0, 6 / 25]


def test_packets_of_the_source_begin_at_the_key_frame_before_the_highlight(
    result: Path, clip: Path, tmp_path: Path
) -> None:
    out = copied(result, tmp_path)
    words = ["highlights", str(out), "--padding", PADDING, "--from-source", str(clip)]
    assert main(words) == 0
    keys = [0, 7, 14]
    for path, cut, entry in zip(
        clips_in(out), CUTS, report_in(out)["highlights"]["clips"], strict=True
    ):
        key = max(key for key in keys if key <= cut[0])
        found = numbers_in(path)
        # Frames behind the end are there where others refer to them.
        assert found[: cut[-1] + 1 - key] == list(range(key, cut[-1] + 1))
        assert len(found) <= cut[-1] + 1 - key + 3
        assert entry["offset_seconds"] == pytest.approx((cut[0] - key) / 25)
        assert {stream["codec_type"] for stream in probed(path, "a")} == {"audio"}


def test_a_source_without_times_of_its_pictures_is_not_cut(tmp_path: Path) -> None:
    clip = record(tmp_path / "clip.avi", IMAGES, options=OPEN_GOP)
    with pytest.raises(InputError, match="time stamps are missing"):
        SourcePackets(clip)


def test_lists_are_read_by_another_program(result: Path) -> None:
    otio = pytest.importorskip("opentimelineio", reason="needs opentimelineio")
    pytest.importorskip("otio_cmx3600_adapter", reason="needs otio-cmx3600-adapter")
    timeline = otio.adapters.read_from_file(str(result / "highlights" / "highlights.otio"))
    edl = otio.adapters.read_from_file(str(result / "highlights" / "highlights.edl"), rate=25)
    for read in (timeline, edl):
        ranges = [clip.source_range for clip in read.find_clips()]
        assert [(r.start_time.value, r.duration.value) for r in ranges] == [
            (cut[0], len(cut)) for cut in CUTS
        ]
    media = [clip.media_reference.target_url for clip in timeline.find_clips()]
    assert {(result / "highlights" / url).resolve() for url in media} == {
        (result / "annotated.mp4").resolve()
    }


def test_times_of_uneven_clips_are_exact_in_otio_and_the_nearest_frame_in_the_edl(
    tmp_path: Path,
) -> None:
    otio = pytest.importorskip("opentimelineio", reason="needs opentimelineio")
    rate = Fraction(30000, 1001)
    edits = [Edit(0.1, 1.234567, "a"), Edit(2.002, 3.003, "b")]
    medium = Medium("clip.mkv", "../clip.mkv", rate, 10.0)
    write_otio(edits, medium, "clip", tmp_path / "x.otio")
    write_edl(edits, medium, "clip", tmp_path / "x.edl")
    timeline = otio.adapters.read_from_file(str(tmp_path / "x.otio"))
    found = [clip.source_range for clip in timeline.find_clips()]
    for edit, time in zip(edits, found, strict=True):
        assert time.start_time.to_seconds() == pytest.approx(edit.begin_seconds, abs=1e-6)
        assert time.end_time_exclusive().to_seconds() == pytest.approx(edit.end_seconds, abs=1e-6)
    assert found[1].start_time.value == 60  # Whole frames are whole numbers.
    pytest.importorskip("otio_cmx3600_adapter", reason="needs otio-cmx3600-adapter")
    edl = otio.adapters.read_from_file(str(tmp_path / "x.edl"), rate=30)
    ranges = [clip.source_range for clip in edl.find_clips()]
    assert [(r.start_time.value, r.duration.value) for r in ranges] == [(3, 34), (60, 30)]


@given(
    steps=st.lists(st.integers(1, 90_000), min_size=1, max_size=40),
    found=st.sets(st.integers(0, 39)),
    padding=st.integers(0, 200_000),
)
def test_cuts_are_all_frames_within_the_padding_of_a_find(
    steps: list[int], found: set[int], padding: int
) -> None:
    times = np.cumsum(steps).tolist()
    box = DetectedBox(0, "light", 0.9, (0, 0, 8, 8))
    frames = [
        DetectedFrame(index, time, time / 1e6, (box,) if index in found else ())
        for index, time in enumerate(times)
    ]
    seconds = padding / 1e6
    cuts = cuts_of(frames, stretches_of_finds(frames), seconds, Fraction(25))
    near = [
        index
        for index, time in enumerate(times)
        if any(abs(time - times[f]) <= padding + 1 for f in found if f < len(times))
    ]
    assert [i for cut in cuts for i in range(cut.first_frame, cut.end_frame)] == near
    assert all(a.end_frame < b.first_frame for a, b in itertools.pairwise(cuts))
    for cut in cuts:
        assert (cut.begin_pts, cut.end_pts) == (times[cut.first_frame], times[cut.end_frame - 1])


def test_crops_have_the_pixels_of_the_source(result: Path, clip: Path) -> None:
    crops = report_in(result)["crops"]["pictures"]
    assert json.loads((result / "crops" / "crops.json").read_text()) == crops
    assert {(result / crop["file"]).name for crop in crops} == {
        path.name for path in (result / "crops").glob("*.jpg")
    }
    width, height = WH
    pixels = ffmpeg("-i", clip, "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    images = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)
    assert crops
    for crop in crops:
        left, top, right, bottom = crop["xyxy"]
        picture = cv2.imread(str(result / crop["file"]))
        assert picture is not None
        shown = picture[..., ::-1].astype(int)
        expected = images[crop["frame_index"]][top:bottom, left:right].astype(int)
        assert abs(shown - expected).mean() < 3
        boxes = read_detections(result)[crop["frame_index"]]["detections"]
        assert crop["confidence"] in [box["confidence"] for box in boxes]


def test_each_clip_of_a_batch_has_its_own_and_crops_show_covered_things_covered(
    clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(clip, tmp_path / name)
    words = ["process", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--redact=light"]
    words += ["--weights", str(tiny_weights), "--redact-style", "fill", "--redact-hold", "0"]
    assert main([*words, "--highlights", PADDING, "--highlights-as", "one", "--crops"]) == 0
    reports = sorted((tmp_path / "out").rglob("report.json"))
    assert len(reports) == 2
    for out in (path.parent for path in reports):
        assert sum(entry["num_frames"] for entry in report_in(out)["highlights"]["clips"]) == 11
        crops = report_in(out)["crops"]["pictures"]
        assert [crop["track_id"] for crop in crops] == [None]  # Within a second.
        picture = cv2.imread(str(out / crops[0]["file"]))
        assert picture is not None
        assert picture.max() < 20


def test_a_clip_of_a_batch_that_cannot_be_cut_does_not_keep_others_from_it(
    clip: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "a.avi", IMAGES, options=OPEN_GOP)
    shutil.copy(clip, tmp_path / "b.mp4")
    words = ["process", str(tmp_path), "--output-dir", str(tmp_path / "out"), "--no-video"]
    words += ["--weights", str(tiny_weights), "--from-source", "--highlights", PADDING]
    assert main(words) == 1
    assert "a.avi: its time stamps are missing" in capsys.readouterr().err
    reports = [report_in(path.parent) for path in (tmp_path / "out").rglob("report.json")]
    assert {r["source"]["name"]: bool(r["highlights"]) for r in reports} == {
        "a.avi": False,
        "b.mp4": True,
    }


def test_a_picture_of_a_batch_has_no_highlights_though_no_clip_has_a_result(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, photo = tmp_path / "broken.mp4", tmp_path / "photo.png"
    broken.write_bytes(bytes(1000))
    cv2.imwrite(str(photo), IMAGES[5])
    words = ["process", str(broken), str(photo), "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--weights", str(tiny_weights), "--highlights"]) == 1
    assert "1 of 2 clips failed" in capsys.readouterr().err.splitlines()[-1]


def test_the_report_keeps_to_its_schema(result: Path) -> None:
    assert schema_errors("report", report_in(result)) == []


def test_what_was_cut_out_before_is_kept(result: Path, clip: Path, tiny_weights: Path) -> None:
    made = {path: path.stat().st_mtime_ns for path in result.rglob("*")}
    words = ["process", str(clip), "--output-dir", str(result), "--weights", str(tiny_weights)]
    assert main([*words, "--track", "--highlights", PADDING, "--crops"]) == 0
    assert {path: path.stat().st_mtime_ns for path in result.rglob("*")} == made


def test_a_clip_that_is_drawn_anew_has_no_highlights_of_the_one_before(
    result: Path, clip: Path, tmp_path: Path
) -> None:
    """They have its sound."""
    out = tmp_path / "out"
    shutil.copytree(result, out)
    words = ["render", str(clip), str(out / "detections.jsonl"), "--drop-audio", "--overwrite"]
    assert main(words) == 0
    assert not (out / "highlights").exists()
    report = report_in(out)
    assert report["highlights"] is None
    assert report["crops"]
    assert schema_errors("report", report) == []


def outputs_in(folder: Path) -> ProcessConfig:
    return ProcessConfig(source=folder.parent / "clip.mp4", output_dir=folder, overwrite=True)


def test_folders_of_the_user_are_not_in_the_way_of_a_run_unless_it_redacts(tmp_path: Path) -> None:
    out, finished = tmp_path / "out", tmp_path / "finished"
    finished.mkdir()
    for name in ("crops", "highlights"):
        (out / name).mkdir(parents=True)
        (out / name / "own.jpg").write_bytes(b"own")
    require_free_output(outputs_in(out))
    move_into_place(finished, out)
    for name in ("crops", "highlights"):
        assert (out / name / "own.jpg").read_bytes() == b"own"
    redacted = dataclasses.replace(outputs_in(out), redact=RedactOptions(covered=("light",)))
    with pytest.raises(InputError, match="is a folder"):
        require_free_output(redacted)


def test_a_new_result_leaves_nothing_of_crops_and_of_unfinished_ones(tmp_path: Path) -> None:
    out, finished = tmp_path / "out", tmp_path / "finished"
    finished.mkdir()
    for name in ("crops", ".crops.unfinished", ".highlights.unfinished"):
        (out / name).mkdir(parents=True)
        (out / name / "0001_person.jpg").write_bytes(b"shown")
    (out / "crops" / "crops.json").write_text("[]")
    require_free_output(outputs_in(out))
    move_into_place(finished, out)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["--highlights", "--no-video"],
        ["--highlights", "--from-source", "--redact", "light"],
        ["--highlights", "--from-source", "--highlights-as", "one"],
        ["--from-source"],
        ["--highlights", "4000"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_cut_out_is_refused_in_one_line(
    words: list[str], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", str(clip), "--output-dir", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["picture.jpg", "picture.png", ""], ids=["jpg", "png", "folder"])
def test_pictures_are_refused_before_they_are_processed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for suffix in ("jpg", "png"):
        cv2.imwrite(str(pictures / f"picture.{suffix}"), IMAGES[5])
    assert main(["process", str(pictures / name), "--output-dir", str(out), "--highlights"]) == 2
    assert "picture" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--padding", "-1"], "--padding"),
        (["--padding", "nan"], "--padding"),
        (["--as", "one", "--from-source", "."], "--as"),
    ],
    ids=["padding", "nan", "as"],
)
def test_a_message_names_the_option_that_was_given(
    words: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["highlights", "out", *words]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "--highlights" not in error


@pytest.fixture
def two(result: Path, tmp_path: Path) -> list[Path]:
    """Two results without highlights and crops; of the first one, the annotated clip is damaged."""
    folders = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folders.append(copied(result, tmp_path / name))
    (folders[0] / "annotated.mp4").write_bytes(b"damaged")
    return folders


def test_of_several_results_those_that_fail_are_named_and_the_others_are_cut(
    two: list[Path], clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = two
    assert main(["highlights", *map(str, two), "--padding", PADDING]) == 1
    (first, last) = capsys.readouterr().err.splitlines()
    assert str(bad) in first
    assert str(good) not in first
    assert "1 of 2" in last
    assert [numbers_in(path) for path in clips_in(good)] == [list(cut) for cut in CUTS]
    assert not (bad / "highlights").exists()

    report = report_in(bad)
    report["source"]["fingerprint"] = "another"
    (bad / "report.json").write_text(json.dumps(report))
    assert main(["crops", *map(str, two), "--clips", str(clip)]) == 1
    (first, last) = capsys.readouterr().err.splitlines()
    assert str(bad) in first
    assert not (bad / "crops").exists()
    assert report_in(good)["crops"]["pictures"]


def killed_at_the_first() -> None:
    """To be called in a command that is about to cut: as if a library crashed."""
    cut = CutInChild.__call__

    def dies(self: CutInChild, config: ProcessConfig, *others: Any) -> Any:
        if config.output_dir.parent.name == "a":
            unfinished_folder(config.output_dir / "highlights").mkdir()
            os.kill(os.getpid(), signal.SIGSEGV)
        return cut(self, config, *others)

    setattr(CutInChild, "__call__", dies)  # noqa: B010


def test_a_clip_that_kills_the_process_that_cuts_it_fails_alone(two: list[Path]) -> None:
    words = ["highlights", *map(str, two), "--padding", PADDING]
    with Command(*words, before=killed_at_the_first) as command:
        error = command.communicate()[1]
    assert command.returncode == 1
    assert "SIGSEGV" in error
    bad, good = two
    assert not list(bad.glob(".highlights*"))
    assert len(clips_in(good)) == len(CUTS)


def hung() -> None:
    """To be called in a command that is about to cut: as if a library hung."""
    setattr(CutInChild, "__call__", lambda *_: threading.Event().wait())  # noqa: B010


@pytest.mark.parametrize("command", ["highlights", "crops"])
def test_what_hangs_while_it_is_cut_is_ended_after_the_seconds_asked_for(
    command: str, result: Path, clip: Path, tmp_path: Path
) -> None:
    words = [command, str(copied(result, tmp_path)), "--stall-seconds", "1"]
    if command == "crops":
        words += ["--clips", str(clip)]
    with Command(*words, before=hung) as running:
        error = running.communicate()[1]
    assert running.returncode == 1
    assert "no progress for 1 s" in error
    assert "--stall-seconds allows more" in error


def interrupted_in_its_search() -> None:
    """To be called in a command that is about to look for a source."""

    def search(name: str, known_fingerprint: str | None, at: Path) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        (at / "went on").touch()
        return at / name

    setattr(exported_clip, "source_file", search)  # noqa: B010


def test_the_search_for_sources_ends_with_ctrl_c(two: list[Path], tmp_path: Path) -> None:
    words = ["crops", *map(str, two), "--clips", str(tmp_path)]
    with Command(*words, before=interrupted_in_its_search) as command:
        error = command.communicate()[1]
    assert command.returncode == 128 + signal.SIGINT
    assert error == "pipeline: interrupted\n"
    assert not (tmp_path / "went on").exists()


def test_what_is_read_on_the_way_to_what_is_cut_out_is_progress(
    result: Path, clip: Path, tmp_path: Path
) -> None:
    """Else what is far away in a long clip would be taken for a hang."""
    out, position = copied(result, tmp_path), Position()
    cut = CutInChild(HighlightOptions(crops=True), None, {out: out / "detections.jsonl"})
    # Then the clip is read from its first frame on.
    config = ProcessConfig(source=clip, output_dir=out, deinterlace="auto")
    assert cut(config, no_progress, position).errors == []
    packets: list[int] = []
    scan_clip(clip, beat=lambda: packets.append(1))
    last = max(crop["frame_index"] for crop in report_in(out)["crops"]["pictures"])
    assert position.heartbeat >= len(IMAGES) + len(packets) + last + 1


def test_new_ids_leave_nothing_that_was_cut_out_by_the_ones_before(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(result, out)
    assert main(["track", str(out), "--tracker", "bytetrack", "--overwrite", "--quiet"]) == 0
    assert not (out / "crops").exists()
    assert not (out / "highlights").exists()
    (note,) = capsys.readouterr().err.splitlines()
    assert "`pipeline crops`" in note
    assert "`pipeline highlights`" in note
    report = report_in(out)
    assert report["crops"] is report["highlights"] is None
    assert schema_errors("report", report) == []
