"""Redaction: what is found of chosen classes cannot be seen, in no file and in no frame."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import json
import re
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from redaction_leaks import Leaks, TrueFrame, measure, true_frames, withheld

from pipeline.cli.commands import main
from pipeline.core.boxes import Detections
from pipeline.core.config import RedactOptions, SyntheticOptions
from pipeline.core.cover_lines import CoverLine
from pipeline.core.errors import Interrupted, UsageError
from pipeline.core.work_folder import WORK_NAME
from pipeline.frames.redact import LEAST_BLOCK_PX, MOST_BLOCKS, Redactor
from pipeline.media.frame import plane_rows
from pipeline.run.outputs import finished_report
from pipeline.run.process import process_video
from pipeline.run.redaction.covered import CoveredFrame
from pipeline.run.redaction.covers import covers
from pipeline.run.redaction.fastest import fastest_sides
from pipeline.run.redaction.found import CoverRules, FoundBoxes
from pipeline.run.redaction.rectangles import on_pixels, touching
from pipeline.synthetic.sprites import CLASS_NAMES
from tests.commands import Command, last_words
from tests.conftest import gray, info_of, read_detections, write_clip
from tests.recordings import Track, record_with_tracks
from tests.redacted_frames import COVERS, brightest, noise_frame, samples_of
from tests.resuming import config_of, interrupted_at, run
from tests.schemas import schema_errors

FRAME_RATE = 25.0
RULES = CoverRules((640, 480), hold_seconds=0.4, margin=0.1)


def found(box: tuple[float, ...] | None, index: int, *, inferred: bool = True) -> FoundBoxes:
    boxes = np.array([] if box is None else [box], np.float32).reshape(-1, 4)
    return FoundBoxes(index / FRAME_RATE, boxes, np.zeros(len(boxes), np.int64), inferred)


def holds(covered: NDArray[np.int64], box: tuple[float, ...]) -> bool:
    """Whether one cover holds all of a box."""
    return bool(((covered[:, :2] <= box[:2]) & (covered[:, 2:] >= box[2:])).all(axis=1).any())


def moving(index: int) -> tuple[float, float, float, float]:
    return (100.0 + 4 * index, 200.0, 140.0 + 4 * index, 260.0)


def test_a_thing_is_covered_between_its_finds_and_for_the_hold_around_them() -> None:
    seen = {20, 21, 25, 26, 40}
    frames = [found(moving(i) if i in seen else None, i) for i in range(70)]
    covered = list(covers(frames, RULES))
    assert len(covered) == len(frames)
    for index in range(10, 51):  # The hold is 10 frames long.
        assert holds(covered[index], moving(index)), index
    for index in (*range(8), *range(53, 70)):
        assert not len(covered[index]), index


def test_the_hold_covers_to_the_next_frame_that_the_model_looked_at() -> None:
    """With few frames inferred, a thing can have come and gone between two of them."""
    frames = [found(moving(0) if i == 30 else None, i, inferred=i % 30 == 0) for i in range(91)]
    covered = list(covers(frames, RULES))
    assert [bool(len(c)) for c in covered] == [0 < i <= 60 for i in range(91)]


def test_two_things_that_could_be_one_are_held_like_two() -> None:
    here, there = (100.0, 100.0, 140.0, 140.0), (170.0, 100.0, 210.0, 140.0)
    frames = [found(here if i <= 30 else there, i) for i in range(61)]
    covered = list(covers(frames, RULES))
    assert all(holds(covered[i], here) for i in range(41))
    assert all(holds(covered[i], there) for i in range(21, 61))


def test_frames_are_held_back_for_no_longer_than_a_gap_and_a_hold() -> None:
    given = 0

    def frames() -> Iterator[FoundBoxes]:
        nonlocal given
        for given in range(500):
            yield found(moving(given % 50) if given % 7 else None, given)

    most = max(given - index for index, _ in enumerate(covers(frames(), RULES)))
    assert most <= FRAME_RATE * (RULES.gap_seconds + RULES.hold_seconds) + 2


def test_a_frame_needs_little_memory_however_many_boxes_are_covered_in_it() -> None:
    random = np.random.default_rng(3)
    frame = CoveredFrame((1920, 1080))
    tracemalloc.start()
    try:
        for _ in range(100):
            corners = random.uniform(0, (1800, 1000), (1000, 2))
            frame.add(on_pixels(np.hstack((corners, corners + 60)), (1920, 1080))[0])
            del corners
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 200_000  # All of them are 1.6 MB.
    assert len(frame.final())


@pytest.mark.parametrize("number", [0, 60, 800, 1500, 5000])
def test_what_is_covered_is_the_same_in_however_many_parts_it_comes(number: int) -> None:
    random = np.random.default_rng(number)
    corners = random.uniform(-20, (640, 480), (number, 2))
    boxes = np.hstack((corners, corners + random.uniform(0, 40, (number, 2))))
    pixels, _ = on_pixels(boxes, (640, 480))
    at_once, in_parts = CoveredFrame((640, 480)), CoveredFrame((640, 480))
    at_once.add(pixels)
    for part in np.array_split(pixels, max(1, number // 7)):
        in_parts.add(part)
    covered = at_once.final()
    assert np.array_equal(covered, in_parts.final())
    shown = np.zeros((480, 640), bool)
    for left, top, right, bottom in covered:
        shown[top:bottom, left:right] = True
    assert all(shown[top:bottom, left:right].all() for left, top, right, bottom in pixels)


def line_of(xs: dict[int, float], *, num_frames: int = 30) -> list[NDArray[np.int64]]:
    """What is covered of a thing of 40x40 pixels found in these frames at these places."""
    frames = [
        found((xs[i], 200.0, xs[i] + 40, 240.0) if i in xs else None, i) for i in range(num_frames)
    ]
    rules = replace(RULES, fastest_sides=fastest_sides(frames))
    return list(covers(frames, rules))


def test_a_thing_that_leaves_its_own_box_is_covered_on_its_way_only() -> None:
    """Between its finds, and before and after them while it is missed."""
    seen = (10, 11, 12, 15, 16)
    covered = line_of({i: 60.0 * (i - 8) for i in seen})
    for index in range(8, 19):
        x = 60.0 * (index - 8)
        assert holds(covered[index], (x, 200.0, min(x + 40, 640.0), 240.0)), index
    for index in (13, 14):  # Not all from the find before it to the one after it.
        assert (covered[index][:, 2] - covered[index][:, 0]).max() < 100


def test_a_thing_that_is_found_once_is_covered_as_far_as_others_go() -> None:
    others = {i: 55.0 * i for i in range(5)}
    covered = line_of({**others, 20: 300.0})
    for index, x in ((18, 190.0), (19, 245.0), (21, 245.0), (22, 410.0)):
        assert holds(covered[index], (x, 200.0, x + 40, 240.0)), index
    alone = line_of({20: 300.0})
    assert not holds(alone[21], (245.0, 200.0, 285.0, 240.0))


def test_a_crowd_that_stands_still_and_is_missed_at_times_has_no_fast_things() -> None:
    """Three of them, each found in one frame of three, may lie on a line by chance."""
    random = np.random.default_rng(5)
    corners = random.uniform(0, 550, (30, 2)).astype(np.float32)
    standing = np.hstack((corners, np.add(corners, (40, 90)))).astype(np.float32)
    frames = []
    for index in range(90):
        boxes = standing[random.random(30) > 0.2]
        frames.append(FoundBoxes(index / FRAME_RATE, boxes, np.zeros(len(boxes), np.int64)))
    assert fastest_sides(frames) == 0


def test_many_boxes_are_covered_by_few_rectangles() -> None:
    random = np.random.default_rng(3)
    corners = random.uniform(0, 600, (2000, 2)).astype(np.float32)
    boxes = np.hstack((corners, corners + 20))
    frame = FoundBoxes(0.0, boxes, np.zeros(len(boxes), np.int64))
    [covered] = covers([frame], RULES)
    assert len(covered) < 200
    seen = np.zeros((480, 640), bool)
    for left, top, right, bottom in covered.tolist():
        seen[top:bottom, left:right] = True
    assert (covered >= 0).all()
    assert (covered[:, 2:] <= (640, 480)).all()
    for left, top, right, bottom in boxes.astype(int).tolist():
        assert seen[top : bottom + 1, left : right + 1].all()


def test_boxes_that_touch_are_found() -> None:
    random = np.random.default_rng(3)
    corners = random.integers(0, 300, (200, 2)).astype(np.float64)
    boxes = np.hstack((corners, corners + random.integers(1, 40, (200, 2))))
    a, b = boxes[:120], boxes[120:]
    touch = (a[:, None, :2] <= b[None, :, 2:]).all(axis=2)
    touch &= (a[:, None, 2:] >= b[None, :, :2]).all(axis=2)
    rows, places = touching(a, b)
    assert len(rows) > 100
    assert np.array_equal(np.stack((rows, places)), np.stack(np.nonzero(touch)))


SCENE = SyntheticOptions(num_frames=60, size_wh=(160, 120), seed=3)
LONG_SCENE = SyntheticOptions(num_frames=3000, size_wh=(320, 240))


@functools.lru_cache(maxsize=1)
def frames_of(scene: SyntheticOptions) -> list[TrueFrame]:
    return true_frames(scene, frozenset(map(CLASS_NAMES.index, ("ball", "bird", "car"))))


def leaks_of(scene: SyntheticOptions, share: float) -> Leaks:
    frames = frames_of(scene)
    found, unfound = withheld(frames, share, 1)
    return measure(scene, frames, found, RedactOptions(covered=("ball",)), unfound)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_no_pixel_of_the_chosen_classes_is_left_to_be_seen(share: float) -> None:
    leaks = leaks_of(SCENE, share)
    assert leaks.listed_px > 20_000
    assert (leaks.listed_leaked_px, leaks.frames) == (0, [])
    assert leaks.covered_share < 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("share", "most_leaked"), [(0.0, 0.0), (0.2, 0.0001)])
def test_what_is_left_to_be_seen_over_3000_frames(share: float, most_leaked: float) -> None:
    """See docs/redaction.md."""
    leaks = leaks_of(LONG_SCENE, share)
    assert leaks.num_frames == 3000
    assert leaks.listed_leaked_px <= most_leaked * leaks.listed_px
    assert leaks.unfound_px < 0.01 * leaks.listed_px


@pytest.mark.parametrize("style", ["blur", "pixelate", "fill"])
@pytest.mark.parametrize("bits", [8, 10])
def test_covers_of_what_has_no_colour_have_none(style: str, bits: int) -> None:
    frame = noise_frame("yuv420p" if bits == 8 else "yuv420p10le")
    neutral = 1 << (bits - 1)
    for plane in frame.planes[1:]:
        plane_rows(plane).view(np.uint8 if bits == 8 else np.uint16)[...] = neutral
    covered = samples_of(Redactor(info_of((131, 97)), style, {0})(frame, COVERS))
    assert all((chroma == neutral).all() for chroma in covered[1:])


@pytest.mark.parametrize("style", ["blur", "pixelate", "fill"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_nothing_but_a_few_means_is_left_and_all_other_pixels_are_untouched(
    style: str, pixel_format: str
) -> None:
    frame = noise_frame(pixel_format)
    before = samples_of(frame)
    after = samples_of(Redactor(info_of((131, 97)), style, {0})(frame, COVERS))
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        step = 2 if number else 1
        outside = np.ones(old.shape, bool)
        for left, top, right, bottom in COVERS.tolist():
            part = np.s_[top // step : -(-bottom // step), left // step : -(-right // step)]
            outside[part] = False
            assert (old[part] != new[part]).mean() > 0.9
            if style == "pixelate":
                blocks = -(-(right - left) // LEAST_BLOCK_PX) * -(-(bottom - top) // LEAST_BLOCK_PX)
                assert len(np.unique(new[part])) <= min(blocks, MOST_BLOCKS**2)
            if style == "fill":
                assert len(np.unique(new[part])) == 1
        assert np.array_equal(old[outside], new[outside])


@pytest.mark.parametrize("style", ["blur", "pixelate"])
def test_a_cover_is_the_same_whatever_lies_within_its_blocks(style: str) -> None:
    """So no filter gets back what is not there. The block is a quarter of the longer side."""
    covered, drawn = np.array([[0, 0, 128, 64]]), []
    for seed in (1, 2):
        frame = noise_frame("yuv420p", (128, 64))
        random = np.random.default_rng(seed)
        for number, plane in enumerate(frame.planes):
            rows, side = plane_rows(plane), 16 if number else 32
            for y, x in itertools.product(
                range(0, plane.height, side), range(0, plane.width, side)
            ):
                block = rows[y : y + side, x : x + side]
                block[...] = random.permutation(block.reshape(-1)).reshape(block.shape)
        drawn.append(samples_of(Redactor(info_of((128, 64)), style, {0})(frame, covered)))
    assert all(np.array_equal(a, b) for a, b in zip(*drawn, strict=True))


def plate(letters: str) -> NDArray[np.uint8]:
    """Seven letters on a bright ground, which fill it."""
    image = np.full((40, 160, 3), 230, np.uint8)
    for number, letter in enumerate(letters):
        place = (3 + 22 * number, 33)
        cv2.putText(image, letter, place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (30, 60, 120), 3)
    return image


@pytest.mark.parametrize("style", ["blur", "pixelate"])
def test_of_a_plate_whoever_has_font_place_and_program_finds_many_that_look_the_same(
    style: str,
) -> None:
    """So trying all of them out does not tell which it was."""
    redactor, whole = Redactor(info_of((160, 40)), style, {0}), np.array([[0, 0, 160, 40]])

    def covered(letters: str) -> bytes:
        frame = av.VideoFrame.from_ndarray(plate(letters), format="rgb24").reformat(
            format="yuv420p"
        )
        return b"".join(part.tobytes() for part in samples_of(redactor(frame, whole)))

    random, signs = np.random.default_rng(4), np.array(list("ABCDEFGHJKLMNPRSTUVWXYZ0123456789"))
    tried = Counter(covered("".join(random.choice(signs, 7))) for _ in range(400))
    alone = sum(1 for number in tried.values() if number == 1)
    assert alone < 40, tried.most_common(3)


def test_a_frame_without_known_covers_is_never_shown() -> None:
    with pytest.raises(RuntimeError, match="no covers"):
        Redactor(info_of(), "blur", {0})(noise_frame("yuv420p"), None)


def test_boxes_of_what_is_covered_are_not_drawn() -> None:
    boxes = Detections(
        np.zeros((3, 4), np.float32), np.ones(3, np.float32), np.array([0, 1, 0], np.int64)
    )
    assert Redactor(info_of(), "blur", {0}).others(boxes).class_id.tolist() == [1]


# Whole runs: the light is of the class that is covered.

NUM_FRAMES = 24
KEYS = {"g": "6", "sc_threshold": "0", "crf": "4"}
SEEN = range(8, 16)
REDACT = RedactOptions(covered=("light",), cover_style="fill", hold_seconds=0.1)
SEGMENTS: dict[str, Any] = {"segment_seconds": 0.24}
FILES = ("annotated.mp4", "detections.jsonl", "covers.jsonl", "weak.jsonl")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light goes from the left to the right, and is too dim to be found for two frames."""
    images = []
    for index in range(NUM_FRAMES):
        image = gray(20)
        if index in SEEN:
            x = 16 + 8 * (index - SEEN.start)
            image[40:48, x : x + 8] = 90 if index in (11, 12) else 255
        images.append(image)
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, images, options=KEYS)


