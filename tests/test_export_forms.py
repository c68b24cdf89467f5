"""Graphs as exporters write them, whole runs: cut at their raw heads, decoded, with NMS inside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.config import DetectOptions
from pipeline.core.errors import UsageError
from pipeline.core.notes import collected_notes
from pipeline.core.progress import no_progress
from pipeline.measure.evaluate import evaluate
from pipeline.model.described import describe_model
from tests.conftest import process, read_detections, with_light, write_clip
from tests.export_forms import (
    FORMS,
    write_export,
)
from tests.labelled import make_data
from tests.resuming import KEYS

CELLS = [(3, 2), (9, 7), (12, 10), (5, 5)]
"""The 8x8 cells that are bright, one after the other."""


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each form."""
    folder = tmp_path_factory.mktemp("exports")
    return {form: write_export(form, folder / form) for form in FORMS}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [with_light(CELLS[i // 10]) for i in range(40)], options=KEYS)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_export_gives_the_same_boxes(
    form: str, exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    facts = describe_model(exports[form] / "model.xml", no_progress)
    assert facts.raw_heads == (form in ("raw", "best"))
    assert facts.needs_nms == (form in ("raw", "decoded"))
    with collected_notes() as notes:
        process(clip, tmp_path, exports[form], video=False, imgsz=128)
    assert any("raw heads were not found" in note for note in notes) == (not facts.raw_heads)
    for index, line in enumerate(read_detections(tmp_path)):
        (box,) = line["detections"]
        x, y = CELLS[index // 10]
        assert box["class_name"] == "light"
        np.testing.assert_allclose(box["xyxy"], [x * 8, y * 8, x * 8 + 8, y * 8 + 8], atol=0.01)


@pytest.mark.parametrize("form", ["best", "final"])
def test_an_export_without_need_of_nms_refuses_its_options(
    form: str, exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"^--iou is an option of NMS"):
        process(clip, tmp_path, exports[form], detect=DetectOptions(iou_threshold=0.45))


def test_an_export_with_nms_refuses_to_be_taken_for_one_without(
    exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"^--nms-free: model\.xml has no branch"):
        process(clip, tmp_path, exports["raw"], nms_free=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_export_can_be_evaluated(
    form: str, exports: dict[str, Path], tmp_path: Path
) -> None:
    result = evaluate(make_data(tmp_path / "data"), weights=exports[form], imgsz=128)
    assert [found.map_50 for found in result.accuracy.values()] == [1.0]


def test_segments_side_by_side_give_the_same_with_a_graph_that_is_not_cut(
    exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        process(
            clip,
            tmp_path / str(number),
            exports["final"],
            segments_at_once=number,
            segment_seconds=0.4,
        )
    for name in ("detections.jsonl", "annotated.mp4"):
        first, second = ((tmp_path / n / name).read_bytes() for n in ("1", "2"))
        assert first == second
