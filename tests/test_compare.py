"""The comparison with other programs: whole processes over the same clips, each timed in turns."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from compare import BOTTLE, INPUTS, Input, boxes_of_labels, compare, programs

from tests.conftest import with_light, write_clip
from tests.programs import needs_ffmpeg

OPTIONS = {"predict_model": Path("model"), "rounds": 1}


@pytest.mark.slow
def test_a_row_says_how_long_a_program_takes_over_each_of_ours(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clips = [write_clip(tmp_path / f"{i}.mp4", [with_light((i, 3))] * 4) for i in range(2)]
    arguments = argparse.Namespace(weights=tiny_weights, peers=None, **OPTIONS)
    program = programs(arguments)[0]
    footage = Input("two clips", clips, every=2, warm_up=clips[0])
    rows = compare(footage, [program], 1, tmp_path)
    assert rows == ["| two clips | pipeline | 8 | 1.00 (1.00 to 1.00) |"]


@pytest.mark.slow
def test_a_program_that_fails_ends_the_comparison_with_its_last_words(
    tmp_path: Path, tiny_weights: Path
) -> None:
    arguments = argparse.Namespace(weights=tiny_weights, peers=None, **OPTIONS)
    missing = Input("nothing", [tmp_path / "missing.mp4"])
    with pytest.raises(SystemExit, match=r"(?s)pipeline on nothing failed:.*missing\.mp4"):
        compare(missing, programs(arguments)[:1], 1, tmp_path)


def test_peers_get_the_same_clips_and_every_how_many_frames(tmp_path: Path) -> None:
    arguments = argparse.Namespace(weights=Path("w.pt"), peers="python", **OPTIONS)
    footage = Input("many", [tmp_path / "a.mp4", tmp_path / "b.mp4"], every=10)
    detect, predict = (p.command(footage, tmp_path / "out") for p in programs(arguments)[-2:])
    folder = str(tmp_path / "sources")
    assert detect[detect.index("--source") + 1] == folder
    assert detect[detect.index("--vid-stride") + 1] == "10"
    assert {f"source={folder}", "vid_stride=10"} <= set(predict)
    assert sorted(path.name for path in Path(folder).iterdir()) == ["a.mp4", "b.mp4"]


def test_boxes_of_peers_are_the_lines_of_their_labels(tmp_path: Path) -> None:
    (tmp_path / "found" / "labels").mkdir(parents=True)
    (tmp_path / "found" / "labels" / "clip_1.txt").write_text("0 1 1 1 1\n2 1 1 1 1\n")
    assert boxes_of_labels(tmp_path) == 2


@needs_ffmpeg
def test_there_are_as_many_clips_and_minutes_as_asked_for(tmp_path: Path) -> None:
    if not BOTTLE.exists():
        pytest.skip(f"{BOTTLE} is missing")
    asked = argparse.Namespace(clips=2, minutes=0.1)
    footage = INPUTS["short"](tmp_path, asked)
    assert len(footage.clips) == 2
    assert footage.warm_up == footage.clips[0]
    footage = INPUTS["long"](tmp_path, asked)
    assert footage.warm_up is not None
    sizes = [path.stat().st_size for path in (footage.warm_up, *footage.clips)]
    assert 0 < sizes[0] < sizes[1] / 2


def test_five_kinds_of_input_are_compared() -> None:
    assert list(INPUTS) == ["car", "busy", "large", "short", "long"]
