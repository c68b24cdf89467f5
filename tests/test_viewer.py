"""The viewer: what its data hold, and what a browser does with them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.detection_lines import DetectedBox, DetectedFrame, read_detections
from pipeline.run.events.files import ClipEvents
from pipeline.run.events.follow import Crossing, Events, Moment, Visit
from pipeline.run.events.shapes import Shape, Shapes
from pipeline.run.over_time import BoxesOverTime
from pipeline.run.viewer.appearances import Appearance, Appearances
from pipeline.run.viewer.data import ViewerData, read_index
from pipeline.run.viewer.events import write_events
from pipeline.run.viewer.overview import Overview
from pipeline.run.viewer.viewer import PlayedSource, write_viewer
from tests.browser import load_viewer, open_page, settled, violations
from tests.conftest import TINY_INPUT_WH, process, video_times, with_light, write_clip

HOSTILE = "</script><img src=x onerror=alert(1)>'\"\\u2028,&"


def box(
    class_id: int = 0, confidence: float = 0.5, left: float = 0.0, track_id: int | None = None
) -> DetectedBox:
    return DetectedBox(
        class_id, ("light", HOSTILE)[class_id], confidence, (left, 1.5, left + 8, 9.5), track_id
    )


def frames(*boxes: tuple[DetectedBox, ...], fps: float = 10.0) -> list[DetectedFrame]:
    return [DetectedFrame(i, i, round(i / fps, 6), found) for i, found in enumerate(boxes)]


def appearances(found: list[DetectedFrame]) -> list[Appearance]:
    collected = Appearances()
    for frame in found:
        collected.add(frame)
    return collected.in_order()


def test_a_track_is_one_appearance_however_long_it_is_hidden() -> None:
    seen = (box(track_id=7, confidence=0.4),)
    best = (box(track_id=7, confidence=0.9), box(track_id=8, confidence=0.3))
    first, second = appearances(frames(seen, *[()] * 50, best, seen))
    assert (first.track_id, first.first_frame, first.last_frame) == (7, 0, 52)
    assert (first.best_frame, first.best.confidence, first.most) == (51, 0.9, 1)
    assert (second.track_id, second.first_frame, second.last_frame) == (8, 51, 51)


def test_without_tracks_a_class_appears_anew_after_a_second_without_it() -> None:
    two, one = (box(), box(left=20)), (box(),)
    found = appearances(frames(two, one, *[()] * 10, one, *[()] * 9, one))
    assert [(a.first_frame, a.last_frame, a.most) for a in found] == [(0, 1, 2), (12, 22, 1)]


def test_the_overview_counts_every_box_once_however_long_the_clip() -> None:
    overview = Overview()
    for seconds in range(0, 40_000, 7):
        overview.add(DetectedFrame(0, 0, float(seconds), (box(confidence=0.35), box(1, 0.99))))
    record = overview.as_record()
    assert len(record["frames"]) <= 2048
    assert sum(record["frames"]) == len(range(0, 40_000, 7))
    for name, level in (("0", 7), ("1", 19)):
        assert {row[1] for row in record["boxes"][name]} == {level}
        assert sum(sum(row[2:]) for row in record["boxes"][name]) == sum(record["frames"])


def test_the_overview_of_a_thousand_classes_has_fewer_bins_and_all_boxes() -> None:
    overview = Overview()
    for second in range(100):
        boxes = [DetectedBox(10 * second + i, "", 0.5, (0, 0, 8, 8)) for i in range(10)]
        overview.add(DetectedFrame(second, second, float(second), tuple(boxes)))
    record = overview.as_record()
    assert sum(record["frames"]) == 100
    assert len(record["boxes"]) == 1000
    assert len(record["frames"]) * len(record["boxes"]) < 1 << 19
    for name, rows in record["boxes"].items():
        assert rows == [[int((int(name) // 10) / record["bin_seconds"]), 10, 1]]


def test_all_boxes_are_in_the_chunks_and_no_text_of_a_class_ends_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.run.viewer.data.MOST_BOXES", 5)
    found = frames(*[(box(1, 0.25 + i / 100, left=i / 10),) * (i % 4) for i in range(20)])
    data = ViewerData(tmp_path)
    for frame in found:
        data.add(frame)
    data.finish({"name": HOSTILE})
    index = read_index(tmp_path)
    assert index["name"] == index["classes"][0]["name"] == HOSTILE
    assert np.allclose(np.cumsum(index["ticks"]) / 1e6, [f.pts_seconds for f in found])
    chunks = []
    for number in range(len(index["chunks"])):
        text = (tmp_path / f"{number:05d}.js").read_text(encoding="ascii")
        (values,) = re.findall(r"^viewerChunk\(\d+, JSON\.parse\('(.*)'\)\)\n$", text)
        chunks.append(json.loads(values))
    assert [len(chunk["counts"]) for chunk in chunks] == index["chunks"]
    assert [n for chunk in chunks for n in chunk["counts"]] == [len(f.boxes) for f in found]
    assert all(len(chunk["classes"]) <= 5 + 3 for chunk in chunks)
    tenths = [tenth for chunk in chunks for tenth in chunk["tenths"]]
    assert tenths == [round(v * 10) for f in found for b in f.boxes for v in b.xyxy]


def test_the_page_of_a_redacted_result_does_not_lead_to_its_source(tmp_path: Path) -> None:
    report = report_of("clip.mp4", (128, 96), "annotated.mp4")
    report["configuration"] = {"redact": {"covered": ["person"]}}
    source = PlayedSource(("../secret.mp4", "file:///secret.mp4"), 0.0)
    write_viewer(report, frames((box(),)), source, tmp_path)
    assert read_index(tmp_path / "viewer_data")["source"] is None
    assert not any(b"secret" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_a_page_that_is_written_anew_has_the_events_that_its_report_counts(tmp_path: Path) -> None:
    first, anew = tmp_path / "first", tmp_path / "anew"
    for folder in (first, anew):
        folder.mkdir()
    report = report_of("clip.mp4", (128, 96), "annotated.mp4")
    write_viewer(report, frames((box(),)), None, first)
    crossings = [Crossing("gate", "in", 1, "light", Moment(0, 0.0))]
    write_events(clip_events(crossings, []), first / "viewer_data")
    kept = (first / "viewer_data" / "events.js").read_bytes()
    counts: list[Any] = [None, {"lines": []}]  # Of tracks that are gone; and as before.
    for events in counts:
        write_viewer({**report, "events": events}, frames((box(),)), None, anew, first)
        found = (anew / "viewer_data" / "events.js").read_bytes()
        assert (found == kept) == (events is not None)


# In a browser.


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with open_page() as opened:
        yield opened


def report_of(name: str, size_wh: tuple[int, int], video: str | None) -> dict[str, Any]:
    """As much of a report as the page needs."""
    return {
        "source": {
            "name": name,
            "is_picture": False,
            "size_wh": size_wh,
            "container": "mov,mp4",
            "codec": "h264",
        },
        "output": {"file": video, "num_frames": 1},
        "configuration": {},
        "detections": {"total": 1},
    }


FRAMES = 40
TICKS = 120
"""Of a second, in which the frames lie unevenly."""


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a clip whose time stamps are uneven; the boxes are made up."""
    folder = tmp_path_factory.mktemp("uneven")
    pts = [4 * i + (0, 1, 2, 1, -1)[i % 5] for i in range(FRAMES)]
    images = [with_light((i % 16, 3)) for i in range(FRAMES)]
    clip = write_clip(folder / "clip.mp4", images, rate=TICKS, pts=pts)
    times = [round(float(seconds), 6) for seconds, _ in video_times(clip)]
    assert np.allclose(np.array(times) * TICKS, pts, atol=1e-3)
    lines = [
        DetectedFrame(
            i,
            i,
            seconds,
            (
                DetectedBox(39, "bottle", 0.9, (2.0 + i, 4.0, 12.0 + i, 28.0), 1),
                *([DetectedBox(0, "person", 0.4, (60.0, 4.0, 72.0, 28.0), 2)] * (i >= 25)),
            ),
        )
        for i, seconds in enumerate(times)
    ]
    report = report_of("uneven", TINY_INPUT_WH, None)
    write_viewer(report, lines, PlayedSource(("clip.mp4",), 0.0), folder)
    return folder


