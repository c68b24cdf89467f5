"""The same boxes as the original YOLOv5 finds on the same footage."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions, InferOptions, SyntheticOptions
from pipeline.core.progress import no_progress
from pipeline.inference.engine import Heads, Pool
from pipeline.inference.openvino import load_engine
from pipeline.media.frame import Frame
from pipeline.media.pictures import read_picture
from pipeline.model.letterbox import PADDING_VALUE, input_size_wh, letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import prepare_model
from pipeline.model.preprocess import Preprocessor
from tests.conftest import (
    CHECKPOINT,
    SHARED,
    needs_checkpoint,
    needs_shared_media,
    process,
)
from tests.reference import (
    Box,
    assert_same_boxes,
    found_in,
    reference,
    referred,
)

pytestmark = [pytest.mark.slow, needs_checkpoint, needs_shared_media]

FLOAT32 = InferOptions(precision="f32")


@pytest.mark.parametrize(
    ("name", "num_frames", "least"),
    [
        ("car-detection", 100, 25),
        ("bottle-detection", 35, 100),
        pytest.param("car-detection", None, 50, marks=pytest.mark.conformance),
        pytest.param("bottle-detection", None, 1000, marks=pytest.mark.conformance),
    ],
)
def test_a_clip_gives_the_boxes_of_the_original(
    tmp_path: Path, name: str, num_frames: int | None, least: int
) -> None:
    clip = SHARED / "videos" / f"{name}.mp4"
    process(clip, tmp_path / "out", CHECKPOINT, infer=FLOAT32, video=False, num_frames=num_frames)
    rows = reference(name)["frames"]
    theirs = {str(i): referred(rows.get(str(i), [])) for i in range(num_frames or len(rows))}
    assert_same_boxes(found_in(tmp_path / "out"), theirs, least=least, confidence_within=0.02)


def test_the_picture_of_the_tutorial_gives_the_boxes_of_the_original(tmp_path: Path) -> None:
    source = SyntheticOptions(
        num_frames=3,
        size_wh=(640, 480),
        frame_rate=Fraction(30),
        image=SHARED / "images" / "coco_bike.jpg",
    )
    process(source, tmp_path / "out", CHECKPOINT, infer=FLOAT32)
    theirs = referred(reference("coco_bike")["detections"])
    found = found_in(tmp_path / "out")
    assert list(found) == ["0", "1", "2"]
    assert_same_boxes(found, dict.fromkeys(found, theirs), least=6, confidence_within=0.1)


def detect(pictures: list[Path]) -> dict[str, list[Box]]:
    """Pictures of one input size, with the settings of detect.py."""
    frames = [read_picture(path, index) for index, path in enumerate(pictures)]
    sizes_wh = [(frame.image.width, frame.image.height) for frame in frames]
    prepared = prepare_model(CHECKPOINT, sizes_wh[0], 640, no_progress)
    boxes = [letterbox(size_wh, prepared.input_wh) for size_wh in sizes_wh]
    found: dict[str, Detections] = {}
    errors: list[BaseException] = []

    def done(frame: Frame, heads: Heads, _: float) -> None:
        found[pictures[frame.index].name] = detections_from(
            prepared.head,
            prepared.head.select(heads, 0.25),
            boxes[frame.index],
            DetectOptions(confidence_threshold=0.25, iou_threshold=0.45, max_detections=1000),
        )

    pool: Pool[Frame] = load_engine(prepared, FLOAT32).open_pool(done, errors.append)
    for frame in frames:
        model_input = pool.next_input()
        model_input.fill(PADDING_VALUE)
        Preprocessor(boxes[frame.index])(frame, model_input)
        pool.submit(frame)
    pool.drain()
    assert errors == []
    return {
        name: [
            (class_id, confidence, tuple(xyxy))
            for class_id, confidence, xyxy in zip(
                some.class_id.tolist(), some.confidence.tolist(), some.xyxy.tolist(), strict=True
            )
        ]
        for name, some in found.items()
    }


@pytest.mark.parametrize(
    ("sizes_wh", "least"),
    [
        ({(480, 640), (640, 512), (640, 256), (544, 640)}, 70),
        pytest.param(None, 300, marks=pytest.mark.conformance),
    ],
    ids=["some", "all"],
)
def test_the_pictures_of_coco128_give_the_boxes_of_the_original(
    sizes_wh: set[tuple[int, int]] | None, least: int
) -> None:
    """sizes_wh: of the model's inputs; None takes the pictures of all sizes."""
    groups: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in sorted((SHARED / "coco128" / "images").iterdir()):
        image = read_picture(path).image
        groups[input_size_wh((image.width, image.height), 640)].append(path)
    assert sum(map(len, groups.values())) == 128
    found: dict[str, list[Box]] = {}
    for size_wh in sizes_wh or groups:
        found.update(detect(groups[size_wh]))
    originals = reference("coco128")["images"]
    theirs = {name: referred(originals.get(name, [])) for name in found}
    assert_same_boxes(found, theirs, least=least, confidence_within=0.02)
