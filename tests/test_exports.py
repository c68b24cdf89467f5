"""Exports hold every box, class name, time and track that their formats can hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]

from pipeline import read_detections as read_frames
from pipeline.cli.commands import main
from pipeline.core.errors import InputError
from tests.conftest import process, with_light, write_clip

NAMES = ("person", 'say "cheese", twice', "Fußgänger & <Co>", "自転車")
SIZE_WH = (640, 360)
NUM_FRAMES = 12
FORMATS = ("coco", "csv", "cvat", "labelstudio", "megadetector", "mot", "yolo")
NEAR = 0.01
"""Pixels by which a box may differ after the round trip."""

Box = tuple[str, int, str, tuple[float, ...]]
"""Clip, frame index, class name, left, top, right, bottom."""


def frame_record(index: int, seed: int, *, with_tracks: bool) -> dict[str, Any]:
    """A line with up to three boxes; track 7 pauses in frames 4 and 5."""
    rng = np.random.default_rng((seed, index))
    boxes: list[dict[str, Any]] = []
    for track in (3, 7, 8)[: 1 + index % 3] if index not in (4, 5) else (3,):
        left, top = rng.uniform(0, 300, 2)
        right, bottom = left + rng.uniform(1, 300), top + rng.uniform(1, 59)
        class_id = track % len(NAMES)
        boxes.append(
            {
                "class_id": class_id,
                "class_name": NAMES[class_id],
                "confidence": round(float(rng.uniform(0.25, 1)), 4),
                "xyxy": [round(float(edge), 2) for edge in (left, top, right, bottom)],
                **({"track_id": track} if with_tracks else {}),
            }
        )
    return {
        "frame_index": index,
        "pts": 512 * index,
        "pts_seconds": round(index / 29.97, 6),
        "interpolated": index % 2 == 1,
        "detections": boxes,
    }


def write_result(folder: Path, name: str, seed: int = 0, *, with_tracks: bool = False) -> Path:
    """The detections and the report of a run that found these boxes."""
    folder.mkdir(parents=True)
    lines = [frame_record(i, seed, with_tracks=with_tracks) for i in range(NUM_FRAMES)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "detections.jsonl").write_text(text, encoding="utf-8")
    report = {
        "schema_version": 2,
        "created": "2026-01-02T03:04:05+00:00",
        "source": {
            "name": name,
            "size_wh": SIZE_WH,
            "frame_rate": "30000/1001",
            "is_picture": False,
            "fingerprint": "0",
        },
        "output": {"num_frames": NUM_FRAMES},
        "model": {"file": "some.pt", "class_names": NAMES},
        "configuration": {"deinterlace": "off"},
    }
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def boxes_of(folder: Path, name: str, every_nth: int = 1) -> list[Box]:
    frames = read_frames(folder / "detections.jsonl")
    return [
        (name, frame.frame_index, box.class_name, box.xyxy)
        for frame in frames
        if frame.frame_index % every_nth == 0
        for box in frame.boxes
    ]


def require_same(found: list[Box], expected: list[Box]) -> None:
    found, expected = sorted(found), sorted(expected)
    assert [box[:3] for box in found] == [box[:3] for box in expected]
    np.testing.assert_allclose(
        [box[3] for box in found], [box[3] for box in expected], rtol=0, atol=NEAR
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two clips of the same name, and a third with tracks."""
    root = tmp_path_factory.mktemp("results")
    return [
        write_result(root / "a", "gate, north.mp4", 1),
        write_result(root / "b", "gate, north.mp4", 2),
        write_result(root / "c", "yard.mp4", 3, with_tracks=True),
    ]


CLIPS = ("gate, north.mp4", "gate, north_2.mp4", "yard.mp4")
KEYS = ("gate_ north", "gate_ north_2", "yard")


