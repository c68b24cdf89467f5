"""The pictures that INT8 is calibrated on by default: fixed, varied, of known packages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.commands import main
from pipeline.core.config import CLIP, AutoOptions, ProcessConfig
from pipeline.core.errors import UsageError
from pipeline.frames import photographs
from pipeline.frames.calibration import calibration_for, default_calibration
from pipeline.frames.photographs import NUM_CROPS, calibration_of_photographs, crops
from pipeline.run.identity import result_key
from pipeline.synthetic.sprites import CLASS_NAMES
from tests.checkpoints import save, three_convolutions
from tests.conftest import gray, write_clip

COCO = ("person", "bicycle", "car")


def test_crops_are_varied_and_the_same_each_time() -> None:
    random = np.random.default_rng(5)
    images = [random.integers(0, 256, (90, 160, 3), np.uint8) for _ in range(2)]
    first, again = (list(crops(images, 9, 64)) for _ in range(2))
    assert {image.shape for image in first} == {(64, 64, 3)}
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({image.tobytes() for image in first}) == 9
    assert np.ptp([image.mean() for image in first]) > 10  # Of different brightness.


def test_the_photographs_come_from_the_packages_of_the_extra() -> None:
    frames = list(calibration_of_photographs().frames())
    assert len(frames) == NUM_CROPS
    assert {frame.image.format.name for frame in frames} == {"bgr24"}


def test_without_a_package_there_is_no_other_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"bus\.jpg of the package ultralytics is missing"):
        default_calibration(COCO)


def test_a_model_of_the_scene_is_calibrated_on_the_scene() -> None:
    scene = default_calibration(CLASS_NAMES)
    assert scene.key != default_calibration(COCO).key
    assert "scene" in scene.origin
    shape = next(iter(scene.frames())).image
    assert (shape.width, shape.height) == (640, 480)


def int8(source: Path, **options: object) -> ProcessConfig:
    infer = AutoOptions(precision="int8")
    return ProcessConfig(source=source, output_dir=source.parent, infer=infer, **options)  # type: ignore[arg-type]


def test_by_default_every_clip_has_the_same_calibration(tmp_path: Path) -> None:
    clips = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for level, clip in enumerate(clips):
        write_clip(clip, [gray(90 * level)] * 5)
    usual = [calibration_for(int8(clip), COCO).key for clip in clips]
    own = [calibration_for(int8(clip, calibration=CLIP), COCO).key for clip in clips]
    assert usual[0] == usual[1]
    assert len({usual[0], *own}) == 3


def test_what_int8_is_calibrated_on_belongs_to_the_key(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / name, [gray(50)] * 5) for name in ("a.mp4", "b.mp4")]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(b"any")
    usual = int8(clips[0])
    keys = [
        result_key(config, "model")
        for config in (
            usual,
            dataclasses.replace(usual, calibration=CLIP),
            dataclasses.replace(usual, calibration=CLIP, calibration_clips=tuple(clips)),
            dataclasses.replace(usual, calibration=tmp_path / "folder"),
        )
    ]
    assert len(set(keys)) == len(keys)


def test_frames_for_a_batch_are_spread_over_its_clips(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{level}.mp4", [gray(level)] * 40) for level in (20, 120, 220)]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    config = int8(clips[0], calibration=CLIP, calibration_clips=(*clips, broken))
    frames = calibration_for(config, COCO).frames()
    levels = [round(float(frame.image.to_ndarray(format="rgb24").mean()), -1) for frame in frames]
    counts = [levels.count(level) for level in (20, 120, 220)]
    assert min(counts) >= 15
    assert sum(counts) == len(levels) <= 100


@pytest.mark.parametrize("calibration", [[], ["--calibration", "clip"]], ids=["default", "clip"])
def test_a_batch_has_one_quantised_model_whatever_its_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibration: list[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    weights = save(tmp_path / "model.pt", three_convolutions(2))
    for name, size_wh in (("a", (96, 64)), ("b", (64, 96)), ("c", (96, 96))):
        write_clip(tmp_path / f"{name}.mp4", [gray(50, size_wh)] * 9)
    words = ["process", "a.mp4", "b.mp4", "c.mp4", "--weights", str(weights), "--imgsz", "96"]
    words += ["--precision", "int8", "--output-dir", "out", *calibration]
    assert main(words) == 0
    assert len(list((tmp_path / "cache").rglob("int8-*/model.xml"))) == 1
    reports = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("report.json")]
    assert len({report["model"]["calibrated_on"] for report in reports}) == 1
    assert main(words) == 0  # All are skipped.
    assert json.loads((tmp_path / "out" / "batch.json").read_text())["total"]["done"] == 3
    if calibration:
        assert reports[0]["model"]["calibrated_on"] == "frames of 3 clips"
