"""Segments worked on by a Ray cluster: the same result, whoever is lost on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import av
import cv2
import psutil
import pytest

from pipeline.cli.commands import main
from pipeline.cli.process import process_in_child
from pipeline.core.config import (
    MOST_ATTEMPTS,
    ClusterOptions,
    DetectOptions,
    EncodeOptions,
    InferOptions,
    LimitOptions,
    ProcessConfig,
    RedactOptions,
    RemoteOptions,
)
from pipeline.core.errors import InputError, ModelError, UsageError, WorkerDied
from pipeline.core.machine import available_cores, versions
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.position import Position
from pipeline.core.progress import Progress, no_progress
from pipeline.core.work_folder import WORK_NAME, is_held
from pipeline.execution.segment_actor import SegmentActor
from pipeline.execution.supervise import supervise
from pipeline.run.process import process_video
from pipeline.run.report_files import Report
from tests.buckets import a_bucket, settings_of
from tests.commands import Command
from tests.commands import run as run_command
from tests.conftest import process, read_detections, video_times, write_clip
from tests.recordings import Track, numbered, record_with_tracks, tracks_of
from tests.schemas import schema_errors
from tests.toy_actor import Toy
from tests.toy_run import hold_at, hold_clip, process_at_most

# Imported where it is used: one process of the tests needs it, and all of them load this module.
if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

    from pipeline.execution.cluster.pool import ActorPool
    from pipeline.execution.ray import RayExecutor

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning:ray", "ignore::FutureWarning:ray"),
]

NUM_FRAMES = 240
NUM_SEGMENTS = 12
SEGMENT_FRAMES = NUM_FRAMES // NUM_SEGMENTS
NO_LOGS = {"include_log_monitor": False}
"""A process less for every node, which nothing here reads."""
OPTIONS: dict[str, Any] = {
    "segment_seconds": 0.8,
    "infer": InferOptions(precision="f32"),
    "encode": EncodeOptions(threads=1),
}
PROJECT = Path(__file__).resolve().parents[1]
LOOK_SECONDS = 0.03
"""Between two looks at all processes, which cost milliseconds each."""

Started = TypeVar("Started")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cache_of_the_nodes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def cluster(cache: Path, s3_server: str) -> Iterator[Cluster]:
    """A head that does no work, and two nodes with a core each; its actors import this project."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings_of(s3_server).items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {"num_cpus": 0, "include_dashboard": False, "no_monitor": True, **NO_LOGS}
        cluster = in_two_attempts(lambda: Cluster(initialize_head=True, head_node_args=head))
        for _ in range(2):
            add_node(cluster)
        yield cluster
        cluster.shutdown()  # type: ignore[no-untyped-call]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # It leaves its logs open.
            gc.collect()


def add_node(cluster: Cluster) -> None:
    in_two_attempts(lambda: cluster.add_node(num_cpus=1, **NO_LOGS))


def in_two_attempts(start: Callable[[], Started]) -> Started:
    """What Ray starts, where it gives up after 30 s on processes that have come to nothing yet."""
    before = {*psutil.Process().children()}
    try:
        return start()
    except Exception as error:
        if "timed out during startup" not in str(error):  # As Ray says it.
            raise
    for late in {*psutil.Process().children()} - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            late.kill()
    return start()


def with_sound(folder: Path, num_frames: int, enlarged: int = 1) -> Path:
    """Numbered frames with sound and a key frame at every tenth: segments of twenty frames."""
    options = {"g": "10", "sc_threshold": "0", "preset": "ultrafast", "bf": "3"}
    images = [
        numbered(i).repeat(enlarged, axis=0).repeat(enlarged, axis=1) for i in range(num_frames)
    ]
    silent = write_clip(folder / "a.mp4", images, options=options)
    sound = record_with_tracks(folder / "b.mp4", [], [Track("aac")])
    path = folder / "clip.mp4"
    with av.open(str(silent)) as a, av.open(str(sound)) as b, av.open(str(path), "w") as out:
        packets = []
        for source, stream in ((a, a.streams.video[0]), (b, b.streams.audio[0])):
            target = out.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.size:
                    packets.append((float(packet.dts * packet.time_base), target, packet))
        for _, target, packet in sorted(packets, key=lambda entry: entry[0]):
            packet.stream = target
            out.mux(packet)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 small frames: three segments."""
    return with_sound(tmp_path_factory.mktemp("short"), 60)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames: twelve segments, large enough for something to happen meanwhile."""
    return with_sound(tmp_path_factory.mktemp("clip"), NUM_FRAMES, enlarged=4)


