"""The benchmark_app of OpenVINO, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.core.errors import InferenceError

# With the telemetry left out, as in `pipeline/__init__.py`.
_BENCHMARK_APP = """
import sys
sys.modules["openvino_telemetry"] = None
from openvino.tools.benchmark.main import main
main()
"""
LEAST_SECONDS = 1.0


def benchmark_app_fps(
    ir: Path, device: str, hint: str, precision: str | None, seconds: float
) -> float:
    """What OpenVINO's own benchmark_app measures for a graph; its own precision if None.

    Raises InferenceError if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-c", _BENCHMARK_APP),
            *("-m", str(ir), "-d", device, "-hint", hint.lower()),
            *(("-infer_precision", precision) if precision else ()),
            *("-t", str(round(max(seconds, LEAST_SECONDS)))),
            *("-report_type", "no_counters", "-json_stats", "-report_folder", folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        report = Path(folder) / "benchmark_report.json"
        if done.returncode or not report.is_file():
            said = (done.stdout + done.stderr).strip() or f"exit code {done.returncode}"
            raise InferenceError(f"benchmark_app failed: {said.splitlines()[-1]}")
        return float(json.loads(report.read_text())["execution_results"]["throughput"])
