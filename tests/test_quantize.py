"""INT8: calibrated on pictures or on the clip, made once, close to what float gives."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.config import AutoOptions, InferOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import InputError, ModelError, UsageError
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.frames.calibration import calibration_of_folder, calibration_of_source
from pipeline.frames.decode import VideoReader
from pipeline.inference.openvino import compile_model
from pipeline.media.frame import Frame
from pipeline.model import quantize as quantizing
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.quantization import record_accuracy
from pipeline.model.quantize import NUM_PICTURES, Calibration, quantize
from pipeline.run.identity import result_key
from pipeline.synthetic.source import SyntheticSource
from tests.checkpoints import save, small_yolov5, three_convolutions
from tests.conftest import gray, whole_heads, write_clip, yolov5_head
from tests.recordings import record

WIDE, UPRIGHT, IMGSZ = (96, 54), (54, 96), 96
SYNTHETIC = SyntheticOptions(num_frames=6, size_wh=WIDE)
ACCURACY = {
    "data": "coco128",
    "num_images": 128,
    "num_boxes": 929,
    "accuracy": {
        "f32": {"map_50": 0.55, "map_50_95": 0.36},
        "int8": {"map_50": 0.54, "map_50_95": 0.35},
    },
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pt", three_convolutions(2))


@pytest.fixture(scope="module")
def quantized_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the model of `checkpoint` in INT8, calibrated on the synthetic clip."""
    folder = tmp_path_factory.mktemp("quantized")
    weights = save(folder / "model.pt", three_convolutions(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        prepare_int8(weights, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    return folder / "cache"


@pytest.fixture
def quantized(checkpoint: Path, cache: Path, quantized_once: Path) -> Path:
    """The checkpoint, whose model in INT8 is in the cache of the test."""
    shutil.copytree(quantized_once, cache)
    return checkpoint


@pytest.fixture
def yolov5(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pt", small_yolov5(2))


def picture(seed: int, size_wh: tuple[int, int] = WIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for i, size_wh in enumerate((WIDE, UPRIGHT, (80, 80), WIDE)):
        cv2.imwrite(str(made / f"{i}.png"), picture(i, size_wh))
    return made


def of_the_synthetic_clip() -> Calibration:
    return calibration_of_source(SYNTHETIC)


def prepare_int8(
    weights: Path,
    source_wh: tuple[int, int],
    imgsz: int,
    calibration: Calibration,
    on_progress: ProgressCallback,
) -> PreparedModel:
    prepared = prepare_model(weights, source_wh, imgsz, on_progress)
    return quantize(prepared, calibration, on_progress)


def stages(
    weights: Path, calibration: Calibration, source_wh: tuple[int, int] = WIDE
) -> list[Progress]:
    seen: list[Progress] = []
    prepare_int8(weights, source_wh, IMGSZ, calibration, seen.append)
    return [step for step in seen if step.stage == "quantize"]


def heads_of(prepared: PreparedModel, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    options = InferOptions(precision="f32")
    with compile_model(prepared.model, options, prepared.compiled_cache_dir) as compiled:
        outputs = [head[0] for head in compiled.infer(pixels[None])]
    return whole_heads(prepared, outputs)


def kinds(prepared: PreparedModel) -> list[str]:
    return [op.get_type_name() for op in prepared.model.get_ordered_ops()]


def test_the_graph_is_quantised_and_its_heads_stay_close(yolov5: Path) -> None:
    in_float = prepare_model(yolov5, WIDE, IMGSZ, no_progress)
    in_int8 = prepare_int8(yolov5, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    assert "FakeQuantize" not in kinds(in_float)
    assert kinds(in_int8).count("FakeQuantize") > 10
    assert yolov5_head(in_int8).layout == yolov5_head(in_float).layout
    assert in_int8.input_wh == in_float.input_wh == (96, 64)
    assert in_int8.weights_sha256 == in_float.weights_sha256
    assert in_float.quantization is None
    assert in_int8.quantization is not None
    assert in_int8.quantization.accuracy is None
    assert in_int8.quantization.calibrated_on == "frames of the synthetic scene"
    image = next(iter(SyntheticSource(SYNTHETIC))).image.to_ndarray(format="rgb24")
    pixels = np.full((64, 96, 3), 114, np.uint8)
    pixels[5 : 5 + 54] = image
    for found, right in zip(heads_of(in_int8, pixels), heads_of(in_float, pixels), strict=True):
        assert found.shape == right.shape
        assert not np.array_equal(found, right)
        assert np.corrcoef(found.ravel(), right.ravel())[0, 1] > 0.98

    # No quantisation stands between a convolution and its activation.
    activations = [op for op in in_int8.model.get_ordered_ops() if op.get_type_name() == "Swish"]
    assert activations
    for activation in activations:
        assert activation.input_value(0).get_node().get_type_name() in ("Add", "Convolution")


def test_it_is_made_once_and_tells_how_far_it_is(checkpoint: Path) -> None:
    first = stages(checkpoint, of_the_synthetic_clip())
    assert {(step.total, step.unit) for step in first} == {(6, "image")}
    done = [step.done for step in first]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 6)
    assert stages(checkpoint, of_the_synthetic_clip()) == []


def test_the_cached_model_is_the_one_that_was_made(checkpoint: Path) -> None:
    first = prepare_int8(checkpoint, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    again = prepare_int8(checkpoint, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    pixels = picture(3, first.input_wh)
    for a, b in zip(heads_of(first, pixels), heads_of(again, pixels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_it_is_made_again_for_another_calibration_or_checkpoint(
    quantized: Path, folder: Path
) -> None:
    assert stages(quantized, of_the_synthetic_clip()) == []
    other = SyntheticOptions(num_frames=7, size_wh=WIDE)
    assert stages(quantized, calibration_of_source(other))
    assert stages(quantized, calibration_of_folder(folder))
    save(quantized, three_convolutions(3))
    assert stages(quantized, of_the_synthetic_clip())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("name", "damage"), [("model.xml", truncate), ("model.bin", Path.unlink)])
def test_a_damaged_quantised_model_is_made_again(
    quantized: Path, name: str, damage: Callable[[Path], None]
) -> None:
    assert stages(quantized, of_the_synthetic_clip()) == []
    prepared = prepare_int8(quantized, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    assert prepared.quantization is not None
    damage(prepared.quantization.folder / name)
    assert stages(quantized, of_the_synthetic_clip())


def test_calibrated_on_pictures_it_is_the_same_for_frames_of_every_size(
    yolov5: Path, folder: Path
) -> None:
    calibration = calibration_of_folder(folder)
    wide = prepare_int8(yolov5, WIDE, IMGSZ, calibration, no_progress)
    assert stages(yolov5, calibration, UPRIGHT) == []
    upright = prepare_int8(yolov5, UPRIGHT, IMGSZ, calibration, no_progress)
    assert (wide.input_wh, upright.input_wh) == ((96, 64), (64, 96))
    assert wide.quantization == upright.quantization
    for prepared, (rows, columns) in ((wide, (8, 12)), (upright, (12, 8))):
        heads = heads_of(prepared, picture(0, prepared.input_wh))
        assert [head.shape[:2] for head in heads] == [
            (rows, columns),
            (rows // 2, columns // 2),
            (rows // 4, columns // 4),
        ]
        assert list(prepared.model.input().shape) == [1, rows * 8, columns * 8, 3]


def test_pictures_are_taken_from_a_folder_or_its_images(folder: Path, tmp_path: Path) -> None:
    plain = calibration_of_folder(folder)
    folder.rename(tmp_path / "images")
    (tmp_path / "data").mkdir()
    (tmp_path / "images").rename(tmp_path / "data" / "images")
    inner = calibration_of_folder(tmp_path / "data")
    assert plain.key == inner.key
    assert (plain.origin, inner.origin) == ("4 pictures of pictures", "4 pictures of data")
    assert [frame.index for frame in inner.frames()] == [0, 1, 2, 3]


def test_of_many_pictures_some_are_taken_spread_over_all(tmp_path: Path) -> None:
    for i in range(250):
        cv2.imwrite(str(tmp_path / f"{i:03}.png"), gray(i % 250, (16, 16)))
    levels = [
        int(frame.image.to_ndarray(format="rgb24")[0, 0, 0])
        for frame in calibration_of_folder(tmp_path).frames()
    ]
    assert len(levels) == NUM_PICTURES == 100
    assert levels == sorted(set(levels))
    assert (levels[0], levels[-1]) == (0, 249)
    assert max(np.diff(levels)) <= 3


def test_other_pictures_under_the_same_names_are_another_calibration(folder: Path) -> None:
    before = calibration_of_folder(folder)
    cv2.imwrite(str(folder / "2.png"), picture(99))
    assert calibration_of_folder(folder).key != before.key


@pytest.mark.parametrize("kind", ["missing", "empty", "of texts"])
def test_a_folder_without_pictures_is_a_clear_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "nothing"
    if kind != "missing":
        path.mkdir()
    if kind == "of texts":
        (path / "a.txt").write_text("no picture")
    with pytest.raises(InputError, match="nothing"):
        calibration_of_folder(path)


def test_a_picture_that_is_none_is_a_clear_error(checkpoint: Path, folder: Path) -> None:
    (folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"2\.png: not a picture"):
        prepare_int8(checkpoint, WIDE, IMGSZ, calibration_of_folder(folder), no_progress)


def level(frame: Frame) -> int:
    """How bright a plain picture is."""
    return round(float(frame.image.to_ndarray(format="rgb24").mean()))


def test_frames_of_a_clip_are_spread_over_it(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(i // 2) for i in range(400)])
    calibration = calibration_of_source(clip)
    frames = list(calibration.frames())
    levels = [level(frame) for frame in frames]
    assert len(levels) == NUM_PICTURES
    assert levels[0] <= 2
    assert levels[-1] >= 195
    assert max(np.diff(levels)) <= 4
    assert calibration.origin == "frames of clip.mp4"


def test_of_a_clip_with_few_frames_all_are_taken(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20 * i) for i in range(7)])
    assert [frame.index for frame in calibration_of_source(clip).frames()] == list(range(7))


def test_of_a_long_clip_key_frames_are_taken_without_those_between(tmp_path: Path) -> None:
    images = [gray(i // 20, (32, 32)) for i in range(4000)]
    clip = write_clip(tmp_path / "long.mp4", images, options={"g": "20", "preset": "ultrafast"})
    frames = list(calibration_of_source(clip).frames())
    levels = [level(frame) for frame in frames]
    assert 90 <= len(levels) <= NUM_PICTURES
    assert levels == sorted(levels)
    assert levels[0] <= 5
    assert levels[-1] >= 192
    assert max(np.diff(levels)) <= 6
    assert [frame.index for frame in frames] == list(range(len(frames)))


def test_the_source_of_the_run_is_not_used_up(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(20 * i) for i in range(7)])
    reader = VideoReader(clip)
    assert len(list(calibration_of_source(clip).frames())) == 7
    assert len(list(reader)) == 7
    reader.close()


def test_clips_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4")]
    write_clip(paths[0], [gray(20)] * 5)
    paths[1].write_bytes(paths[0].read_bytes())
    write_clip(paths[2], [gray(90)] * 5)
    keys = [calibration_of_source(path).key for path in paths]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (99, 99), (100, 100), (1024, 94)])
def test_frames_of_the_synthetic_clip_are_spread_over_it(count: int, expected: int) -> None:
    options = SyntheticOptions(num_frames=count, size_wh=(32, 32))
    indices = [frame.pts for frame in calibration_of_source(options).frames()]
    assert len(indices) == expected <= NUM_PICTURES
    assert indices[0] == 0
    assert indices[-1] >= count * 0.95 - 1


def test_what_was_evaluated_is_kept_beside_the_model(quantized: Path) -> None:
    prepared = prepare_int8(quantized, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    assert prepared.quantization is not None
    record_accuracy(prepared.quantization, ACCURACY)
    again = prepare_int8(quantized, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    assert again.quantization is not None
    assert again.quantization.accuracy == ACCURACY
    other = calibration_of_source(SyntheticOptions(num_frames=3, size_wh=WIDE))
    elsewhere = prepare_int8(quantized, WIDE, IMGSZ, other, no_progress)
    assert elsewhere.quantization is not None
    assert elsewhere.quantization.accuracy is None


def test_an_accuracy_that_cannot_be_read_is_none(quantized: Path) -> None:
    prepared = prepare_int8(quantized, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    assert prepared.quantization is not None
    for content in ("", "{", "null", "7", "[1]"):
        (prepared.quantization.folder / "accuracy.json").write_text(content)
        again = prepare_int8(quantized, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
        assert again.quantization is not None
        assert again.quantization.accuracy is None


def test_without_the_package_the_error_says_how_to_get_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match="pip install nncf"):
        prepare_int8(checkpoint, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)


def test_pytorch_is_not_loaded_for_it(checkpoint: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.core.progress import no_progress; "
        "from pipeline.core.config import SyntheticOptions; "
        "from pipeline.frames.calibration import calibration_of_source; "
        "from pipeline.model.prepare import prepare_model; "
        "from pipeline.model.quantize import quantize; "
        f"prepared = prepare_model(Path({str(checkpoint)!r}), (96, 54), 96, no_progress); "
        "scene = SyntheticOptions(num_frames=2, size_wh=(96, 54)); "
        "quantize(prepared, calibration_of_source(scene), no_progress); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_graph_that_cannot_be_quantised_is_a_clear_error(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    class Failing:
        Dataset = type("Any", (), {"MIXED": 0, "__init__": lambda *_, **__: None})
        QuantizationPreset = IgnoredScope = Dataset

        def quantize(self, *_: Any, **__: Any) -> None:
            raise IndexError("first line\nno such layer")

    monkeypatch.setattr(quantizing, "import_nncf", Failing)
    with pytest.raises(ModelError, match=r"model\.pt: cannot be quantised \(no such layer\)"):
        prepare_int8(checkpoint, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    assert list(cache.rglob("int8-*/model.xml")) == []


def test_quantising_prints_nothing(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    prepare_int8(checkpoint, WIDE, IMGSZ, of_the_synthetic_clip(), no_progress)
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.parametrize("apart", ["5", "200"], ids=["sought", "read"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "h264"])
def test_frames_to_calibrate_on_are_spread_over_clips_of_every_container(
    tmp_path: Path, suffix: str, apart: str
) -> None:
    options = {"g": apart, "sc_threshold": "0"}
    clip = record(tmp_path / f"clip.{suffix}", [gray(i) for i in range(200)], options=options)
    reader = VideoReader(clip)
    try:
        shades = [int(frame.image.to_ndarray(format="gray").mean()) for frame in reader.sample(10)]
    finally:
        reader.close()
    assert 8 <= len(shades) <= 10
    assert shades == sorted(shades)
    assert shades[0] < 40
    assert shades[-1] >= 160
    assert max(b - a for a, b in itertools.pairwise(shades)) <= 50


def test_few_key_frames_of_a_large_clip_are_sampled_with_the_frames_behind_them(
    tmp_path: Path,
) -> None:
    options = {"g": "50", "sc_threshold": "0"}
    clip = record(tmp_path / "clip.mp4", [gray(i) for i in range(200)], options=options)
    with contextlib.closing(VideoReader(clip)) as reader:
        shades = [
            int(frame.image.to_ndarray(format="gray").mean())
            for frame in reader.sample(10, most_pixels=1)
        ]
    assert len(shades) == 10
    assert shades == sorted(shades)
    groups = {group: [s for s in shades if s // 50 == group] for group in range(4)}
    assert all(len(found) >= 1 for found in groups.values())
    assert all(b - a >= 10 for a, b in itertools.pairwise(groups[0]))
    assert max(shades[:3]) < 40, "the rest of the first group is not decoded"


def test_pictures_that_change_while_they_are_calibrated_on_are_refused(folder: Path) -> None:
    frames = calibration_of_folder(folder).frames()
    next(frames)
    cv2.imwrite(str(folder / "2.png"), picture(9))
    with pytest.raises(InputError, match=r"2\.png: changed while"):
        list(frames)


def test_a_clip_that_changes_while_it_is_calibrated_on_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(i) for i in range(5)])
    frames = calibration_of_source(clip).frames()
    next(frames)
    os.utime(clip, ns=(1, 1))
    with pytest.raises(InputError, match="changed while"):
        list(frames)


@pytest.mark.parametrize("inner", ["", "images"])
def test_a_result_is_that_of_the_very_pictures_that_were_calibrated_on(
    folder: Path, tmp_path: Path, inner: str
) -> None:
    data = folder
    if inner:
        data = tmp_path / "data"
        data.mkdir()
        folder.rename(data / inner)
    config = ProcessConfig(
        source=SYNTHETIC,
        output_dir=tmp_path,
        infer=AutoOptions(precision="int8"),
        calibration=data,
    )
    before = result_key(config, "model")
    (data / "notes.txt").write_text("not a picture")
    assert result_key(config, "model") == before
    path = data / inner / "1.png"
    stamp = path.parent.stat()
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path.parent, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert result_key(config, "model") != before