def done_here(clip: Path, weights: Path, cache: Path, out: Path) -> Path:
    """What the local executor gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        process(clip, out, weights, **OPTIONS)
    return out


@pytest.fixture(scope="module")
def clean_short(
    short: Path, tiny_weights: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return done_here(short, tiny_weights, cache, tmp_path_factory.mktemp("clean") / "out")


@pytest.fixture(scope="module")
def clean(
    clip: Path, tiny_weights: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return done_here(clip, tiny_weights, cache, tmp_path_factory.mktemp("clean") / "out")


def config_of(
    cluster: Cluster, source: Path | PictureSequence, out: Path, weights: Path, **options: Any
) -> ProcessConfig:
    return ProcessConfig(
        source=source,
        output_dir=out,
        weights=weights,
        cluster=ClusterOptions(address=cluster.address, cores_per_actor=1),
        **{**OPTIONS, **options},
    )


class OneExecutor:
    """An executor for run after run, as a batch has it: the actors are those of the run before."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._executor: RayExecutor | None = None

    def run(
        self,
        source: Path | PictureSequence,
        out: Path,
        weights: Path,
        on_progress: Callable[[Progress], None] = no_progress,
        **options: Any,
    ) -> Report:
        from pipeline.execution.ray import RayExecutor

        config = config_of(self.cluster, source, out, weights, **options)
        if self._executor is None:
            assert config.cluster is not None
            self._executor = RayExecutor(config.cluster, Position())
        return process_video(config, on_progress, executor=self._executor)

    def close(self) -> None:
        """Leave the cores of the cluster to others, and this process without a cluster."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None


Run = Callable[..., Report]


@pytest.fixture(scope="module")
def one_executor(cluster: Cluster) -> Iterator[OneExecutor]:
    executor = OneExecutor(cluster)
    yield executor
    executor.close()


@pytest.fixture
def run(one_executor: OneExecutor) -> Run:
    return one_executor.run


@pytest.fixture
def vacant(one_executor: OneExecutor) -> Cluster:
    """The cluster without any actors."""
    one_executor.close()
    return one_executor.cluster


def after_frames(number: int, act: Callable[[], object]) -> Callable[[Progress], None]:
    """Acts once, when so many frames are done."""
    acted = False

    def tell(progress: Progress) -> None:
        nonlocal acted
        if progress.stage == "frames" and progress.done >= number and not acted:
            acted = True
            act()

    return tell


def assert_same(out: Path, clean: Path) -> None:
    """Frame for frame: pictures, time stamps, detections and sound."""
    ours, theirs = out / "annotated.mp4", clean / "annotated.mp4"
    assert (out / "detections.jsonl").read_bytes() == (clean / "detections.jsonl").read_bytes()
    assert video_times(ours) == video_times(theirs)
    assert tracks_of(ours, "video") == tracks_of(theirs, "video")
    assert tracks_of(ours, "audio") == tracks_of(theirs, "audio") != []
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert schema_errors("report", report) == []
    assert not (out / WORK_NAME).exists()


def actors(does: str = "") -> list[psutil.Process]:
    """The actors that are at this call, or all; their nodes are children of this process."""
    found = []
    for candidate in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = (candidate.cmdline() or [""])[0]
            if title.startswith(f"ray::SegmentActor{does}"):
                found.append(candidate)
    return found


def at_work() -> list[psutil.Process]:
    """The actors that are at a segment."""
    return actors(".run")


def kill_one() -> None:
    while True:
        for actor in at_work() or actors():  # All segments may be done by now.
            with contextlib.suppress(psutil.NoSuchProcess):
                actor.kill()
                return
        time.sleep(LOOK_SECONDS)


def a_node_at_work(cluster: Cluster) -> Any:
    while True:
        for actor in at_work() or actors():
            with contextlib.suppress(psutil.NoSuchProcess):
                raylet = actor.ppid()
                for node in cluster.worker_nodes:
                    if raylet in {process.process.pid for process in node.all_processes["raylet"]}:
                        return node
        time.sleep(LOOK_SECONDS)


# The same result


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, set()),
        ({"track": "bytetrack"}, {"weak.jsonl"}),
        ({"redact": RedactOptions(covered=("light",))}, {"weak.jsonl", "covers.jsonl"}),
    ],
    ids=["plain", "tracks", "redacted"],
)
def test_pictures_give_on_a_cluster_what_they_give_here(
    run: Run, tmp_path: Path, tiny_weights: Path, options: dict[str, Any], more: set[str]
) -> None:
    """With tracks, and where things are covered, the second pass draws on the cluster too."""
    folder = tmp_path / "shots"
    folder.mkdir()
    for index in range(40):
        cv2.imwrite(str(folder / f"{index}.png"), numbered(index)[..., ::-1])
    pictures = PictureSequence(folder=folder, frame_rate=Fraction(25))
    here, there = tmp_path / "here", tmp_path / "there"
    process(pictures, here, tiny_weights, **OPTIONS, **options)
    report = run(pictures, there, tiny_weights, **options)
    assert report["segments"]["number"] == 2
    names = {"annotated.mp4", "detections.jsonl", *more}
    assert names < {path.name for path in there.iterdir()}
    for name in names:
        assert (there / name).read_bytes() == (here / name).read_bytes()


def test_a_picture_gives_on_a_cluster_what_it_gives_here(
    run: Run, tmp_path: Path, tiny_weights: Path
) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), numbered(5)[..., ::-1])
    process(path, tmp_path / "here", tiny_weights, **OPTIONS)
    run(path, tmp_path / "there", tiny_weights)
    for name in ("annotated.png", "detections.jsonl"):
        here, there = (tmp_path / folder / name for folder in ("here", "there"))
        assert there.read_bytes() == here.read_bytes()


@pytest.mark.parametrize("sampler", [{"every": 3}, {"adaptive": True}], ids=str)
def test_a_slice_a_crop_and_tiles_give_on_a_cluster_what_they_give_here(
    sampler: dict[str, Any], run: Run, short: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    detect = DetectOptions(roi="0,0,0.6,1", roi_crop=True)
    options = {**sampler, "start": "3f", "end": "46f", "detect": detect, "tile": 64}
    here, there = tmp_path / "here", tmp_path / "there"
    process(short, here, tiny_weights, **OPTIONS, **options)
    report = run(short, there, tiny_weights, **options)
    assert report["segments"]["number"] == 2
    assert_same(there, here)
    assert (there / "detections.jsonl").read_bytes().count(b"light")


def test_a_cluster_gives_what_one_machine_gives(
    run: Run, clip: Path, clean: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    report = run(clip, tmp_path / "out", tiny_weights)
    assert_same(tmp_path / "out", clean)
    assert report["segments"]["number"] == NUM_SEGMENTS
    used = report["configuration"]
    assert used["executor"] == "ray"
    assert used["nodes"] in (1, 2)  # A quick one may have done all before the other is there.
    assert used["segments_at_once"] == used["cores"] <= used["nodes"]
    assert (used["num_threads"], used["pinning"]) == (1, False)
    # Actors are not bound to their cores; the share is of those, and at most all are busy.
    assert 0 < report["speed"]["cores_busy"] <= 1.05 * available_cores() / used["cores"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    results = {"annotated.mp4", "detections.jsonl", "report.json", "report.html"}
    assert names == results | {"viewer.html", "viewer_data"}


def test_what_is_inferred_adaptively_is_the_same_on_a_cluster(
    run: Run, short: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    here = process(short, tmp_path / "here", tiny_weights, adaptive=True, **OPTIONS)
    there = run(short, tmp_path / "there", tiny_weights, adaptive=True)
    assert_same(tmp_path / "there", tmp_path / "here")
    assert [here[key] for key in ("audit", "detections")] == [
        there[key] for key in ("audit", "detections")
    ]


def test_the_first_frames_of_a_clip_are_one_segment(
    run: Run, short: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    report = run(short, tmp_path / "out", tiny_weights, num_frames=50)
    assert report["segments"]["number"] == 1
    assert report["output"]["num_frames"] == len(read_detections(tmp_path / "out")) == 50


def test_a_relative_path_is_the_same_file_on_every_node(
    run: Run,
    short: Path,
    clean_short: Path,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(short.parent)
    out = Path(os.path.relpath(tmp_path / "out"))
    run(Path(short.name), out, tiny_weights)
    assert_same(tmp_path / "out", clean_short)


def test_with_a_store_no_folder_is_shared(
    short: Path,
    clean_short: Path,
    tmp_path: Path,
    tiny_weights: Path,
    s3_server: str,
    vacant: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in settings_of(s3_server).items():
        monkeypatch.setenv(name, value)
    with a_bucket() as store:
        store.put_file(str(short), "footage/clip.mp4")
        config = dataclasses.replace(
            config_of(vacant, Path("clip.mp4"), tmp_path / "scratch", tiny_weights),
            remote=RemoteOptions(source_url="s3://footage/clip.mp4", output_url="s3://footage/out"),
        )
        process_in_child(config, no_progress, Position())
        (tmp_path / "out").mkdir()
        for name in store.find("footage/out"):
            store.get_file(name, str(tmp_path / "out" / Path(name).name))
    assert_same(tmp_path / "out", clean_short)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    page = {"viewer.html", "index.js", "00000.js", "events.js"}
    assert names == page | {"annotated.mp4", "detections.jsonl", "report.json", "report.html"}
    assert not (tmp_path / "scratch").exists()


# Whoever is lost


@pytest.mark.alone
def test_a_driver_that_is_killed_goes_on_with_what_was_done(
    vacant: Cluster,
    one_executor: OneExecutor,
    clip: Path,
    clean: Path,
    tmp_path: Path,
    tiny_weights: Path,
) -> None:
    out = tmp_path / "out"
    config = config_of(vacant, clip, out, tiny_weights)
    journal = out / WORK_NAME / "journal.jsonl"
    work = functools.partial(process_at_most, 3 * SEGMENT_FRAMES)
    with driving(before=functools.partial(supervise, work, config, no_progress)) as driver:
        while driver.poll() is None and number_of_lines(journal) < 2:
            time.sleep(0.005)
        assert driver.poll() is None, driver.communicate()
    while is_held(out) or at_work():  # The worker of the driver ends a moment after it.
        time.sleep(LOOK_SECONDS)
    report = one_executor.run(clip, out, tiny_weights)
    assert report["segments"]["done_before"] == 2
    assert_same(out, clean)


@contextlib.contextmanager
def driving(*arguments: object, **options: Any) -> Iterator[Command]:
    """A command, which is killed in the end if it is still there."""
    with Command(*arguments, **options) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def number_of_lines(path: Path) -> int:
    """0 for a file that is not there, or not any more."""
    with contextlib.suppress(FileNotFoundError):
        return len(path.read_bytes().splitlines())
    return 0


def test_an_actor_that_dies_costs_its_segment_only(
    run: Run, clip: Path, clean: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    report = run(clip, tmp_path / "out", tiny_weights, after_frames(20, kill_one))
    assert report["segments"]["number"] == NUM_SEGMENTS
    assert_same(tmp_path / "out", clean)


@pytest.mark.alone
def test_a_node_that_leaves_and_one_that_joins(
    run: Run, cluster: Cluster, clip: Path, clean: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    def change() -> None:
        cluster.remove_node(a_node_at_work(cluster), allow_graceful=False)
        add_node(cluster)

    run(clip, tmp_path / "out", tiny_weights, after_frames(20, change))
    assert_same(tmp_path / "out", clean)


def test_a_segment_that_costs_one_actor_after_the_other_is_given_up(
    run: Run, clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    stop = threading.Event()

    def kill_all() -> None:
        while not stop.is_set():
            for actor in at_work():
                with contextlib.suppress(psutil.NoSuchProcess):
                    actor.kill()
            time.sleep(LOOK_SECONDS)

    slow = EncodeOptions(preset="placebo", threads=1)  # No actor is done before it is killed.
    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(WorkerDied) as caught:
            run(clip, tmp_path / "out", tiny_weights, segment_seconds=60.0, encode=slow)
    finally:
        stop.set()
        killer.join()
    message = str(caught.value)
    assert f"segment 0 of {clip} failed on {MOST_ATTEMPTS} actors" in message
    assert "died, possibly out of memory" in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()


# What cannot work


def test_a_clip_that_cannot_be_read_is_told_of_as_ever(
    run: Run, tmp_path: Path, tiny_weights: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(bytes(1000))
    with pytest.raises(InputError, match=r"broken\.mp4"):
        run(broken, tmp_path / "out", tiny_weights)
    assert not (tmp_path / "out").exists()


def test_an_error_of_a_segment_is_not_tried_again(
    run: Run, short: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    limits = LimitOptions(max_memory_mb=1)
    infer = InferOptions(precision="f32", num_requests=100)
    with pytest.raises(InputError, match="more than --max-memory 1"):
        run(short, tmp_path / "out", tiny_weights, limits=limits, infer=infer)


def test_a_cluster_that_does_not_start_in_time_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipeline.execution.ray import RayExecutor

    def late(**_: Any) -> None:
        raise Exception("The current node timed out during startup")  # As Ray raises it.

    monkeypatch.setattr("ray.init", late)
    with pytest.raises(UsageError, match=r"does not start here .*timed out"):
        RayExecutor(ClusterOptions(address="local"), Position())


def test_output_that_the_nodes_do_not_see_is_refused_by_name(
    run: Run,
    short: Path,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # Where the nodes are not.
    with pytest.raises(InputError) as caught:
        run(short, Path("/proc/self/cwd/out"), tiny_weights)
    message = str(caught.value)
    assert message.startswith("node ")
    assert "does not see the output folder /proc/self/cwd/out" in message
    assert "storage that all nodes share" in message


def test_input_that_the_nodes_do_not_see_is_refused_by_name(
    run: Run,
    short: Path,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(short.parent)
    with pytest.raises(InputError, match=r"node .* cannot read /proc/self/cwd/clip\.mp4"):
        run(Path("/proc/self/cwd/clip.mp4"), tmp_path / "out", tiny_weights)


def test_a_node_with_other_versions_is_refused() -> None:
    worker = SegmentActor(1, {**versions(), "openvino": "1.0"})
    error = worker.start("node n7 (abc)")
    assert isinstance(error, UsageError)
    assert "node n7 (abc) has openvino" in str(error)
    assert "instead of 1.0" in str(error)
    assert SegmentActor(1, versions()).start("node n7 (abc)") is None


def test_a_cluster_that_is_not_there_is_told_of(
    short: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    nowhere = ClusterOptions(address="127.0.0.1:1")
    with pytest.raises(UsageError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        process(short, tmp_path / "out", tiny_weights, cluster=nowhere)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            ClusterOptions(address="local", cores_per_actor=999),
            "--cores-per-actor 999: this machine",
        ),
        (ClusterOptions(address="ray://127.0.0.1:10001"), "give HOST:PORT of the head"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_refused_at_once(
    short: Path, tmp_path: Path, tiny_weights: Path, options: ClusterOptions, complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        process(short, tmp_path / "out", tiny_weights, cluster=options)


def test_without_ray_the_extra_is_named(
    short: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.execution.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="a cluster needs the extra ray: pip install ray"):
        process(short, tmp_path / "out", tiny_weights, cluster=ClusterOptions())


def test_options_of_a_cluster_are_not_for_one_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["process", "clip.mp4", "--address", "10.0.0.1:6379"]) == 2
    assert "--address and --cores-per-actor are for --executor ray" in capsys.readouterr().err


def test_pytorch_is_not_for_a_cluster(
    run: Run, short: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    with pytest.raises(UsageError, match="a cluster runs the model in OpenVINO"):
        run(short, tmp_path / "out", tiny_weights, infer=InferOptions(engine="pytorch"))


# The end


@pytest.mark.alone
def test_an_interrupted_run_leaves_no_process_and_no_output(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    """By Ctrl-C; of other signals, the process that uses Ray gets the same one."""
    command = [
        *("process", clip, "--output-dir", tmp_path / "out", "--weights", tiny_weights),
        *("--segment-seconds", "0.8", "--executor", "ray", "--address", "local"),
    ]
    journal = tmp_path / "out" / WORK_NAME / "journal.jsonl"
    with driving(*command, before=functools.partial(hold_at, 2 * SEGMENT_FRAMES)) as driver:
        while driver.poll() is None and not number_of_lines(journal):
            time.sleep(0.005)
        assert driver.poll() is None, driver.communicate()
        family = psutil.Process(driver.pid).children(recursive=True)
        assert any(is_raylet(process) for process in family)
        driver.send_signal(signal.SIGINT)
        errors = driver.communicate()[1]
    assert driver.returncode == 128 + signal.SIGINT
    assert "rerun the command to resume" in errors.splitlines()[-1]
    assert not (tmp_path / "out" / "annotated.mp4").exists()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def is_raylet(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.name() == "raylet")
    return False


# Many clips


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten clips of their own lengths, two of which are broken."""
    folder = tmp_path_factory.mktemp("footage")
    clips = []
    for number in range(10):
        images = [numbered(i).repeat(4, axis=0).repeat(4, axis=1) for i in range(20 + number)]
        clips.append(write_clip(folder / f"{number}.mp4", images, options={"preset": "ultrafast"}))
    for number in BROKEN:
        clips[number].write_bytes(clips[number].read_bytes()[:100])
    return clips