def place(page: Any) -> tuple[int, float, float, float]:
    """The frame that is shown, currentTime, and where the frame begins and ends."""
    frame, now, begin, end = page.evaluate(
        "[player.frame, video.currentTime, index.seconds[player.frame], frameEnd(player.frame)]"
    )
    return int(frame), float(now), float(begin), float(end)


def assert_at(page: Any, frame: int) -> None:
    settled(page)
    page.wait_for_function(f"player.frame === {frame}")
    _, now, begin, end = place(page)
    assert abs(now - begin) <= (end - begin) / 2


def test_clicks_and_keys_lead_to_the_frame_on_a_clip_with_uneven_times(
    page: Any, uneven: Path
) -> None:
    load_viewer(page, uneven)
    assert_at(page, 0)
    page.click("#list li:nth-of-type(2) button")  # The person.
    assert_at(page, 25)
    for key, frame in ((".", 26), (".", 27), (",", 26), ("ArrowLeft", 25), ("End", FRAMES - 1)):
        page.keyboard.press(key)
        assert_at(page, frame)
    page.focus("#timeline")
    for key, frame in (("Home", 0), ("ArrowRight", 1), ("n", 25), ("p", 0)):
        page.keyboard.press(key)
        assert_at(page, frame)
    line = page.locator("#timeline").bounding_box()
    seconds = page.evaluate("index.seconds[30]")
    x = page.evaluate(f"xOf({seconds} + 0.001)")
    page.mouse.click(line["x"] + x, line["y"] + 40)
    page.wait_for_function("player.frame >= 29")
    assert place(page)[0] in (29, 30, 31)  # A pixel is a part of a frame.
    assert_at(page, place(page)[0])
    assert page.evaluate("player.strange") == 0
    assert page.errors == []


