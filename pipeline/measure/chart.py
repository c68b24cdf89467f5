"""The result of the benchmark -> bench.json, a bar chart, a page and a table."""

from __future__ import annotations

import base64
import json
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import UsageError
from pipeline.core.text import counted
from pipeline.run.page import render_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON_NAME, CHART_NAME, PAGE_NAME = "bench.json", "bench.png", "bench.html"

ADAPTIVE_NOTE = (
    "--adaptive runs the same model on fewer frames; how many depends on the clip: "
    "make bench-e2e VIDEO=clip.mp4 measures it, alone and with INT8, make tune VIDEO=clip.mp4 too"
)

FAMILY_COLORS = {
    "PyTorch": "#8a8f98",
    "OpenVINO": "#2f6fed",
    "asynchronous": "#12a594",
    "hints": "#7a5af8",
    "devices": "#e5484d",
    "streams": "#e6a23c",
    "INT8": "#1d8a5b",
}


def write_bench(result: dict[str, Any], folder: Path) -> None:
    """Write bench.json, bench.png and bench.html."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON_NAME).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    draw_chart(result, folder / CHART_NAME)
    chart = base64.b64encode((folder / CHART_NAME).read_bytes()).decode("ascii")
    page = render_page(
        "measure/bench.html.jinja",
        r=result,
        chart=chart,
        command=result["best"] and run_command(result["best"]),
        adaptive_note=ADAPTIVE_NOTE,
    )
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")


def require_chart() -> None:
    """Raise UsageError where the package that draws charts is missing."""
    if find_spec("matplotlib") is None:
        raise UsageError("bench needs the extra bench: pip install matplotlib")


def draw_chart(result: dict[str, Any], path: Path) -> None:
    """Horizontal bars, one for each row: frames per second, and the factor over the baseline."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(reversed(result["configurations"]))
    figure = Figure(figsize=(11, 1.6 + 0.36 * len(rows)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    widest = max((row.get("fps_median", 0.0) for row in rows), default=1.0) or 1.0
    for y, row in enumerate(rows):
        if "fps_median" in row:
            _draw_bar(axes, y, row, gap=widest * 0.012)
        else:
            axes.text(
                widest * 0.008, y, row["status"], va="center", color="#8a8f98", style="italic"
            )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=9)
    axes.set_xlim(0, widest * 1.25)
    axes.set_xlabel("frames per second, model alone (higher is better)")
    frames, machine = result["frames"], result["machine"]
    axes.set_title(
        f"{result['model']}, {frames['source']} {frames['size_wh'][0]}x{frames['size_wh'][1]}, "
        f"{counted(machine['cores'], 'core')} of {machine['processor']}\n"
        f"in brackets: speed relative to {result['baseline']}",
        fontsize=11,
        loc="left",
    )
    _draw_legend(axes, {row["family"] for row in rows if "fps_median" in row})
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _draw_bar(axes: Axes, y: int, row: dict[str, Any], *, gap: float) -> None:
    """The bar of a row that was measured, its spread, and its figures, a gap to the right of it."""
    fps = row["fps_median"]
    axes.barh(
        y,
        fps,
        color=FAMILY_COLORS[row["family"]],
        alpha=1.0 if row["best_of_configuration"] else 0.45,
        xerr=[[fps - row["fps_min"]], [row["fps_max"] - fps]],
        error_kw={"ecolor": "#333a45", "elinewidth": 0.8},
    )
    mark = ", other boxes" if row["changes_detections"] else ""
    figures = f"{fps:.1f}  ({row['factor']:.2f}x{mark})"
    axes.text(row["fps_max"] + gap, y, figures, va="center", fontsize=9)


def _draw_legend(axes: Axes, families: set[str]) -> None:
    from matplotlib.patches import Patch

    colors = [(name, color) for name, color in FAMILY_COLORS.items() if name in families]
    axes.legend(
        handles=[Patch(color=color, label=name) for name, color in colors],
        loc="upper right",
        fontsize=9,
        frameon=False,
    )


def run_command(name: str) -> str:
    """The command for a run with a configuration."""
    return f"make process VIDEO=clip.mp4 CONFIG={shlex.quote(name)}"


def table_lines(result: dict[str, Any]) -> list[str]:
    """The same as text, a line for each row."""
    width = max(len(row["name"]) for row in result["configurations"])
    lines = [
        f"{'':<{width}}  {'fps':>7} {'spread':>15} {'s/image':>9} {'first s':>8} "
        f"{'factor':>7}  detections"
    ]
    for row in result["configurations"]:
        if "fps_median" not in row:
            lines.append(f"{row['name']:<{width}}  {row['reason'] or row['status']}")
            continue
        spread = f"{row['fps_min']:.1f} to {row['fps_max']:.1f}"
        alike = f"{row['agreement']:.1%} alike" + (", CHANGED" if row["changes_detections"] else "")
        lines.append(
            f"{row['name']:<{width}}  {row['fps_median']:>7.1f} {spread:>15} "
            f"{row['seconds_per_image']:>9.4f} {row['first_inference_seconds']:>8.3f} "
            f"{row['factor']:>6.2f}x  {alike}"
        )
    app = result["benchmark_app"]
    if app:
        lines.append(
            f"{app['configuration']} is {app['ratio_median']:.2f} times what OpenVINO's "
            "benchmark_app measures for the same graph and hint"
        )
    if result["best"]:
        lines.append(f"fastest: {result['best']}; to use it: {run_command(result['best'])}")
    lines.append(ADAPTIVE_NOTE)
    return lines