@pytest.fixture(scope="module")
def redacted(clip: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("redacted")
    run(clip, out, tiny_weights, redact=REDACT, **SEGMENTS)
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def pictures_in(page: Path) -> list[NDArray[np.uint8]]:
    """The pictures of a page, (height, width, 3)."""
    encoded = re.findall(r"data:image/jpeg;base64,([^\"]+)", page.read_text())
    assert encoded
    return [
        np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR))
        for data in encoded
    ]


def test_a_redacted_clip_shows_no_light_and_its_detections_are_those_of_any_run(
    clip: Path, tiny_weights: Path, redacted: Path, tmp_path: Path
) -> None:
    assert brightest(clip) > 230
    assert brightest(redacted / "annotated.mp4") < 80
    report = json.loads((redacted / "report.json").read_text())
    assert report["configuration"]["redact"]["covered"] == ["light"]
    assert not schema_errors("report", report)
    for picture in pictures_in(redacted / "report.html"):
        assert picture.max() < 80
    for data in (redacted / "viewer.html", *redacted.rglob("*.js")):  # It plays no source.
        assert clip.parent.name not in data.read_text()
    run(clip, tmp_path, tiny_weights, video=False, **SEGMENTS)
    assert read_detections(redacted) == read_detections(tmp_path)
    lines = (redacted / "covers.jsonl").read_text().splitlines()
    covered = [bool(len(CoverLine.from_json(line).covers)) for line in lines]
    assert covered == [6 <= index <= 17 for index in range(NUM_FRAMES)]


