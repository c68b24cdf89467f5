"""What the tests share: a model made on the spot, clips written on the spot, and shared data."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import openvino as ov
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from openvino import opset13 as ops

from pipeline.core.config import ProcessConfig, SyntheticOptions
from pipeline.core.errors import Interrupted, PipelineError
from pipeline.core.machine import available_cores
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.execution.child import Work
from pipeline.frames.encode import ordinary_priority
from pipeline.media.frame import ColorTags, VideoInfo
from pipeline.model.prepare import PreparedModel
from pipeline.model.stored_head import layout_json
from pipeline.model.yolov5 import HeadLayout, YOLOv5Head
from pipeline.run.process import process_video
from pipeline.run.report_files import Report

# How long a case takes says something about what else the machine does.
settings.register_profile(
    "new cases",
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
# A change is judged by the cases of the change before it.
settings.register_profile(
    "same cases", settings.get_profile("new cases"), derandomize=True, database=None
)
settings.load_profile("same cases")

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHECKPOINT = SHARED / "weights" / "yolov5n.pt"

DEMO = Path(__file__).resolve().parents[1] / "samples" / "demo.pt"

needs_demo = pytest.mark.skipif(not DEMO.is_file(), reason="needs the demo model samples/demo.pt")
needs_checkpoint = pytest.mark.skipif(
    not CHECKPOINT.is_file(), reason="needs the official checkpoint in ../shared/weights"
)
needs_shared_media = pytest.mark.skipif(
    not (SHARED / "videos").is_dir(), reason="needs the clips in ../shared/videos"
)

TINY_INPUT_WH = (128, 96)
RESULT_NAMES = [
    "annotated.mp4",
    "detections.jsonl",
    "report.html",
    "report.json",
    "viewer.html",
    "viewer_data",
]
"""What the output folder of a clip has, by name."""
TINY_LAYOUT = HeadLayout(
    class_names=("light", "shade"),
    anchors_px=(((8.0, 8.0),) * 3, ((16.0, 16.0),) * 3, ((32.0, 32.0),) * 3),
    strides=(8, 16, 32),
)


def light_detector(
    input_wh: tuple[int, int] = TINY_INPUT_WH, *, wide_boxes: bool = False
) -> ov.Model:
    """A raw-head model that needs no checkpoint: it sees a "light" in every bright 8x8 cell.

    The first anchor of head 8 has objectness 40 (mean brightness - 0.5); its box is the cell
    itself, because all box logits are 0; wide boxes are 32 pixels wide and high around it, and
    so overlap those of its neighbours. Nothing else ever passes a threshold.
    """
    width, height = input_wh
    image = ops.parameter([1, height, width, 3], np.uint8, name="images")
    scaled = ops.multiply(ops.convert(image, "f32"), np.float32(1 / 255))
    nchw = ops.transpose(scaled, np.array([0, 3, 1, 2]))
    heads = []
    values = TINY_LAYOUT.num_values
    for stride in TINY_LAYOUT.strides:
        kernel = np.zeros((3 * values, 3, stride, stride), np.float32)
        bias = np.full((1, 3 * values, 1, 1), -20.0, np.float32)
        bias[0, [a * values + i for a in range(3) for i in range(4)]] = 0.0
        if stride == 8:
            kernel[4] = 40.0 / (3 * stride * stride)
            bias[0, 4], bias[0, 5] = -20.0, 10.0
            bias[0, 2:4] = 20.0 if wide_boxes else 0.0
        conv = ops.convolution(nchw, kernel, [stride, stride], [0, 0], [0, 0], [1, 1])
        heads.append(ops.transpose(ops.add(conv, bias), np.array([0, 2, 3, 1])))
    model = ov.Model(heads, [image], "light_detector")
    model.set_rt_info(layout_json(TINY_LAYOUT), ["pipeline", "head_layout"])
    return model


def prepared_light_detector(folder: Path) -> PreparedModel:
    """The light detector as `prepare_model` gives it."""
    return PreparedModel(
        model=light_detector(),
        head=YOLOv5Head(TINY_LAYOUT),
        source_wh=TINY_INPUT_WH,
        input_wh=TINY_INPUT_WH,
        weights=folder / "light.xml",
        weights_sha256="0" * 64,
        compiled_cache_dir=folder / "compiled",
    )


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The light detector as an IR file, to be given as --weights."""
    path = tmp_path_factory.mktemp("tiny") / "light.xml"
    ov.save_model(light_detector(), path, compress_to_fp16=False)
    return path


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an object store on this machine, which speaks S3."""
    moto = pytest.importorskip("moto.server", reason="needs moto, flask and flask-cors")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all workers of xdist, so that each model is converted and compiled once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return folder / "cache-of-the-tests"


@pytest.fixture(scope="session", autouse=True)
def _cache_of_shared_fixtures(cache_of_the_tests: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache_of_the_tests))
        yield


@pytest.fixture(autouse=True)
def _own_cache(cache_of_the_tests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests, and the tests out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_of_the_tests))
    monkeypatch.delenv("PIPELINE_WEIGHTS", raising=False)


@pytest.fixture(autouse=True, scope="module")
def _what_is_loaded_is_no_garbage() -> None:
    """Keep what modules loaded since collection, and what the tests before left, out of garbage
    collection too."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _work_in_the_process_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what main() does where the tests can patch it and measure its coverage.

    The commands that tests run as commands have their worker.
    """

    def here(work: Work[Any], config: ProcessConfig, on_progress: ProgressCallback) -> Any:
        return work(config, on_progress, Position())

    class WorkerHere:
        def __init__(
            self, work: Work[Any], at_end: Callable[[], object] = lambda: None, _: int = 1
        ) -> None:
            self._work, self._at_end = work, at_end

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            self._at_end()

        def run(self, config: ProcessConfig, on_progress: ProgressCallback) -> Any:
            return self._work(config, on_progress, Position())

        def run_each(
            self, configs: Iterable[ProcessConfig], on_progress: Callable[[int, Progress], None]
        ) -> Iterator[tuple[int, Any]]:
            for number, config in enumerate(configs):
                try:
                    outcome = self.run(config, functools.partial(on_progress, number))
                except Interrupted:
                    raise
                except PipelineError as error:
                    outcome = error
                yield number, outcome

        def require_not_stopped(self) -> None:
            pass

    monkeypatch.setattr("pipeline.cli.process.supervise", here)
    monkeypatch.setattr("pipeline.cli.render.supervise", here)
    monkeypatch.setattr("pipeline.cli.process.ChildProcess", WorkerHere)
    monkeypatch.setattr("pipeline.cli.cutting.ChildProcess", WorkerHere)


def write_clip(
    path: Path,
    images: list[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    pts: list[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB pictures (height, width, 3) into a clip; pts are in ticks of 1/rate."""
    with (
        ordinary_priority(),
        av.open(str(path), "w", options=container_options or {}) as container,
    ):
        stream: Any = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = pts[index] if pts else index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def yolov5_head(prepared: PreparedModel) -> YOLOv5Head:
    assert isinstance(prepared.head, YOLOv5Head)
    return prepared.head