BROKEN = (3, 7)


def batch_command(cluster: Cluster, clips: list[Path], out: Path, weights: Path) -> list[str]:
    return [
        *("process", str(clips[0].parent)),
        *("--output-dir", str(out), "--weights", str(weights), "--precision", "f32"),
        *("--executor", "ray", "--address", cluster.address, "--cores-per-actor", "1"),
    ]


def folders_of(out: Path) -> Iterator[Path]:
    """All folders but those in work folders; some may be removed meanwhile."""
    for folder, below, _ in os.walk(out):
        below[:] = [name for name in below if name != WORK_NAME]
        yield Path(folder)


def lines_in(out: Path, name: str) -> dict[str, int]:
    """The number of lines of the files of this name, by clip."""
    found = {folder.stem: number_of_lines(folder / name) for folder in folders_of(out)}
    return {clip: lines for clip, lines in found.items() if lines}


def done_clips(out: Path) -> dict[str, int]:
    """The number of frames of each clip that is done.

    One that is being moved into place has its files, but its work folder too.
    """
    found = lines_in(out, "detections.jsonl")
    begun = clips_begun(out)  # After that: what has files and no work folder any more is done.
    return {clip: lines for clip, lines in found.items() if clip not in begun}


def clips_begun(out: Path) -> set[str]:
    """The clips with finished segments in their work folders."""
    return {*lines_in(out, f"{WORK_NAME}/journal.jsonl")}


