"""Every pair of options gives what each of them gives, or is refused in one line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.arguments import process_config
from pipeline.cli.commands import main
from pipeline.cli.parsers import parse_arguments
from pipeline.core.errors import Interrupted
from pipeline.inference.models import Models
from pipeline.run.process import process_video
from pipeline.run.report_files import Report
from tests.conftest import gray, process, read_detections, write_clip
from tests.export_forms import write_export
from tests.resuming import interrupted_at

USAGE = Path(__file__).resolve().parents[1] / "docs" / "usage.md"

Lines = list[dict[str, Any]]


def nothing(_: Report, __: Path, ___: Lines) -> None:
    """Nothing else is to be seen of an option."""


@dataclass(frozen=True)
class Case:
    """words: of the command line. expected: the lines, from those without the option. check: is
    given the report, the output folder and the lines. order: of `expected` among options."""

    words: tuple[str, ...]
    expected: Callable[[Lines], Lines] = lambda lines: lines
    check: Callable[[Report, Path, Lines], None] = nothing
    order: int = 0


def in_the_left_half(lines: Lines) -> Lines:
    return [
        {**line, "detections": [box for box in line["detections"] if box["xyxy"][2] < 64]}
        for line in lines
    ]


def sliced(lines: Lines) -> Lines:
    first = lines[5]["pts_seconds"]
    return [
        {
            **line,
            "frame_index": line["frame_index"] - 5,
            "pts_seconds": round(line["pts_seconds"] - first, 6),
        }
        for line in lines[5:20]
    ]


def some_are_interpolated(report: Report, _: Path, lines: Lines) -> None:
    assert 0 < report["detections"]["interpolated_frames"] < len(lines)


def is_in_tiles(report: Report, _: Path, __: Lines) -> None:
    assert report["configuration"]["tile"] == 96


def is_not_drawn(report: Report, out: Path, _: Lines) -> None:
    assert report["output"]["file"] is None
    assert not (out / "annotated.mp4").exists()


def is_exported(_: Report, out: Path, lines: Lines) -> None:
    rows = (out / "export" / "detections.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(len(line["detections"]) for line in lines)


def is_tracked(report: Report, _: Path, lines: Lines) -> None:
    ids = {box["track_id"] for line in lines[4:] for box in line["detections"]}
    assert ids == set(range(1, report["detections"]["tracks"] + 1))


def is_covered(_: Report, out: Path, lines: Lines) -> None:
    covered = [json.loads(line) for line in (out / "covers.jsonl").read_text().splitlines()]
    assert [bool(line["covers"]) for line in covered] == [True] * len(lines)


def was_resumed(report: Report, _: Path, __: Lines) -> None:
    assert report["segments"]["number"] > report["segments"]["done_before"] > 0


CASES = {
    "--adaptive": Case(("--adaptive",), check=some_are_interpolated),
    "--every": Case(("--every", "3"), check=some_are_interpolated),
    "--tile": Case(("--tile", "96"), check=is_in_tiles),
    "--track": Case(("--track",), check=is_tracked),
    "--redact": Case(("--redact", "light"), check=is_covered),
    "--roi": Case(("--roi", "0,0,0.5,1"), in_the_left_half),
    "--roi-crop": Case(("--roi", "0,0,0.5,1", "--roi-crop"), in_the_left_half),
    "--start, --end": Case(("--start", "5f", "--end", "0.8"), sliced, order=-2),
    "--frames": Case(("--frames", "14"), lambda lines: lines[:14], order=-1),
    "--no-video": Case(("--no-video",), check=is_not_drawn),
    "--export": Case(("--export", "csv"), check=is_exported),
    "--nms-free": Case(("--nms-free",)),
    "resume": Case(("--segment-seconds", "0.2"), check=was_resumed),
}
REFUSED = {
    frozenset({"--adaptive", "--every"}),
    frozenset({"--nms-free", "--tile"}),
    frozenset({"--highlights", "--no-video"}),  # See test_highlights.
    *(frozenset({"--redact", other}) for other in ("--roi", "--roi-crop", "--no-video")),
}
TOGETHER_ELSEWHERE = [
    *("--segments-at-once", "--executor ray", "--precision int8", "--highlights", "--crops"),
]
"""Options that are tested with all others at once: here, and in test_ray."""


pytest.importorskip("trackers", reason="needs the extra track")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames with two lights, a key frame at every sixth."""
    image = gray(20)
    for x in (24, 96):
        image[40:48, x : x + 8] = 255
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [image] * 24, options={"g": "6", "sc_threshold": "0"})


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    """Keeps the model compiled from one run to the next."""
    with Models() as models:
        yield models


@dataclass(frozen=True)
class Detector:
    """A model, and the lines of a run of it without options."""

    weights: Path
    usual: Lines


Detectors = dict[bool, Detector]


@pytest.fixture(scope="module")
def detectors(
    clip: Path, tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path
) -> Detectors:
    """One that needs NMS (False), and one that does not (True)."""
    folder = tmp_path_factory.mktemp("detectors")
    found = {}
    for nms_free, weights in ((False, tiny_weights), (True, write_export("final", folder / "m"))):
        process(clip, folder / str(nms_free), weights, video=False)
        found[nms_free] = Detector(weights, read_detections(folder / str(nms_free)))
        assert found[nms_free].usual[0]["detections"]
    return found


def command(clip: Path, out: Path, weights: Path, names: tuple[str, ...]) -> list[str]:
    words = [word for name in names for word in CASES[name].words]
    return [
        *("process", str(clip), "--output-dir", str(out), "--weights", str(weights)),
        *("--no-reuse", "--debug", *words),
    ]


