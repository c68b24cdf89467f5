"""Tracks through lines and zones: what is counted, when, and what is not."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.commands import main
from pipeline.cli.events import count_events
from pipeline.core.config import SyntheticOptions
from pipeline.core.detection_lines import DetectedBox, DetectedFrame, last_seconds
from pipeline.core.errors import InputError
from pipeline.core.notes import collected_notes
from pipeline.run.events.events import find_events
from pipeline.run.events.follow import Crossing, Events, follow
from pipeline.run.events.geometry import anchor_points, from_line, from_outline
from pipeline.run.events.shapes import Point, Shape, Shapes
from pipeline.run.events.sides import Sides
from pipeline.run.exports.clip import read_clips
from pipeline.run.over_time import bin_seconds_for, boxes_over_time
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.sprites import CLASS_NAMES
from tests.conftest import needs_demo
from tests.schemas import schema_errors

WIDTH, HEIGHT = 20.0, 40.0
"""Of the boxes of made-up tracks: their margin is 2 pixels."""
LINE = ((0.0, 100.0), (200.0, 100.0))
SQUARE = ((50.0, 50.0), (150.0, 50.0), (150.0, 150.0), (50.0, 150.0))

whole = st.integers(-20, 20)
spots = st.tuples(whole, whole)


def shapes(
    *, line: Sequence[Point] | None = None, zone: Sequence[Point] | None = None, anchor: str
) -> Shapes:
    def named(name: str, points: Sequence[Point] | None) -> tuple[Shape, ...]:
        return (Shape(name, tuple(points), anchor),) if points else ()

    return Shapes(named("line", line), named("zone", zone), True, None)


def path_frames(*paths: Sequence[Point | None]) -> Iterator[DetectedFrame]:
    """Frames at 10 per second; None: a track is hidden. The bottom centre of a box is the point."""
    for index, places in enumerate(itertools.zip_longest(*paths)):
        boxes = tuple(
            DetectedBox(0, "ball", 0.9, (x - WIDTH / 2, y - HEIGHT, x + WIDTH / 2, y), track_id)
            for track_id, place in enumerate(places)
            if place is not None
            for x, y in [place]
        )
        yield DetectedFrame(index, None, index / 10, boxes)


def events_of(
    *paths: Sequence[Point | None],
    line: Sequence[Point] | None = None,
    zone: Sequence[Point] | None = None,
) -> Events:
    return follow(path_frames(*paths), shapes(line=line, zone=zone, anchor="bottom_center"), 10)


def crossings(*paths: Sequence[Point | None]) -> list[tuple[str, int]]:
    """Direction and frame of each crossing of LINE, which leads from left to right."""
    found = events_of(*paths, line=LINE).crossings
    return [(crossing.direction, crossing.at.frame_index) for crossing in found]


def visits(*path: Point | None) -> list[tuple[int, bool, int, bool]]:
    """Begin, entered, end, left of each visit to SQUARE."""
    found = events_of(path, zone=SQUARE).visits
    return [(v.begin.frame_index, v.entered, v.end.frame_index, v.left) for v in found]


# Geometry


@given(spots, spots, spots)
def test_the_side_of_a_line_is_exact(begin: Point, end: Point, point: Point) -> None:
    if begin == end:
        return
    (x0, y0), (x1, y1), (x, y) = begin, end, point
    cross = (y1 - y0) * (x - x0) - (x1 - x0) * (y - y0)
    dot = (x1 - x0) * (x - x0) + (y1 - y0) * (y - y0)
    squared = (x1 - x0) ** 2 + (y1 - y0) ** 2
    [distance], [along] = from_line(np.array([point], float), [begin, end])
    assert np.sign(distance) == np.sign(cross)
    assert distance == pytest.approx(cross / math.sqrt(squared))
    assert along == pytest.approx(float(Fraction(int(dot), int(squared))))


def is_on_segment(point: Point, begin: Point, end: Point) -> bool:
    (x, y), (x0, y0), (x1, y1) = point, begin, end
    cross = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
    return cross == 0 and min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1)


def is_inside(point: Point, polygon: Sequence[Point]) -> bool:
    """By a ray to the right, in whole numbers."""
    x, y = map(int, point)
    inside = False
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if (y0 > y) != (y1 > y):
            cut = Fraction(int(x1 - x0) * (y - int(y0)), int(y1 - y0)) + int(x0)
            inside ^= x < cut
    return inside


@given(st.lists(spots, min_size=3, max_size=7), spots)
def test_inside_a_polygon_is_exact_and_its_outline_is_at_no_distance(
    polygon: list[Point], point: Point
) -> None:
    edges = list(zip(polygon, (*polygon[1:], polygon[0]), strict=True))
    if any(begin == end for begin, end in edges):
        return
    [distance] = from_outline(np.array([point], float), polygon)
    if any(is_on_segment(point, begin, end) for begin, end in edges):
        assert distance == pytest.approx(0, abs=1e-9)
    else:
        assert (distance > 0) == is_inside(point, polygon)
        along = np.linspace(0, 1, 401)[:, None]
        sampled = [begin + along * np.subtract(end, begin) for begin, end in np.array(edges)]
        nearest = min(np.hypot(*(points - point).T).min() for points in sampled)
        assert abs(distance) == pytest.approx(nearest, abs=0.1)


def test_anchors_are_points_of_the_box() -> None:
    box = np.array([[10.0, 20.0, 30.0, 60.0]])
    found = {name: tuple(anchor_points(box, name)[0]) for name in ("bottom_center", "center")}
    assert found == {"bottom_center": (20, 60), "center": (20, 40)}


# Sides


def changes(distances: Sequence[float], margin: float) -> list[bool]:
    sides = Sides[int]()
    seen = (sides.see(1, d, 0.5, margin, when) for when, d in enumerate(distances))
    found = [change for change in seen if change]
    return [c.is_positive for c in (*found, *sides.end()) if not c.is_first]


distances = st.lists(whole.map(float), max_size=30)


@given(distances)
def test_without_a_margin_every_change_of_side_counts(path: list[float]) -> None:
    signs = [d > 0 for d in path if d]
    assert changes(path, 0) == [b for a, b in itertools.pairwise(signs) if a != b]


@given(distances, st.integers(0, 30))
def test_the_margin_leaves_out_changes_in_pairs_only(path: list[float], margin: float) -> None:
    found, signs = changes(path, margin), [d > 0 for d in path if d]
    assert all(a != b for a, b in itertools.pairwise(found))
    net = sum(1 if is_positive else -1 for is_positive in found)
    assert net == (int(signs[-1]) - int(signs[0]) if signs else 0)
    assert len(found) <= len(changes(path, 0))


@given(st.lists(st.floats(-3, 3), max_size=40))
def test_a_box_that_trembles_on_the_line_passes_once(noise: list[float]) -> None:
    approach, departure = [-30.0, -10.0], [10.0, 30.0]
    assert changes([*approach, *noise, *departure], 3) == [True]
    assert changes([*approach, *noise, *approach], 3) == []


# Lines


def test_passing_a_line_counts_once_in_the_frame_that_is_beyond() -> None:
    assert crossings([(50, y) for y in range(70, 140, 7)]) == [("out", 5)]
    assert crossings([(50, y) for y in range(140, 70, -7)]) == [("in", 6)]
    assert crossings([(10 + 4 * i, 60 + 9 * i) for i in range(12)]) == [("out", 5)]  # Diagonally.


def test_touching_the_line_is_no_passage() -> None:
    assert crossings([(50, 80), (50, 100), (60, 100), (70, 80)]) == []
    assert crossings([(50, 100), (60, 100)]) == []
    assert crossings([(50, 80), (50, 100), (50, 120)]) == [("out", 2)]


def test_stopping_on_the_line_counts_once_when_the_track_goes_on_or_ends() -> None:
    before, on_it = [(50.0, 80.0), (50.0, 90.0)], [(50.0, 100.5), (50.0, 99.5)] * 20
    assert crossings([*before, *on_it, (50, 101), (50, 110)]) == [("out", 42)]
    assert crossings([*before, *on_it, (50, 90)]) == []
    assert crossings([*before, *on_it, (50, 101)]) == [("out", 42)]


def test_passing_beside_the_line_does_not_count() -> None:
    assert crossings([(210, 80), (210, 120)]) == []
    # Beyond its end, and back through it.
    assert crossings([(210, 80), (210, 120), (150, 120), (150, 80)]) == [("in", 3)]
    # The straight line between two sightings decides.
    assert crossings([(150, 80), (240, 170)]) == [("out", 1)]
    assert crossings([(190, 80), (290, 120)]) == []


def test_a_track_that_was_hidden_counts_where_it_is_seen_again() -> None:
    assert crossings([(50, 80), None, None, None, (50, 120)]) == [("out", 4)]


def test_a_track_that_leaves_the_frame_counts_where_it_passed() -> None:
    assert crossings([(180, 80), (190, 90), (199, 101)]) == [("out", 2)]
    assert crossings([(180, 80), (190, 90)]) == []


def test_tracks_do_not_mix() -> None:
    assert crossings([(50, 80), (50, 120)], [(50, 120), (50, 80)]) == [("out", 1), ("in", 1)]


# Zones


def test_a_visit_begins_and_ends_where_the_track_is_seen_inside_and_outside() -> None:
    path = [(x, 100.0) for x in range(20, 200, 20)]
    assert visits(*path) == [(2, True, 7, True)]
    [visit] = events_of(path, zone=SQUARE).visits
    assert visit.dwell_seconds == 0.5


def test_a_track_that_begins_or_ends_in_a_zone_did_not_enter_or_leave() -> None:
    assert visits((100, 100), (100, 110), (100, 200)) == [(0, False, 2, True)]
    assert visits((100, 200), (100, 110), (100, 100)) == [(1, True, 2, False)]


def test_hiding_in_a_zone_is_one_visit_and_coming_again_another() -> None:
    assert visits((100, 100), None, None, (100, 120)) == [(0, False, 3, False)]
    assert visits((100, 100), (100, 200), (100, 100)) == [(0, False, 1, True), (2, True, 2, False)]


def test_trembling_on_the_outline_is_one_visit() -> None:
    on_it = [(100.0, 149.0), (100.0, 151.0)] * 10
    assert visits((100, 200), *on_it, (100, 120), *on_it, (100, 200)) == [(21, True, 41, True)]


# Against the scene and against supervision


def scene_frames(seed: int, num_frames: int = 110) -> list[DetectedFrame]:
    options = SyntheticOptions(num_frames=num_frames, size_wh=(640, 480), seed=seed)
    scene = Scene(options.size_wh, seed)
    frames = []
    for index in range(num_frames):
        truth = scene.truth(index)
        found = zip(
            truth.xyxy.tolist(), truth.class_id.tolist(), truth.track_id.tolist(), strict=True
        )
        boxes = tuple(DetectedBox(c, CLASS_NAMES[c], 1.0, tuple(box), t) for box, c, t in found)
        frames.append(DetectedFrame(index, None, index / 30, boxes))
    return frames


@pytest.fixture(scope="module", params=[0, 7])
def scene(request: pytest.FixtureRequest) -> list[DetectedFrame]:
    return scene_frames(request.param)


# Beyond the frame on both sides: supervision counts between perpendiculars at the ends only.
LINES = (
    ((320.3, -900.0), (320.3, 1400.0)),
    ((-900.0, 300.7), (1600.0, 300.7)),
    ((-600.0, -400.3), (1300.0, 1000.9)),
    ((900.0, -200.1), (-300.0, 800.7)),
)
ZONES = (
    ((60.5, 50.5), (420.5, 50.5), (420.5, 300.5), (60.5, 300.5)),
    ((320.0, 20.0), (600.0, 240.0), (320.0, 460.0), (40.0, 240.0)),
    ((20.0, 20.0), (620.0, 20.0), (320.0, 240.0), (620.0, 460.0), (20.0, 460.0)),
)


def crossings_by_hand(frames: list[DetectedFrame], line: Sequence[Point]) -> set[tuple[str, ...]]:
    """Direction, track and frame, from whole tracks: where two clear places differ in their side,
    the last change between them; the first and last places are clear."""
    (x0, y0), (x1, y1) = line
    length = math.hypot(x1 - x0, y1 - y0)
    tracks: dict[int, list[tuple[int, float, float]]] = {}
    for frame in frames:
        for box in frame.boxes:
            left, top, right, bottom = box.xyxy
            x, margin = (left + right) / 2, 0.1 * min(right - left, bottom - top)
            distance = ((y1 - y0) * (x - x0) - (x1 - x0) * (bottom - y0)) / length
            assert box.track_id is not None
            tracks.setdefault(box.track_id, []).append((frame.frame_index, distance, margin))
    found: set[tuple[str, ...]] = set()
    for track, places in tracks.items():
        clear = [i for i, (_, d, margin) in enumerate(places) if abs(d) > margin]
        clear = sorted({0, *clear, len(places) - 1})
        for begin, end in itertools.pairwise(clear):
            side = places[end][1] > 0
            if (places[begin][1] > 0) != side:
                last = max(i for i in range(begin, end) if (places[i][1] > 0) != side)
                found.add(("in" if side else "out", str(track), str(places[last + 1][0])))
    return found


@pytest.mark.parametrize("line", LINES)
def test_crossings_are_those_of_the_truth(
    scene: list[DetectedFrame], line: Sequence[Point]
) -> None:
    found = follow(scene, shapes(line=line, anchor="bottom_center"), 5).crossings
    expected = crossings_by_hand(scene, line)
    assert len(found) > 5
    assert {(c.direction, str(c.track_id), str(c.at.frame_index)) for c in found} == expected
    assert len(found) == len(expected)


def without_gaps(frames: list[DetectedFrame]) -> list[DetectedFrame]:
    """Without tracks that are hidden for two frames or more, whose side supervision forgets."""
    seen: dict[int | None, list[int]] = {}
    for frame in frames:
        for box in frame.boxes:
            seen.setdefault(box.track_id, []).append(frame.frame_index)
    kept = {t for t, at in seen.items() if all(b - a <= 2 for a, b in itertools.pairwise(at))}
    return [
        dataclasses.replace(frame, boxes=tuple(box for box in frame.boxes if box.track_id in kept))
        for frame in frames
    ]


def net(found: list[Crossing]) -> dict[int, int]:
    """By track: how many times more often it came in than it went out."""
    counts: Counter[int] = Counter()
    for crossing in found:
        counts[crossing.track_id] += 1 if crossing.direction == "in" else -1
    return {track: number for track, number in counts.items() if number}


def as_detections(frame: DetectedFrame) -> Any:
    import supervision

    return supervision.Detections(
        np.array([box.xyxy for box in frame.boxes], np.float32).reshape(-1, 4),
        class_id=np.array([box.class_id for box in frame.boxes], int),
        tracker_id=np.array([box.track_id for box in frame.boxes], int),
    )


@pytest.mark.parametrize("line", LINES)
def test_crossings_are_those_of_supervision(
    scene: list[DetectedFrame], line: Sequence[Point]
) -> None:
    supervision = pytest.importorskip("supervision", reason="needs the package supervision")
    begin, end = (supervision.Point(x, y) for x, y in line)
    zone = supervision.LineZone(begin, end, [supervision.Position.BOTTOM_CENTER])
    frames, theirs = without_gaps(scene), []
    for frame in frames:
        for crossed, direction in zip(
            zone.trigger(as_detections(frame)), ("in", "out"), strict=True
        ):
            theirs += [
                (frame.frame_index, direction, box.track_id, box.class_name)
                for box, has_crossed in zip(frame.boxes, crossed, strict=True)
                if has_crossed
            ]
    watched = shapes(line=line, anchor="bottom_center")
    found = follow(frames, watched, 5, margin=0).crossings
    ours = [(c.at.frame_index, c.direction, c.track_id, c.class_name) for c in found]
    assert sorted(ours) == sorted(theirs)
    with_margin = follow(frames, watched, 5).crossings
    assert net(with_margin) == net(found)
    assert len(with_margin) <= len(found)


@pytest.mark.parametrize("polygon", ZONES)
def test_boxes_in_a_zone_are_those_of_supervision(
    scene: list[DetectedFrame], polygon: Sequence[Point]
) -> None:
    supervision = pytest.importorskip("supervision", reason="needs the package supervision")
    zone = supervision.PolygonZone(np.array(polygon))
    decided = 0
    for frame in scene:
        inside = zone.trigger(as_detections(frame))
        xyxy = np.array([box.xyxy for box in frame.boxes])
        distances = from_outline(anchor_points(xyxy, "bottom_center"), polygon)
        clear = np.abs(distances) > 1.5  # Its mask consists of whole pixels.
        assert ((distances > 0) == inside)[clear].all()
        decided += int(clear.sum())
    assert decided > 500


# Counts over time


@given(st.floats(0.01, 1e6))
def test_bins_are_round_and_not_too_many(seconds: float) -> None:
    width = bin_seconds_for(seconds)
    assert seconds / width <= 60
    assert width == 0.1 or seconds / width > 12


def test_boxes_over_time_are_those_of_the_frames_of_each_bin() -> None:
    path: list[Point | None] = [*[(50.0, 50.0)] * 7, *[None] * 5, (50.0, 50.0)]
    found = boxes_over_time(path_frames(path), 300)
    assert found == {"bin_seconds": 5.0, "frames": [13], "boxes": {"ball": [8]}}
    found = boxes_over_time(path_frames(path), 1.3)
    assert found == {
        "bin_seconds": 0.1,
        "frames": [1] * 13,
        "boxes": {"ball": [1] * 7 + [0] * 5 + [1]},
    }


@pytest.mark.parametrize(("asked", "width"), [(None, 1200.0), (0.1, 0.4), (3600, 3600)])
def test_a_gap_of_hours_makes_no_hours_of_bins_and_loses_no_time(
    asked: float | None, width: float, tmp_path: Path
) -> None:
    gap_seconds = 10 * 3600.0
    frames = [
        dataclasses.replace(frame, pts_seconds=frame.pts_seconds + gap_seconds * (index > 4))
        for index, frame in enumerate(path_frames(DOWN))
    ]
    folder = write_result(tmp_path / "result", "x.mp4", frames)
    watched = dataclasses.replace(shapes(line=LINE, anchor="bottom_center"), bin_seconds=asked)
    [found] = find_events(read_clips([folder / "detections.jsonl"]), watched)
    counts, last = found.counts(), int((gap_seconds + 0.9) / width)
    assert counts["bin_seconds"] == pytest.approx(width)
    assert len(counts["frames"]) == last + 1 <= 100_000
    assert (sum(counts["frames"]), counts["frames"][last]) == (10, 5 if width > 1 else 2)
    [crossing] = found.events.crossings
    assert crossing.at.seconds == pytest.approx(gap_seconds + 0.6)


def test_process_says_that_bins_are_wider_than_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [
        dataclasses.replace(frame, pts_seconds=frame.pts_seconds + 36_000 * (index > 4))
        for index, frame in enumerate(path_frames(DOWN))
    ]
    folder = write_result(tmp_path / "result", "x.mp4", frames)
    lines = (folder / "detections.jsonl").rename(folder / "lines.jsonl")  # Its report stays.
    watched = dataclasses.replace(shapes(line=LINE, anchor="bottom_center"), bin_seconds=0.1)
    with collected_notes():  # As in a run of any command.
        count_events([lines], watched, tmp_path)
    assert "bin_seconds" in capsys.readouterr().err


def test_only_the_end_of_a_file_is_read_for_the_time_of_its_last_frame(tmp_path: Path) -> None:
    path = tmp_path / "detections.jsonl"
    for more in (0, 70_000, 300_000):
        lines = [{"pts_seconds": 1.5, "more": "x" * more}, {"pts_seconds": 2.5, "more": "y" * more}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert last_seconds(path) == 2.5
        path.write_text(json.dumps(lines[0]) + "\n")
        assert last_seconds(path) == 1.5
    path.write_text("")
    assert last_seconds(path) == 0
    path.write_text("{")
    with pytest.raises(InputError, match="damaged"):
        last_seconds(path)


# The command


def write_result(folder: Path, name: str, frames: Iterable[DetectedFrame], **source: Any) -> Path:
    """The detections and the report of a run with these boxes."""
    folder.mkdir(parents=True)
    records = [
        {
            "frame_index": frame.frame_index,
            "pts": None,
            "pts_seconds": frame.pts_seconds,
            "detections": [
                {**box._asdict(), "xyxy": list(box.xyxy)}
                if box.track_id is not None
                else {key: value for key, value in box._asdict().items() if key != "track_id"}
                for box in frame.boxes
            ],
        }
        for frame in frames
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "detections.jsonl").write_text(text, encoding="utf-8")
    report = {
        "schema_version": 2,
        "created": "2026-01-02T03:04:05+00:00",
        "source": {
            "name": name,
            "size_wh": [200, 200],
            "frame_rate": "10/1",
            "is_picture": False,
            "fingerprint": "0",
            **source,
        },
        "output": {"num_frames": len(records)},
        "model": {"file": "some.pt", "class_names": ["ball"]},
        "configuration": {"deinterlace": "off"},
    }
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


DOWN = [(50.0, 20.0 * i) for i in range(10)]
"""Passes the line at 100 from frame 5 to frame 6."""
LINES_FILE = """
lines:
  - {name: gate, points: [[0, 0.5], [1, 0.5]]}