def test_of_many_clips_the_whole_ones_are_done_together_and_the_others_told_of(
    vacant: Cluster, footage: list[Path], tmp_path: Path, tiny_weights: Path
) -> None:
    command = batch_command(vacant, footage, tmp_path / "out", tiny_weights)
    found = run_command(*command, timeout=200)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1] == "pipeline: 2 of 10 clips failed"
    assert found.stdout.startswith("8 of 10 clips done; 2 failed")
    whole = {str(n): 20 + n for n in range(10) if n not in BROKEN}
    assert done_clips(tmp_path / "out") == whole
    # As one machine has them.
    local = tmp_path / "local"
    process(footage[9], local, tiny_weights, **OPTIONS)
    (ours,) = (tmp_path / "out").rglob("9.mp4/detections.jsonl")
    assert ours.read_bytes() == (local / "detections.jsonl").read_bytes()


def test_many_clips_that_were_interrupted_go_on_with_the_same_command(
    vacant: Cluster, footage: list[Path], tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    command = batch_command(vacant, footage, out, tiny_weights)
    with driving(*command, before=functools.partial(hold_clip, "9.mp4")) as driver:
        while driver.poll() is None and not done_clips(out):
            time.sleep(0.005)
        driver.send_signal(signal.SIGTERM)
        errors = driver.communicate()[1]
    assert driver.returncode == 128 + signal.SIGTERM
    done = len(done_clips(out))
    assert done
    assert f"interrupted; {done} of 10 clips" in errors.splitlines()[-1]
    kept = {folder.stem for folder in folders_of(out) if (folder / WORK_NAME).exists()}
    assert kept == clips_begun(out), "a work folder was kept that saves no work"
    again = run_command(*command, timeout=200)
    assert again.returncode == 1
    assert f"{8 - done} of 10 clips done; {done} skipped" in again.stdout
    assert len(done_clips(out)) == 8


# The pool of actors by itself


@pytest.fixture
def pool(
    vacant: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ActorPool[str, str]]:
    """None of its actors is late: each line of the log is one that was needed."""
    import ray

    from pipeline.execution.cluster.pool import ActorPool

    monkeypatch.setattr("pipeline.execution.cluster.growth.LATE_SECONDS", 1000.0)
    ray.init(address=vacant.address, log_to_driver=False, logging_level=logging.ERROR)
    pool: ActorPool[str, str] = ActorPool(Toy, (tmp_path / "log",), cores=1)
    yield pool
    pool.close()
    ray.shutdown()


def test_actors_are_spread_over_the_nodes_and_no_more_than_there_are_jobs(
    pool: ActorPool[str, str],
) -> None:
    from pipeline.execution.cluster.nodes import node_name, nodes_alive

    nodes = {pool.submit("", f"job {i}").result(200) for i in range(1)}
    assert pool.num_actors == 1
    nodes |= {future.result(200) for future in [pool.submit("", "job") for _ in range(20)]}
    assert nodes <= {
        node_name(node["NodeManagerHostname"], node_id) for node_id, node in nodes_alive().items()
    }


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("die", "died"),
        pytest.param("hang", "it hangs", marks=pytest.mark.slow),
        pytest.param("raise", "out of order", marks=pytest.mark.slow),
    ],
)
def test_a_job_goes_to_another_node_and_is_given_up_in_the_end(
    pool: ActorPool[str, str], tmp_path: Path, order: str, reason: str
) -> None:
    with pytest.raises(WorkerDied, match=f"job 7 failed on 3 actors: .*{reason}"):
        pool.submit(order, "job 7").result(200)
    starts = (tmp_path / "log").read_text().splitlines()
    assert len(starts) == MOST_ATTEMPTS
    assert starts[0] != starts[1]
    assert pool.submit("", "job 8").result(200)


def asked_for() -> object:
    """What the cluster's autoscaler was asked for last."""
    from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    return json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "[]")


def test_the_autoscaler_is_asked_for_room_while_there_are_jobs(
    pool: ActorPool[str, str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "job")
    future = pool.submit(f"read {tmp_path / 'job'}", "job")
    with (tmp_path / "job").open("w"):  # Once the actor has opened it.
        assert asked_for() == [{"CPU": 1}]
    assert future.result(200)
    pool.close()
    assert asked_for() == []


def test_an_error_leaves_the_actor_as_it_is(pool: ActorPool[str, str], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no"):
        pool.submit("fail", "job").result(200)
    assert pool.submit("", "job").result(200)
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_actors_that_nothing_fits_are_told_of(
    vacant: Cluster,
    short: Path,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.execution.cluster.growth.NO_ACTOR_SECONDS", 1.0)
    large = ClusterOptions(address=vacant.address, cores_per_actor=64)
    with pytest.raises(UsageError, match="no node of the cluster has 64 cores"):
        process(short, tmp_path / "out", tiny_weights, cluster=large)
