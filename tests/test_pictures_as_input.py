"""A picture is input too, and gives a picture."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cli.commands import main
from pipeline.core.config import DrawOptions, EncodeOptions, InferOptions, ProcessConfig
from pipeline.core.errors import InputError, Interrupted, UsageError
from pipeline.core.progress import Progress
from pipeline.inference.models import Models
from pipeline.model.prepare import prepare_model
from pipeline.run.process import process_video
from tests.conftest import (
    CHECKPOINT,
    SHARED,
    needs_checkpoint,
    needs_shared_media,
    process,
    read_detections,
    with_light,
    write_clip,
)
from tests.recordings import jpeg_with_orientation
from tests.reference import assert_same_boxes, found_in, reference, referred

SIZE_WH = (131, 97)


def picture(size_wh: tuple[int, int] = SIZE_WH) -> NDArray[np.uint8]:
    """Noise too dark to be detected, with one bright square that is."""
    pixels = np.random.default_rng(3).integers(0, 60, (size_wh[1], size_wh[0], 3), np.uint8)
    pixels[40:56, 48:64] = 255
    return pixels


def read_annotated(out: Path, name: str) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(out / name))
    assert pixels is not None
    return pixels.astype(np.uint8, copy=False)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp", "ppm", "jp2"])
def test_a_picture_gives_a_png_whose_other_pixels_are_as_they_were(
    tmp_path: Path, tiny_weights: Path, suffix: str
) -> None:
    path, out = tmp_path / f"photo.{suffix}", tmp_path / "out"
    options = {"webp": [cv2.IMWRITE_WEBP_QUALITY, 101], "jp2": []}.get(suffix, [])
    cv2.imwrite(str(path), picture(), options)
    report = process(path, out, tiny_weights, draw=DrawOptions(show_labels=False))
    annotated, original = read_annotated(out, "annotated.png"), cv2.imread(str(path))
    assert original is not None
    assert annotated.shape == original.shape
    if suffix in ("png", "bmp", "tif", "ppm"):
        far = np.s_[72:, :]
        assert np.array_equal(annotated[far], original[far])
    assert (annotated != original).any()
    (line,) = read_detections(out)
    assert line["frame_index"] == 0
    assert line["pts_seconds"] == 0.0
    assert line["detections"]
    assert report["output"]["file"] == "annotated.png"
    assert report["source"]["is_picture"]
    assert "annotated.png" in (out / "report.html").read_text()
    assert not (out / "annotated.mp4").exists()


def test_a_jpeg_gives_a_jpeg_of_its_own_odd_size(tmp_path: Path, tiny_weights: Path) -> None:
    path, out = tmp_path / "photo.jpg", tmp_path / "out"
    cv2.imwrite(str(path), picture((1001, 777)))
    assert path.stat().st_size > 100_000  # FFmpeg takes so large a one for one of a sequence.
    process(path, out, tiny_weights)
    assert (out / "annotated.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert read_annotated(out, "annotated.jpg").shape == (777, 1001, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_that_was_held_askew_is_upright(
    tmp_path: Path, tiny_weights: Path, orientation: int
) -> None:
    path, out = jpeg_with_orientation(tmp_path / "held.jpg", orientation), tmp_path / "out"
    process(path, out, tiny_weights)
    upright, annotated = cv2.imread(str(path)), read_annotated(out, "annotated.jpg")
    assert upright is not None
    assert annotated.shape == upright.shape


@pytest.mark.parametrize("kind", ["grey", "alpha", "16-bit", "16-bit grey"])
def test_pixels_of_every_kind_give_8_bit_colours(
    tmp_path: Path, tiny_weights: Path, kind: str
) -> None:
    path, out, pixels = tmp_path / "photo.png", tmp_path / "out", picture()
    stored: dict[str, Any] = {
        "grey": pixels[..., 0],
        "alpha": np.dstack((pixels, np.full(pixels.shape[:2], 200, np.uint8))),
        "16-bit": pixels.astype(np.uint16) * 257,
        "16-bit grey": pixels[..., 0].astype(np.uint16) * 257,
    }
    cv2.imwrite(str(path), stored[kind])
    report = process(path, out, tiny_weights, draw=DrawOptions(show_labels=False))
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert expected is not None
    difference = np.abs(read_annotated(out, "annotated.png")[72:].astype(int) - expected[72:])
    assert difference.max() <= 1
    assert any("alpha" in note for note in report["output"]["notes"]) == (kind == "alpha")


def test_a_film_of_pictures_is_a_clip_and_one_of_one_picture_is_a_picture(
    tmp_path: Path, tiny_weights: Path
) -> None:
    for count, name in ((3, "annotated.mp4"), (1, "annotated.png")):
        images = [with_light((index, 2)) for index in range(count)]
        path = write_clip(tmp_path / f"{count}.gif", images, codec="gif", pix_fmt="rgb8")
        process(path, tmp_path / str(count), tiny_weights)
        assert (tmp_path / str(count) / name).is_file()


def test_a_picture_named_like_a_sequence_is_read_alone(tmp_path: Path, tiny_weights: Path) -> None:
    for name in ("p%03d.png", "p001.png"):
        cv2.imwrite(str(tmp_path / name), picture((64, 48) if "%" in name else (32, 32)))
    report = process(tmp_path / "p%03d.png", tmp_path / "out", tiny_weights)
    assert report["source"]["size_wh"] == (64, 48)
    assert report["output"]["num_frames"] == 1


def test_a_png_with_a_colour_profile_is_read_and_the_loss_is_told(
    tmp_path: Path, tiny_weights: Path
) -> None:
    path = png_with_profile(tmp_path / "photo.png")
    for number in range(3):  # What frees memory twice is seen later.
        report = process(path, tmp_path / str(number), tiny_weights)
        assert any("ICC profile" in note for note in report["output"]["notes"])


def png_with_profile(path: Path) -> Path:
    _, encoded = cv2.imencode(".png", picture())
    content = np.asarray(encoded).tobytes()
    body = b"iCCPa profile\0\0" + zlib.compress(bytes(128))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(content[:33] + chunk + content[33:])  # After the signature and IHDR.
    return path


@pytest.mark.parametrize("options", [{"codec": "hevc"}, {"crf": 20}, {"preset": "fast"}])
def test_options_of_a_clips_encoder_are_refused(
    tmp_path: Path, tiny_weights: Path, options: dict[str, Any]
) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), picture())
    with pytest.raises(UsageError, match=r"photo\.png is a picture.*--codec, --crf and --preset"):
        process(
            tmp_path / "photo.png", tmp_path / "out", tiny_weights, encode=EncodeOptions(**options)
        )
    assert not (tmp_path / "out").exists()


def test_what_was_done_before_stays_and_is_replaced_on_request(
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", picture())
    command = ["process", "photo.png", "--weights", str(tiny_weights)]
    assert main(command) == 0
    made = Path("output/photo/annotated.png").stat().st_mtime_ns
    assert main(command) == 0
    assert "already done" in capsys.readouterr().out
    assert Path("output/photo/annotated.png").stat().st_mtime_ns == made
    cv2.imwrite("photo.png", picture((99, 99)))
    assert main(command) == 1
    assert "annotated.png exists already" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert read_annotated(Path("output/photo"), "annotated.png").shape == (99, 99, 3)


def test_a_folder_of_pictures_gives_one_each_and_a_damaged_one_is_told(
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number in range(3):
        cv2.imwrite(f"photos/{number}.png", picture((64 + 32 * number, 64)))
    Path("photos/bad.jpg").write_bytes(b"\xff\xd8\xff no picture")
    assert main(["process", "photos", "--weights", str(tiny_weights)]) == 1
    told = capsys.readouterr()
    assert "bad.jpg" in told.err
    assert "3 frames in " in told.out
    assert "real time" not in told.out
    for number in range(3):
        assert Path(f"output/photos/{number}.png/annotated.png").is_file()
    record = json.loads(Path("output/batch.json").read_text())
    assert record["total"]["done"] == 3
    links = {clip["annotated"] for clip in record["clips"] if clip["annotated"]}
    assert links == {f"photos/{number}.png/annotated.png" for number in range(3)}
    assert "photos/0.png/annotated.png" in Path("output/batch.html").read_text()


def test_pictures_beside_clips_are_left_out_with_a_note(
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("both").mkdir()
    cv2.imwrite("both/cover.png", picture())
    write_clip(Path("both/clip.mp4"), [with_light((1, 1))] * 3)
    assert main(["process", "both", "--weights", str(tiny_weights)]) == 0
    assert "both: 1 picture beside clips left out" in capsys.readouterr().err
    assert Path("output/both/clip.mp4/annotated.mp4").is_file()
    assert not Path("output/both/cover.png").exists()
    assert main(["process", "both/*.png", "--weights", str(tiny_weights)]) == 0
    assert Path("output/both/cover.png/annotated.png").is_file()


def test_pictures_of_one_shape_share_the_model_in_whatever_order_they_are_named(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        cv2.imwrite(name, picture((96, 64) if number % 2 else (64, 96)))
    prepared: list[tuple[int, int]] = []

    def counted(weights: Path, source_wh: tuple[int, int], *rest: Any, **options: Any) -> Any:
        prepared.append(source_wh)
        return prepare_model(weights, source_wh, *rest, **options)

    monkeypatch.setattr("pipeline.inference.models.prepare_model", counted)
    assert main(["process", *names, "--weights", str(tiny_weights), "--quiet"]) == 0
    assert sorted(prepared) == [(64, 96), (96, 64)]
    record = json.loads(Path("output/batch.json").read_text())
    assert [clip["source"] for clip in record["clips"]] == names


def test_a_picture_is_processed_again_after_an_interruption(
    tmp_path: Path, tiny_weights: Path
) -> None:
    path, out = tmp_path / "photo.png", tmp_path / "out"
    cv2.imwrite(str(path), picture())
    process(path, tmp_path / "clean", tiny_weights)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "frames":
            raise KeyboardInterrupt

    config = ProcessConfig(source=path, output_dir=out, weights=tiny_weights)
    with pytest.raises(Interrupted):
        process_video(config, interrupt)
    assert not out.exists()
    process_video(config)
    for name in ("annotated.png", "detections.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_a_picture_that_is_none_is_refused(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"photo\.jpg: not a video that can be read"):
        process(tmp_path / "photo.jpg", tmp_path / "out", tiny_weights)


@needs_checkpoint
@needs_shared_media
def test_the_picture_of_the_tutorial_gives_the_boxes_of_the_original(tmp_path: Path) -> None:
    original = cv2.imread(str(SHARED / "images" / "coco_bike.jpg"))
    assert original is not None
    path = tmp_path / "bike.png"
    cv2.imwrite(str(path), cv2.resize(original, (640, 480), interpolation=cv2.INTER_AREA))
    process(path, tmp_path / "out", CHECKPOINT, infer=InferOptions(precision="f32"))
    theirs = {"0": referred(reference("coco_bike")["detections"])}
    assert_same_boxes(found_in(tmp_path / "out"), theirs, least=3, confidence_within=0.02)


@pytest.mark.slow
@needs_checkpoint
@needs_shared_media
def test_jpeg_files_give_the_boxes_of_the_original(tmp_path: Path) -> None:
    """Of the shapes that most of them have: for each, the model is converted and compiled."""
    ours, theirs = {}, {}
    known = reference("coco128")["images"]
    by_shape: dict[tuple[int, int], list[Path]] = {}
    for path in sorted((SHARED / "coco128" / "images").iterdir()):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            by_shape.setdefault((stream.width, stream.height), []).append(path)
    common = sorted(by_shape.values(), key=len, reverse=True)[:4]
    with Models() as models:
        for path in [path for paths in common for path in paths[:8]]:
            config = ProcessConfig(
                source=path,
                output_dir=tmp_path / path.stem,
                weights=CHECKPOINT,
                infer=InferOptions(precision="f32"),
            )
            process_video(config, models=models)
            ours[path.name] = found_in(config.output_dir)["0"]
            theirs[path.name] = referred(known.get(path.name, []))
    assert_same_boxes(ours, theirs, least=60, confidence_within=0.1)
