"""Line width, labels and confidences; which letters are drawn, and what stands for the others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli.commands import main
from pipeline.core.config import DrawOptions, EncodeOptions
from pipeline.frames.annotate import Annotator
from pipeline.frames.drawable_text import drawable_name
from pipeline.run.identity import drawn_key
from tests.conftest import info_of, process, with_light, write_clip
from tests.drawings import found, plain, planes_of, touched

SIZE_WH = (320, 240)
BOX = (60.0, 60.0, 260.0, 200.0)


def drawn(draw: DrawOptions, name: str = "car", confidence: float = 0.5) -> list[np.ndarray]:
    detections = dataclasses.replace(found(BOX), confidence=np.array([confidence], np.float32))
    return planes_of(Annotator(info_of(SIZE_WH), (name,), draw)(plain(SIZE_WH), detections))


@pytest.mark.parametrize(("asked", "width"), [(1, 2), (2, 2), (5, 6), (12, 12)])
def test_lines_are_as_wide_as_asked_for_and_even_on_clips(asked: int, width: int) -> None:
    marked = touched(drawn(DrawOptions(line_width=asked, show_labels=False)))
    assert marked[60:200, 60:260].sum() == marked.sum()  # Nothing but the box.
    assert marked[130, 60:160].sum() == width
    assert marked[60:130, 160].sum() == width


def test_without_labels_the_box_alone_is_drawn_and_without_confidences_its_name() -> None:
    no_labels = DrawOptions(show_labels=False)
    assert np.array_equal(drawn(no_labels, "car")[0], drawn(no_labels, "bicycle")[0])
    no_confidence = DrawOptions(show_conf=False)
    low, high = (drawn(no_confidence, confidence=value)[0] for value in (0.31, 0.92))
    assert np.array_equal(low, high)
    assert not np.array_equal(low, drawn(no_confidence, "bicycle")[0])
    assert not np.array_equal(low, drawn(DrawOptions(), confidence=0.92)[0])


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("person", "person"),
        ("grüne Straße, naïve", "grüne Straße, naïve"),
        ("e\u0301", "é"),
        ("грузовик", "грузовик"),
        ("λεωφορείο", "λεωφορείο"),
        ("汽车 自転車 자동차", "汽车 自転車 자동차"),
        ("אוטו", "וטוא"),
        ("אוטו 4x4", "???? 4x4"),
        ("سيارة", "class 7"),
        ("कार", "class 7"),
        ("🚗", "class 7"),
        ("car 🚗", "car ?"),
        ("ǎx\u030c", "ax"),
        ("two\nlines\t\u202eturned\u200b", "two?lines?turned"),
        ("\ud800 half", "? half"),
        ("???", "???"),
    ],
    ids=ascii,
)
def test_what_cannot_be_drawn_is_replaced(name: str, shown: str) -> None:
    assert drawable_name(name, 7) == shown


@settings(max_examples=25)
@given(st.text(max_size=30))
def test_any_name_can_be_drawn(name: str) -> None:
    shown = drawable_name(name, 7)
    assert shown.isprintable()
    assert drawn(DrawOptions(), name)[0].shape == SIZE_WH[::-1]


def test_the_options_are_in_the_key_of_the_annotated_file_only() -> None:
    keys = {
        drawn_key("found", EncodeOptions(), draw)
        for draw in (DrawOptions(), DrawOptions(line_width=3), DrawOptions(show_conf=False))
    }
    assert len(keys) == 3
    assert drawn_key("found", None, DrawOptions(line_width=3)) == drawn_key("found", None)


def test_the_same_command_finds_its_result_and_another_drawing_does_not(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((3, 3))] * 2)
    words = ["process", str(clip), "--weights", str(tiny_weights)]
    words += ["--output-dir", str(tmp_path / "out")]
    assert main([*words, "--no-labels"]) == 0
    assert main([*words, "--no-labels"]) == 0
    assert main(words) != 0, "what is there has no labels"


def test_render_draws_as_the_run_did_or_as_it_is_told(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((3, 3))] * 3)
    draw = DrawOptions(line_width=8, show_labels=False)
    report = process(clip, tmp_path / "out", tiny_weights, draw=draw)
    assert report["configuration"]["draw"] == dataclasses.asdict(draw)
    assert "--line-width 8 --no-labels" in report["command"]
    before = (tmp_path / "out" / "annotated.mp4").read_bytes()
    again = ["render", str(clip), str(tmp_path / "out" / "detections.jsonl"), "--quiet"]
    assert main([*again, "--output-dir", str(tmp_path / "same")]) == 0
    assert (tmp_path / "same" / "annotated.mp4").read_bytes() == before
    assert main([*again, "--overwrite", "--labels", "--line-width", "2"]) == 0
    assert (tmp_path / "out" / "annotated.mp4").read_bytes() != before
    usual = process(clip, tmp_path / "usual", tiny_weights, draw=DrawOptions(line_width=2))
    assert (tmp_path / "usual" / "annotated.mp4").read_bytes() == (
        tmp_path / "out" / "annotated.mp4"
    ).read_bytes()
    assert usual["configuration"]["draw"]["show_labels"]
