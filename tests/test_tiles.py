"""--tile: overlapping tiles of a frame are inferred each on its own, and their boxes merged."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline import DetectOptions, UsageError
from pipeline.cli.parsers import parse_arguments
from pipeline.core.boxes import Detections
from pipeline.core.config import ProcessConfig
from pipeline.core.region import Window
from pipeline.core.tiles import OVERLAP, tiles_of
from pipeline.model.heads import require_applicable
from pipeline.model.seams import SeamRules, merged
from tests.conftest import gray, process, write_clip
from tests.double_heads import DistancesHead

FRAME_WH = (256, 96)
LOSSLESS = {"crf": "0"}


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 900), st.integers(1, 900), st.data())
def test_tiles_cover_all_and_overlap_by_a_fifth(
    left: int, top: int, width: int, height: int, data: st.DataObject
) -> None:
    side = data.draw(st.integers(64, 1000))
    area = Window(4 * left, 4 * top, (width, height))
    *tiles, whole = tiles_of(area, side)
    assert whole == area
    assert bool(tiles) == (max(width, height) > -(-side // 4) * 4 + 3)
    for axis, length in enumerate((width, height)):
        begin = (area.left, area.top)[axis]
        spans = sorted({((t.left, t.top)[axis], t.size_wh[axis]) for t in tiles})
        if not spans:
            continue
        assert spans[0][0] == begin
        assert spans[-1][0] + spans[-1][1] == begin + length
        assert all(edge % 4 == 0 for edge, _ in spans)
        assert all(min(side, length) <= size < side + 8 for _, size in spans)
        for (one, size), (other, _) in itertools.pairwise(spans):
            assert one < other <= one + size - OVERLAP * side + 4


WHOLE = Window(0, 0, (200, 100))
LEFT, RIGHT = Window(0, 0, (120, 100)), Window(80, 0, (120, 100))
Box = tuple[float, ...]
"""xyxy, confidence and class."""


def boxes(*rows: Box) -> Detections:
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(
        table[:, :4].astype(np.float32),
        table[:, 4].astype(np.float32),
        table[:, 5].astype(np.int64),
    )


def merge(
    left: Sequence[Box], right: Sequence[Box], whole: Sequence[Box] = (), **rules: Any
) -> list[Box]:
    """Rounded, as they were merged; boxes of 0.25 or less are weak."""
    found = merged(
        [(LEFT, boxes(*left)), (RIGHT, boxes(*right)), (WHOLE, boxes(*whole))],
        lambda some: some.confidence <= 0.25,
        SeamRules(**{"iou_threshold": 0.45, "agnostic": False, "max_detections": 100, **rules}),
    )
    rows = zip(found.xyxy, found.confidence, found.class_id, strict=True)
    return [(*map(float, xyxy), round(float(p), 2), int(c)) for xyxy, p, c in rows]


def test_a_thing_that_both_tiles_show_whole_counts_once() -> None:
    assert merge([(85, 20, 105, 40, 0.6, 1)], [(86, 20, 105, 40, 0.8, 1)]) == [
        (86, 20, 105, 40, 0.8, 1)
    ]


def test_a_piece_gives_way_to_the_whole_thing_in_the_neighbour_even_if_that_is_less_sure() -> None:
    whole = (95.0, 20.0, 150.0, 60.0, 0.5, 1)
    assert merge([(95, 20, 120, 60, 0.9, 1)], [whole]) == [whole]
    assert merge([(97, 30, 119.5, 60, 0.9, 1)], [whole]) == [whole]  # Only a part of the piece.


def test_a_thing_that_every_tile_cuts_has_the_box_around_its_pieces() -> None:
    pieces = [(20, 20, 120, 60, 0.6, 1)], [(80, 21, 180, 60, 0.9, 1)]
    assert merge(*pieces) == [(20, 20, 180, 60, 0.9, 1)]
    whole = (18.0, 19.0, 182.0, 61.0, 0.3, 1)
    assert merge(*pieces, [whole]) == [whole]


def test_things_side_by_side_before_one_another_and_of_other_classes_stay() -> None:
    small, large = (100.0, 50.0, 110.0, 60.0, 0.9, 1), (85.0, 10.0, 190.0, 90.0, 0.8, 1)
    assert merge([small], [large]) == [small, large]
    beside = (112.0, 50.0, 135.0, 60.0, 0.8, 1)
    assert merge([small], [beside]) == [small, beside]
    other = (100.0, 50.0, 110.0, 60.0, 0.7, 2)
    assert merge([small], [other]) == [small, other]
    assert merge([small], [other], agnostic=True) == [small]
    assert merge([small], [other], max_detections=1) == [small]


def test_weak_boxes_change_no_others() -> None:
    strong = [(20, 20, 120, 60, 0.6, 1)], [(80, 21, 180, 60, 0.9, 1), (150, 70, 160, 90, 0.3, 1)]
    weak = [(90, 70, 100, 90, 0.2, 1), (10, 20, 120, 62, 0.1, 1)], [(100, 21, 185, 60, 0.24, 1)]
    with_weak = merge(strong[0] + weak[0], strong[1] + weak[1])
    assert [box for box in with_weak if box[4] > 0.25] == merge(*strong)
    assert with_weak[-1][4] <= 0.25


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light of 8 pixels that moves from the left to the right, and one that stays."""
    images = []
    for index in range(32):
        image = gray(20, FRAME_WH)
        for x, y in ((8 * index, 16), (120, 64)):
            image[y : y + 8, x : x + 8] = 255
        images.append(image)
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", images, options=LOSSLESS)


