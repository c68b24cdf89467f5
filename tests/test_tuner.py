"""The tuner: successive halving, and a winner only where it is ahead by more than the noise."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.config import (
    AutoOptions,
    EncodeOptions,
    InferOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.errors import InferenceError, InputError, UsageError
from pipeline.core.machine import available_cores
from pipeline.core.progress import Progress
from pipeline.inference.selection import SpeedOptions, rule
from pipeline.measure.tuner import candidates, halve, in_time, int8_gain_of, tune
from tests.conftest import DEMO, needs_demo, process, with_light, write_clip

FRAME_WH = (640, 360)
RULE = "rule: THROUGHPUT hint, not pinned"


def options_of(num: int) -> dict[str, SpeedOptions]:
    """The rule, and others that differ in their requests."""
    return {
        "rule": rule(FRAME_WH),
        **{f"candidate {i}": SpeedOptions(InferOptions(num_requests=i), 1) for i in range(1, num)},
    }


def fixed(fps: dict[str, float], among: dict[str, SpeedOptions]) -> Callable[[SpeedOptions], float]:
    """A machine without noise."""
    return lambda options: next(fps[name] for name, entry in among.items() if entry == options)


@given(st.lists(st.floats(1.0, 1000.0), min_size=2, max_size=12))
def test_without_noise_the_fastest_wins_if_it_is_well_ahead(speeds: list[float]) -> None:
    among = options_of(len(speeds))
    fps = dict(zip(among, speeds, strict=True))
    selection = halve(among, fixed(fps, among))
    best = max(speeds)
    if best >= 1.02 * speeds[0]:
        assert (
            fps[next(name for name, options in among.items() if options == selection.options)]
            == best
        )
    else:
        assert selection.options == among["rule"]
    assert [entry.median_fps for entry in selection.alternatives] == sorted(speeds, reverse=True)


@given(st.integers(2, 12))
def test_the_better_ones_are_measured_more_often_and_the_rule_to_the_end(num: int) -> None:
    among, seen = options_of(num), Counter[str]()
    fps = {name: 100.0 + i for i, name in enumerate(among)}

    def measure(options: SpeedOptions) -> float:
        name = next(name for name, entry in among.items() if entry == options)
        seen[name] += 1
        return fps[name]

    halve(among, measure)
    assert seen["rule"] == 6 == max(seen.values())
    assert seen[f"candidate {num - 1}"] == 6
    assert min(seen.values()) >= 1
    assert sum(seen.values()) <= 3.5 * num + 6


def test_one_that_was_behind_in_a_single_round_does_not_win() -> None:
    among = options_of(2)
    noisy: Iterator[float] = iter([130.0, 90.0, 130.0, 130.0, 130.0, 130.0])
    selection = halve(among, lambda options: 100.0 if options == among["rule"] else next(noisy))
    assert selection.options == among["rule"]
    assert "noise" in selection.reason


def test_the_reason_says_by_how_much_it_won() -> None:
    among = options_of(3)
    selection = halve(
        among, fixed({"rule": 100.0, "candidate 1": 125.0, "candidate 2": 90.0}, among)
    )
    assert selection.reason == "candidate 1 was 1.25 times as fast as the rule"
    assert selection.by == "tune"


def test_a_plan_that_cannot_run_drops_out() -> None:
    among = options_of(4)

    def measure(options: SpeedOptions) -> float:
        if options == among["candidate 2"]:
            raise InferenceError("no")
        return 100.0 if options == among["rule"] else 120.0

    names = {entry.name for entry in halve(among, measure).alternatives}
    assert names == {"rule", "candidate 1", "candidate 3"}


def test_nothing_can_be_tuned_where_the_rule_cannot_run() -> None:
    def measure(_: SpeedOptions) -> float:
        raise UsageError("no model")

    with pytest.raises(UsageError, match="no model"):
        halve(options_of(3), measure)


class Clock:
    """A machine on which every measurement takes as long as the next of `seconds`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Iterable[float]) -> None:
        self.now, self.begun, self._seconds = 0.0, 0, iter(seconds)
        fake = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr("pipeline.measure.tuner.time", fake)

    def run(self, options: SpeedOptions, most_seconds: float) -> float:
        self.begun += 1
        seconds = next(self._seconds)
        self.now += min(seconds, most_seconds)
        if seconds > most_seconds:
            raise TimeoutError
        return 100.0 + (options.infer.precision == "int8") * 30.0


@given(
    seconds=st.lists(st.floats(0.1, 40.0), min_size=60, max_size=60),
    end_seconds=st.floats(40.0, 200.0),
    num=st.integers(2, 12),
)
def test_however_slow_the_machine_is_it_ends_in_time(
    seconds: list[float], end_seconds: float, num: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch, seconds)
        selection = halve(options_of(num), in_time(clock.run, end_seconds))
        assert selection.options == options_of(num)["rule"]
        assert sum(len(entry.throughput_fps) for entry in selection.alternatives) > 0
        int8_gain_of(selection.options, clock.run, end_seconds + 30.0)
        assert clock.now <= end_seconds + 30.0


def test_a_measurement_that_would_end_too_late_is_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch, [2.0, 4.0, 3.0, 1.0, 1.0, 1.0])
    selection = halve(options_of(8), in_time(clock.run, 12.5))
    # 9 s are over; the longest took 4.
    assert (clock.begun, clock.now) == (3, 9.0)
    assert len(selection.alternatives) == 3


