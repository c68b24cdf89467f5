"""Where a frame lies in the model input, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.model.letterbox import Letterbox, input_size_wh, letterbox

sizes = st.tuples(st.integers(16, 4096), st.integers(16, 4096))
input_sides = st.integers(1, 40).map(lambda n: 32 * n)


def fitted(source_wh: tuple[int, int], imgsz: int) -> Letterbox:
    return letterbox(source_wh, input_size_wh(source_wh, imgsz))


def yolov5_letterbox(source_wh: tuple[int, int], imgsz: int) -> Letterbox:
    """The arithmetic of YOLOv5's utils/augmentations.py, for auto=True and scaleup=True."""
    width, height = source_wh
    ratio = min(imgsz / height, imgsz / width)
    content = round(width * ratio), round(height * ratio)
    half_w, half_h = (imgsz - content[0]) % 32 / 2, (imgsz - content[1]) % 32 / 2
    left, right = round(half_w - 0.1), round(half_w + 0.1)
    top, bottom = round(half_h - 0.1), round(half_h + 0.1)
    input_wh = content[0] + left + right, content[1] + top + bottom
    return Letterbox(source_wh, input_wh, content, (left, top))


@pytest.mark.parametrize(
    ("source_wh", "input_wh", "content_wh", "offset_xy"),
    [
        ((768, 432), (640, 384), (640, 360), (0, 12)),
        ((640, 360), (640, 384), (640, 360), (0, 12)),
        ((1920, 1080), (640, 384), (640, 360), (0, 12)),
        ((640, 480), (640, 480), (640, 480), (0, 0)),
        ((432, 768), (384, 640), (360, 640), (12, 0)),
        ((1000, 1000), (640, 640), (640, 640), (0, 0)),
        ((320, 240), (640, 480), (640, 480), (0, 0)),
        ((500, 333), (640, 448), (640, 426), (0, 11)),
    ],
)
def test_known_sizes(
    source_wh: tuple[int, int],
    input_wh: tuple[int, int],
    content_wh: tuple[int, int],
    offset_xy: tuple[int, int],
) -> None:
    assert fitted(source_wh, 640) == Letterbox(source_wh, input_wh, content_wh, offset_xy)


@given(sizes, input_sides)
def test_the_input_is_the_smallest_rectangle_on_the_grid_that_holds_the_frame(
    source_wh: tuple[int, int], imgsz: int
) -> None:
    box = fitted(source_wh, imgsz)
    for side, content, offset in zip(box.input_wh, box.content_wh, box.offset_xy, strict=True):
        assert side % 32 == 0
        assert content <= side < content + 32
        assert offset == (side - content) // 2


@given(sizes, input_sides)
@example((1280, 641), 640)
def test_the_longer_side_of_the_frame_becomes_exactly_the_size_asked_for(
    source_wh: tuple[int, int], imgsz: int
) -> None:
    assert max(fitted(source_wh, imgsz).content_wh) == imgsz


@given(sizes, input_sides)
@example((115, 1541), 864)
def test_proportions_are_kept_within_a_pixel(source_wh: tuple[int, int], imgsz: int) -> None:
    width, height = fitted(source_wh, imgsz).content_wh
    gain = imgsz / max(source_wh)
    assert abs(width - source_wh[0] * gain) <= 1
    assert abs(height - source_wh[1] * gain) <= 1


@given(sizes)
@example((1280, 641))
def test_the_geometry_is_that_of_yolov5(source_wh: tuple[int, int]) -> None:
    expected = yolov5_letterbox(source_wh, 640)
    if min(expected.content_wh) > 0:
        assert fitted(source_wh, 640) == expected


@given(sizes, st.tuples(input_sides, input_sides))
def test_in_a_given_input_the_frame_is_as_large_as_fits_and_centred(
    source_wh: tuple[int, int], input_wh: tuple[int, int]
) -> None:
    box = letterbox(source_wh, input_wh)
    slack = [side - content for side, content in zip(input_wh, box.content_wh, strict=True)]
    assert min(slack) == 0
    assert box.offset_xy == (slack[0] // 2, slack[1] // 2)
    gain = min(input_wh[0] / source_wh[0], input_wh[1] / source_wh[1])
    for content, source in zip(box.content_wh, source_wh, strict=True):
        assert abs(content - max(1, source * gain)) <= 1


@given(sizes, input_sides, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_boxes_find_their_way_back_to_the_source(
    source_wh: tuple[int, int], imgsz: int, corners: list[float]
) -> None:
    box = fitted(source_wh, imgsz)
    size = np.array(source_wh * 2, np.float64)
    source = np.array(corners) * size
    forward = source * np.array(box.content_wh * 2) / size + np.array(box.offset_xy * 2)
    back = box.to_source(forward[None].astype(np.float32))
    assert back.shape == (1, 4)
    # float32 resolves an input of up to 1280 px to 1e-4 px; that is stretched on the way back.
    tolerance = 2e-4 * max(1.0, max(size / np.array(box.content_wh * 2)))
    np.testing.assert_allclose(back[0], source, atol=tolerance)


@given(sizes, input_sides)
def test_boxes_are_clipped_to_the_source(source_wh: tuple[int, int], imgsz: int) -> None:
    box = fitted(source_wh, imgsz)
    everywhere = np.array([[-1e4, -1e4, 1e4, 1e4]], np.float32)
    np.testing.assert_array_equal(box.to_source(everywhere)[0], [0, 0, *source_wh])


def test_no_boxes_stay_no_boxes() -> None:
    assert fitted((768, 432), 640).to_source(np.empty((0, 4), np.float32)).shape == (0, 4)