def test_no_step_is_lost_between_the_end_of_a_seek_and_its_frame(page: Any, uneven: Path) -> None:
    load_viewer(page, uneven)
    page.evaluate(
        """() => {  // Keys that are pressed while no frame has been presented after the last seek.
          let left = 5;
          const press = () => { if (left-- > 0) step(1); };
          byId("video").requestVideoFrameCallback = () => {};
          player.frame = 0;
          byId("video").addEventListener("seeked", press);
          press();
        }"""
    )
    page.wait_for_function("player.sought === 5")


def test_filters_are_in_the_address_and_a_link_shows_the_same(page: Any, uneven: Path) -> None:
    load_viewer(page, uneven, "#t=1.1&classes=person&conf=0.3")
    settled(page)
    # The first picture may be shown before the sought one.
    page.wait_for_function("index.seconds[player.frame] <= 1.1 && 1.1 < frameEnd(player.frame)")
    assert page.locator("#list li").count() == 1
    assert page.locator("#list li").inner_text().startswith("person 2")
    page.fill("#text", "bot")
    page.wait_for_function("location.hash.includes('find=bot')")
    assert page.locator("#list li").count() == 0
    page.fill("#text", "")
    page.click("#all")
    page.wait_for_function("!location.hash.includes('classes')")
    assert page.locator("#list li").count() == 2
    page.evaluate("confidence.value = 0.5; confidence.oninput()")
    page.wait_for_function("location.hash.includes('conf=0.50')")
    assert page.locator("#list li").count() == 1


GATE = Shape("gate", ((4.0, 60.0), (120.0, 60.0)), "center")
YARD = Shape("yard", ((50.0, 0.0), (128.0, 0.0), (128.0, 96.0)), "center")


def clip_events(crossings: list[Crossing], visits: list[Visit]) -> ClipEvents:
    events = Events(crossings, visits, 2, 50, BoxesOverTime(1.0), {})
    clip: Any = None  # Not needed by the page.
    return ClipEvents(clip, Shapes((GATE,), (YARD,), False, None), events)


def test_events_are_marks_and_entries_that_lead_to_their_frames(
    page: Any, uneven: Path, tmp_path: Path
) -> None:
    shutil.copytree(uneven, tmp_path / "page")
    crossings = [
        Crossing("gate", "in", 1, "bottle", Moment(12, 0.0)),
        Crossing("gate", "out", 1, "bottle", Moment(30, 0.0)),
    ]
    visits = [Visit("yard", 2, "person", Moment(25, 0.0), True, Moment(33, 0.0), True)]
    write_events(clip_events(crossings, visits), tmp_path / "page" / "viewer_data")
    load_viewer(page, tmp_path / "page", "#list=events")
    page.wait_for_selector("#event-counts")
    assert page.locator("#list li b").all_inner_texts() == [
        "bottle 1: gate in",
        f"person 2: yard for {page.evaluate('index.seconds[33] - index.seconds[25]'):.1f} s",
        "bottle 1: gate out",
    ]
    counts = page.locator("#event-counts button")
    assert counts.all_inner_texts() == ["gate 1 in, 1 out", "yard 1 visit"]
    page.click("#list li:nth-of-type(2) button")
    assert_at(page, 25)
    page.keyboard.press("n")
    assert_at(page, 30)
    row = page.locator("#timeline").bounding_box()  # The first row is that of the gate.
    x = row["x"] + page.evaluate("xOf(index.seconds[12])")
    page.mouse.move(x + 2, row["y"] + 38)
    page.mouse.down()
    page.mouse.move(x - 4, row["y"] + 38)  # A hand moves a little.
    page.mouse.up()
    assert_at(page, 12)
    counts.first.click()
    page.wait_for_function("location.hash.includes('line=gate')")
    assert page.locator("#list li").count() == 2
    page.goto(f"{page.url.partition('#')[0]}#t=1.1&classes=person&list=events")
    page.wait_for_function("document.querySelectorAll('#list li').length === 1")
    assert counts.all_inner_texts() == ["gate 0 in, 0 out", "yard 1 visit"]
    assert page.errors == []


