"""Which float precision is taken where none is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.cache import cache_dir
from pipeline.inference import precision as float_precision
from pipeline.inference.precision import fastest_float_precision


@pytest.fixture(autouse=True)
def _nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Measuring:
    """Stands in for the measurement: says what was found, and counts how often it was asked."""

    def __init__(self, gain: float) -> None:
        self.gain, self.times = gain, 0

    def __call__(self) -> float:
        self.times += 1
        return self.gain


def fastest(patch: pytest.MonkeyPatch, instructions: str | None, measuring: Measuring) -> str:
    patch.setattr(float_precision, "bf16_instructions", lambda: instructions)
    patch.setattr(float_precision, "bf16_gain", measuring)
    return fastest_float_precision.__wrapped__()


@pytest.mark.parametrize(("instructions", "expected"), [("amx", "bf16"), (None, "f32")])
def test_matrix_units_or_none_at_all_need_no_measurement(
    monkeypatch: pytest.MonkeyPatch, instructions: str | None, expected: str
) -> None:
    measuring = Measuring(1.0)
    assert fastest(monkeypatch, instructions, measuring) == expected
    assert measuring.times == 0
    assert not cache_dir().exists()


@pytest.mark.parametrize(
    ("gain", "expected"), [(0.6, "f32"), (1.0, "f32"), (1.05, "f32"), (1.2, "bf16"), (1.6, "bf16")]
)
def test_with_vectors_only_what_was_measured_decides_once(
    monkeypatch: pytest.MonkeyPatch, gain: float, expected: str
) -> None:
    measuring = Measuring(gain)
    assert fastest(monkeypatch, "avx512", measuring) == expected
    assert fastest(monkeypatch, "avx512", measuring) == expected
    assert measuring.times == 1


def test_another_processor_or_openvino_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest(monkeypatch, "avx512", Measuring(1.6)) == "bf16"
    monkeypatch.setattr(float_precision, "processor_name", lambda: "another one")
    assert fastest(monkeypatch, "avx512", Measuring(0.6)) == "f32"
    monkeypatch.setattr("openvino.get_version", lambda: "another one")
    assert fastest(monkeypatch, "avx512", Measuring(1.6)) == "bf16"
    kept = json.loads((cache_dir() / "float_precision.json").read_text(encoding="utf-8"))
    assert sorted(kept.values()) == ["bf16", "bf16", "f32"]


@pytest.mark.parametrize("content", ["", "{", "null", "[1]", '"bf16"', "\x00\xff", "5"])
def test_what_was_kept_and_cannot_be_read_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    cache_dir().mkdir(parents=True)
    (cache_dir() / "float_precision.json").write_text(content, encoding="latin-1")
    measuring = Measuring(1.6)
    assert fastest(monkeypatch, "avx512", measuring) == "bf16"
    assert fastest(monkeypatch, "avx512", measuring) == "bf16"
    assert measuring.times == 1


def test_a_cache_that_cannot_be_written_costs_only_another_measurement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("in the way")
    measuring = Measuring(0.6)
    assert fastest(monkeypatch, "avx512", measuring) == "f32"
    assert fastest(monkeypatch, "avx512", measuring) == "f32"
    assert measuring.times == 2


def test_the_measurement_itself_is_a_ratio_of_two_real_speeds() -> None:
    assert 0.05 < float_precision.bf16_gain() < 50
