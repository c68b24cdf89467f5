"""--roi: boxes in a region of the frame; --roi-crop: only that part is inferred."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline import DetectOptions, InputError, SyntheticOptions, UsageError
from pipeline.core.boxes import Detections
from pipeline.core.region import Window, region_of
from pipeline.frames.decode import VideoReader
from pipeline.frames.glance import glance
from pipeline.media.crop import Cropper
from pipeline.media.frame import plane_rows
from tests.conftest import gray, process, read_detections, write_clip
from tests.recordings import record
from tests.resuming import KEYS, run

FRAME_WH = (256, 192)
NUM_FRAMES = 24
ROI = "120,40,100,90"
TRIANGLE = "0,0,256,0,0,192"


def lights(index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """16 pixels wide lights; two stand still, one moves to the right."""
    image = gray(20, FRAME_WH)
    for x, y in ((32, 32), (160, 80), (16 * (index // 2), 128)):
        image[y : y + 16, x : x + 16] = 255
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [lights(i) for i in range(NUM_FRAMES)], options=KEYS)


def boxes(centres: list[tuple[float, float]]) -> Detections:
    xyxy = np.array([(x - 2, y - 2, x + 2, y + 2) for x, y in centres], np.float32)
    count = len(centres)
    return Detections(xyxy.reshape(-1, 4), np.ones(count, np.float32), np.zeros(count, np.int64))


def centre_of(box: dict[str, Any]) -> tuple[float, float]:
    left, top, right, bottom = box["xyxy"]
    return (left + right) / 2, (top + bottom) / 2


def is_in(roi: str, x: float, y: float) -> bool:
    """By OpenCV, which is not what decides in a run."""
    outline = region_of(roi, FRAME_WH).points.astype(np.float32)
    return cv2.pointPolygonTest(outline, (x, y), measureDist=False) >= 0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=7),
    st.lists(st.tuples(st.integers(-1, 21), st.integers(-1, 21)), min_size=1, max_size=20),
)
def test_centres_are_in_a_polygon_where_opencv_says_so(
    points: list[tuple[int, int]], centres: list[tuple[int, int]]
) -> None:
    numbers = [coordinate for point in points for coordinate in point]
    try:
        region = region_of(",".join(map(str, numbers)), (2, 2))
    except (UsageError, InputError):
        return
    if max(numbers) <= 1:
        return
    outline = np.array(points, np.float32)
    expected = [
        cv2.pointPolygonTest(outline, (float(x), float(y)), measureDist=False) >= 0
        for x, y in centres
    ]
    kept = region.kept(boxes([(float(x), float(y)) for x, y in centres]))
    found = {(float(x), float(y)) for x, y in (kept.xyxy[:, :2] + 2).tolist()}
    assert [(float(x), float(y)) in found for x, y in centres] == expected


@pytest.mark.parametrize("options", [{}, {"every": 3}, {"adaptive": True}], ids=str)
@pytest.mark.parametrize("roi", [ROI, TRIANGLE, "0.5,0,0.5,1"])
def test_the_boxes_are_those_of_the_whole_frame_whose_centres_lie_there(
    roi: str, options: dict[str, Any], clip: Path, tiny_weights: Path
) -> None:
    everywhere = list(pipeline.detect(clip, weights=tiny_weights, **options))
    there = list(pipeline.detect(clip, weights=tiny_weights, roi=roi, **options))
    assert 0 < sum(len(f.boxes) for f in there) < sum(len(f.boxes) for f in everywhere)
    for frame, whole in zip(there, everywhere, strict=True):
        # A box is decided on before its coordinates are rounded; here none lies so near.
        expected = [b for b in whole.boxes if is_in(roi, *centre_of({"xyxy": b.xyxy}))]
        assert list(frame.boxes) == expected


def test_a_region_is_in_the_report_the_command_and_the_key(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    outline = tmp_path / "yard.json"
    outline.write_text(json.dumps([[0.5, 0], [1, 0], [1, 1], [0.5, 1]]))
    reports = [
        process(
            clip,
            tmp_path / str(number),
            tiny_weights,
            video=False,
            detect=DetectOptions(roi=roi),
        )
        for number, roi in enumerate([None, outline, "0.5,0,1,0,1,1,0.5,1", "0.5,0,0.5,1"])
    ]
    keys = [report["result_key"] for report in reports]
    assert len(set(keys)) == 3
    assert keys[1] == keys[2]  # The content of the file decides.
    assert "--roi 0.5,0,1,0,1,1,0.5,1" in reports[1]["command"]
    lines = [read_detections(tmp_path / str(number)) for number in range(4)]
    assert lines[1] == lines[2] == lines[3] != lines[0]


@pytest.mark.parametrize("roi", [ROI, "0.5,0.25,0.5,0.5"])
def test_a_crop_is_inferred_as_a_clip_of_that_rectangle(
    roi: str, clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    window = region_of(roi, FRAME_WH).window
    (width, height), left, top = window.size_wh, window.left, window.top
    assert {left % 4, top % 4} == {0}
    with_crop = list(pipeline.detect(clip, weights=tiny_weights, roi=roi, roi_crop=True))
    reader = VideoReader(clip)
    cut = [
        frame.image.to_ndarray(format="rgb24")[top : top + height, left : left + width]
        for frame in reader.frames()
    ]
    reader.close()
    # Without loss, in the colours of the source.
    options: dict[str, Any] = {
        "codec": "libx264rgb",
        "pix_fmt": "rgb24",
        "container_format": "matroska",
    }
    alone = record(tmp_path / "cut.mkv", [np.ascontiguousarray(image) for image in cut], **options)
    expected = list(pipeline.detect(alone, weights=tiny_weights))
    assert any(frame.boxes for frame in with_crop)
    for frame, other in zip(with_crop, expected, strict=True):
        moved = [(b.xyxy[0] + left, b.xyxy[1] + top) for b in other.boxes]
        centres = [
            ((b.xyxy[0] + b.xyxy[2]) / 2 + left, (b.xyxy[1] + b.xyxy[3]) / 2 + top)
            for b in other.boxes
        ]
        kept = [at for at, centre in zip(moved, centres, strict=True) if is_in(roi, *centre)]
        assert [b.xyxy[:2] for b in frame.boxes] == [pytest.approx(at, abs=0.5) for at in kept]


def test_a_crop_does_not_depend_on_segments(clip: Path, tmp_path: Path, tiny_weights: Path) -> None:
    detect = DetectOptions(roi=ROI, roi_crop=True)
    run(clip, tmp_path / "one", tiny_weights, segment_seconds=60, detect=detect)
    report = run(clip, tmp_path / "three", tiny_weights, segment_seconds=0.3, detect=detect)
    assert report["segments"]["number"] > 1
    assert read_detections(tmp_path / "one") == read_detections(tmp_path / "three")


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "rgb24", "nv12"])
def test_a_window_has_the_pixels_of_the_picture(pix_fmt: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (192, 256, 3), np.uint8)
    image = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
    image.color_range = 2
    cut = Cropper(Window(20, 36, (64, 100)))(image)
    assert (cut.width, cut.height, cut.format.name, cut.color_range) == (64, 100, pix_fmt, 2)
    pixel_bytes = plane_rows(image.planes[0]).shape[1] // 256
    whole, part = (plane_rows(one.planes[0]) for one in (image, cut))
    columns = slice(20 * pixel_bytes, 84 * pixel_bytes)
    np.testing.assert_array_equal(part[:, : 64 * pixel_bytes], whole[36:136, columns])


def test_a_rectangle_beyond_the_frame_is_cut_off_and_one_outside_is_refused(
    clip: Path, tiny_weights: Path
) -> None:
    assert region_of("200,100,500,500", FRAME_WH).window == Window(200, 100, (56, 92))
    frames = pipeline.detect(clip, weights=tiny_weights, roi="300,0,10,10")
    with pytest.raises(InputError, match=r"--roi 300,0,10,10 lies outside the frame.* 256x192"):
        next(frames)


@pytest.mark.parametrize(
    ("roi", "reason"),
    [
        ("1,2,3", "is neither x,y,w,h, nor a polygon"),
        ("1,2,0,4", "width and height must be more than 0"),
        ("0,0,1,1,2,2", "enclose no area"),
        ("1,2,3,4,5", "is neither"),
        ("nowhere.json", "nor a file with one"),
        ((1, 2, float("nan"), 4), "--roi must be .* a sequence"),
    ],
)
def test_what_is_no_region_is_refused_in_one_line(roi: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        DetectOptions(roi=roi)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[0, 0], [1, 1]]", "three or more points"),
        ("[[0, 0], [5, 0], [5, 5]]", "units: pixels"),
        ("units: pixels\npolygon: [[0, 0], [1, 0], [1, 1]]", "shares of the frame"),
        ("outline: [[0, 0], [1, 0], [1, 1]]", "'outline' is unknown"),
        ("zones: []", "0 zones"),
        ("{", "is neither a list of points"),
        ("7", "is neither a list of points"),
    ],
)
def test_a_file_without_an_outline_is_refused_in_one_line(
    text: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "roi.yaml").write_text(text)
    with pytest.raises(UsageError, match=reason) as caught:
        DetectOptions(roi=tmp_path / "roi.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "roi"),
    [
        ("[[0, 0], [1, 0], [0.5, 1]]", "0,0,1,0,0.5,1"),
        ("units: pixels\npolygon:\n- [10, 20]\n- [30, 20]\n- [30, 50]\n", "10,20,30,20,30,50"),
        ("zones: [{name: yard, points: [[0, 0], [1, 0], [1, 0.5]]}]", "0,0,1,0,1,0.5"),
    ],
)
def test_a_file_has_an_outline(text: str, roi: str, tmp_path: Path) -> None:
    (tmp_path / "roi.yaml").write_text(text)
    assert DetectOptions(roi=tmp_path / "roi.yaml").roi == roi


def test_a_crop_needs_a_region() -> None:
    with pytest.raises(UsageError, match="--roi-crop needs --roi"):
        DetectOptions(roi_crop=True)


def test_the_scene_has_a_region_too(tmp_path: Path, tiny_weights: Path) -> None:
    scene = SyntheticOptions(num_frames=4, size_wh=FRAME_WH)
    detect = DetectOptions(roi="0,0,0.5,1", roi_crop=True)
    report = process(scene, tmp_path, tiny_weights, detect=detect)
    assert report["configuration"]["detect"]["roi_crop"]
    for line in read_detections(tmp_path):
        assert all(centre_of(box)[0] <= FRAME_WH[0] / 2 for box in line["detections"])


@pytest.mark.parametrize("pix_fmt", ["bgr24", "rgb48le", "gray", "gray16le", "yuv420p"])
def test_a_look_at_a_window_sees_the_window_only(pix_fmt: str) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (96, 640, 3), np.uint8)
    image = av.VideoFrame.from_ndarray(pixels, format="bgr24").reformat(format=pix_fmt)
    window = Window(480, 32, (160, 64))
    alone = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[32:96, 480:640]), format="bgr24")
    seen = glance(Cropper(window)(image))
    np.testing.assert_allclose(seen, glance(alone.reformat(format=pix_fmt)), atol=1.0)
