"""Accuracy on labelled pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import openvino as ov
import pytest

from pipeline.cli.commands import main
from pipeline.core.config import AutoOptions, InferOptions
from pipeline.core.errors import InputError, PipelineError, UsageError
from pipeline.core.notes import collected_notes
from pipeline.core.progress import Progress
from pipeline.inference.openvino import OpenVinoEngine, resolved_precision
from pipeline.measure.evaluate import Accuracy, Evaluation, evaluate
from pipeline.media.pictures import read_picture
from pipeline.model.prepare import PreparedModel
from pipeline.model.quantize import quantize
from tests.checkpoints import save, three_convolutions
from tests.commands import run
from tests.conftest import (
    CHECKPOINT,
    SHARED,
    TINY_INPUT_WH,
    needs_checkpoint,
    process,
    with_light,
    write_clip,
)
from tests.labelled import Label, exact, make_data

IMGSZ = 128


def shifted_by_two_pixels(x: int, y: int) -> str:
    width, height = TINY_INPUT_WH
    return f"0 {((x + 0.5) * 8 + 2) / width} {(y + 0.5) * 8 / height} {8 / width} {8 / height}\n"


def of_the_other_class(x: int, y: int) -> str:
    return "1" + exact(x, y)[1:]


def two_where_one_is(x: int, y: int) -> str:
    return exact(x, y) + exact((x + 5) % 16, (y + 5) % 12)


def only(result: Evaluation) -> Accuracy:
    """The accuracy in the one precision that was asked for."""
    (accuracy,) = result.accuracy.values()
    return accuracy


def test_perfect_labels_give_a_precision_of_one(tmp_path: Path, tiny_weights: Path) -> None:
    seen: list[Progress] = []
    result = evaluate(
        make_data(tmp_path / "data"),
        weights=tiny_weights,
        imgsz=IMGSZ,
        infer=InferOptions(precision="f32"),
        on_progress=seen.append,
    )
    assert only(result).map_50 == pytest.approx(1.0)
    assert only(result).map_50_95 == pytest.approx(1.0)
    assert (result.num_images, result.num_boxes, list(result.accuracy)) == (10, 10, ["f32"])
    last = seen[-1]
    assert (last.stage, last.done, last.total, last.unit) == ("evaluate f32", 10, 10, "image")


@pytest.mark.parametrize(
    ("label", "map_50", "map_50_95"),
    [
        # Two of eight pixels: an overlap of 0.6, right at three of the ten thresholds.
        (shifted_by_two_pixels, 1.0, 0.2),
        (of_the_other_class, 0.0, 0.0),
        # Half of the boxes are found, so precision is 1 up to a recall of 0.5.
        (two_where_one_is, 51 / 101, 51 / 101),
    ],
)
def test_wrong_labels_give_less(
    tmp_path: Path, tiny_weights: Path, label: Label, map_50: float, map_50_95: float
) -> None:
    result = evaluate(make_data(tmp_path / "data", label), weights=tiny_weights, imgsz=IMGSZ)
    assert only(result).map_50 == pytest.approx(map_50, abs=1e-6)
    assert only(result).map_50_95 == pytest.approx(
        map_50_95, abs=0.11 if 0 < map_50_95 < 0.3 else 1e-6
    )


def test_a_picture_without_labels_counts_as_one_with_nothing_on_it(
    tmp_path: Path, tiny_weights: Path
) -> None:
    data = make_data(tmp_path / "data")
    (data / "labels" / "03.txt").unlink()
    result = evaluate(data, weights=tiny_weights, imgsz=IMGSZ)
    assert (result.num_images, result.num_boxes) == (10, 9)
    assert 0.8 < only(result).map_50 < 1.0


def test_pictures_of_several_shapes_go_together(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_data(tmp_path / "data")
    upright = with_light((3, 4), (96, 96))
    cv2.imwrite(str(data / "images" / "upright.png"), upright)
    box = f"0 {3.5 * 8 / 96} {4.5 * 8 / 96} {8 / 96} {8 / 96}\n"
    (data / "labels" / "upright.txt").write_text(box)
    result = evaluate(data, weights=tiny_weights, imgsz=IMGSZ)
    assert result.num_images == 11
    assert only(result).map_50 == pytest.approx(1.0)


def test_a_model_that_finds_nothing_scores_nothing(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_data(tmp_path / "data")
    for path in (data / "images").iterdir():
        cv2.imwrite(str(path), with_light((0, 0))[:, ::-1] * 0)
    result = evaluate(data, weights=tiny_weights, imgsz=IMGSZ)
    assert (only(result).map_50, only(result).map_50_95) == (0.0, 0.0)


def no_folder(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))


def no_images(data: Path) -> None:
    (data / "images").rename(data / "pictures")


def empty_images(data: Path) -> None:
    for path in (data / "images").iterdir():
        path.unlink()


def no_labels(data: Path) -> None:
    (data / "labels").rename(data / "annotations")


def empty_labels(data: Path) -> None:
    for path in (data / "labels").iterdir():
        path.write_text("\n")


def a_picture_that_is_none(data: Path) -> None:
    (data / "images" / "05.png").write_bytes(b"no picture")


def a_label_that_is_none(data: Path) -> None:
    (data / "labels" / "05.txt").write_text("0 0.5 0.5\n")


def a_label_of_words(data: Path) -> None:
    (data / "labels" / "05.txt").write_text("light 0.5 0.5 0.1 0.1\n")


def a_label_that_is_no_text(data: Path) -> None:
    (data / "labels" / "05.txt").write_bytes(b"\xff\xfe\x00\x81")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (no_folder, "images/"),
        (no_images, "images/"),
        (empty_images, "contains no picture"),
        (no_labels, "no label"),
        (empty_labels, "no label"),
        (a_picture_that_is_none, r"05\.png: not a picture"),
        (a_label_that_is_none, r"05\.txt: expected 'class cx cy w h'"),
        (a_label_of_words, r"05\.txt: expected 'class cx cy w h'"),
        (a_label_that_is_no_text, r"05\.txt"),
    ],
)
def test_data_that_cannot_be_judged_on_is_one_clear_error(
    tmp_path: Path, tiny_weights: Path, spoil: Callable[[Path], None], named: str
) -> None:
    data = make_data(tmp_path / "data")
    spoil(data)
    with pytest.raises(InputError, match=named) as caught:
        evaluate(data, weights=tiny_weights, imgsz=IMGSZ)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("imgsz", [100, 0, -32])
def test_an_input_size_that_cannot_work_is_refused(
    tmp_path: Path, tiny_weights: Path, imgsz: int
) -> None:
    with pytest.raises(UsageError, match=rf"imgsz must be a multiple of 32, not {imgsz}"):
        evaluate(make_data(tmp_path / "data"), weights=tiny_weights, imgsz=imgsz)


def test_nothing_of_a_picture_is_seen_in_the_next(tmp_path: Path, tiny_weights: Path) -> None:
    # Both take the same model input, but one has a border where the other has a light.
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    (data / "labels").mkdir()
    for i in range(8):
        cv2.imwrite(str(data / "images" / f"a{i}.png"), with_light((i, 0)))
        (data / "labels" / f"a{i}.txt").write_text(exact(i, 0))
        cv2.imwrite(str(data / "images" / f"b{i}.png"), with_light((1, 2), (128, 80)))
        box = f"0 {1.5 * 8 / 128} {2.5 * 8 / 80} {8 / 128} {8 / 80}\n"
        (data / "labels" / f"b{i}.txt").write_text(box)
    options = InferOptions(precision="f32", num_requests=1)
    result = evaluate(data, weights=tiny_weights, imgsz=IMGSZ, infer=options)
    assert only(result).map_50 == pytest.approx(1.0)


@pytest.mark.parametrize("batch", [2, 4, 8])
def test_batches_are_judged_alike(tmp_path: Path, tiny_weights: Path, batch: int) -> None:
    result = evaluate(
        make_data(tmp_path / "data"),
        weights=tiny_weights,
        imgsz=IMGSZ,
        infer=InferOptions(precision="f32", batch=batch),
    )
    assert (result.num_images, result.num_boxes) == (10, 10)
    assert only(result).map_50_95 == pytest.approx(1.0)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return save(tmp_path / "model.pt", three_convolutions(2))


def test_pytorch_is_judged_in_float32(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.inference.openvino.fastest_float_precision", lambda: "bf16")
    data = make_data(tmp_path / "data", num_pictures=3)
    by_pytorch = evaluate(
        data, weights=checkpoint, imgsz=IMGSZ, infer=InferOptions(engine="pytorch")
    )
    by_openvino = evaluate(
        data, weights=checkpoint, imgsz=IMGSZ, infer=InferOptions(precision="f32")
    )
    assert list(by_pytorch.accuracy) == list(by_openvino.accuracy) == ["f32"]
    assert only(by_pytorch).map_50 == pytest.approx(only(by_openvino).map_50, abs=1e-3)


INT8 = InferOptions(precision="int8")


def test_int8_is_judged_beside_float(tmp_path: Path, tiny_weights: Path) -> None:
    result = evaluate(
        make_data(tmp_path / "data"),
        weights=tiny_weights,
        imgsz=IMGSZ,
        infer=INT8,
        calibration=make_data(tmp_path / "calibration"),
    )
    assert list(result.accuracy) == ["f32", *(["bf16"] if has_bf16() else []), "int8"]
    for accuracy in result.accuracy.values():
        assert accuracy.map_50 == pytest.approx(1.0)


def test_int8_is_prepared_once_for_pictures_of_one_shape(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[PreparedModel] = []

    def watched(*arguments: Any) -> PreparedModel:
        prepared.append(quantize(*arguments))
        return prepared[-1]

    monkeypatch.setattr("pipeline.measure.evaluate.quantize", watched)
    data, pictures = make_data(tmp_path / "data"), make_data(tmp_path / "calibration")
    found = evaluate(data, weights=tiny_weights, imgsz=IMGSZ, infer=INT8, calibration=pictures)
    [only_one] = prepared
    assert only_one.quantization is not None
    kept = json.loads((only_one.quantization.folder / "accuracy.json").read_text())
    assert list(kept["accuracy"]) == list(found.accuracy)


def has_bf16() -> bool:
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_a_row_has_the_name_of_the_precision_that_really_ran(
    tmp_path: Path, tiny_weights: Path
) -> None:
    asked, data = InferOptions(precision="bf16"), make_data(tmp_path / "data")
    if has_bf16():
        found = evaluate(data, weights=tiny_weights, imgsz=IMGSZ, infer=asked)
        assert list(found.accuracy) == ["bf16"]
    else:
        with pytest.raises(UsageError, match="--precision bf16 is unavailable here"):
            evaluate(data, weights=tiny_weights, imgsz=IMGSZ, infer=asked)
    found = evaluate(data, weights=tiny_weights, imgsz=IMGSZ)
    assert list(found.accuracy) == [resolved_precision("auto", "CPU")]


def test_a_precision_that_the_device_does_not_have_is_left_out_with_a_note(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = OpenVinoEngine.facts

    def facts(engine: OpenVinoEngine) -> dict[str, Any]:
        ran = told(engine)
        return {**ran, "precision": "int8" if ran["precision"] == "int8" else "f32"}

    monkeypatch.setattr(OpenVinoEngine, "facts", facts)
    data, pictures = make_data(tmp_path / "data"), make_data(tmp_path / "calibration")
    with collected_notes() as notes:
        found = evaluate(data, weights=tiny_weights, imgsz=IMGSZ, infer=INT8, calibration=pictures)
    assert list(found.accuracy) == ["f32", "int8"]
    assert notes == ["CPU does not run in bf16, which is left out"]


def process_in_another_process(
    clip: Path, checkpoint: Path, out: Path, *options: str
) -> tuple[dict[str, Any], str]:
    done = run(
        *("process", clip, "--weights", checkpoint, "--output-dir", out, "--imgsz", IMGSZ),
        *("--precision", "int8", *options, "--overwrite"),
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report, done.stdout


@pytest.mark.slow
def test_what_was_found_of_int8_stands_in_the_reports_of_later_runs(
    tmp_path: Path, checkpoint: Path
) -> None:
    data, pictures = make_data(tmp_path / "data"), make_data(tmp_path / "calibration")
    result = evaluate(
        data, weights=checkpoint, imgsz=IMGSZ, infer=INT8, calibration=pictures
    ).accuracy
    clip = write_clip(tmp_path / "clip.mp4", [with_light((i, 3)) for i in range(6)])
    out = tmp_path / "out"
    calibrated = ("--calibration", str(pictures))
    report, printed = process_in_another_process(clip, checkpoint, out, *calibrated)
    scores = ", ".join(f"{found.map_50_95:.4f} in {name}" for name, found in result.items())
    assert scores.endswith("in int8")
    expected = f"INT8, mAP@0.5:0.95 {scores}, on 10 pictures of data"
    assert report["model"]["precision_note"] == expected
    assert expected in printed
    assert report["model"]["calibrated_on"] == "10 pictures of calibration"
    # Calibrated on other pictures, it is another model, which was not evaluated.
    report, printed = process_in_another_process(clip, checkpoint, out)
    assert report["model"]["precision_note"] == "INT8, accuracy not evaluated"
    assert "INT8, accuracy not evaluated" in printed


def test_a_calibration_is_for_int8(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_data(tmp_path / "data")
    with pytest.raises(UsageError, match="--calibration needs --precision int8"):
        evaluate(data, weights=tiny_weights, infer=InferOptions(), calibration=data)


def test_without_a_calibration_int8_is_judged_as_runs_have_it(
    tmp_path: Path, tiny_weights: Path
) -> None:
    data = make_data(tmp_path / "data")
    evaluate(data, weights=tiny_weights, imgsz=IMGSZ, infer=INT8)
    clip = write_clip(tmp_path / "clip.mp4", [with_light((3, 3))] * 3)
    infer = AutoOptions(precision="int8")
    report = process(clip, tmp_path / "out", tiny_weights, imgsz=IMGSZ, infer=infer)
    assert report["model"]["precision_note"].endswith("on 10 pictures of data")


def test_an_error_while_looking_at_pictures_comes_out(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_data(tmp_path / "data")
    with pytest.raises(PipelineError):
        evaluate(data, weights=tiny_weights.with_name("missing.xml"), imgsz=IMGSZ)


def test_the_command_prints_a_line_for_each_precision(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(tmp_path / "data")
    options = ["--weights", str(tiny_weights), "--imgsz", str(IMGSZ), "--precision", "f32"]
    assert main(["evaluate", "--data", str(data), *options]) == 0
    assert capsys.readouterr().out == (
        "10 images, 10 boxes\nf32   mAP@0.5 1.0000, mAP@0.5:0.95 1.0000\n"
    )


def test_the_command_says_in_one_line_what_is_missing(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    assert main(["evaluate", "--data", str(missing), "--weights", str(tiny_weights)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"pipeline: {missing}: ")
    assert error.count("\n") == 1


def test_a_picture_becomes_a_frame_with_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    pixels = with_light((1, 1))
    pixels[:] = (30, 20, 200)
    cv2.imwrite(str(path), pixels)
    frame = read_picture(path, 7)
    assert frame.index == 7
    assert isinstance(frame.image, av.VideoFrame)
    assert frame.image.to_ndarray(format="rgb24")[0, 0].tolist() == [200, 20, 30]


@pytest.mark.slow
@needs_checkpoint
@pytest.mark.skipif(
    not (SHARED / "coco128").is_dir(), reason="needs the pictures in ../shared/coco128"
)
def test_on_coco128_the_precision_is_that_of_the_original() -> None:
    result = evaluate(SHARED / "coco128", weights=CHECKPOINT, infer=InferOptions(precision="f32"))
    assert (result.num_images, result.num_boxes) == (128, 929)
    assert only(result).map_50 == pytest.approx(0.558, abs=0.01)
    assert only(result).map_50_95 == pytest.approx(0.363, abs=0.01)
