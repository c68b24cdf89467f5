"""The comparison of the configurations: every one is a row, whatever this machine lacks."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cli.commands import main
from pipeline.core.config import InferOptions, SyntheticOptions
from pipeline.core.errors import InferenceError, UsageError
from pipeline.inference.configurations import configurations
from pipeline.measure.benchmark import BenchOptions, benchmark
from pipeline.measure.benchmark_app import benchmark_app_fps
from pipeline.measure.chart import table_lines, write_bench
from pipeline.measure.own_process import in_own_process
from tests.conftest import TINY_INPUT_WH
from tests.toy_work import ask_for_death, process_id

SOURCE = SyntheticOptions(num_frames=6, size_wh=TINY_INPUT_WH)


def rows_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["configurations"]}


def result_of(weights: Path, num_rounds: int, *names: str) -> dict[str, Any]:
    options = BenchOptions(
        source=SOURCE, num_frames=10, num_rounds=num_rounds, imgsz=128, weights=weights, names=names
    )
    return benchmark(options, devices=["CPU"])


@pytest.fixture(scope="module")
def result(tiny: Path) -> dict[str, Any]:
    return result_of(tiny, 1, "openvino", "openvino-batch", "gpu", "npu", "cumulative")


@pytest.fixture(scope="module")
def in_two_rounds(tiny: Path) -> dict[str, Any]:
    """With OpenVINO's own benchmark, and a configuration that fails."""
    return result_of(tiny, 2, "pytorch", "throughput", "gpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import openvino as ov

    from tests.conftest import light_detector

    path = tmp_path_factory.mktemp("tiny") / "light.xml"
    # Not of a fixed batch: it is measured in batches too.
    ov.save_model(light_detector(), path, compress_to_fp16=False)
    return path


@pytest.mark.slow
def test_every_configuration_is_a_row_and_what_is_missing_says_so(result: dict[str, Any]) -> None:
    rows = rows_of(result)
    assert [name for name in rows if name.startswith("openvino-batch")] == [
        f"openvino-batch {size}" for size in (2, 4, 8, 16)
    ]
    for name in ("gpu", "npu"):
        assert rows[name]["status"] == "unavailable"
        assert rows[name]["reason"] == f"unavailable: no {name.upper()}, only CPU"
        assert "fps" not in rows[name]
    for name in ("openvino", "cumulative", "openvino-batch 16"):
        assert rows[name]["status"] == "measured"
        assert len(rows[name]["fps"]) == 1
        assert rows[name]["fps_min"] <= rows[name]["fps_median"] <= rows[name]["fps_max"]
        assert rows[name]["seconds_per_image"] == pytest.approx(1 / rows[name]["fps_median"])
        assert rows[name]["first_inference_seconds"] > 0


@pytest.mark.slow
def test_each_round_counts(in_two_rounds: dict[str, Any]) -> None:
    row = rows_of(in_two_rounds)["throughput"]
    assert row["status"] == "measured"
    assert len(row["fps"]) == 2
    assert row["fps_min"] <= row["fps_median"] <= row["fps_max"]
    assert row["seconds_per_image"] == pytest.approx(1 / row["fps_median"])


@pytest.mark.slow
def test_results_are_compared_and_factors_taken_over_the_baseline(result: dict[str, Any]) -> None:
    rows = rows_of(result)
    assert result["baseline"] == "openvino"
    assert rows["openvino"]["factor"] == 1.0
    assert {row["agreement"] for row in rows.values() if "agreement" in row} == {1.0}
    assert not any(row.get("changes_detections") for row in rows.values())
    measured = [row for row in rows.values() if row["status"] == "measured"]
    assert result["best"] == max(measured, key=lambda row: row["fps_median"])["name"]
    best_batch = [r for r in measured if r["configuration"] == "openvino-batch"]
    assert sum(row["best_of_configuration"] for row in best_batch) == 1


@pytest.mark.slow
def test_openvinos_own_benchmark_is_beside_it(in_two_rounds: dict[str, Any]) -> None:
    beside = in_two_rounds["benchmark_app"]
    assert beside["configuration"] == "throughput"
    assert len(beside["fps"]) == 2
    assert beside["ratio_median"] > 0


@pytest.mark.slow
def test_it_is_written_as_values_a_chart_and_a_page(
    in_two_rounds: dict[str, Any], tmp_path: Path
) -> None:
    result = in_two_rounds
    write_bench(result, tmp_path / "bench")
    assert json.loads((tmp_path / "bench" / "bench.json").read_text()) == result
    chart = cv2.imread(str(tmp_path / "bench" / "bench.png"))
    assert chart is not None
    assert len(np.unique(chart.reshape(-1, 3), axis=0)) > 50
    page = (tmp_path / "bench" / "bench.html").read_text()
    for row in result["configurations"]:
        assert row["name"] in page
    assert "data:image/png;base64," in page
    assert "make bench-e2e" in page
    assert "unavailable: no GPU, only CPU" in page
    lines = "\n".join(table_lines(result))
    assert "unavailable: no GPU, only CPU" in lines
    assert "benchmark_app" in lines


def test_the_table_says_where_adaptive_is_measured(result_of_two: dict[str, Any]) -> None:
    assert any("--adaptive" in line and "bench-e2e" in line for line in table_lines(result_of_two))


def test_a_configuration_that_changes_detections_is_marked(result_of_two: dict[str, Any]) -> None:
    lines = table_lines(result_of_two)
    assert any("CHANGED" in line for line in lines if line.startswith("throughput"))
    assert not any("CHANGED" in line for line in lines if line.startswith("openvino"))


@pytest.fixture
def result_of_two() -> dict[str, Any]:
    def row(name: str, share: float) -> dict[str, Any]:
        return {
            "name": name,
            "configuration": name,
            "status": "measured",
            "reason": "",
            "fps_median": 10.0,
            "fps_min": 9.0,
            "fps_max": 11.0,
            "seconds_per_image": 0.1,
            "first_inference_seconds": 0.2,
            "factor": 1.0,
            "agreement": share,
            "changes_detections": share < 0.99,
        }

    return {
        "configurations": [row("openvino", 1.0), row("throughput", 0.9)],
        "benchmark_app": None,
        "best": "throughput",
    }


@pytest.mark.slow
def test_a_checkpoint_that_pytorch_cannot_run_is_a_row_that_says_so(
    in_two_rounds: dict[str, Any],
) -> None:
    rows = rows_of(in_two_rounds)
    assert rows["pytorch"]["status"] == "failed"
    assert ".pt checkpoints only" in rows["pytorch"]["reason"]
    assert rows["throughput"]["status"] == "measured"


@pytest.mark.parametrize(("frames", "rounds"), [(0, 1), (10, 0), (10, -1), (3, 4)])
def test_too_few_frames_or_rounds_are_refused(frames: int, rounds: int) -> None:
    with pytest.raises(UsageError, match="round"):
        BenchOptions(source=SOURCE, num_frames=frames, num_rounds=rounds)


def test_a_name_that_is_unknown_is_refused(tiny: Path) -> None:
    options = BenchOptions(source=SOURCE, weights=tiny, names=("warp",))
    with pytest.raises(UsageError, match=r"warp.*throughput"):
        benchmark(options)


@pytest.mark.slow
def test_the_command_prints_a_table_and_leaves_the_files(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bench"
    code = main(
        [
            *("bench", "--weights", str(tiny), "--imgsz", "128", "--size", "128x96"),
            *("--frames", "4", "--rounds", "1", "--configs", "latency", "gpu"),
            *("--output-dir", str(folder)),
        ]
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert "latency" in printed
    assert "unavailable" in printed
    assert sorted(path.name for path in folder.iterdir()) == [
        "bench.html",
        "bench.json",
        "bench.png",
    ]


def test_a_graph_that_benchmark_app_cannot_read_is_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("<net/>")
    with pytest.raises(InferenceError, match="benchmark_app failed") as caught:
        benchmark_app_fps(broken, "CPU", "THROUGHPUT", None, 1.0)
    assert "\n" not in str(caught.value)


def test_every_measurement_has_a_process_of_its_own() -> None:
    found = {in_own_process(process_id, i) for i in range(2)} | {os.getpid()}
    assert len(found) == 3


WAITING = """
import sys
sys.path.insert(0, {project!r})
from pipeline.measure.own_process import in_own_process
from tests.toy_work import begin_and_sleep
if __name__ == "__main__":
    in_own_process(begin_and_sleep, {begun!r})
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_measurement_that_is_cut_short_ends_at_once_and_leaves_no_process(
    tmp_path: Path, number: int
) -> None:
    script, begun = tmp_path / "waiting.py", tmp_path / "begun"
    script.write_text(WAITING.format(project=str(Path.cwd()), begun=str(begun)))
    with subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL) as waiting:
        try:
            while not begun.exists():
                assert waiting.poll() is None
                time.sleep(0.01)
            children = Path(f"/proc/{waiting.pid}/task/{waiting.pid}/children").read_text().split()
            assert len(children) == 2  # The measurement and the resource tracker.
            ends = [os.pidfd_open(int(pid)) for pid in children]
            waiting.send_signal(number)
            waiting.wait()
        finally:
            waiting.kill()
    for end in ends:
        assert select.select([end], [], [], 60)[0] == [end]  # Readable once the process is gone.
        os.close(end)


def test_a_measurement_whose_process_dies_is_an_error_not_the_end() -> None:
    with pytest.raises(InferenceError, match="died"):
        in_own_process(ask_for_death, 0)


def test_a_measurement_that_takes_too_long_is_ended_with_its_process() -> None:
    with pytest.raises(TimeoutError, match=r"not done within 0\.2 s"):
        in_own_process(time.sleep, 60, 0.2)
    assert multiprocessing.active_children() == []


def test_all_configurations_have_a_colour_in_the_chart() -> None:
    from pipeline.measure.chart import FAMILY_COLORS

    assert {entry.family for entry in configurations(2).values()} == set(FAMILY_COLORS)


def test_int8_runs_under_the_best_float_configuration() -> None:
    from pipeline.measure.benchmark import _int8_under_the_best
    from pipeline.measure.benchmark_record import Row
    from pipeline.measure.own_process import ModelSpeed

    known = configurations(2)
    rows = [
        Row(known[name], known[name].variants[0]) for name in ("pytorch", "async", "throughput")
    ]
    for row, seconds in zip(rows, (0.5, 1.0, 2.0), strict=True):
        row.rounds.append(ModelSpeed(0.0, 0.0, seconds, 10, {}, []))
    variant = _int8_under_the_best(Row(known["int8"], known["int8"].variants[0]), rows)
    assert variant.label == "under async"
    assert variant.options == InferOptions(hint="NONE", precision="int8")