def expected_lines(names: tuple[str, ...], lines: Lines) -> Lines:
    for name in sorted(names, key=lambda name: CASES[name].order):
        lines = CASES[name].expected(lines)
    return lines


def without_marks(lines: Lines) -> Lines:
    """Without what options add to lines."""
    return [
        {
            **{k: v for k, v in line.items() if k != "interpolated"},
            "detections": [
                {k: v for k, v in box.items() if k != "track_id"} for box in line["detections"]
            ],
        }
        for line in lines
    ]


def check(names: tuple[str, ...], report: Report, out: Path, usual: Lines) -> None:
    lines = read_detections(out)
    assert without_marks(lines) == expected_lines(names, usual)
    for name in names:
        CASES[name].check(report, out, lines)


def report_in(out: Path) -> Report:
    return dict(json.loads((out / "report.json").read_text()))


@pytest.mark.parametrize("pair", list(itertools.combinations(CASES, 2)), ids=" ".join)
def test_a_pair_gives_what_each_option_gives_or_is_refused(
    pair: tuple[str, ...],
    clip: Path,
    detectors: Detectors,
    tmp_path: Path,
    models: Models,
    capsys: pytest.CaptureFixture[str],
) -> None:
    detector = detectors["--nms-free" in pair]
    words = command(clip, tmp_path / "out", detector.weights, pair)
    if frozenset(pair) in REFUSED:
        assert main([word for word in words if word != "--debug"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        return
    config = process_config(parse_arguments(words))
    if "resume" in pair:
        with pytest.raises(Interrupted):
            process_video(config, interrupted_at(9, KeyboardInterrupt()), models=models)
    if "--export" in pair:
        assert main(words) == 0
    else:
        process_video(config, models=models)
    check(pair, report_in(tmp_path / "out"), tmp_path / "out", detector.usual)


@pytest.mark.parametrize("but", ["--tile", "--nms-free"])
def test_segments_side_by_side_with_all_others(
    but: str, clip: Path, detectors: Detectors, tmp_path: Path
) -> None:
    left_out = (but, "--every", "resume", "--frames", "--redact")
    names = tuple(name for name in CASES if name not in left_out)
    detector = detectors["--nms-free" in names]
    words = command(clip, tmp_path / "out", detector.weights, names)
    assert main([*words, "--segments-at-once", "2", "--segment-seconds", "0.2"]) == 0
    report = report_in(tmp_path / "out")
    assert report["configuration"]["segments_at_once"] == 2
    check(names, report, tmp_path / "out", detector.usual)


@pytest.mark.parametrize(
    "names",
    [
        ("--every", "--tile", "--track", "--redact", "--export", "resume"),
        (
            "--adaptive",
            "--roi",
            "--roi-crop",
            "--start, --end",
            "--frames",
            "--nms-free",
            "--track",
        ),
    ],
    ids=" ".join,
)
def test_highlights_and_crops_with_all_others(
    names: tuple[str, ...], clip: Path, detectors: Detectors, tmp_path: Path, models: Models
) -> None:
    detector = detectors["--nms-free" in names]
    out = tmp_path / "out"
    words = command(clip, out, detector.weights, names)
    if "resume" in names:
        config = process_config(parse_arguments(words))
        with pytest.raises(Interrupted):
            process_video(config, interrupted_at(9, KeyboardInterrupt()), models=models)
    else:
        words += ["--segments-at-once", "2", "--segment-seconds", "0.2"]
    assert main([*words, "--highlights", "--crops"]) == 0
    report = report_in(out)
    check(names, report, out, detector.usual)
    (highlight,) = report["highlights"]["clips"]  # There are lights in every frame.
    assert highlight["num_frames"] == len(read_detections(out))
    assert len(report["crops"]["pictures"]) >= report["detections"]["tracks"] > 0
    for entry in (highlight, *report["crops"]["pictures"]):
        assert (out / entry["file"]).stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "but"), [("--adaptive", "--nms-free"), ("--every", "--tile")], ids=str
)
def test_int8_with_all_others(
    sampler: str, but: str, clip: Path, detectors: Detectors, tmp_path: Path
) -> None:
    pytest.importorskip("nncf", reason="needs nncf")
    others = tuple(
        n for n in CASES if n not in ("--adaptive", "--every", "resume", "--redact", but)
    )
    names = (sampler, *others)
    detector = detectors["--nms-free" in names]
    words = command(clip, tmp_path / "out", detector.weights, names)
    assert main([*words, "--precision", "int8", "--calibration", "clip"]) == 0
    report, lines = report_in(tmp_path / "out"), read_detections(tmp_path / "out")
    assert report["precision_audit"]["num_frames"] > 0
    expected = expected_lines(names, detector.usual)
    assert [line["pts"] for line in lines] == [line["pts"] for line in expected]
    counts = [[len(line["detections"]) for line in some] for some in (lines, expected)]
    assert counts[0] == counts[1]
    for name in names:
        CASES[name].check(report, tmp_path / "out", lines)


def test_the_table_says_what_is_tested() -> None:
    section = USAGE.read_text().partition("## Options together\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|") and set(line) - set("|- ")
    ]
    names, cells = rows[0][1:], rows[1:]
    assert set(names) == {*CASES, *TOGETHER_ELSEWHERE}
    assert [row[0] for row in cells] == names
    for row, (first, *others) in zip(cells, [(n, *names) for n in names], strict=True):
        for second, cell in zip(others, row[1:], strict=True):
            pair = frozenset({first, second})
            expected = "" if first == second else "refused" if pair in REFUSED else "yes"
            assert cell == expected
