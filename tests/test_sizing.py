"""`pipeline plan`: how long footage takes on how many cores, and what limits it."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch.footage import ClipHeader, read_header
from pipeline.cli.commands import main
from pipeline.core.errors import InputError, UsageError
from pipeline.core.text import duration
from pipeline.measure.sizing import Costs, JobOptions, segment_frames, size_job
from pipeline.measure.sizing_table import table_lines
from tests.conftest import gray, write_clip

RATE = Fraction(25)
FREE = Costs()
COSTS = Costs(
    clip_seconds=0.5,
    plan_frame_seconds=1e-5,
    plan_byte_seconds=1e-9,
    dispatch_seconds=1e-3,
    record_seconds=2e-2,
    record_byte_seconds=1e-9,
    join_frame_seconds=1e-5,
    join_byte_seconds=4e-9,
    segment_seconds=0.2,
)


def of_length(seconds: int, num_bytes: int = 1_000_000) -> ClipHeader:
    return ClipHeader(Path("clip.mp4"), 25 * seconds, RATE, num_bytes)


headers = st.lists(
    st.builds(of_length, st.integers(1, 3000), st.integers(1, 10**10)), min_size=1, max_size=6
)
options = st.builds(
    JobOptions,
    fps_per_core=st.floats(1, 200),
    cores=st.integers(4, 2000),
    cores_per_actor=st.integers(1, 4),
    segment_seconds=st.floats(10, 300),
    clips_at_once=st.integers(1, 4),
    bandwidth_bytes=st.none() | st.floats(1e7, 1e11),
)


def test_an_hour_of_footage_on_a_hundred_cores() -> None:
    job = JobOptions(fps_per_core=50, cores=120, cores_per_actor=2, price_per_core_hour=0.04)
    sizing = size_job([of_length(3600)], job, FREE)
    assert sizing.num_segments == 60
    assert sizing.core_seconds == pytest.approx(90_000 / 50)
    # Sixty segments of a minute, 1500 frames each, on as many actors of 100 frames per second.
    assert sizing.wall_seconds == pytest.approx(15)
    assert sizing.schedule.utilisation == pytest.approx(1)
    assert sizing.paid_core_seconds == pytest.approx(90_000 / 50)
    assert sizing.price == pytest.approx(0.5 * 0.04)


def test_more_cores_than_segments_can_use_change_nothing() -> None:
    hour = [of_length(3600)]
    enough, many = (
        size_job(hour, JobOptions(fps_per_core=50, cores=cores, cores_per_actor=2), FREE)
        for cores in (120, 10_000)
    )
    assert many.wall_seconds == enough.wall_seconds == enough.floor_seconds
    assert [limit.name for limit in many.limits] == ["segments"]
    assert many.limits[0].cores == pytest.approx(120)
    assert "shorter segments" in table_lines(many)[-1]


@pytest.mark.parametrize(
    ("name", "costs", "bandwidth"),
    [
        ("planning", Costs(plan_byte_seconds=1e-5), None),
        ("recording", Costs(record_seconds=10.0), None),
        ("joining", Costs(join_frame_seconds=1e-2), None),
        ("storage", FREE, 1e4),
    ],
)
def test_the_hardest_limit_is_named(name: str, costs: Costs, bandwidth: float | None) -> None:
    job = JobOptions(fps_per_core=50, cores=512, bandwidth_bytes=bandwidth)
    sizing = size_job([of_length(1200)] * 4, job, costs)
    hardest = sizing.limits[0]
    assert hardest.name == name
    assert hardest.seconds <= sizing.wall_seconds
    assert hardest.cores == pytest.approx(sizing.core_seconds / hardest.seconds)
    assert name in table_lines(sizing)[-1]


def test_more_clips_at_once_help_where_they_wait_for_each_other() -> None:
    clips = [of_length(120)] * 20
    one, ten = (
        size_job(clips, JobOptions(fps_per_core=50, cores=512, clips_at_once=number), COSTS)
        for number in (1, 10)
    )
    assert ten.wall_seconds < one.wall_seconds / 5


@settings(deadline=None)
@given(clips=headers, job=options)
def test_no_job_is_faster_than_its_limits(clips: list[ClipHeader], job: JobOptions) -> None:
    sizing = size_job(clips, job, COSTS)
    used = job.num_actors * job.cores_per_actor
    for bound in (sizing.core_seconds / used, sizing.longest_clip_seconds):
        assert bound <= sizing.wall_seconds * (1 + 1e-9)
    for limit in sizing.limits:
        assert limit.seconds <= sizing.floor_seconds * (1 + 1e-9)
    seconds = [limit.seconds for limit in sizing.limits]
    assert seconds == sorted(seconds, reverse=True)
    assert sum(clip.seconds for clip in clips) == pytest.approx(sizing.footage_seconds)
    assert all(line.isprintable() for line in table_lines(sizing))


@settings(deadline=None)
@given(seconds=st.integers(1, 10_000), segment_seconds=st.floats(5, 120))
def test_every_frame_lies_in_one_segment(seconds: int, segment_seconds: float) -> None:
    counts = segment_frames(of_length(seconds), segment_seconds)
    assert sum(counts) == 25 * seconds
    assert min(counts) > 0
    assert max(counts) <= 25 * 1.5 * segment_seconds + 25


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"fps_per_core": 0.0}, "--fps-per-core"),
        ({"cores": 3}, "--cores-per-actor"),
        ({"segment_seconds": -1.0}, "--segment-seconds"),
        ({"bandwidth_bytes": float("nan")}, "bandwidth"),
        ({"price_per_core_hour": -1.0}, "price"),
        ({"clips_at_once": 0}, "--clips-at-once"),
    ],
)
def test_options_that_cannot_be_are_refused(changed: dict[str, float], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        dataclasses.replace(JobOptions(fps_per_core=50, cores=8), **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_a_header_says_how_long_a_clip_is(tmp_path: Path, suffix: str) -> None:
    clip = write_clip(tmp_path / f"clip{suffix}", [gray(i) for i in range(100)])
    header = read_header(clip)
    assert header.num_frames == pytest.approx(100, abs=2)
    assert header.seconds == pytest.approx(4, abs=0.1)
    assert header.num_bytes == clip.stat().st_size


def test_a_clip_that_does_not_say_how_long_it_is_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.ivf", [gray(0)] * 3, codec="libvpx-vp9")
    stream = clip.read_bytes()
    # The number of frames in the header, of a file that was never closed.
    clip.write_bytes(stream[:24] + bytes(8) + stream[32:])
    with pytest.raises(InputError, match="does not contain its length"):
        read_header(clip)


def test_footage_is_planned_by_its_headers_and_what_is_none_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    folder = tmp_path / "footage" / "deeper"
    folder.mkdir(parents=True)
    write_clip(tmp_path / "footage" / "a.mp4", [gray(0)] * 50)
    write_clip(folder / "b.mp4", [gray(0)] * 100)
    (folder / "c.mp4").write_bytes(b"no clip")
    monkeypatch.setattr("pipeline.frames.decode.VideoReader.__init__", never)
    command = ["plan", str(tmp_path / "footage"), "--fps-per-core", "50", "--cores", "8"]
    assert main([*command, "--bandwidth", "100", "--price-per-core-hour", "0.05"]) == 0
    out, err = capsys.readouterr()
    rows = {line[:13].strip(): line[13:] for line in out.splitlines()}
    assert rows["footage"].startswith("2 clips, 6 s, 150 frames")
    assert "2 actors of 4 cores" in rows["wall time"]
    assert "in 2 segments" in rows["work"]
    assert "per hour of footage" in rows["price"]
    assert "c.mp4: not a video" in err


def test_what_there_is_one_of_is_not_called_many() -> None:
    job = JobOptions(fps_per_core=50, cores=1, cores_per_actor=1)
    text = "\n".join(table_lines(size_job([ClipHeader(Path("clip.mp4"), 1, RATE, 9)], job, FREE)))
    assert "1 clip, 0.04 s, 1 frame," in text
    assert "in 1 segment\n" in text
    assert "with 1 actor of 1 core, busy" in text
    assert "reached with 1 core\n" in text
    assert "With more than 1 core, as here," in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.56, "2.56 s"),
        (99, "99 s"),
        (100, "1.67 min"),
        (750, "12.5 min"),
        (6000, "1.7 h"),
        (4_444_200, "1,234.5 h"),
    ],
)
def test_a_time_is_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_without_a_clip_there_is_no_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.mp4"
    path.write_bytes(b"no clip")
    assert main(["plan", str(path), "--fps-per-core", "50", "--cores", "8"]) == 1
    assert "not a video" in capsys.readouterr().err
