"""Many clips with one command: what is done, what is skipped, what fails, and what tells of it."""

from __future__ import annotations

import functools
import html
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from pipeline.batch.batch import Batch
from pipeline.batch.clips import Clip
from pipeline.cli.commands import main
from pipeline.core.config import ClusterOptions, ProcessConfig
from pipeline.core.errors import InputError, Interrupted, PipelineError, WorkerDied
from pipeline.core.progress import Progress, ProgressCallback
from tests.commands import HEAVY, Command, faulty, last_words, worker_pid
from tests.conftest import with_light, write_clip

NUM_CLIPS = 10
FRAMES = 8
BROKEN = (2, 6)


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [with_light((i, 3)) for i in range(FRAMES)])


@pytest.fixture
def footage(tmp_path: Path, one_clip: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Ten clips in folders of the current folder."""
    monkeypatch.chdir(tmp_path)
    clips = [Path("footage", f"cam{i % 3}", f"{i}.mp4") for i in range(NUM_CLIPS)]
    for clip in clips:
        clip.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(one_clip, clip)
    return sorted(clips)


@pytest.fixture
def usual(tiny_weights: Path) -> list[str]:
    return ["--weights", str(tiny_weights), "--output-dir", "out"]


def without_progress(said: str) -> list[str]:
    """The lines but those of progress, one every five seconds: none on a fast machine."""
    progress = re.compile(r": \d+( of \d+)?(, [\d.]+ \S+/s, \d+ s left)?$")
    return [line for line in said.splitlines() if not progress.search(line)]


def damage(clip: Path) -> None:
    clip.write_bytes(b"no video\n" * 50)


def results(out: str = "out") -> dict[str, Any]:
    """The clips of batch.json by their names."""
    record = json.loads(Path(out, "batch.json").read_text(encoding="utf-8"))
    return {clip["source"]: clip for clip in record["clips"]}


def totals(out: str = "out") -> dict[str, Any]:
    return dict(json.loads(Path(out, "batch.json").read_text(encoding="utf-8"))["total"])


def statuses() -> list[str]:
    return [clip["status"] for clip in results().values()]


def annotated() -> dict[str, int]:
    """The finished clips below the output folder, and when they were written."""
    return {str(path): path.stat().st_mtime_ns for path in Path("out").rglob("annotated.mp4")}


def test_what_can_be_done_is_done_and_what_fails_is_told_with_its_reason(
    footage: list[Path], usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in BROKEN:
        damage(footage[number])
    assert main(["process", "footage", *usual]) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert lines[-1] == "pipeline: 2 of 10 clips failed"
    assert re.fullmatch(r"2 clips: not a video that can be read: .+", lines[-4])
    assert lines[-3:-1] == [f"  {footage[number]}" for number in BROKEN]
    assert re.fullmatch(
        r"8 of 10 clips done; 2 failed\n"
        r"64 frames, 2\.56 s of footage, in \d+\.\d\d s: \d+\.\d fps overall, "
        r"\d+\.\d times real time\n"
        r"report in out/batch\.html\n",
        printed.out,
    )
    whole = [clip for clip in footage if footage.index(clip) not in BROKEN]
    assert sorted(annotated()) == sorted(f"out/{clip}/annotated.mp4" for clip in whole)
    for clip in whole:
        assert len(Path("out", clip, "detections.jsonl").read_text().splitlines()) == FRAMES


def test_the_record_of_a_batch_has_the_figures_of_every_clip_and_of_all(
    footage: list[Path], usual: list[str]
) -> None:
    damage(footage[0])
    assert main(["process", "footage", *usual]) == 1
    found, total = results(), totals()
    assert list(found) == [str(clip) for clip in footage]
    assert found[str(footage[0])]["reason"].startswith("not a video that can be read")
    for clip in footage[1:]:
        record = found[str(clip)]
        report = json.loads(Path("out", clip, "report.json").read_text())
        assert record["num_frames"] == FRAMES
        assert record["footage_seconds"] == pytest.approx(FRAMES / 25)
        assert record["fps"] == pytest.approx(report["speed"]["file_to_file_fps"])
        assert record["times_real_time"] == pytest.approx(report["speed"]["times_real_time"])
    assert (total["clips"], total["done"], total["failed"], total["skipped"]) == (10, 9, 1, 0)
    now = total["this_run"]
    assert now["num_frames"] == 9 * FRAMES == total["results"]["num_frames"]
    assert now["footage_hours"] == pytest.approx(9 * FRAMES / 25 / 3600)
    assert now["fps"] == pytest.approx(9 * FRAMES / total["wall_seconds"])
    assert now["times_real_time"] == pytest.approx(9 * FRAMES / 25 / total["wall_seconds"])


def test_clips_that_are_done_are_skipped_and_the_others_are_tried_again(
    footage: list[Path],
    usual: list[str],
    one_clip: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in BROKEN:
        damage(footage[number])
    assert main(["process", "footage", *usual]) == 1
    first = annotated()
    for number in BROKEN:
        shutil.copy(one_clip, footage[number])
    capsys.readouterr()
    assert main(["process", "footage", *usual]) == 0
    assert capsys.readouterr().out.startswith("2 of 10 clips done; 8 skipped, already done\n")
    assert annotated().items() >= first.items()
    assert len(annotated()) == NUM_CLIPS
    assert (totals()["this_run"]["num_frames"], totals()["results"]["num_frames"]) == (16, 80)
    capsys.readouterr()
    page = Path("out/batch.html").read_bytes()
    assert main(["process", "footage", *usual]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "0 of 10 clips done; 10 skipped, already done",
        "nothing new; the report of an earlier command is in out/batch.html",
    ]
    assert Path("out/batch.html").read_bytes() == page
    assert main(["process", *map(str, footage), str(footage[0].parent / "none.mp4"), *usual]) == 1
    assert sorted(statuses()) == ["failed", *["skipped"] * NUM_CLIPS]


def test_clips_that_are_done_are_skipped_though_they_are_named_in_another_way(
    footage: list[Path], usual: list[str], one_clip: Path
) -> None:
    shutil.copy(one_clip, "more.mp4")
    assert main(["process", "footage", *usual]) == 0
    assert main(["process", "more.mp4", "footage/**/*.mp4", *usual]) == 0
    assert sorted(statuses()) == ["done", *["skipped"] * NUM_CLIPS]


def test_what_was_made_with_other_options_is_replaced_only_when_asked(
    footage: list[Path], usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["process", *map(str, footage[:3]), *usual]
    assert main(command) == 0
    first = annotated()
    capsys.readouterr()
    page = Path("out/batch.html").read_bytes(), Path("out/batch.json").read_bytes()
    assert main([*command, "--conf", "0.5"]) == 1
    assert (Path("out/batch.html").read_bytes(), Path("out/batch.json").read_bytes()) == page
    printed = capsys.readouterr()
    assert "3 failed" in printed.out
    assert without_progress(printed.err) == [
        "3 clips: annotated.mp4 exists already: --overwrite replaces it",
        *(f"  {clip}" for clip in footage[:3]),
        "pipeline: 3 of 3 clips failed",
    ]
    assert annotated() == first
    assert main([*command, "--conf", "0.5", "--overwrite"]) == 0
    assert statuses() == ["done"] * 3
    second = annotated()
    assert set(second.values()).isdisjoint(first.values())
    # And when that is interrupted, it need not be done twice.
    assert main([*command, "--conf", "0.5", "--overwrite"]) == 0
    assert "3 skipped" in capsys.readouterr().out
    assert annotated() == second
    # What is refused keeps the figures that it has.
    assert main(["process", *map(str, footage[:4]), *usual]) == 1
    assert statuses() == ["failed"] * 3 + ["done"]
    assert totals()["results"]["num_frames"] == 4 * FRAMES


CHANGES = {
    "the clip was written to": lambda clip, _: os.utime(clip, ns=(1, 1)),
    "the clip is another": lambda clip, _: write_clip(clip, [with_light((1, 1))] * 3),
    "the result was cut": lambda _, out: os.truncate(out / "annotated.mp4", 100),
    "a part of the result is gone": lambda _, out: (out / "detections.jsonl").unlink(),
    "the report is damaged": lambda _, out: (out / "report.json").write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_result_that_is_not_that_of_this_clip_or_not_whole_is_not_skipped(
    change: Any,
    footage: list[Path],
    usual: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["process", *map(str, footage[:2]), *usual]
    assert main(command) == 0
    change(footage[0], Path("out", footage[0]))
    capsys.readouterr()
    assert main(command) == 1
    printed = capsys.readouterr()
    assert "1 skipped, already done; 1 failed" in printed.out
    assert printed.err.startswith(str(footage[0]))
    assert main([*command, "--overwrite"]) == 0
    assert statuses() == ["done", "skipped"]


def test_the_model_is_prepared_and_compiled_once_for_all_clips(
    footage: list[Path], usual: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.inference import models as loaded

    calls: list[str] = []

    def counted(make: Any) -> Any:
        def made(*arguments: Any, **options: Any) -> Any:
            calls.append(make.__name__)
            return make(*arguments, **options)

        return made

    for name in ("prepare_model", "load_engine"):
        monkeypatch.setattr(loaded, name, counted(getattr(loaded, name)))
    assert main(["process", "footage", *usual]) == 0
    assert calls == ["prepare_model", "load_engine"]


def test_the_first_frames_are_those_of_each_clip(footage: list[Path], usual: list[str]) -> None:
    assert main(["process", "footage", *usual, "--frames", "3"]) == 0
    assert {clip["num_frames"] for clip in results().values()} == {3}


def test_by_default_everything_goes_below_output(footage: list[Path], tiny_weights: Path) -> None:
    assert main(["process", "footage", "--weights", str(tiny_weights)]) == 0
    assert Path("output", footage[0], "annotated.mp4").is_file()
    assert Path("output", "batch.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["footage", "-"], "standard input must be the only input"),
        (["footage", "synthetic"], "the synthetic scene must be the only input"),
        (["footage", "nothing/"], "nothing/"),
        (["footage", "--classes", "horse"], "'horse'"),
        (["footage", "--device", "NPU.9"], "NPU.9"),
    ],
    ids=str,
)
def test_what_can_be_done_for_no_clip_ends_all_at_once_and_leaves_nothing(
    arguments: list[str],
    told: str,
    footage: list[Path],
    usual: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("nothing").mkdir()
    assert main(["process", *arguments, *usual]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"pipeline: .*{re.escape(told)}.*\n", printed.err)
    assert not Path("out", "batch.json").exists()


def test_a_model_that_is_not_there_is_told_once(
    footage: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", "footage", "--weights", "missing.pt"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pipeline: missing.pt: no such model file")
    assert not Path("output").exists()


def test_a_file_that_is_not_there_fails_alone(footage: list[Path], usual: list[str]) -> None:
    assert main(["process", str(footage[0]), "missing.mp4", *usual]) == 1
    assert statuses() == ["done", "failed"]
    assert results()["missing.mp4"]["reason"] == "no such file"


@pytest.mark.parametrize("given", ["footage", "footage/cam0/*.mp4"])
def test_links_in_a_circle_fail_alone(
    footage: list[Path], usual: list[str], given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("footage/cam0/round.mp4").symlink_to("round.mp4")
    clips = [clip for clip in footage if given == "footage" or clip.parent.name == "cam0"]
    assert main(["process", given, *usual]) == 1
    assert "round.mp4" in capsys.readouterr().err
    assert len(list(Path("out").rglob("annotated.mp4"))) == len(clips)


def test_a_reason_that_many_clips_share_is_told_once_and_not_all_of_them_are_named(
    footage: list[Path], usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(footage[4])
    missing = [f"missing{number:02d}.mp4" for number in range(25)]
    assert main(["process", *missing, str(footage[4]), *usual]) == 1
    alone, reason, *named, more, last = without_progress(capsys.readouterr().err)
    assert re.fullmatch(rf"{footage[4]}  not a video that can be read: .+", alone)
    assert reason == "25 clips: no such file"
    assert named == [f"  {name}" for name in missing[:20]]
    assert more == "  and 5 more, see the report"
    assert last == "pipeline: 26 of 26 clips failed"
    assert {results()[name]["reason"] for name in missing} == {"no such file"}


def test_no_empty_folder_is_left_of_clips_that_fail(footage: list[Path], usual: list[str]) -> None:
    for clip in footage:
        if clip.parent.name != "cam0":
            damage(clip)
    Path("out/footage/cam1/before").mkdir(parents=True)
    assert main(["process", "footage", *usual]) == 1
    folders = {str(path) for path in Path("out/footage").rglob("*") if path.is_dir()}
    whole = {f"out/{clip}" for clip in footage if clip.parent.name == "cam0"}
    viewers = {f"{folder}/viewer_data" for folder in whole}
    others = {"out/footage/cam0", "out/footage/cam1", "out/footage/cam1/before"}
    assert folders == {*others, *whole, *viewers}


def test_a_batch_that_is_interrupted_tells_what_is_done_and_goes_on(
    footage: list[Path],
    usual: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipeline.frames.encode import VideoEncoder

    calls, encode = itertools.count(1), VideoEncoder.encode

    def interrupted(*arguments: Any) -> None:
        if next(calls) == 3 * FRAMES + 4:
            raise KeyboardInterrupt
        encode(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(VideoEncoder, "encode", interrupted)
        assert main(["process", "footage", *usual]) == 130
    printed = capsys.readouterr()
    assert printed.out.startswith("3 of 10 clips done; 7 not reached\n")
    assert without_progress(printed.err) == [
        "pipeline: interrupted; 3 of 10 clips are done: rerun the command to resume"
    ]
    assert statuses() == ["done"] * 3 + ["not reached"] * 7
    assert "7 not reached" in Path("out", "batch.html").read_text(encoding="utf-8")
    assert len(annotated()) == 3
    assert main(["process", "footage", *usual]) == 0
    assert statuses() == ["skipped"] * 3 + ["done"] * 7


HOSTILE = [
    b"<script>alert(1)<script>.mp4",
    b'" onmouseover="alert(1).mp4',
    b"two\nlines\x1b[31m.mp4",
    b"not text \xff\xfe.mp4",
    b"100% #1 ?.mp4",
    b"javascript:alert(1).mp4",
]


def test_the_page_shows_hostile_names_as_text_and_its_links_lead_to_the_reports(
    tmp_path: Path,
    one_clip: Path,
    usual: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("footage").mkdir()
    for name in HOSTILE:
        shutil.copy(one_clip, os.fsdecode(b"footage/" + name))
    damage(Path("footage", os.fsdecode(HOSTILE[0])))
    damage(Path("footage", os.fsdecode(HOSTILE[2])))
    assert main(["process", "footage", *usual]) == 1
    page = Path("out", "batch.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'onmouseover="' not in page.replace("&#34;", "")
    assert "\x1b" not in page
    assert "\\x1b[31m" in page
    links = [html.unescape(link) for link in re.findall(r'href="([^"]*)"', page)]
    # The viewer three times, the report and the annotated clip.
    assert len(links) == 5 * (len(HOSTILE) - 2)
    for link in links:
        assert ":" not in link
        assert Path("out", os.fsdecode(unquote_to_bytes(link))).is_file()
    printed = capsys.readouterr()
    assert "\x1b" not in printed.err
    assert len(without_progress(printed.err)) == 4


class WorkerOfSorts:
    """Tells of frames without there being any."""

    def __init__(self, counts: dict[str, int | None]) -> None:
        self.counts = counts

    def run_each(
        self, configs: Iterable[ProcessConfig], on_progress: Callable[[int, Progress], None]
    ) -> Iterator[tuple[int, dict[str, Any] | PipelineError]]:
        for number, config in enumerate(configs):
            try:
                yield number, self.run(config, functools.partial(on_progress, number))
            except InputError as error:
                yield number, error

    def require_not_stopped(self) -> None:
        """Nobody stops it."""

    def run(self, config: ProcessConfig, on_progress: ProgressCallback) -> dict[str, Any]:
        count = self.counts[Path(config.source_name).name]
        if count is None:
            raise InputError(f"{config.source_name}: broken")
        for done in range(1, count + 1):
            on_progress(Progress("frames", done, count))
        return {
            "speed": {"times_real_time": None, "wall_seconds": 1.0},
            "output": {"file": "annotated.mp4", "num_frames": count},
        }


def test_progress_is_that_of_all_frames_of_all_clips(tmp_path: Path, tiny_weights: Path) -> None:
    counts = {"a.mp4": 5, "b.mp4": None, "c.mp4": 3, "d.mp4": 4}
    clips = [Clip(tmp_path / name, tmp_path / "out" / name) for name in counts]
    for clip, num_bytes in zip(clips, (500, 200, 400, 300), strict=True):
        clip.path.write_bytes(bytes(num_bytes))
    config = ProcessConfig(source=Path(), output_dir=tmp_path / "out", weights=tiny_weights)
    seen: list[Progress] = []
    together: Any = None
    ended: list[tuple[str, str, int]] = []
    Batch(
        config, clips, lambda r: ended.append((r.clip.path.name, r.status, seen[-1].done))
    ).process(clips, WorkerOfSorts(counts), together, seen.append)
    # Each outcome comes with its clip, before the frames of the next one.
    assert ended == [
        ("a.mp4", "done", 5),
        ("b.mp4", "failed", 5),
        ("c.mp4", "done", 8),
        ("d.mp4", "done", 12),
    ]
    assert [p.done for p in seen] == [*range(1, 6), 5, 5, *range(6, 9), 8, *range(9, 13), 12]
    # A frame has 100 bytes, as far as the first clip shows; the second one breaks.
    assert [p.total for p in seen[:6]] == [14] * 6
    assert seen[-1].total == 12
    assert list(dict.fromkeys(p.subject for p in seen)) == [
        f"{finished} of 4 clips finished" for finished in range(5)
    ]


def test_where_a_clip_ends_what_does_all_of_them_together_each_is_done_by_itself(
    tmp_path: Path, tiny_weights: Path
) -> None:
    counts = {"a.mp4": 5, "b.mp4": None, "c.mp4": 3}
    clips = [Clip(tmp_path / name, tmp_path / "out" / name) for name in counts]
    config = ProcessConfig(
        source=Path(),
        output_dir=tmp_path / "out",
        weights=tiny_weights,
        cluster=ClusterOptions(),
    )

    def dies(*_: object) -> None:
        raise WorkerDied("the worker was killed")

    together: Any = dies
    batch = Batch(config, clips)
    batch.process(clips, WorkerOfSorts(counts), together, lambda _: None)
    assert [result.status for result in batch.results] == ["done", "failed", "done"]


def test_a_signal_that_came_while_pictures_were_looked_at_ends_a_batch(
    tmp_path: Path, tiny_weights: Path
) -> None:
    class Stopped(WorkerOfSorts):
        def require_not_stopped(self) -> None:
            raise Interrupted("interrupted")

    clips = [Clip(tmp_path / "a.jpg", tmp_path / "out" / "a.jpg")]
    config = ProcessConfig(source=Path(), output_dir=tmp_path / "out", weights=tiny_weights)
    looked: Any = lambda *_: [(640, 640)]  # noqa: E731
    batch = Batch(config, clips)
    with pytest.raises(Interrupted, match="0 of 1 clip"):
        batch.process(clips, Stopped({"a.jpg": 5}), looked, lambda _: None)
    assert batch.number_of("not reached") == 1


def batch_with_fault(
    fault: str, step: str, frame: int, usual: list[str], *more: str
) -> tuple[int, str]:
    """Exit code and stderr of a batch whose workers have a fault."""
    arguments = ["process", str(Path("footage").resolve()), *usual[:2], *more]
    out = ["--output-dir", str(Path("out").resolve())]
    with faulty(fault, step, frame, *arguments, *out) as running:
        words = last_words(running)
        return running.wait(10), words


def test_a_worker_that_is_killed_costs_its_clip_only(footage: list[Path], usual: list[str]) -> None:
    # Every worker dies in a clip of this folder, while others are prepared and finished.
    code, words = batch_with_fault("kill", "encode:cam1", 4, usual)
    broken = [clip for clip in footage if clip.parent.name == "cam1"]
    assert code == 1
    # A clip that was complete when the worker died, before it could say so, is skipped then.
    failed = [status == "failed" for status in statuses()]
    assert failed == [clip in broken for clip in footage]
    assert words.endswith("pipeline: 3 of 10 clips failed\n")
    for clip in broken:
        reason = results()[str(clip.resolve())]["reason"]
        assert re.fullmatch(
            r"the worker was killed by SIGKILL, possibly out of memory; "
            r".*encoding thread at encode of frame 4",
            reason,
        )
        # Clips with the same reason are named below it.
        line = rf"(?m)^(  {clip.resolve()}|{clip.resolve()} +{re.escape(reason)})$"
        assert len(re.findall(line, words)) == 1
        assert words.count(reason) == 1
    assert not [*Path("out").rglob(".partial")]
    assert main(["process", str(Path("footage").resolve()), *usual]) == 0
    assert statuses() == ["done" if clip in broken else "skipped" for clip in footage]


def test_a_step_that_hangs_costs_its_clip_only(footage: list[Path], usual: list[str]) -> None:
    for clip in footage[4:]:
        clip.unlink()
    hung = footage[1]
    code, words = batch_with_fault("hang", f"encode:{hung.name}", 4, usual, "--stall-seconds", "2")
    assert code == 1
    assert statuses() == ["done", "failed", "done", "done"]
    assert words.splitlines()[-2:] == [
        f"{hung.resolve()}  encode of frame 4 failed: no progress for 2 s; "
        "--stall-seconds allows more",
        "pipeline: 1 of 4 clips failed",
    ]


@pytest.mark.parametrize(
    ("stop", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_ends_all_clips_and_the_same_command_goes_on(
    stop: signal.Signals, code: int, footage: list[Path], usual: list[str]
) -> None:
    arguments = ["process", str(Path("footage").resolve()), *usual[:2]]
    out = ["--output-dir", str(Path("out").resolve())]
    with faulty("pause", f"encode:{footage[2].name}", 5, *arguments, *out) as running:
        pid = worker_pid(running)
        running.send_signal(stop)
        words = last_words(running)
        assert running.wait(10) == code
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    # While the frames of the third run, the second is finished.
    told = re.fullmatch(
        r"pipeline: interrupted; (\d+) of 10 clips (?:is|are) done: rerun the command to resume\n",
        words,
    )
    assert told, words
    done = int(told[1])
    if done:  # Clips overlap: the second may be finished before the first.
        assert sorted(statuses()) == ["done"] * done + ["not reached"] * (10 - done)
    # What is left of those under way is what they resume from.
    assert all((work / "journal.jsonl").exists() for work in Path("out").rglob(".partial"))
    assert main([*arguments, "--output-dir", "out"]) == 0
    assert set(statuses()) <= {"skipped", "done"}
    assert statuses().count("skipped") >= done
    assert not [*Path("out").rglob(".partial")]


def test_the_parent_of_a_batch_has_imported_nothing_heavy(
    footage: list[Path], usual: list[str]
) -> None:
    damage(footage[1])
    code = (
        "import sys; from pipeline.cli.commands import main; exit_code = main(sys.argv[1:]); "
        f"print(exit_code, *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "process", *map(str, footage[:3]), *usual],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1].split() == ["1"]
    assert statuses() == ["done", "failed", "done"]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """`make process VIDEO=...` where what is run tells its arguments, one a line."""
    binary = tmp_path / "venv" / "bin"
    binary.mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "venv/bin/python", "venv/.installed"):
        (tmp_path / name).touch()
    (binary / "pipeline").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (binary / "pipeline").chmod(0o755)
    project = Path(__file__).resolve().parents[1]

    def run(*variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                "make",
                "-f",
                str(project / "Makefile"),
                "process",
                "VENV=venv",
                *variables,
            ],
            check=False,
            # As from a shell, though the tests themselves are run by make.
            env={"PATH": os.environ["PATH"]},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )

    return run


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ("", []),
        ("clip.mp4", ["clip.mp4"]),
        ("footage/", ["footage/"]),
        ("a.mp4 b.mkv footage", ["a.mp4", "b.mkv", "footage"]),
        ("cams/**/*.mp4 a.mp4", ["cams/**/*.mp4", "a.mp4"]),
        ("Bob's clip (1).mp4", ["Bob's clip (1).mp4"]),
        ("'Bob and I.mp4' a.mp4", ["Bob and I.mp4", "a.mp4"]),
        ("-", ["-"]),
        ("-x.mp4", ["-x.mp4"]),
    ],
)
def test_make_takes_one_name_with_blanks_or_several(
    video: str, words: list[str], make: Any, tmp_path: Path
) -> None:
    (tmp_path / "Bob's clip (1).mp4").touch()
    (tmp_path / "cams" / "x").mkdir(parents=True)
    (tmp_path / "cams" / "x" / "c.mp4").touch()
    done = make(f"VIDEO={video}", "OUTPUT=o")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["process", "--output-dir", "o", "--", *words]


@pytest.mark.parametrize("video", ["it's.mp4", "clip (1).mp4", "a.mp4 'b.mp4", 'a" $(touch x)'])
def test_names_that_no_shell_takes_are_one_line_of_make(
    video: str, make: Any, tmp_path: Path
) -> None:
    escaped = video.replace("$", "$$")
    done = make(f"VIDEO={escaped}")
    assert done.stdout == ""
    told, make_itself = done.stderr.splitlines()
    assert told == (
        f"{video}: no such file; of several names, one with a quote or a bracket in it has to be "
        "in quotes"
    )
    assert make_itself.startswith("make: ***")
    assert not (tmp_path / "x").exists()


def test_another_file_of_the_same_name_size_and_time_is_not_skipped(
    one_clip: Path, usual: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name / "day" for name in ("cam1", "cam2")]
    for folder in folders:
        folder.mkdir(parents=True)
        shutil.copy2(one_clip, folder / "clip.mp4")
    outputs = ["--output-dir", str(tmp_path / "results")]
    assert main(["process", str(folders[0]), *usual, *outputs]) == 0
    assert main(["process", str(folders[0]), *usual, *outputs]) == 0
    assert "1 skipped" in capsys.readouterr().out
    assert main(["process", str(folders[1]), *usual, *outputs]) == 1
    assert "exists already" in capsys.readouterr().err


def test_clips_are_done_though_the_page_of_all_cannot_be_written(
    footage: list[Path], usual: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out/batch.json").mkdir(parents=True)
    assert main(["process", "footage", *usual]) == 1
    printed = capsys.readouterr()
    assert "10 of 10 clips done" in printed.out
    assert "batch.json" in printed.err.splitlines()[-1]
    assert not Path("out/.batch.json").exists()


@pytest.mark.parametrize(
    "command", [["process", ""], ["plan", "", *("--fps-per-core", "9"), *("--cores", "9")]]
)
def test_an_empty_name_is_wrong_use(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 2
    assert "an input is an empty name" in capsys.readouterr().err


def test_two_batches_at_once_share_the_work_and_both_succeed(
    footage: list[Path], usual: list[str]
) -> None:
    running = [Command("process", "footage", *usual) for _ in range(2)]
    ended = [(*process.communicate(timeout=120), process.returncode) for process in running]
    assert [code for *_, code in ended] == [0, 0], ended
    assert not [out for out, *_ in ended if "failed" in out]
    done = [int(out.split(" of ")[0]) for out, *_ in ended]
    assert sum(done) == NUM_CLIPS, ended
    assert len(annotated()) == NUM_CLIPS
    assert totals()["results"]["num_frames"] == NUM_CLIPS * FRAMES


def test_a_clip_that_another_run_gives_up_is_done_by_the_one_that_waits(
    footage: list[Path], usual: list[str]
) -> None:
    alone = [str(footage[0]), *usual[:2], "--output-dir", f"out/{footage[0]}"]
    with faulty("hang", "encode", 3, "process", *map(_absolute, alone)) as other:
        worker_pid(other)
        with Command("process", *footage[:2], *usual) as batch:
            assert batch.stderr is not None
            told = iter(batch.stderr.readline, "")
            assert any("wait for other runs: 1 of 2" in line for line in told)
            other.kill()
            assert batch.wait(60) == 0
    assert statuses() == ["done", "done"]


def _absolute(argument: str) -> str:
    return str(Path(argument).absolute()) if "/" in argument else argument
