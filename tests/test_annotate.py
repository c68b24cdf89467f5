"""What is drawn on a frame, where, and that nothing else changes."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.boxes import Detections
from pipeline.frames.annotate import Annotator, class_color
from pipeline.frames.labels import place_labels
from pipeline.media.frame import ColorTags, plane_rows
from tests.conftest import gray, info_of, write_clip
from tests.drawings import Box, Planes, found, plain, planes_of, touched

NAMES = ("person", "bicycle", "car")
SIZES = [(32, 24), (33, 25), (127, 95), (640, 480), (1920, 1080), (3840, 2160), (1080, 1920)]


def drawn_on(size_wh: tuple[int, int], detections: Detections) -> Planes:
    return planes_of(Annotator(info_of(size_wh), NAMES)(plain(size_wh), detections))


def tag_wh(size_wh: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a class tag: what a box without any area leaves."""
    x, y = size_wh[0] // 4 * 2, size_wh[1] // 4 * 2
    rows, columns = np.nonzero(touched(drawn_on(size_wh, found((x, y, x, y)))))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def box_in(size_wh: tuple[int, int]) -> st.SearchStrategy[Box]:
    """Any box of a frame: also without area, and up to the borders."""
    xs = st.floats(0, size_wh[0], width=32)
    ys = st.floats(0, size_wh[1], width=32)
    return st.tuples(xs, ys, xs, ys).map(
        lambda v: (min(v[0], v[2]), min(v[1], v[3]), max(v[0], v[2]), max(v[1], v[3]))
    )


sizes_and_boxes = st.sampled_from([(33, 25), (127, 95), (640, 480), (1081, 1921)]).flatmap(
    lambda size: st.tuples(st.just(size), box_in(size))
)


def test_a_frame_without_detections_is_left_as_it_is() -> None:
    frame = plain((640, 480))
    annotated = Annotator(info_of((640, 480)), NAMES)(frame, Detections.empty())
    assert all((plane == 77).all() for plane in planes_of(annotated))


@settings(max_examples=150)
@given(sizes_and_boxes)
def test_nothing_changes_but_the_box_and_its_tag(case: tuple[tuple[int, int], Box]) -> None:
    size_wh, box = case
    left, top, right, bottom = box
    rows, columns = np.nonzero(touched(drawn_on(size_wh, found(box))))
    tag_width, tag_height = tag_wh(size_wh)
    # The grid of chroma samples widens a box by at most one pixel on each side.
    assert columns.min() >= min(left - 2, size_wh[0] - tag_width - 1)
    assert columns.max() <= max(right + 1, left + tag_width)
    assert rows.min() >= min(top - tag_height - 2, size_wh[1] - tag_height - 1)
    assert rows.max() <= max(bottom + 1, top + tag_height)


@settings(max_examples=150)
@given(sizes_and_boxes)
def test_a_drawn_box_holds_the_whole_object(case: tuple[tuple[int, int], Box]) -> None:
    size_wh, (left, top, right, bottom) = case
    rows, columns = np.nonzero(touched(drawn_on(size_wh, found((left, top, right, bottom)))))
    if right - left >= 1 and bottom - top >= 1:
        assert columns.min() <= left
        assert columns.max() + 1 >= right
        assert rows.min() <= top
        assert rows.max() + 1 >= bottom


@settings(max_examples=50)
@given(sizes_and_boxes)
def test_a_box_is_never_drawn_beyond_what_its_tag_leaves_open(
    case: tuple[tuple[int, int], Box],
) -> None:
    size_wh, (left, top, right, bottom) = case
    marked = touched(drawn_on(size_wh, found((left, top, right, bottom))))
    _, tag_height = tag_wh(size_wh)
    below = int(top) + tag_height + 2
    inside = marked[below : int(bottom) - 8, int(left) + 9 : max(0, int(right) - 8)]
    assert not inside.any()


