"""One segment of a clip, taken through all steps: a video track, its detections, and a manifest."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

from pipeline.core.config import InferOptions, LimitOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import InputError
from pipeline.core.library_threads import one_library_thread
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.position import Position, Step
from pipeline.frames.annotate import Annotator
from pipeline.frames.annotated_file import (
    FrameEncoder,
    NoEncoder,
    open_encoder,
    undrawn,
    verify_annotated,
)
from pipeline.frames.cpu_account import DECODER, ENCODER, CpuAccount
from pipeline.frames.decode import VideoReader
from pipeline.frames.detect import DetectSettings, ModelDetections
from pipeline.frames.loop import Results, run_frames
from pipeline.frames.picture_sequence import PictureSequenceSource
from pipeline.frames.sampling import EveryNth
from pipeline.frames.snapshots import Snapshots, places_seconds
from pipeline.frames.stats import RunStats
from pipeline.inference.engine import Engine
from pipeline.media.frame import FrameSource, Segment, SourceFaults, VideoInfo
from pipeline.media.timeline import Timeline
from pipeline.model.prepare import PreparedModel
from pipeline.synthetic.scene import Truth
from pipeline.synthetic.source import SyntheticSource
from pipeline.synthetic.truth import truth_record


def open_source(config: ProcessConfig, cores: int, timeline: Timeline | None = None) -> FrameSource:
    """The frames of a source; half of the cores may decode, the model needs the others.

    timeline: of a clip, where it is known.
    """
    if isinstance(config.source, SyntheticOptions):
        return SyntheticSource(config.source)
    if isinstance(config.source, PictureSequence):
        return PictureSequenceSource(config.source, config.limits)
    return VideoReader(
        config.source,
        config.limits,
        num_threads=max(1, cores // 2),
        timeline=timeline,
        deinterlace=config.deinterlace == "auto",
    )


@dataclass(frozen=True, slots=True)
class OpenClip:
    """An open clip: its frames and the model for them."""

    source: FrameSource
    prepared: PreparedModel


@dataclass(frozen=True, slots=True)
class SegmentFiles:
    """Where a segment's results are: the annotated file is missing if there is no frame, the truth
    if it is not known.

    annotated_suffix: of the format of the annotated file.
    """

    folder: Path
    number: int
    annotated_suffix: str = ".mp4"

    @property
    def annotated(self) -> Path:
        return self._named(self.annotated_suffix)

    @property
    def detections(self) -> Path:
        return self._named(".jsonl")

    @property
    def truth(self) -> Path:
        return self._named(".truth.jsonl")

    @property
    def manifest(self) -> Path:
        return self._named(".json")

    def existing(self) -> list[Path]:
        parts = (self.annotated, self.detections, self.truth, self.manifest)
        return [part for part in parts if part.exists()]

    def _named(self, suffix: str) -> Path:
        return self.folder / f"{self.number:04d}{suffix}"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run decided before its first segment; the same for all of them.

    infer: what was selected of what the config allows.
    class_ids: the classes to keep; None keeps all.
    timeline: of the clip; None without one.
    """

    config: ProcessConfig
    infer: InferOptions
    encoder_threads: int
    class_ids: frozenset[int] | None
    timeline: Timeline | None = None


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """One segment to be done: everything that decides its result, as values.

    files: where to make the results.
    first_index: of its first frame in the clip, for messages; where that is not known yet, about.
    num_frames: take the first so many only; None takes all.
    """

    settings: RunSettings
    segment: Segment
    files: SegmentFiles
    first_index: int
    num_frames: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What there is to know about a segment that is done.

    end_seconds: where its last frame ends on the clip's timeline; 0 without frames.
    ended: whether it has every frame that could be read, rather than as many as were asked for.
    times: (number, pts) of some frames of the segment, in ticks of the result.
    pictures: annotated frames, as data: URLs.
    engine: how the model ran, as plain values for the report.
    """

    end_seconds: float
    ended: bool
    faults: SourceFaults
    times: list[tuple[int, int]]
    pictures: list[str]
    stats: RunStats
    engine: dict[str, Any]

    @property
    def num_frames(self) -> int:
        return self.stats.num_frames

    def write(self, path: Path) -> None:
        record = {
            "end_seconds": self.end_seconds,
            "ended": self.ended,
            "faults": asdict(self.faults),
            "times": self.times,
            "pictures": self.pictures,
            "stats": self.stats.as_record(),
            "engine": self.engine,
        }
        path.write_text(json.dumps(record), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            end_seconds=record["end_seconds"],
            ended=record["ended"],
            faults=SourceFaults(**record["faults"]),
            times=[(index, pts) for index, pts in record["times"]],
            pictures=record["pictures"],
            stats=RunStats.from_record(record["stats"]),
            engine=record["engine"],
        )


@one_library_thread()
def process_segment(
    clip: OpenClip,
    engine: Engine,
    task: SegmentTask,
    position: Position,
    on_frame: Callable[[], object],
) -> Manifest:
    """Take a segment's frames through all steps into files that were read back and are right.

    position: set to where the work is. on_frame: called once per finished frame. Raises
    PipelineError.
    """
    source, stats = clip.source, RunStats(position)
    frames = itertools.islice(source.frames(task.segment), task.num_frames)
    # What was skipped before the very first frame belongs to the first segment.
    faults_before = SourceFaults()
    if task.segment.start_pts is not None:
        faults_before.add(source.faults)
    config = task.settings.config
    encoder = _open_encoder(task, source.info)
    places = _places_in(task.segment, source.info, config.num_frames) if config.video else ()
    snapshots = Snapshots(places)
    started, account = time.perf_counter(), CpuAccount()
    with contextlib.ExitStack() as stack:
        stack.callback(encoder.abandon)
        stack.enter_context(position.failures_told())
        results = stack.enter_context(_open_results(clip, task, encoder, snapshots))
        settings = _detect_settings(task.settings)
        detections = stack.enter_context(
            ModelDetections(frames, task.first_index, engine, clip.prepared, settings, stats)
        )
        _require_memory(source.info, stats.in_flight.limit or 0, config.limits)
        end_seconds = run_frames(detections, results, stats, task.first_index, on_frame)
        position.encoding.enter(Step.JOIN)
        stats.thread_cpu_seconds = account.spent(
            {
                **dict.fromkeys(source.worker_threads, DECODER),
                **dict.fromkeys(encoder.worker_threads, ENCODER),
            },
            stats.decoding_thread_cpu_ns / 1e9,
            all_infer=engine.facts()["engine"] == "pytorch",
        )
        stats.frames_cpu_seconds = sum(stats.thread_cpu_seconds.values())
        stats.frames_wall_seconds = time.perf_counter() - started
        if stats.num_frames:
            encoder.close()
    if stats.num_frames and config.video:
        beat = functools.partial(position.encoding.enter, Step.JOIN)
        path, encode = task.files.annotated, config.encode
        verify_annotated(path, source.info, encode, encoder, end_seconds, beat)
    else:
        task.files.annotated.unlink(missing_ok=True)
    return Manifest(
        end_seconds=end_seconds,
        ended=task.num_frames is None or stats.num_frames < task.num_frames,
        faults=source.faults.since(faults_before),
        times=encoder.some_times(),
        pictures=snapshots.pictures,
        stats=stats,
        engine={
            **engine.facts(),
            "batch": engine.input_shape[0],
            "input_shape": list(engine.input_shape),
        },
    )


@contextlib.contextmanager
def _open_results(
    clip: OpenClip, task: SegmentTask, encoder: FrameEncoder, snapshots: Snapshots
) -> Iterator[Results]:
    config, files, source = task.settings.config, task.files, clip.source
    class_names = clip.prepared.layout.class_names
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(files.detections.open("w", encoding="utf-8"))
        if config.scene:
            assert isinstance(source, SyntheticSource)
            truth = stack.enter_context(files.truth.open("w", encoding="utf-8"))
            source.on_truth = functools.partial(_write_truth, truth, config.scene.frame_rate)
        yield Results(
            render=Annotator(source.info, class_names) if config.video else undrawn,
            encoder=encoder,
            snapshots=snapshots,
            lines=lines,
            class_names=class_names,
            says_interpolated=config.every > 1,
        )


def _detect_settings(settings: RunSettings) -> DetectSettings:
    config = settings.config
    return DetectSettings(
        options=config.detect,
        class_ids=settings.class_ids,
        sampler=EveryNth(config.every),
        reuse_duplicates=config.reuse_duplicates,
        stall_seconds=config.stall_seconds,
    )


def _open_encoder(task: SegmentTask, info: VideoInfo) -> FrameEncoder:
    config, num_threads = task.settings.config, task.settings.encoder_threads
    if not config.video:
        return NoEncoder()
    return open_encoder(task.files.annotated, info, config.encode, num_threads)


def _places_in(segment: Segment, info: VideoInfo, num_frames: int | None) -> list[float]:
    """Where in a segment to take pictures for the report, in seconds on the clip's timeline."""
    known = [info.duration_seconds] if info.duration_seconds else []
    if num_frames is not None and info.frame_rate:
        known.append(float(num_frames / info.frame_rate))
    begin_seconds = float(info.start_pts * info.time_base)
    places = [begin_seconds + s for s in places_seconds(min(known, default=None))]
    start = 0.0 if segment.start_pts is None else float(segment.start_pts * info.time_base)
    end = None if segment.end_pts is None else float(segment.end_pts * info.time_base)
    return [s for s in places if s >= start and (end is None or s < end)]


def _require_memory(info: VideoInfo, num_frames: int, limits: LimitOptions) -> None:
    """Refuse a clip of which so many frames at a time take too much memory. Raises InputError."""
    needed_mb = -(-info.frame_bytes * num_frames // 1_000_000)
    if needed_mb > limits.max_memory_mb:
        raise InputError(
            f"{info.name}: {num_frames} frames of {info.size_wh[0]}x{info.size_wh[1]} "
            f"({info.pix_fmt}) may be in flight, which needs {needed_mb} MB, more than "
            f"--max-memory {limits.max_memory_mb}; a smaller --batch or --requests needs less"
        )


def _write_truth(lines: TextIO, frame_rate: Fraction, index: int, pts: int, truth: Truth) -> None:
    lines.write(json.dumps(truth_record(index, float(pts / frame_rate), truth)) + "\n")