def test_where_there_is_no_time_for_a_single_measurement_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch, [200.0])
    with pytest.raises(
        InferenceError, match="no configuration could be measured within 100 s: tune when"
    ):
        halve(options_of(8), in_time(clock.run, 110.0))
    assert clock.now == 110.0


@pytest.mark.parametrize(
    ("seconds", "gain", "begun"),
    [
        ([10.0, *[2.0] * 6], 1.3, 7),
        ([10.0, *[3.9] * 6], 1.3, 6),  # Two rounds; the third is not measured on both sides.
        ([26.0, *[4.0] * 6], None, 2),
        ([31.0], None, 1),
    ],
    ids=["idle", "busy", "quantised late", "not quantised in time"],
)
def test_how_much_is_measured_in_int8_depends_on_the_time_left(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float], gain: float | None, begun: int
) -> None:
    clock = Clock(monkeypatch, seconds)
    found = int8_gain_of(options_of(2)["rule"], clock.run, 30.0)
    assert found == (gain if gain is None else pytest.approx(gain))
    assert clock.begun == begun


def test_it_tells_how_far_it_is() -> None:
    seen: list[Progress] = []
    halve(options_of(8), lambda _: 1.0, seen.append)
    assert [progress.done for progress in seen] == list(range(len(seen)))
    assert {progress.total for progress in seen} == {len(seen) - 1}


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_candidates_fit_the_cores_and_begin_with_the_rule(cores: int) -> None:
    found = candidates(cores, ["CPU"], "auto", FRAME_WH)
    assert next(iter(found.items())) == (RULE, rule(FRAME_WH))
    for options in found.values():
        assert (options.infer.num_streams or 1) <= cores
        assert options.encoder_threads <= max(cores, rule(FRAME_WH).encoder_threads)
        assert options.infer.device == "CPU"
    assert len({(options.infer, options.encoder_threads) for options in found.values()}) == len(
        found
    )


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_the_names_of_candidates_count_in_plain_english(cores: int) -> None:
    names = ", ".join(candidates(cores, ["CPU"], "auto", FRAME_WH))
    assert not re.search(r"\b1 (streams|threads|requests)\b", names)
    assert not re.search(r"\b([02-9]|\d\d+) (stream|thread|request)\b", names)
    assert re.search(rf"\b{cores} streams?, {4 * cores} requests\b", names)


def test_other_devices_are_candidates_alone_and_together() -> None:
    devices = [
        options.infer.device
        for options in candidates(4, ["CPU", "GPU.0"], "auto", FRAME_WH).values()
    ]
    assert {"CPU", "GPU.0", "AUTO"} <= set(devices)


@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_precision_that_was_asked_for_is_kept_to(precision: str) -> None:
    found = candidates(2, ["CPU"], precision, FRAME_WH)
    assert {options.infer.precision for options in found.values()} == {precision}


@needs_demo
def test_on_the_scene_the_model_is_tuned_that_runs_of_the_scene_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []

    def no_time(_: object, job: ProcessConfig, __: float) -> tuple[float, int]:
        taken.append(job.weights)
        raise TimeoutError

    monkeypatch.setattr("pipeline.measure.tuner.in_own_process", no_time)
    config = ProcessConfig(source=SyntheticOptions(size_wh=(128, 96)), output_dir=tmp_path)
    with pytest.raises(InferenceError):
        tune(config)
    assert taken == [DEMO]


@pytest.mark.slow
def test_what_is_tuned_on_a_clip_is_what_later_runs_of_such_clips_take(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.measure.tuner.MOST_SECONDS", 1000.0)
    monkeypatch.setattr("pipeline.measure.tuner.HALVING", (1,))
    monkeypatch.setattr("pipeline.measure.tuner.MEASUREMENT_SECONDS", 0.05)
    monkeypatch.setattr("pipeline.measure.tuner.INT8_ROUNDS", 1)
    few = dict(
        itertools.islice(candidates(available_cores(), ["CPU"], "f32", (128, 96)).items(), 2)
    )
    monkeypatch.setattr("pipeline.measure.tuner.candidates", lambda *_: few)
    clip = write_clip(tmp_path / "clip.mp4", [with_light((i % 16, 3)) for i in range(60)])
    config = ProcessConfig(
        source=clip,
        output_dir=tmp_path / "unused",
        weights=tiny_weights,
        infer=AutoOptions(precision="f32"),
        encode=EncodeOptions(preset="ultrafast"),
    )
    tuned = tune(config)
    assert not (tmp_path / "unused").exists()
    assert tuned.path is not None
    assert tuned.path.is_file()
    report = process(clip, tmp_path / "out", tiny_weights, infer=config.infer, encode=config.encode)
    assert report["selection"]["by"] == "tune"
    assert report["selection"]["reason"] == tuned.selection.reason
    assert {entry["name"] for entry in report["selection"]["alternatives"]} == few.keys()
    assert tuned.int8_gain is not None
    assert tuned.adaptive is not None
    assert 0.0 < tuned.adaptive.inferred_share <= 1.0
    other = process(clip, tmp_path / "other", tiny_weights, infer=config.infer)
    assert other["selection"]["by"] == "rule"


@pytest.mark.slow
def test_a_clip_that_is_too_short_to_measure_on_is_refused(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((3, 3))] * 5)
    config = ProcessConfig(source=clip, output_dir=tmp_path, weights=tiny_weights)
    with pytest.raises(InputError, match="5 frames"):
        tune(config)