@pytest.mark.parametrize("size_wh", SIZES, ids=str)
@pytest.mark.parametrize(
    "share",
    [
        (0.0, 0.0, 1.0, 1.0),
        (0.0, 0.0, 0.1, 0.1),
        (0.9, 0.9, 1.0, 1.0),
        (0.99, 0.0, 1.0, 0.01),
        (0.0, 0.99, 0.01, 1.0),
        (-0.5, -0.5, 0.5, 0.5),
        (0.5, 0.5, 1.5, 1.5),
        (-0.5, 0.3, 1.5, 0.6),
        (-1.0, -1.0, -0.5, -0.5),
        (1.5, 1.5, 2.0, 2.0),
        (1.0, 1.0, 1.0, 1.0),
        (0.0, 0.0, 0.0, 0.0),
    ],
    ids=str,
)
def test_a_box_at_or_beyond_a_border_is_drawn_as_far_as_it_is_seen(
    size_wh: tuple[int, int], share: Box
) -> None:
    width, height = size_wh
    box = (share[0] * width, share[1] * height, share[2] * width, share[3] * height)
    frame = plain(size_wh)
    before = [plane_rows(plane)[:, plane.width :].copy() for plane in frame.planes]
    annotated = Annotator(info_of(size_wh), NAMES)(frame, found(box))
    after = [plane_rows(plane)[:, plane.width :] for plane in annotated.planes]
    assert (annotated.width, annotated.height) == size_wh
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("size_wh", SIZES, ids=str)
@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], ids=str)
def test_a_tag_is_whole_wherever_its_box_is(
    size_wh: tuple[int, int], corner: tuple[float, float]
) -> None:
    x, y = corner[0] * size_wh[0], corner[1] * size_wh[1]
    rows, columns = np.nonzero(touched(drawn_on(size_wh, found((x, y, x, y)))))
    width, height = tag_wh(size_wh)
    assert np.ptp(columns) + 1 >= min(width, size_wh[0] - 1)
    assert np.ptp(rows) + 1 >= min(height, size_wh[1] - 1)