@pytest.fixture(scope="module")
def exported(results: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    names = map(str, results)
    assert main(["export", *names, "--to", *FORMATS, "--output-dir", str(out), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def expected(results: list[Path]) -> list[Box]:
    return [
        box for folder, name in zip(results, CLIPS, strict=True) for box in boxes_of(folder, name)
    ]


def test_csv_has_a_row_for_each_box(exported: Path, expected: list[Box]) -> None:
    with (exported / "detections.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    edges = ("left", "top", "right", "bottom")
    require_same(
        [
            (
                row["clip"],
                int(row["frame_index"]),
                row["class_name"],
                tuple(float(row[edge]) for edge in edges),
            )
            for row in rows
        ],
        expected,
    )
    last = next(row for row in rows if (row["clip"], row["frame_index"]) == ("yard.mp4", "11"))
    assert (last["pts"], last["pts_seconds"]) == (str(512 * 11), "0.367034")
    assert (last["interpolated"], last["track_id"]) == ("1", "3")
    assert rows[0]["track_id"] == ""


def test_coco_has_all_clips_with_unique_ids(exported: Path, expected: list[Box]) -> None:
    path = exported / "coco" / "annotations" / "instances_default.json"
    coco = json.loads(path.read_text(encoding="utf-8"))
    videos = {video["id"]: video for video in coco["videos"]}
    images = {image["id"]: image for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert len(images) == len(coco["images"]) == 3 * NUM_FRAMES
    assert len({image["file_name"] for image in images.values()}) == len(images)
    assert len({a["id"] for a in coco["annotations"]}) == len(expected)
    assert 0 not in {*names, *images, *videos}
    found: list[Box] = []
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        left, top, width, height = annotation["bbox"]
        clip = videos[image["video_id"]]["name"]
        box = (left, top, left + width, top + height)
        found.append((clip, image["frame_id"], names[annotation["category_id"]], box))
        assert annotation["area"] == pytest.approx(width * height, abs=0.01)
        assert ("track_id" in annotation) == (clip == "yard.mp4")
    require_same(found, expected)


def test_yolo_has_a_label_file_for_each_frame(exported: Path, expected: list[Box]) -> None:
    names = yaml.safe_load((exported / "yolo" / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert names == dict(enumerate(NAMES))
    files = sorted((exported / "yolo" / "labels").iterdir())
    assert len(files) == 3 * NUM_FRAMES
    found: list[Box] = []
    width, height = SIZE_WH
    for path in files:
        key, _, index = path.stem.rpartition("_")
        for row in path.read_text(encoding="utf-8").splitlines():
            number, cx, cy, w, h = row.split()
            x, y, half_w, half_h = (
                float(cx) * width,
                float(cy) * height,
                float(w) * width / 2,
                float(h) * height / 2,
            )
            box = (x - half_w, y - half_h, x + half_w, y + half_h)
            found.append((CLIPS[KEYS.index(key)], int(index), names[int(number)], box))
    require_same(found, expected)


@pytest.mark.parametrize(("key", "kind"), [("gate_ north", "det"), ("yard", "gt")])
def test_mot_counts_frames_and_classes_from_1(
    exported: Path, expected: list[Box], key: str, kind: str
) -> None:
    folder = exported / "mot" / key
    labels = (folder / kind / "labels.txt").read_text(encoding="utf-8").splitlines()
    found: list[Box] = []
    tracks: set[int] = set()
    for row in (folder / kind / f"{kind}.txt").read_text(encoding="utf-8").splitlines():
        frame, track, left, top, width, height, _, number, _ = map(float, row.split(","))
        tracks.add(int(track))
        box = (left, top, left + width, top + height)
        found.append((CLIPS[KEYS.index(key)], int(frame) - 1, labels[int(number) - 1], box))
    require_same(found, [box for box in expected if box[0] == CLIPS[KEYS.index(key)]])
    assert tracks == ({3, 7, 8} if kind == "gt" else {-1})
    assert f"seqLength={NUM_FRAMES}\n" in (folder / "seqinfo.ini").read_text(encoding="utf-8")


def test_cvat_ends_a_track_where_its_thing_is_not_found(
    exported: Path, expected: list[Box]
) -> None:
    root = ElementTree.parse(exported / "cvat" / "yard.xml").getroot()
    assert {label.findtext("name") for label in root.iter("label")} == set(NAMES)
    found: list[Box] = []
    for track in root.iter("track"):
        for box in track.iter("box"):
            if box.get("outside") == "0":
                edges = tuple(float(box.get(edge, "")) for edge in ("xtl", "ytl", "xbr", "ybr"))
                place = (int(box.get("frame", "")), track.get("label", ""))
                found.append(("yard.mp4", *place, edges))
    require_same(found, [box for box in expected if box[0] == "yard.mp4"])
    seen = {
        int(box.get("frame", "")): (box.get("outside"), box.get("keyframe"))
        for box in root.iterfind("track[@id='7']/box")
    }
    # In frames 1 and 2; not in 3; in 7 and 8; not in 9; in 10 and 11, the last frame.
    assert seen == {
        1: ("0", "1"),
        2: ("0", "1"),
        3: ("1", "1"),
        7: ("0", "1"),
        8: ("0", "1"),
        9: ("1", "1"),
        10: ("0", "1"),
        11: ("0", "0"),
    }


def test_cvat_gives_boxes_without_tracks_a_track_each(exported: Path, expected: list[Box]) -> None:
    tracks = list(ElementTree.parse(exported / "cvat" / f"{KEYS[0]}.xml").getroot().iter("track"))
    assert len(tracks) == len({track.get("id") for track in tracks})
    assert len(tracks) == sum(box[0] == CLIPS[0] for box in expected)


def test_label_studio_counts_frames_from_1_and_boxes_in_percent(
    exported: Path, expected: list[Box]
) -> None:
    tasks = json.loads((exported / "labelstudio" / "tasks.json").read_text(encoding="utf-8"))
    found: list[Box] = []
    for task in tasks:
        for region in task["predictions"][0]["result"]:
            for place in region["value"]["sequence"]:
                left, top = place["x"] * SIZE_WH[0] / 100, place["y"] * SIZE_WH[1] / 100
                right = left + place["width"] * SIZE_WH[0] / 100
                bottom = top + place["height"] * SIZE_WH[1] / 100
                name = region["value"]["labels"][0]
                box = (left, top, right, bottom)
                found.append((task["data"]["video"], place["frame"] - 1, name, box))
    require_same(found, expected)
    [track_7] = [
        region["value"]["sequence"]
        for region in tasks[2]["predictions"][0]["result"]
        if region["meta"]["track_id"] == 7
    ]
    enabled = {place["frame"] - 1: place["enabled"] for place in track_7}
    assert enabled == {1: True, 2: False, 7: True, 8: False, 10: True, 11: False}
    interface = ElementTree.parse(exported / "labelstudio" / "interface.xml").getroot()
    assert [label.get("value") for label in interface.iter("Label")] == list(NAMES)


def test_megadetector_has_shares_of_the_frame(exported: Path, expected: list[Box]) -> None:
    record = json.loads((exported / "megadetector.json").read_text(encoding="utf-8"))
    found: list[Box] = []
    width, height = SIZE_WH
    for image in record["images"]:
        assert image["frames_processed"] == list(range(NUM_FRAMES))
        for box in image["detections"]:
            left, top, w, h = box["bbox"]
            edges = (left * width, top * height, (left + w) * width, (top + h) * height)
            name = record["detection_categories"][box["category"]]
            found.append((image["file"], box["frame_number"], name, edges))
    require_same(found, expected)
    assert record["info"]["format_version"] == "1.6"


def test_every_nth_frame_is_exported_under_its_own_number(
    results: list[Path], tmp_path: Path
) -> None:
    out = str(tmp_path)
    words = ["export", str(results[0]), "--to", "csv", "--every-nth", "5", "--output-dir", out]
    assert main(words) == 0
    with (tmp_path / "detections.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert {row["frame_index"] for row in rows} == {"0", "5", "10"}


def test_an_export_is_replaced_only_if_asked_for(
    results: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(results[0]), "--to", "csv", "--output-dir", str(tmp_path)]
    assert main(words) == 0
    (tmp_path / "detections.csv").write_text("mine", encoding="utf-8")
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "detections.csv").read_text(encoding="utf-8") == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "detections.csv").stat().st_size > 100


@pytest.mark.parametrize(
    "line",
    [
        '{"frame_index": 3}',
        '{"frame_index": 3, "pts_seconds": 0, "detections": [{"class_id": 0}]}',
        "not JSON",
    ],
)
def test_a_damaged_line_leaves_no_export(results: list[Path], tmp_path: Path, line: str) -> None:
    folder = write_result(tmp_path / "damaged", "clip.mp4")
    with (folder / "detections.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")
    with pytest.raises(InputError, match=f"line {NUM_FRAMES + 1} "):
        list(read_frames(folder / "detections.jsonl"))
    assert main(["export", str(folder), "--to", *FORMATS]) == 1
    assert list((folder / "export").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], "no such file"),
        (["."], "contains neither"),
        (["a", "b"], "--output-dir"),
        (["a", "--every-nth", "0"], "--every-nth"),
        (["a", "--images", "."], "have pictures"),
        (["a", "--images", ".", "--to", "yolo"], "is not there"),
    ],
)
def test_a_wrong_use_is_one_line(
    words: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_result(tmp_path / "a", "clip.mp4")
    write_result(tmp_path / "b", "clip.mp4")
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words, *([] if "--to" in words else ["--to", "csv"])]) in (1, 2)
    [line] = capsys.readouterr().err.splitlines()
    assert reason in line


def test_the_pictures_of_a_data_set_are_the_frames_of_its_labels(
    tiny_weights: Path, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((i, 3)) for i in range(7)])
    process(clip, tmp_path / "out", tiny_weights)
    words = ["export", str(tmp_path / "out"), "--to", "yolo", "coco", "mot", "--every-nth", "3"]
    assert main([*words, "--images", str(tmp_path)]) == 0
    export = tmp_path / "out" / "export"
    labels = {path.stem for path in (export / "yolo" / "labels").iterdir()}
    pictures = sorted((export / "yolo" / "images").iterdir())
    assert {path.stem for path in pictures} == labels == {f"clip_{i:06d}" for i in (0, 3, 6)}
    coco_path = export / "coco" / "annotations" / "instances_default.json"
    for image in json.loads(coco_path.read_text(encoding="utf-8"))["images"]:
        assert (export / "coco" / "images" / image["file_name"]).is_file()
    assert sorted(path.name for path in (export / "mot" / "clip" / "img1").iterdir()) == [
        "000001.jpg",
        "000004.jpg",
        "000007.jpg",
    ]
    for index, path in zip((0, 3, 6), pictures, strict=True):
        found = np.asarray(cv2.imread(str(path)), int)
        differences = [np.abs(found - with_light((i, 3))[..., ::-1]).mean() for i in range(7)]
        assert int(np.argmin(differences)) == index


def test_pictures_of_another_clip_are_refused(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((i, 3)) for i in range(3)])
    process(clip, tmp_path / "out", tiny_weights)
    write_clip(clip, [with_light((i, 5)) for i in range(3)])
    words = ["export", str(tmp_path / "out"), "--to", "yolo", "--images", str(clip)]
    assert main(words) == 1
    assert "another file" in capsys.readouterr().err


def test_a_run_and_a_batch_export_their_results(tiny_weights: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("one.mp4", "two.mp4"):
        write_clip(clips / name, [with_light((i, 3)) for i in range(3)])
    usual = ["--weights", str(tiny_weights), "--quiet", "--export", "csv"]
    single, batch = tmp_path / "single", tmp_path / "batch"
    assert main(["process", str(clips / "one.mp4"), *usual, "--output-dir", str(single)]) == 0
    assert main(["process", str(clips), *usual, "--output-dir", str(batch)]) == 0
    assert (single / "export" / "detections.csv").is_file()
    assert main(["export", str(batch), "--to", "csv", "coco", "--overwrite"]) == 0
    coco_path = batch / "export" / "coco" / "annotations" / "instances_default.json"
    coco = json.loads(coco_path.read_text(encoding="utf-8"))
    assert [video["name"] for video in coco["videos"]] == ["one.mp4", "two.mp4"]