def test_the_page_has_the_first_of_very_many_events_and_says_so(tmp_path: Path) -> None:
    many = [Crossing("gate", "in", i, "ball", Moment(i // 10, 0.0)) for i in range(110_000)]
    write_events(clip_events(many, []), tmp_path)
    text = (tmp_path / "events.js").read_text(encoding="ascii")
    (values,) = re.findall(r"^viewerEvents\(JSON\.parse\('(.*)'\)\)\n$", text)
    record = json.loads(values)
    assert (record["total"], len(record["first"]), record["last"][-1]) == (110_000, 100_000, 9999)
    assert len(text) < 4e6


def shot_of(page: Any, selector: str) -> NDArray[np.uint8]:
    shot = cv2.imdecode(np.frombuffer(page.locator(selector).screenshot(), np.uint8), 1)
    return np.asarray(shot, np.uint8)


@pytest.fixture(scope="module")
def result(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of the tiny model, in a folder beside its clip."""
    folder = tmp_path_factory.mktemp("result")
    clip = write_clip(folder / "clip.mp4", [with_light((i, 3)) for i in range(8)])
    process(clip, folder / "out", tiny_weights)
    return folder / "out"


def test_boxes_lie_where_the_annotated_pixels_are(page: Any, result: Path) -> None:
    load_viewer(page, result, "#picture=annotated")
    assert page.evaluate("video.currentSrc").endswith("/annotated.mp4")
    for _ in range(3):
        page.keyboard.press(".")
    assert_at(page, 3)
    page.uncheck("#boxes")
    drawn = shot_of(page, "#stage").astype(int)
    page.evaluate("byId('overlay').style.background = '#000'")
    page.check("#boxes")
    page.uncheck("#labels")
    overlay = shot_of(page, "#stage").max(axis=2) > 60
    overlay[:12] = overlay[-12:] = overlay[:, :12] = overlay[:, -12:] = False  # Round corners.
    ((left, top, right, bottom),) = [
        found.xyxy for found in list(read_detections(result / "detections.jsonl"))[3].boxes
    ]
    gain = drawn.shape[1] / 128
    rows, columns = np.nonzero(overlay)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert edges == pytest.approx([v * gain for v in (left, top, right, bottom)], abs=2)
    # The annotated clip has the colour of the class there, and none a little further out.
    class_pixels = np.ptp(drawn, axis=2) > 60
    inside = class_pixels[edges[1] : edges[3], edges[0] : edges[2]]
    assert inside.any(axis=0).mean() > 0.9
    assert not class_pixels[edges[3] + round(4 * gain) :].any()


def test_a_class_name_is_text_wherever_it_stands(page: Any, tmp_path: Path) -> None:
    found = frames(*[(box(1, left=float(i)),) for i in range(5)])
    write_viewer(report_of(HOSTILE, (128, 96), None), found, None, tmp_path)
    load_viewer(page, tmp_path)
    assert page.evaluate("document.images.length") == 0
    assert HOSTILE in page.locator("#classes").inner_text()
    assert "no clip to play" in page.locator("#message").inner_text()
    page.keyboard.press(".")
    page.wait_for_function("player.frame === 1")
    assert page.errors == []


def test_a_source_that_is_not_played_is_named_with_the_way_out(page: Any, tmp_path: Path) -> None:
    (tmp_path / "clip.avi").write_bytes(b"RIFF....AVI ")
    source = PlayedSource(("clip.avi",), 0.0)
    report = report_of("clip.avi", (128, 96), None)
    report["source"].update(container="avi", codec="mpeg4")
    write_viewer(report, frames(*[(box(),)] * 3), source, tmp_path)
    load_viewer(page, tmp_path)
    page.wait_for_function("document.querySelector('#message').textContent")
    message = page.locator("#message").inner_text()
    assert "clip.avi (avi, mpeg4)" in message
    assert "pipeline render" in message


def test_axe_finds_nothing(page: Any, result: Path) -> None:
    load_viewer(page, result, size_wh=(390, 844))
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