def test_lines_and_tags_grow_with_the_frame() -> None:
    def line_px(size_wh: tuple[int, int]) -> int:
        width, height = size_wh
        box = (0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)
        across = touched(drawn_on(size_wh, found(box)))[height * 5 // 8]
        return int(across[: width // 2].sum())

    widths = [
        line_px(size_wh) for size_wh in [(320, 240), (1920, 1080), (3840, 2160), (7680, 4320)]
    ]
    assert widths == sorted(set(widths))
    heights = [tag_wh(size_wh)[1] for size_wh in [(320, 240), (1920, 1080), (3840, 2160)]]
    assert heights == sorted(set(heights))


def test_a_class_has_one_colour_and_other_classes_have_others() -> None:
    colors = [class_color(class_id, ColorTags()) for class_id in range(80)]
    assert colors == [class_color(class_id, ColorTags()) for class_id in range(80)]
    assert len(set(colors)) == 80


@pytest.mark.parametrize("class_id", range(3))
def test_a_box_has_the_colour_of_its_class_in_every_clip(class_id: int) -> None:
    for size_wh in [(128, 96), (640, 480)]:
        planes = drawn_on(size_wh, found((20, 40, 100, 90), class_id=class_id))
        seen = planes[0][80, 20], planes[1][40, 10], planes[2][40, 10]
        assert seen == class_color(class_id, ColorTags())


@pytest.mark.parametrize("space", [1, 5, 6, 9])
@pytest.mark.parametrize("range_", [1, 2])
def test_a_class_looks_alike_whatever_the_matrix_and_range_of_the_clip(
    space: int, range_: int
) -> None:
    tags = ColorTags(range=range_, space=space)
    kr, kb = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}.get(space, (0.299, 0.114))
    y_scale, y_offset, c_scale = (255, 0, 255) if range_ == 2 else (219, 16, 224)

    def to_rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
        luma = (color[0] - y_offset) / y_scale
        blue = luma + 2 * (1 - kb) * (color[1] - 128) / c_scale
        red = luma + 2 * (1 - kr) * (color[2] - 128) / c_scale
        return red, (luma - kr * red - kb * blue) / (1 - kr - kb), blue

    for class_id in range(20):
        reference = class_color(class_id, ColorTags(range=1, space=6))
        kr_kb, scales = (kr, kb), (y_scale, y_offset, c_scale)
        shown = to_rgb(class_color(class_id, tags))
        (kr, kb), (y_scale, y_offset, c_scale) = (0.299, 0.114), (219, 16, 224)
        assert shown == pytest.approx(to_rgb(reference), abs=0.03)
        (kr, kb), (y_scale, y_offset, c_scale) = kr_kb, scales


@pytest.mark.parametrize(
    ("pix_fmt", "level"), [("yuv422p", 77), ("yuv444p", 77), ("yuvj420p", 77), ("gray", 77)]
)
@pytest.mark.parametrize("range_", [0, 1, 2])
def test_any_pixel_format_becomes_8_bit_planar_without_a_change_of_brightness(
    pix_fmt: str, level: int, range_: int
) -> None:
    full = pix_fmt == "yuvj420p" or range_ == 2
    frame = plain((128, 96), pix_fmt)
    frame.color_range = 2 if full else range_
    annotator = Annotator(info_of((128, 96), ColorTags(range=2 if full else range_)), NAMES)
    annotated = annotator(frame, found((20, 40, 100, 90)))
    assert annotated.format.name == "yuv420p"
    assert abs(int(planes_of(annotated)[0][95, 127]) - level) <= 1


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"qp": "5", "bf": "3", "g": "40"}),
        ("mpeg4", {"bf": "2", "g": "40"}),
        ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    ],
)
def test_what_is_drawn_on_a_frame_never_shows_in_the_frames_decoded_after_it(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    random = np.random.default_rng(3)
    ground = random.integers(0, 255, (96, 128, 3), np.uint8)
    images = [np.roll(ground, shift, axis=1) for shift in range(30)]
    clip = write_clip(tmp_path / "clip.mkv", images, codec=codec, options=options)
    annotator = Annotator(info_of((128, 96)), NAMES)
    with av.open(str(clip)) as container:
        untouched = [planes_of(frame) for frame in container.decode(video=0)]
    boxes = found((0, 0, 128, 96), (10, 10, 60, 60), (40, 30, 120, 90), (0, 50, 128, 96))
    with av.open(str(clip)) as container:
        for frame, expected in zip(container.decode(video=0), untouched, strict=True):
            assert all(map(np.array_equal, planes_of(frame), expected))
            assert not np.array_equal(planes_of(annotator(frame, boxes))[0], expected[0])


def test_pixels_beside_boxes_and_tags_are_those_of_the_decoder(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    images = [random.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(5)]
    clip = write_clip(tmp_path / "clip.mp4", images)
    marked = touched(drawn_on((128, 96), found((30, 40, 90, 80))))
    annotator = Annotator(info_of((128, 96)), NAMES)
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            before = planes_of(frame)
            after = planes_of(annotator(frame, found((30, 40, 90, 80))))
            assert np.array_equal(before[0][~marked], after[0][~marked])
            for plane in (1, 2):
                assert np.array_equal(
                    before[plane][~marked[::2, ::2]], after[plane][~marked[::2, ::2]]
                )


def test_the_surest_box_lies_on_top() -> None:
    both = Detections(
        np.array([(40, 40, 100, 80), (40, 40, 100, 80)], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([1, 2], np.int64),
    )
    planes = drawn_on((128, 96), both)
    assert (planes[0][60, 40], planes[1][30, 20], planes[2][30, 20]) == class_color(1, ColorTags())


def plainly_drawn(size_wh: tuple[int, int], detections: Detections) -> Planes:
    """What the frame must look like: one box, one side, one plane and one row at a time."""
    annotator = Annotator(info_of(size_wh), NAMES)
    planes = planes_of(plain(size_wh))
    line = max(2, 2 * round(min(size_wh) * 0.0015))

    def fill(x0: int, y0: int, x1: int, y1: int, color: tuple[int, int, int]) -> None:
        for plane, value, step in zip(planes, color, (1, 2, 2), strict=True):
            for y in range(max(0, y0) // step, max(0, y1) // step):
                plane[y : y + 1, max(0, x0) // step : max(0, x1) // step] = value

    boxes = [
        (math.floor(x0 / 2), math.floor(y0 / 2), math.ceil(x1 / 2), math.ceil(y1 / 2))
        for x0, y0, x1, y1 in detections.xyxy.tolist()
    ]
    labels = [
        annotator._render_label(f"{NAMES[class_id]} {confidence:.2f}", class_id)
        for class_id, confidence in zip(
            detections.class_id.tolist(), detections.confidence.tolist(), strict=True
        )
    ]
    for box, class_id in zip(reversed(boxes), detections.class_id[::-1].tolist(), strict=True):
        color = class_color(class_id, ColorTags())
        left, top, right, bottom = (2 * value for value in box)
        fill(left, top, right, min(top + line, bottom), color)
        fill(left, max(top, bottom - line), right, bottom, color)
        fill(left, top, min(left + line, right), bottom, color)
        fill(max(left, right - line), top, right, bottom, color)
    frame_wh = (size_wh[0] // 2, size_wh[1] // 2)
    sizes_wh = [
        (min(label[0].shape[1] // 2, frame_wh[0]), min(label[0].shape[0] // 2, frame_wh[1]))
        for label in labels
    ]
    places = place_labels(boxes, sizes_wh, frame_wh)
    for (x, y), label in zip(reversed(places), reversed(labels), strict=True):
        for plane, patch, step in zip(planes, label, (2, 1, 1), strict=True):
            target = plane[y * step :, x * step :][: patch.shape[0], : patch.shape[1]]
            target[:] = patch[: target.shape[0], : target.shape[1]]
    return planes


@settings(max_examples=60)
@given(
    st.sampled_from([(33, 25), (127, 95), (640, 480)]).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(
                st.tuples(
                    st.floats(-20, size[0] + 20, width=32),
                    st.floats(-20, size[1] + 20, width=32),
                    st.floats(0, size[0], width=32),
                    st.floats(0, size[1], width=32),
                    st.floats(0, 1, width=32),
                    st.integers(0, 2),
                ),
                max_size=25,
            ),
        )
    )
)
def test_pixels_are_those_of_drawing_one_box_after_the_other(
    case: tuple[tuple[int, int], list[tuple[float, float, float, float, float, int]]],
) -> None:
    size_wh, boxes = case
    detections = Detections(
        np.array([(x, y, x + w, y + h) for x, y, w, h, _, _ in boxes], np.float32).reshape(-1, 4),
        np.array([box[4] for box in boxes], np.float32),
        np.array([box[5] for box in boxes], np.int64),
    )
    for ours, expected in zip(
        drawn_on(size_wh, detections), plainly_drawn(size_wh, detections), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


@given(st.integers(0, 79), st.floats(0, 1))
def test_a_tag_blends_its_text_with_its_ground_pixel_by_pixel(
    class_id: int, confidence: float
) -> None:
    annotator = Annotator(info_of((640, 480)), NAMES)
    tag, text = class_color(class_id, ColorTags()), f"car {confidence:.2f}"
    luma, u, v = annotator._render_label(text, class_id)
    ink_is_bright = tag.y <= 120
    text_color = annotator._gray(1.0 if ink_is_bright else 0.0)
    assert {int(luma.min()), int(luma.max())} == {
        min(tag.y, text_color.y),
        max(tag.y, text_color.y),
    }
    assert (u.shape, v.shape) == ((luma.shape[0] // 2, luma.shape[1] // 2),) * 2
    assert (luma[0, 0], u[0, 0], v[0, 0]) == tag


def test_a_thousand_boxes_can_be_drawn_on_one_frame() -> None:
    random = np.random.default_rng(2)
    corners = random.uniform(0, 600, (1000, 2))
    boxes = np.hstack([corners, corners + random.uniform(0, 300, (1000, 2))]).astype(np.float32)
    many = Detections(boxes, np.full(1000, 0.5, np.float32), random.integers(0, 3, 1000))
    assert touched(drawn_on((640, 480), many)).any()


def test_a_plain_picture_stays_plain_in_a_frame_from_a_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(50)] * 2)
    annotator = Annotator(info_of((128, 96)), NAMES)
    with av.open(str(clip)) as container:
        frames = [annotator(frame, Detections.empty()) for frame in container.decode(video=0)]
    assert [len(np.unique(planes_of(frame)[0])) for frame in frames] == [1, 1]


def covers(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two rectangles (left, top, width, height) share an area."""
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


CROWD = [(100 + 7 * i, 200 + 5 * (i % 3), 140 + 7 * i, 300) for i in range(25)]


def test_in_a_crowd_no_label_covers_another() -> None:
    size = (26, 8)
    places = place_labels(CROWD, [size] * len(CROWD), (480, 270))
    for i, place in enumerate(places):
        assert not any(covers((*place, *size), (*other, *size)) for other in places[:i])


def test_forty_labels_of_one_place_find_room_around_it() -> None:
    size = (26, 8)
    places = place_labels([(100, 100, 140, 200)] * 40, [size] * 40, (480, 270))
    for i, place in enumerate(places):
        assert not any(covers((*place, *size), (*other, *size)) for other in places[:i])


@given(
    st.lists(
        st.tuples(*[st.integers(0, 90)] * 2, *[st.integers(0, 40)] * 2).map(
            lambda v: (v[0], v[1], v[0] + v[2], v[1] + v[3])
        ),
        min_size=1,
        max_size=12,
    )
)
def test_labels_are_in_the_frame_and_the_first_has_its_usual_place(
    boxes: list[tuple[int, int, int, int]],
) -> None:
    size = (20, 6)
    places = place_labels(boxes, [size] * len(boxes), (100, 100))
    assert all(0 <= x <= 80 and 0 <= y <= 94 for x, y in places)
    left, top = boxes[0][:2]
    assert places[0] == (min(left, 80), top - 6 if top >= 6 else top)


def test_where_there_is_no_room_labels_have_their_usual_place() -> None:
    box = (0, 6, 10, 12)
    places = place_labels([box] * 40, [(10, 6)] * 40, (12, 18))
    assert set(places[-3:]) == {(0, 0)}