def whole_heads(
    prepared: PreparedModel, outputs: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """(rows, columns, anchors * values) per stride, from what a model gives for one picture."""
    convolutions = yolov5_head(prepared).convolutions
    if not convolutions:
        return list(outputs)
    heads = []
    for convolution, objectness, features in zip(
        convolutions, outputs[::2], outputs[1::2], strict=True
    ):
        head = np.einsum("rcf,avf->rcav", features, convolution.weight) + convolution.bias
        np.testing.assert_allclose(objectness, head[..., 4], rtol=1e-2, atol=0.1)
        heads.append(head.reshape(*objectness.shape[:2], -1).astype(np.float32))
    return heads


def gray(level: int, size_wh: tuple[int, int] = TINY_INPUT_WH) -> NDArray[np.uint8]:
    """A plain picture."""
    return np.full((size_wh[1], size_wh[0], 3), level, np.uint8)


def noise(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture in which no two pixels belong together."""
    return np.random.default_rng(3).integers(0, 256, (*size_wh[::-1], 3), np.uint8)


def with_light(
    cell_xy: tuple[int, int], size_wh: tuple[int, int] = TINY_INPUT_WH
) -> NDArray[np.uint8]:
    """A dark picture with one bright 8x8 cell, which the light detector finds."""
    image = gray(20, size_wh)
    x, y = cell_xy[0] * 8, cell_xy[1] * 8
    image[y : y + 8, x : x + 8] = 255
    return image


def info_of(size_wh: tuple[int, int] = TINY_INPUT_WH, tags: ColorTags | None = None) -> VideoInfo:
    """The facts of a plain 25 fps clip."""
    return VideoInfo(
        name="clip.mp4",
        container="mp4",
        codec="h264",
        size_wh=size_wh,
        pix_fmt="yuv420p",
        time_base=Fraction(1, 25),
        frame_rate=Fraction(25),
        sample_aspect_ratio=None,
        color=tags or ColorTags(),
        rotation_degrees=0,
        duration_seconds=None,
        num_frames_header=None,
        bit_rate=None,
        num_audio_streams=0,
        num_subtitle_streams=0,
    )


def process(
    source: Path | PictureSequence | SyntheticOptions,
    output_dir: Path,
    weights: Path,
    **options: Any,
) -> Report:
    """Run the whole pipeline as a user of the library would."""
    return process_video(
        ProcessConfig(source=source, output_dir=output_dir, weights=weights, **options)
    )


def read_detections(output_dir: Path) -> list[dict[str, Any]]:
    """The lines of detections.jsonl."""
    lines = (output_dir / "detections.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def video_times(path: Path) -> list[tuple[Any, Any]]:
    """(pts, duration) of every video packet, in seconds as exact fractions, sorted."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        return sorted(
            (packet.pts * stream.time_base, (packet.duration or 0) * stream.time_base)
            for packet in container.demux(stream)
            if packet.pts is not None and packet.size
        )


PROGRESS = re.compile(r"^(.*: )?\w+: \d+( of \d+(, .* s left)?)?\n", re.MULTILINE)


def without_progress(said: str) -> str:
    """What a command says on stderr beside how far it is, which it tells if it takes seconds."""
    return PROGRESS.sub("", said)


@contextlib.contextmanager
def _turn(*, alone: bool) -> Iterator[None]:
    """Wait for a moment to run a test: those that are alone wait for all others, and block them.

    A test passes the gate before it enters the room, so that one that waits for an empty room gets
    it.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    with _lock_file("gate") as gate, _lock_file("room") as room:
        fcntl.flock(gate, kind)
        fcntl.flock(room, kind)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def _lock_file(name: str) -> IO[str]:
    return Path(tempfile.gettempdir(), f"pipeline-tests-{os.getuid()}-{name}").open("w")


_taken: list[contextlib.AbstractContextManager[None]] = []
"""The turn of the test that runs, or of those that run alone one after the other."""


def _is_alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Run what measures time while no other worker of xdist runs a test."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    if not _taken:
        turn = _turn(alone=_is_alone(item))
        turn.__enter__()
        _taken.append(turn)
    try:
        return (yield)
    finally:
        if not (_is_alone(item) and _is_alone(nextitem)):
            _taken.pop().__exit__(None, None, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """More than there are cores: many tests wait, for time limits, disks and other processes."""
    return available_cores() + 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", type=Path, help="write what was counted into this page")
    parser.addoption("--readers", help="interpreter with the readers of exports")
    parser.addoption("--fiftyone", help="interpreter with fiftyone")


_FIRST = [
    *("supervise", "cpu_account", "scene", "run", "ray", "sound", "media", "families", "offline"),
    *("truth", "hostile", "resume", "batch", "color", "malicious", "benchmark", "reference"),
    *("track", "quantize", "viewer"),
]
"""Files of tests that come first.

The supervisor is made for a process in which nothing has run yet. While tests run alone all workers
wait, least where those begin. The others take the longest.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import a part of the modules first, where other workers of xdist import the other parts.

    The first import compiles a module and keeps the outcome, at several times the cost of all else.
    Without this, all workers would compile all modules side by side.
    """
    gc.disable()  # Nothing of what is collected becomes garbage.
    worker, number = (os.environ.get(f"PYTEST_XDIST_WORKER{name}", "") for name in ("", "_COUNT"))
    folder = Path(__file__).parent
    if worker and not any(Path(argument).is_file() for argument in session.config.args):
        modules = sorted(path.stem for path in folder.glob("test_*.py"))
        for module in modules[int(worker.removeprefix("gw")) :: int(number)]:
            # What is wrong with it is told when it is collected.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(f"tests.{module}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(_FIRST)}
    items.sort(key=lambda item: (places.get(item.path.name, len(places)), not _is_alone(item)))


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of garbage collection.

    A run collects several times, and would go through all modules and tests each time.
    """
    gc.freeze()
    gc.enable()


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start, where they run in a shell's background.

    A shell without job control has its background commands ignore SIGINT, and theirs inherit it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    from tests.commands import end_zygote  # It imports this module.

    end_zygote()
