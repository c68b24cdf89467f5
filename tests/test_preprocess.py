"""A decoded frame -> the model input."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.media.color import ToBgr, ToRgb, rgb_is_bgr
from pipeline.media.frame import Frame, plane_rows
from pipeline.model.letterbox import PADDING_VALUE, input_size_wh, letterbox
from pipeline.model.preprocess import Preprocessor

LIMITED, FULL = 1, 2
WHITE, BLACK, GRAY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 40), (40, 50, 210)


def frame_of(image: av.VideoFrame) -> Frame:
    return Frame(index=0, pts=0, duration=1, time_base=Fraction(1, 25), image=image)


def blank_input(input_wh: tuple[int, int]) -> NDArray[np.uint8]:
    return np.full((input_wh[1], input_wh[0], 3), PADDING_VALUE, np.uint8)


def model_input(image: av.VideoFrame, imgsz: int = 640) -> NDArray[np.uint8]:
    source_wh = (image.width, image.height)
    box = letterbox(source_wh, input_size_wh(source_wh, imgsz))
    target = blank_input(box.input_wh)
    Preprocessor(box)(frame_of(image), target)
    return target


def to_yuv(rgb: tuple[int, int, int], full: bool) -> tuple[float, float, float]:
    """ITU-R BT.601, in 8-bit levels."""
    r, g, b = (value / 255 for value in rgb)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    u, v = (b - y) / 1.772, (r - y) / 1.402
    luma = 255 * y if full else 16 + 219 * y
    chroma = 255 if full else 224
    return luma, 128 + chroma * u, 128 + chroma * v


def plain_frame(
    rgb: tuple[int, int, int], pix_fmt: str, color_range: int, size_wh: tuple[int, int] = (320, 180)
) -> av.VideoFrame:
    """A frame of one colour, its samples computed here and not by FFmpeg."""
    image = av.VideoFrame(*size_wh, pix_fmt)
    image.color_range = color_range
    if pix_fmt == "rgb24":
        values = [np.array(rgb, np.uint8)]
    else:
        dtype, scale = (np.uint16, 4) if pix_fmt.endswith("10le") else (np.uint8, 1)
        levels = to_yuv(rgb, full=color_range == FULL)
        values = [np.array([min(255, level) * scale]).round().astype(dtype) for level in levels]
    for plane, value in zip(image.planes, values, strict=True):
        row = np.zeros(plane.line_size, np.uint8)
        samples = np.tile(value, plane.width).view(np.uint8)
        row[: samples.size] = samples
        plane.update(row.tobytes() * plane.height)
    return image


def photo(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """An RGB picture with edges and fine grain, like footage; the same every time."""
    random = np.random.default_rng(7)
    width, height = size_wh
    coarse = random.integers(50, 205, (height // 90 + 2, width // 90 + 2, 3), np.uint8)
    canvas = cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        x, y = int(random.integers(width)), int(random.integers(height))
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.circle(canvas, (x, y), int(random.integers(4, height // 8)), color, -1)
    grain = cv2.GaussianBlur(random.normal(0, 14, (height, width, 1)), (0, 0), 1.0)[..., None]
    picture: NDArray[np.uint8] = np.clip(canvas + grain, 0, 255).astype(np.uint8)
    return picture


def rgb_of(image: av.VideoFrame) -> NDArray[np.uint8]:
    return image.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def opencv_input(rgb: NDArray[np.uint8], imgsz: int = 640) -> NDArray[np.uint8]:
    """What YOLOv5 makes of a picture: cv2.resize with INTER_LINEAR, then a grey border."""
    height, width = rgb.shape[:2]
    box = letterbox((width, height), input_size_wh((width, height), imgsz))
    target = np.full((box.input_wh[1], box.input_wh[0], 3), 114, np.uint8)
    (x, y), (w, h) = box.offset_xy, box.content_wh
    target[y : y + h, x : x + w] = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_LINEAR)
    return target


@pytest.mark.parametrize("size_wh", [(768, 432), (432, 768), (500, 333), (321, 123)])
def test_the_padding_stays_and_the_content_fills_its_place(size_wh: tuple[int, int]) -> None:
    target = model_input(plain_frame(WHITE, "yuv420p", LIMITED, size_wh))
    box = letterbox(size_wh, input_size_wh(size_wh, 640))
    (x, y), (w, h) = box.offset_xy, box.content_wh
    assert target.shape == (box.input_wh[1], box.input_wh[0], 3)
    content = np.zeros(target.shape[:2], bool)
    content[y : y + h, x : x + w] = True
    assert (target[~content] == 114).all()
    assert (target[content] >= 252).all()


@pytest.mark.parametrize("rgb", [WHITE, BLACK, GRAY, RED, GREEN, BLUE], ids=str)
@pytest.mark.parametrize(
    ("pix_fmt", "color_range"),
    [
        ("yuv420p", LIMITED),
        ("yuv420p", 0),
        ("yuv444p", LIMITED),
        ("yuv420p10le", LIMITED),
        ("yuv420p", FULL),
        ("yuvj420p", FULL),
        ("yuv444p", FULL),
        ("yuv420p10le", FULL),
        ("rgb24", FULL),
        ("rgb24", 0),
    ],
)
@pytest.mark.parametrize("imgsz", [320, 128])
def test_colours_are_right(
    rgb: tuple[int, int, int], pix_fmt: str, color_range: int, imgsz: int
) -> None:
    target = model_input(plain_frame(rgb, pix_fmt, color_range), imgsz)
    middle = target[target.shape[0] // 2, target.shape[1] // 2]
    np.testing.assert_allclose(middle.astype(int), rgb, atol=4)


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le", "rgb24"])
@pytest.mark.parametrize(
    "size_wh",
    [(640, 360), (768, 432), (800, 600), (1280, 720), (1920, 1080), (432, 768), (320, 240)],
    ids=str,
)
def test_the_picture_is_close_to_that_of_opencv(size_wh: tuple[int, int], pix_fmt: str) -> None:
    image = av.VideoFrame.from_ndarray(photo(size_wh), format="rgb24").reformat(format=pix_fmt)
    expected = opencv_input(rgb_of(image))
    difference = np.abs(model_input(image).astype(int) - expected)
    assert difference.mean() < 2.5
    assert np.percentile(difference, 99) < 30


def edge_px(row: NDArray[np.uint8]) -> float:
    """Where a row grows from dark to bright, far finer than a pixel."""
    growth = np.diff(row.astype(float))
    return float((growth * np.arange(growth.size)).sum() / growth.sum())


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "rgb24"])
@pytest.mark.parametrize("turned", [False, True], ids=["across", "down"])
@pytest.mark.parametrize("side", [1920, 1280, 768, 320])
def test_an_edge_stays_where_it_is(side: int, turned: bool, pix_fmt: str) -> None:
    ramp = 255 * np.clip((np.arange(side) - side / 2.3) / 12 + 0.5, 0, 1)
    rgb = np.tile(ramp.round().astype(np.uint8)[None, :, None], (side // 2, 1, 3))
    rgb = np.ascontiguousarray(rgb.transpose(1, 0, 2)) if turned else rgb
    image = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix_fmt)
    target, expected = model_input(image), opencv_input(rgb_of(image))
    found, right = (
        edge_px(pixels[:, 160, 1] if turned else pixels[160, :, 1]) for pixels in (target, expected)
    )
    assert abs(found - right) < 0.1


def test_a_buffer_used_again_holds_nothing_of_the_frame_before() -> None:
    box = letterbox((320, 180), input_size_wh((320, 180), 320))
    preprocess = Preprocessor(box)
    used = blank_input(box.input_wh)
    preprocess(frame_of(plain_frame(WHITE, "yuv420p", LIMITED)), used)
    preprocess(frame_of(plain_frame(RED, "yuv420p", LIMITED)), used)
    fresh = model_input(plain_frame(RED, "yuv420p", LIMITED), 320)
    np.testing.assert_array_equal(used, fresh)


def test_the_frame_itself_is_not_changed() -> None:
    image = plain_frame(GREEN, "yuv420p", LIMITED)
    before = [bytes(plane) for plane in image.planes]
    model_input(image)
    assert [bytes(plane) for plane in image.planes] == before


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p"])
@pytest.mark.parametrize("size_wh", [(128, 96), (34, 26), (2, 2), (642, 362), (1022, 574)], ids=str)
@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
def test_rgb_made_in_one_pass_has_the_values_of_bgr(
    pix_fmt: str, size_wh: tuple[int, int], color_range: int
) -> None:
    random = np.random.default_rng(1)
    image = av.VideoFrame(*size_wh, pix_fmt)
    for plane in image.planes:
        plane_rows(plane)[:] = random.integers(0, 256, (plane.height, plane.line_size))
    image.color_range = color_range
    assert rgb_is_bgr(image)
    to_rgb, to_bgr = ToRgb(), ToBgr()
    for matrix in (1, 2, 4, 5, 6, 7, 9):
        image.colorspace = matrix
        np.testing.assert_array_equal(to_rgb(image), to_bgr(image)[:, :, ::-1])


LARGE = [
    (pix_fmt, size_wh)
    for size_wh in ((1920, 1080), (1501, 1003), (2160, 3840))
    for pix_fmt in ("yuv420p", "yuv420p10le", "yuv422p10le", "yuv444p12le", "yuvj420p")
]


@pytest.mark.parametrize(("pix_fmt", "size_wh"), LARGE, ids=str)
def test_large_frames_come_close_to_opencv_without_being_converted_whole(
    pix_fmt: str, size_wh: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = av.VideoFrame.from_ndarray(photo(size_wh), format="rgb24").reformat(format=pix_fmt)
    image.color_range = FULL if pix_fmt.startswith("yuvj") else LIMITED
    whole = ToBgr()(image)[:, :, ::-1]
    for converter in ("ToBgr", "ToRgb"):
        monkeypatch.setattr(f"pipeline.model.preprocess.{converter}", lambda: None)
    difference = np.abs(model_input(image).astype(int) - opencv_input(whole))
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 10


@pytest.mark.parametrize("matrix", [1, 2, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv444p10le", "yuvj444p"])
def test_colours_of_large_frames_are_those_of_swscale(
    pix_fmt: str, color_range: int, matrix: int
) -> None:
    random = np.random.default_rng(3)
    # Squares of 3x3 pixels of one colour, so that nothing is mixed.
    image = av.VideoFrame(384, 288, pix_fmt)
    deep = image.format.components[0].bits > 8
    for plane in image.planes:
        rows = plane_rows(plane).view(np.uint16 if deep else np.uint8)
        # Without colours so far beyond RGB that the sums of swscale overflow.
        levels = random.integers(70, 180, (96, rows.shape[1] // 3 + 1)) * (4 if deep else 1)
        rows[:] = levels.repeat(3, axis=0).repeat(3, axis=1)[:, : rows.shape[1]]
    image.color_range, image.colorspace = color_range, matrix
    target = np.zeros((96, 128, 3), np.uint8)
    Preprocessor(letterbox((384, 288), (128, 96)))(frame_of(image), target)
    expected = ToBgr()(image)[1::3, 1::3, ::-1]
    assert np.abs(target.astype(int) - expected).max() <= 2


def test_frames_twice_as_large_as_the_input_are_those_of_opencv_to_the_last_level() -> None:
    image = av.VideoFrame.from_ndarray(photo((1280, 720)), format="rgb24").reformat(
        format="yuv420p10le"
    )
    np.testing.assert_array_equal(model_input(image), opencv_input(ToBgr()(image)[:, :, ::-1]))