zones:
  - {name: "yard, low", points: [[0, 0.55], [1, 0.55], [1, 1], [0, 1], [0, 0.55]]}
"""


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    path = tmp_path / "lines.yaml"
    path.write_text(LINES_FILE)
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


def test_one_table_has_the_events_of_all_clips_with_both_clocks(
    tmp_path: Path, lines_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = write_result(
        tmp_path / "a", "x.mp4", path_frames(DOWN), creation_time="2026-05-01T10:00:00.500+02:00"
    )
    b = write_result(tmp_path / "b", "x.mp4", path_frames(DOWN[::-1]))
    out = tmp_path / "out"
    words = ["events", str(a), str(b), "--lines", str(lines_file)]
    assert main([*words, "--output-dir", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "x.mp4: line gate: 0 in, 1 out (ball 1)" in shown
    assert "x_2.mp4: line gate: 1 in (ball 1), 0 out" in shown
    rows = read_table(out / "events.csv")
    found = [(row["clip"], row["event"], row["where"], row["frame_index"]) for row in rows]
    assert found == [
        ("x.mp4", "cross", "gate", "6"),
        ("x.mp4", "enter", "yard, low", "6"),
        ("x.mp4", "last_seen", "yard, low", "9"),
        ("x_2.mp4", "first_seen", "yard, low", "0"),
        ("x_2.mp4", "leave", "yard, low", "4"),
        ("x_2.mp4", "cross", "gate", "5"),
    ]
    assert (rows[0]["direction"], rows[0]["class_name"], rows[0]["track_id"]) == (
        "out",
        "ball",
        "0",
    )
    assert (rows[0]["pts_seconds"], rows[0]["time"]) == ("0.6", "2026-05-01T10:00:01.100+02:00")
    assert (rows[2]["dwell_seconds"], rows[3]["time"]) == ("0.3", "")
    record = json.loads((out / "events.json").read_text(encoding="utf-8"))
    assert schema_errors("events", record) == []
    assert [len(clip["crossings"]) for clip in record["clips"]] == [1, 1]
    [gate] = record["clips"][0]["lines"]
    assert gate["points"] == [[0, 100], [200, 100]]
    assert gate["over_time"] == {"in": {}, "out": {"ball": [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]}}
    [yard] = record["clips"][0]["zones"]
    assert yard["visits"] == {"ball": {"visits": 1, "tracks": 1, "dwell_seconds": 0.3}}
    assert yard["boxes"] == {"ball": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]}


def test_boxes_without_tracks_are_refused_in_one_line(
    tmp_path: Path, lines_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [
        dataclasses.replace(frame, boxes=tuple(box._replace(track_id=None) for box in frame.boxes))
        for frame in path_frames(DOWN)
    ]
    folder = write_result(tmp_path / "a", "x.mp4", frames)
    assert main(["events", str(folder), "--lines", str(lines_file)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "--track" in line
    assert not (folder / "events.csv").exists()


def test_earlier_events_are_replaced_only_on_request(
    tmp_path: Path, lines_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_result(tmp_path / "a", "x.mp4", path_frames(DOWN))
    words = ["events", str(folder), "--lines", str(lines_file), "--output-dir", str(folder)]
    assert main(words) == 0
    before = (folder / "events.csv").read_bytes()
    lines_file.write_text("lines: [{name: other, points: [[0, 0.5], [1, 0.5]]}]")
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "events.csv").read_bytes() == before
    assert main([*words, "--overwrite"]) == 0
    assert {row["where"] for row in read_table(folder / "events.csv")} == {"other"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a mapping"),
        ("lines: []", "neither lines nor zones"),
        ("line: [{name: a, points: [[0, 0], [1, 1]]}]", "did you mean lines?"),
        ("lines: [{points: [[0, 0], [1, 1]]}]", "has no name"),
        ("lines: [{name: a, points: [[0, 0]]}]", "two different points"),
        ("lines: [{name: a, points: [[0.5, 0.5], [0.5, 0.5]]}]", "two different points"),
        ("lines: [{name: a, points: [[0, x], [1, 1]]}]", "list of [x, y]"),
        ("lines: [{name: a, points: [[0, .nan], [1, 1]]}]", "list of [x, y]"),
        ("lines: [{name: a, points: [[0, 0], [640, 1]]}]", "units: pixels"),
        ("zones: [{name: a, points: [[0, 0], [1, 1], [0.5, 0.5]]}]", "enclose an area"),
        ("zones: [{name: a, points: [[0, 0], [1, 1], [0, 0]]}]", "enclose an area"),
        ("anchor: feet\nlines: [{name: a, points: [[0, 0], [1, 1]]}]", "bottom_center"),
        ("bin_seconds: 0\nlines: [{name: a, points: [[0, 0], [1, 1]]}]", "0.1 or more"),
        (
            "lines: [{name: a, points: [[0, 0], [1, 1]]}]\n"
            "zones: [{name: a, points: [[0, 0], [1, 1], [0, 1]]}]",
            "given twice",
        ),
        ("lines: &x [*x]", "aliases"),
        ("lines: [", "line 1"),
    ],
)
def test_a_file_that_defines_nothing_usable_is_refused_in_one_line(
    text: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lines.yaml"
    path.write_text(text)
    assert main(["events", str(tmp_path), "--lines", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line
    assert str(path) in line


def test_events_need_tracks_and_a_folder(
    tmp_path: Path, lines_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["process", "synthetic", "--output-dir", str(tmp_path / "out")]
    assert main([*words, "--events", str(lines_file)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--track" in line
    assert main([*words, "--track", "--events", str(tmp_path / "missing.yaml")]) == 2
    assert "missing.yaml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_demo
def test_a_run_counts_in_one_go_and_again_without_inference(
    tmp_path: Path, lines_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackers", reason="needs the extra 'track'")
    out = tmp_path / "out"
    words = ["process", "synthetic", "--frames", "30", "--size", "320x240", "--imgsz", "320"]
    words += ["--no-video", "--track", "--events", str(lines_file), "--output-dir", str(out)]
    assert main(words) == 0
    assert "line gate:" in capsys.readouterr().out
    assert schema_errors("events", json.loads((out / "events.json").read_text())) == []
    report = json.loads((out / "report.json").read_text())
    assert schema_errors("report", report) == []
    assert [line["name"] for line in report["events"]["lines"]] == ["gate"]
    assert "Line gate" in (out / "report.html").read_text(encoding="utf-8")
    before = (out / "detections.jsonl").stat()
    lines_file.write_text("lines: [{name: wall, points: [[0.5, 0], [0.5, 1]]}]")
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "already done" in shown
    assert "line wall:" in shown
    assert (out / "detections.jsonl").stat() == before
    [wall] = json.loads((out / "report.json").read_text())["events"]["lines"]
    assert wall["name"] == "wall"
    assert '"name":"wall"' in (out / "viewer_data" / "events.js").read_text(encoding="ascii")
