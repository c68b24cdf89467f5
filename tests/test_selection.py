"""Which configuration a run takes: what was tuned for it, else a rule."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.commands import main
from pipeline.core.config import AutoOptions, EncodeOptions, InferOptions, SyntheticOptions
from pipeline.core.errors import ModelError
from pipeline.core.progress import no_progress
from pipeline.inference import selection
from pipeline.inference.selection import (
    Measured,
    Selection,
    SpeedOptions,
    Tuning,
    rule,
    select,
    tuning_of,
)
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.run.report_files import Report
from tests.conftest import TINY_INPUT_WH, process

CLIP = SyntheticOptions(num_frames=12, size_wh=TINY_INPUT_WH)
WINNER = Selection(
    options=SpeedOptions(
        InferOptions(hint="LATENCY", precision="f32", num_streams=1, num_requests=3),
        encoder_threads=3,
    ),
    by="tune",
    reason="latency was the fastest of 2, 1.2 times the next",
    alternatives=(Measured("latency", (120.0, 121.5)), Measured("throughput", (100.0, 99.0))),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prepared(cache: Path, tiny_weights: Path) -> PreparedModel:
    return prepare_model(tiny_weights, TINY_INPUT_WH, 640, no_progress)


@pytest.fixture
def tuned(prepared: PreparedModel) -> Tuning:
    tuning = tuning_of(prepared, EncodeOptions(), "auto")
    tuning.store(WINNER)
    return tuning


def run(tmp_path: Path, weights: Path, **options: Any) -> Report:
    return process(CLIP, tmp_path / "out", weights, overwrite=True, **options)


def test_a_run_takes_what_was_tuned_and_says_so(
    tmp_path: Path, tiny_weights: Path, tuned: Tuning
) -> None:
    report = run(tmp_path, tiny_weights)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"by tune: {WINNER.reason}" in page
    used = report["configuration"]
    assert (used["hint"], used["precision"]) == ("LATENCY", "f32")
    assert (used["num_streams"], used["num_requests"]) == (1, 3)
    assert report["output"]["threads"] == 3
    assert report["selection"] == {
        "by": "tune",
        "reason": WINNER.reason,
        "alternatives": [
            {"name": "latency", "throughput_fps": (120.0, 121.5), "median_fps": 120.75},
            {"name": "throughput", "throughput_fps": (100.0, 99.0), "median_fps": 99.5},
        ],
    }
    assert "120.8" in page
    assert "99.5" in page


def test_a_run_takes_the_rule_where_nothing_was_tuned_and_says_so(
    tmp_path: Path, tiny_weights: Path
) -> None:
    report = run(tmp_path, tiny_weights)
    assert report["selection"]["by"] == "rule"
    assert "no tuned configuration" in report["selection"]["reason"]
    assert "by rule: no tuned configuration" in (tmp_path / "out" / "report.html").read_text()
    assert report["selection"]["alternatives"] == []
    assert report["configuration"]["hint"] == "THROUGHPUT"
    assert report["output"]["threads"] == rule(TINY_INPUT_WH).encoder_threads


def test_the_command_takes_what_was_tuned_by_default_and_a_named_one_if_asked(
    tmp_path: Path, tiny_weights: Path, tuned: Tuning, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["process", "--size", "128x96", "--frames", "12", "--weights", str(tiny_weights)]
    small += ["--output-dir", str(tmp_path / "out"), "--overwrite"]
    assert main(small) == 0
    assert "hint LATENCY, f32, 1 stream, 3 requests" in capsys.readouterr().out
    assert main([*small, "--config", "auto", "--requests", "2"]) == 0
    assert "hint LATENCY, f32, 1 stream, 2 requests" in capsys.readouterr().out
    assert main([*small, "--config", "throughput"]) == 0
    assert "hint THROUGHPUT" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert (report["selection"]["by"], report["selection"]["reason"]) == (
        "request",
        "it was requested",
    )


def test_what_is_asked_for_goes_over_what_was_tuned(prepared: PreparedModel, tuned: Tuning) -> None:
    chosen = select(AutoOptions(hint="NONE", batch=2), prepared, EncodeOptions())
    assert chosen.by == "tune"
    assert chosen.options.infer == dataclasses.replace(WINNER.options.infer, hint="NONE", batch=2)
    assert chosen.options.encoder_threads == 3


def test_what_is_asked_for_goes_over_the_rule(prepared: PreparedModel) -> None:
    chosen = select(AutoOptions(num_requests=5), prepared, EncodeOptions())
    assert chosen.by == "rule"
    assert chosen.options.infer == dataclasses.replace(
        rule(prepared.source_wh).infer, num_requests=5
    )


def test_the_threads_of_the_encoder_can_be_asked_for(
    tmp_path: Path, tiny_weights: Path, tuned: Tuning
) -> None:
    report = run(tmp_path, tiny_weights, encode=EncodeOptions(threads=2))
    assert report["selection"]["by"] == "tune"
    assert report["output"]["threads"] == 2


def test_a_named_configuration_is_taken_as_it_is(prepared: PreparedModel, tuned: Tuning) -> None:
    asked = InferOptions(hint="NONE", num_requests=1)
    chosen = select(asked, prepared, EncodeOptions())
    assert (chosen.by, chosen.options.infer) == ("request", asked)


def another_processor(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selection, "processor_name", lambda: "Another CPU @ 9 GHz")


def more_cores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selection, "available_cores", lambda: 96)


def another_openvino(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("openvino.get_version", lambda: "2031.1")


def another_device(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(selection, "available_devices", lambda: ("CPU", "GPU"))


@pytest.mark.parametrize(
    "change", [another_processor, more_cores, another_openvino, another_device]
)
def test_what_was_tuned_elsewhere_is_not_taken(
    prepared: PreparedModel,
    tuned: Tuning,
    change: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert select(AutoOptions(), prepared, EncodeOptions()).by == "tune"
    change(monkeypatch)
    assert select(AutoOptions(), prepared, EncodeOptions()).by == "rule"


@pytest.mark.parametrize(
    ("asked", "encode", "changes"),
    [
        (AutoOptions(), EncodeOptions(), {"weights_sha256": "1" * 64}),
        (AutoOptions(), EncodeOptions(), {"input_wh": (96, 128)}),
        (AutoOptions(), EncodeOptions(), {"source_wh": (1920, 1080)}),
        (AutoOptions(), EncodeOptions(codec="hevc"), {}),
        (AutoOptions(), EncodeOptions(preset="ultrafast"), {}),
        (AutoOptions(precision="int8"), EncodeOptions(), {}),
        (AutoOptions(precision="f32"), EncodeOptions(), {}),
    ],
)
def test_what_was_tuned_for_another_run_is_not_taken(
    prepared: PreparedModel,
    tuned: Tuning,
    asked: AutoOptions,
    encode: EncodeOptions,
    changes: dict[str, Any],
) -> None:
    other = dataclasses.replace(prepared, **changes)
    assert select(asked, other, encode).by == "rule"


def test_quality_alone_does_not_make_it_another_run(prepared: PreparedModel, tuned: Tuning) -> None:
    assert select(AutoOptions(precision="auto"), prepared, EncodeOptions(crf=30)).by == "tune"


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda kept: {name: value for name, value in kept.items() if name != key}


def changed(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda kept: {**kept, **values}


def changed_options(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda kept: {**kept, "infer": {**kept["infer"], **values}}


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "null": lambda _: None,
    "a list": lambda _: [1, 2],
    "a number": lambda _: 7,
    "no options": without("infer"),
    "no threads": without("encoder_threads"),
    "no reason": without("reason"),
    "no alternatives": without("alternatives"),
    "options that are none": changed(infer="LATENCY"),
    "threads that are none": changed(encoder_threads="many"),
    "no threads at all": changed(encoder_threads=0),
    "alternatives that are none": changed(alternatives=[{"name": "latency"}]),
    "an option that is not known": changed_options(speed="high"),
    "a batch of none": changed_options(batch=0),
    "a hint that is not known": changed_options(hint="QUICK"),
    "a batch in words": changed_options(batch="two"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_was_kept_and_makes_no_sense_is_ignored(
    prepared: PreparedModel, tuned: Tuning, damage: Callable[[dict[str, Any]], Any]
) -> None:
    kept = json.loads(tuned.path.read_text(encoding="utf-8"))
    tuned.path.write_text(json.dumps(damage(kept)), encoding="utf-8")
    assert tuned.load() is None
    assert select(AutoOptions(), prepared, EncodeOptions()).by == "rule"


@pytest.mark.parametrize("length", [0, 1, 100])
def test_what_was_kept_and_is_cut_off_is_ignored(tuned: Tuning, length: int) -> None:
    tuned.path.write_bytes(tuned.path.read_bytes()[:length])
    assert tuned.load() is None


def test_what_was_kept_and_is_no_text_is_ignored(tuned: Tuning) -> None:
    tuned.path.write_bytes(b"\xff\xfe\x00\x81" * 20)
    assert tuned.load() is None


measured = st.builds(
    Measured,
    st.text(max_size=10),
    st.lists(st.floats(0.1, 1e4), min_size=1, max_size=4).map(tuple),
)
selections = st.builds(
    Selection,
    options=st.builds(
        SpeedOptions,
        st.builds(
            InferOptions,
            hint=st.sampled_from(("THROUGHPUT", "LATENCY", "NONE")),
            device=st.sampled_from(("CPU", "AUTO", "BATCH:CPU(4)")),
            precision=st.sampled_from(("auto", "f32", "int8")),
            batch=st.integers(1, 64),
            num_streams=st.none() | st.integers(1, 64),
            num_requests=st.none() | st.integers(1, 64),
            pinning=st.none() | st.booleans(),
        ),
        st.integers(1, 64),
    ),
    by=st.just("tune"),
    reason=st.text(max_size=30),
    alternatives=st.lists(measured, max_size=3).map(tuple),
)


@given(selections)
def test_what_is_kept_comes_back_as_it_was(kept: Selection) -> None:
    tuning = Tuning({"cores": 2, "model": "any"})
    tuning.store(kept)
    assert tuning.load() == kept


def test_what_was_kept_tells_what_it_was_tuned_for(tuned: Tuning) -> None:
    facts = json.loads(tuned.path.read_text(encoding="utf-8"))["facts"]
    assert facts["input_wh"] == [128, 96]
    assert "CPU" in facts["devices"]
    assert set(facts) >= {"processor", "cores", "openvino", "model", "codec", "precision"}


def test_a_cache_that_cannot_be_written_is_a_clear_error(cache: Path) -> None:
    cache.write_text("in the way")
    with pytest.raises(ModelError, match="XDG_CACHE_HOME") as caught:
        Tuning({"cores": 2}).store(WINNER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame_wh", "threads"),
    [((640, 480), 2), ((1024, 576), 2), ((1280, 720), 4), ((1080, 1920), 4)],
)
def test_the_threads_of_the_encoder_follow_from_the_frame_alone(
    frame_wh: tuple[int, int], threads: int
) -> None:
    assert rule(frame_wh) == SpeedOptions(InferOptions(pinning=False), threads)
