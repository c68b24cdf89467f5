"""What callers of the library may give, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.config import (
    AutoOptions,
    ClusterOptions,
    DetectOptions,
    EncodeOptions,
    InferOptions,
    LimitOptions,
    ProcessConfig,
    RemoteOptions,
    SyntheticOptions,
)
from pipeline.core.errors import UsageError
from pipeline.core.options import declared
from pipeline.measure.benchmark import BenchOptions

OPTIONS: list[tuple[type, dict[str, Any]]] = [
    (InferOptions, {}),
    (AutoOptions, {}),
    (DetectOptions, {}),
    (EncodeOptions, {}),
    (SyntheticOptions, {}),
    (LimitOptions, {}),
    (ClusterOptions, {}),
    (RemoteOptions, {}),
    (ProcessConfig, {"source": "clip.mp4", "output_dir": "out"}),
    (BenchOptions, {"source": SyntheticOptions()}),
]
FIELDS = [
    pytest.param(kind, given, field.name, id=f"{kind.__name__}.{field.name}")
    for kind, given in OPTIONS
    for field in dataclasses.fields(kind)
]


@pytest.mark.parametrize(("kind", "given", "name"), FIELDS)
@pytest.mark.parametrize(
    "value",
    [object(), math.nan, math.inf, b"bytes", {"a": 1}, [[]], 1j],
    ids=["object", "nan", "inf", "bytes", "dict", "list", "complex"],
)
def test_a_value_of_no_type_that_a_field_has_is_refused_by_its_name(
    kind: Any, given: dict[str, Any], name: str, value: object
) -> None:
    with pytest.raises(UsageError) as caught:
        kind(**{**given, name: value})
    option = declared(kind).get(name)
    shown = option.name_of(name) if option else name
    assert str(caught.value).startswith(f"{shown} must be ")
    assert "\n" not in str(caught.value)


def test_paths_may_be_text() -> None:
    config = ProcessConfig(
        source="clip.mp4",  # type: ignore[arg-type]
        output_dir="out",  # type: ignore[arg-type]
        weights="model.pt",  # type: ignore[arg-type]
        calibration="pictures",  # type: ignore[arg-type]
        infer=InferOptions(precision="int8"),
    )
    assert config == ProcessConfig(
        source=Path("clip.mp4"),
        output_dir=Path("out"),
        weights=Path("model.pt"),
        calibration=Path("pictures"),
        infer=InferOptions(precision="int8"),
    )
    assert SyntheticOptions(image="a.png").image == Path("a.png")  # type: ignore[arg-type]


def test_the_name_of_a_model_stays_a_name() -> None:
    for name in ("demo", "official"):
        config = ProcessConfig(source=Path("a.mp4"), output_dir=Path(), weights=name)
        assert config.weights == name


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(UsageError, match="output_dir must be a path, not ''"):
        ProcessConfig(source=Path("clip.mp4"), output_dir="")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_classes", "kept"),
    [
        ([0, 2], ("0", "2")),
        ((np.int64(1), "car"), ("1", "car")),
        (["person"], ("person",)),
        (None, None),
    ],
    ids=str,
)
def test_classes_may_be_integers_and_lists(given_classes: Any, kept: Any) -> None:
    assert DetectOptions(classes=given_classes).classes == kept


@pytest.mark.parametrize(
    "classes", ["person", [], [True], [1.0], [""], [None], 3, {"person"}], ids=str
)
def test_other_classes_are_refused(classes: Any) -> None:
    with pytest.raises(UsageError, match=r"^--classes"):
        DetectOptions(classes=classes)


def test_numbers_of_other_types_become_those_declared() -> None:
    options = SyntheticOptions(
        num_frames=np.int32(5),
        size_wh=[64, 48],  # type: ignore[arg-type]
        frame_rate=29.97,  # type: ignore[arg-type]
    )
    assert options == SyntheticOptions(
        num_frames=5, size_wh=(64, 48), frame_rate=Fraction(2997, 100)
    )
    assert type(options.num_frames) is int
    assert type(DetectOptions(confidence_threshold=np.float32(0.5)).confidence_threshold) is float
    assert LimitOptions(max_frame_rate=60).max_frame_rate == Fraction(60)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_an_integer_is_asked_for_as_one(value: Any) -> None:
    with pytest.raises(UsageError, match=f"batch must be an integer, not {value!r}"):
        InferOptions(batch=value)


@given(st.floats() | st.integers())
def test_a_threshold_outside_of_its_range_is_refused(value: float) -> None:
    if 0 < value < 1:
        assert DetectOptions(confidence_threshold=value).confidence_threshold == value
        return
    with pytest.raises(UsageError, match=r"^--conf must ") as caught:
        DetectOptions(confidence_threshold=value)
    assert "\n" not in str(caught.value)


def test_what_no_audit_can_judge_is_refused() -> None:
    given: dict[str, Any] = {"source": "clip.mp4", "output_dir": "out", "least_agreement": 0.9}
    ProcessConfig(**given, adaptive=True)
    ProcessConfig(**given, infer=InferOptions(precision="int8"))
    with pytest.raises(UsageError, match="--least-agreement needs"):
        ProcessConfig(**given)


@pytest.mark.parametrize("size_wh", [(8, 8), (0, 480), (-640, 480), (640, 40_000)])
def test_the_size_of_a_scene_has_ends(size_wh: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=rf"16x16 and 32768x32768, not {size_wh[0]}x{size_wh[1]}"):
        SyntheticOptions(size_wh=size_wh)