@pytest.mark.parametrize("options", [{}, {"roi": "0,0,256,96", "roi_crop": True}], ids=str)
def test_small_things_are_found_once_wherever_they_are(
    options: dict[str, Any], clip: Path, tiny_weights: Path
) -> None:
    # The model takes 128x96 pixels, and sees something in 8x8 of them.
    whole = pipeline.detect(clip, weights=tiny_weights, **options)
    assert not any(frame.boxes for frame in whole)
    in_tiles = pipeline.detect(clip, weights=tiny_weights, tile=128, **options)
    for index, frame in enumerate(in_tiles):
        found = sorted(tuple(round(side) for side in box.xyxy) for box in frame.boxes)
        x = 8 * index
        assert found == sorted({(x, 16, x + 8, 24), (120, 64, 128, 72)})


def test_tiles_of_a_frame_that_is_no_larger_are_the_frame(clip: Path, tiny_weights: Path) -> None:
    usual = list(pipeline.detect(clip, weights=tiny_weights, conf=0.01, frames=3))
    assert list(pipeline.detect(clip, weights=tiny_weights, conf=0.01, frames=3, tile=256)) == usual


def test_a_frame_that_repeats_the_one_before_is_not_inferred(
    tmp_path: Path, tiny_weights: Path
) -> None:
    images = [gray(20 if index < 3 else 200, FRAME_WH) for index in range(6)]
    still = write_clip(tmp_path / "still.mp4", images, options=LOSSLESS)
    for reuse, inferred in ((True, 2), (False, 6)):
        out = tmp_path / str(reuse)
        report = process(still, out, tiny_weights, tile=128, video=False, reuse_duplicates=reuse)
        assert report["detections"]["inferred_frames"] == inferred
        assert report["detections"]["reused_frames"] == 6 - inferred
    lines = [(tmp_path / str(reuse) / "detections.jsonl").read_bytes() for reuse in (True, False)]
    assert lines[0] == lines[1]


def test_a_model_of_final_boxes_is_refused() -> None:
    require_applicable(DetectOptions(), DistancesHead(), in_tiles=True)
    with pytest.raises(UsageError, match=r"^--tile merges .* leave the option out"):
        require_applicable(DetectOptions(), DistancesHead(needs_nms=False), in_tiles=True)


@pytest.mark.parametrize(
    ("words", "tile", "videos"),
    [
        (["--tile", "clip.mp4"], 0, ["clip.mp4"]),
        (["clip.mp4", "--tile"], 0, ["clip.mp4"]),
        (["--tile", "1280", "clip.mp4"], 1280, ["clip.mp4"]),
        (["--tile=320", "--every", "2", "clip.mp4"], 320, ["clip.mp4"]),
    ],
    ids=str,
)
def test_the_side_of_a_tile_may_be_left_out(words: list[str], tile: int, videos: list[str]) -> None:
    found = parse_arguments(["process", *words])
    assert (found.tile, found.videos) == (tile, videos)


def test_tiles_as_large_as_the_input_are_the_default() -> None:
    config = ProcessConfig(source=Path("clip.mp4"), output_dir=Path(), imgsz=320, tile=0)
    assert config.tile == 320
    with pytest.raises(UsageError, match="--tile must be 64 or more, not 8"):
        ProcessConfig(source=Path("clip.mp4"), output_dir=Path(), tile=8)