@pytest.mark.parametrize(
    "options",
    [
        {"segment_seconds": 60.0},
        pytest.param(
            {**SEGMENTS, "segments_at_once": 2},
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(sys.platform != "linux", reason="needs cores by their ids"),
            ],
        ),
    ],
    ids=["one segment", "side by side"],
)
def test_covers_do_not_depend_on_segments(
    clip: Path, tiny_weights: Path, redacted: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    run(clip, tmp_path, tiny_weights, redact=REDACT, **options)
    same = FILES if "segments_at_once" in options else FILES[1:]
    assert all((tmp_path / name).read_bytes() == (redacted / name).read_bytes() for name in same)
    assert brightest(tmp_path / "annotated.mp4") < 80


@pytest.mark.parametrize("at", [14, 40])
def test_an_interrupted_run_leaves_nothing_to_be_seen_and_resumes(
    clip: Path, tiny_weights: Path, redacted: Path, tmp_path: Path, at: int
) -> None:
    """It is interrupted while it detects, and while it draws."""
    config = replace(config_of(clip, tmp_path, tiny_weights), redact=REDACT, **SEGMENTS)
    with pytest.raises(Interrupted):
        process_video(config, interrupted_at(at // 2, KeyboardInterrupt()))
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    videos = [path for path in left if path.suffix == ".mp4" and path.stat().st_size]
    assert bool(videos) == (at > NUM_FRAMES)
    assert all(brightest(path) < 80 for path in videos)
    process_video(config)
    assert contents(tmp_path) == contents(redacted)


def test_a_killed_command_leaves_nothing_to_be_seen_and_resumes(
    clip: Path, tiny_weights: Path, redacted: Path, tmp_path: Path
) -> None:
    """It is killed in its second pass, or is through before that."""
    out = tmp_path / "out"
    words = ["process", clip, "--output-dir", out, "--weights", tiny_weights, "--precision", "f32"]
    words += ["--redact", "light", "--redact-style", "fill", "--redact-hold", "0.1"]
    journal = out / WORK_NAME / "journal.jsonl"
    with Command(*words, "--segment-seconds", "0.24", "--quiet") as running:
        while running.poll() is None:
            with contextlib.suppress(FileNotFoundError):  # It is not there yet, or no longer.
                if journal.read_bytes().count(b"\n") > NUM_FRAMES // 6:
                    running.kill()
                    break
            time.sleep(0.005)
        last_words(running)  # Its worker holds the folder until it ends too.
    videos = [path for path in tmp_path.rglob("*.mp4") if path.is_file()]
    assert all(brightest(path) < 80 for path in videos if is_complete(path))
    if finished_report(out) is None:
        config = replace(config_of(clip, out, tiny_weights), redact=REDACT, **SEGMENTS)
        process_video(config)
    assert contents(out) == contents(redacted)


def is_complete(path: Path) -> bool:
    """Whether a clip can be opened."""
    with contextlib.suppress(av.error.FFmpegError), av.open(str(path)):
        return True
    return False


def test_render_covers_what_the_run_covered_or_draws_nothing(
    clip: Path, redacted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("detections.jsonl", "covers.jsonl", "report.json", "report.html"):
        (tmp_path / name).write_bytes((redacted / name).read_bytes())
    words = ["render", str(clip), str(tmp_path / "detections.jsonl"), "--quiet", "--overwrite"]
    assert main(words) == 0
    drawn = (tmp_path / "annotated.mp4").read_bytes()
    assert drawn == (redacted / "annotated.mp4").read_bytes()
    lines = (tmp_path / "covers.jsonl").read_text().splitlines(keepends=True)
    for damaged in ("".join(lines[:-1]), "".join([lines[1], *lines[1:]])):
        (tmp_path / "annotated.mp4").unlink(missing_ok=True)
        (tmp_path / "covers.jsonl").write_text(damaged)
        assert main(words) == 1
        assert "covers.jsonl" in capsys.readouterr().err
        assert not (tmp_path / "annotated.mp4").exists()
    (tmp_path / "covers.jsonl").unlink()
    assert main(words) == 1
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--redact", "lihgt"], "did you mean light"),
        (["--redact", "light", "--no-video"], "--no-video"),
        (["--redact", "light", "--roi", "0,0,0.5,1"], "--roi"),
        (["--redact", "light", "--agnostic-nms"], "--agnostic-nms"),
        (["--redact", "light", "--max-det", "5"], "--max-det"),
        (["--redact", "light", "--classes", "shade"], "--classes leaves out light"),
        (["--redact-style", "fill"], "need --redact"),
    ],
    ids=lambda words: words[-1] if isinstance(words, list) else "",
)
def test_what_would_leave_something_uncovered_is_refused_in_one_line(
    clip: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    out = tmp_path / "out"
    command = ["process", str(clip), "--output-dir", str(out), "--weights", str(tiny_weights)]
    assert main([*command, *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (out / "annotated.mp4").exists()


def test_no_copy_of_the_clip_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("-", "s3://bucket/clip.mp4"):
        assert main(["process", name, "--redact", "light"]) == 2
        assert "--redact needs a file" in capsys.readouterr().err


def test_pictures_of_a_redacted_clip_are_not_exported(
    clip: Path, redacted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(redacted), "--to", "coco", "--output-dir", str(tmp_path)]
    assert main([*words, "--images", str(clip)]) == 1
    assert "is redacted" in capsys.readouterr().err


def identifying_clip(path: Path) -> Path:
    """With a sound, subtitles, and tags and chapters that say who recorded it where."""
    plain = record_with_tracks(path.with_name("plain.mkv"), [Track("subrip")], [Track("aac")])
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in source.streams}
        copies[2].metadata["title"] = "recorded by Ann"
        out.metadata.update({"location": "+48.2-016.3/", "artist": "Ann"})
        out.set_chapters(
            [{"id": 1, "start": 0, "end": 5, "time_base": 1, "metadata": {"title": "Ann"}}]
        )
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    return path


@pytest.mark.parametrize("sound", [True, False])
def test_only_picture_and_sound_are_kept_and_lines_say_so(
    tiny_weights: Path, tmp_path: Path, sound: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = identifying_clip(tmp_path / "clip.mkv")
    assert b"Ann" in path.read_bytes()
    words = ["process", str(path), "--output-dir", str(tmp_path / "out"), "--redact", "light"]
    words += ["--weights", str(tiny_weights), "--quiet", *([] if sound else ["--drop-audio"])]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "subtitle" in said
    assert "LOCATION" in said.upper()
    assert ("--drop-audio" in said) != sound
    annotated = tmp_path / "out" / "annotated.mp4"
    with av.open(str(annotated)) as container:
        kinds = [stream.type for stream in container.streams]
        assert kinds == (["video", "audio"] if sound else ["video"])
        assert not container.chapters()
        assert not {"location", "artist", "creation_time"} & container.metadata.keys()
    assert b"Ann" not in annotated.read_bytes()


def test_a_damaged_line_of_covers_is_refused() -> None:
    good = CoverLine(3, 0.1, np.array([[0, 0, 8, 8]]))
    assert CoverLine.from_json(good.to_json()).covers.tolist() == [[0, 0, 8, 8]]
    for covers_ in ("[[1, 0, 8, 8]]", "[[0, 0, 0, 8]]", "[[0, 0, 8]]", "[[-2, 0, 8, 8]]"):
        with pytest.raises((ValueError, KeyError, TypeError)):
            CoverLine.from_json(f'{{"frame_index": 3, "pts_seconds": 0.1, "covers": {covers_}}}')


def test_options_of_redaction_are_checked() -> None:
    for options in ({"covered": ()}, {"covered": ("",)}, {"hold_seconds": 1.0}):
        with pytest.raises(UsageError):
            RedactOptions(**options)
    assert RedactOptions(covered=(1, "light")).covered == ("1", "light")  # type: ignore[arg-type]
