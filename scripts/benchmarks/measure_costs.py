"""Measures what a job on many machines costs beside its frames, for `simulate_cluster.py`.

    python scripts/benchmarks/measure_costs.py clip.mp4 [clip.mp4 ...] --output docs/costs.json

Segments are worked on as an actor works on them, one after the other, each opening its clip anew.
What the driver does is measured with clips made by copying packets: one of many small packets and
one of few large ones, to tell what a frame costs from what a byte does. All but recording, which
waits for the disk, is measured in CPU time, which other work on the machine changes least; a
segment takes that over the number of cores. Files are in the cache of the system.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.core.config import ProcessConfig
from pipeline.core.detection_lines import join_lines
from pipeline.core.files import file_sha256
from pipeline.core.machine import available_cores, process_cpu_seconds, processor_name
from pipeline.core.position import Position
from pipeline.execution.executor import Done
from pipeline.execution.journal import Journal
from pipeline.execution.local import LocalExecutor
from pipeline.execution.segment_processes import SegmentProcesses
from pipeline.frames.decode import VideoReader
from pipeline.frames.segment import OpenClip
from pipeline.frames.source import open_source
from pipeline.frames.task import SegmentTask
from pipeline.inference.models import Models
from pipeline.measure.sizing import Costs
from pipeline.media.cut import cut_clip
from pipeline.media.frame import Segment
from pipeline.media.mux import SourceStreams, mux, verify
from pipeline.media.scan import scan_clip
from pipeline.run.process import process_video

_SEGMENT_SECONDS = (1.0, 4.0)
_NUM_FRAMES = 600
_SHORT_FRAMES = 25
_SMALL_FRAMES, _LARGE_FRAMES = 30_000, 1_500
_NOISE_WH, _NOISE_FRAMES = (640, 360), 25
_NUM_PIECES = 20
_RECORDS = ((50, 50_000), (8, 20_000_000))
_LINE = b'{"frame_index": 0, "pts_seconds": 0.0, "detections": [' + 400 * b" " + b"]}\n"
_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a job on many machines costs.")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--dispatch-seconds", type=float, required=True, help="of the driver, as measured with Ray"
    )
    parser.add_argument(
        "--start-seconds", type=float, required=True, help="of an actor, as measured with Ray"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = [measured_clip(clip, arguments.weights, Path(folder)) for clip in arguments.clips]
        costs = Costs(
            clip_seconds=statistics.mean(clip["clip_seconds"] for clip in clips),
            segment_seconds=statistics.mean(clip["segment_seconds"] for clip in clips),
            dispatch_seconds=arguments.dispatch_seconds,
            start_seconds=arguments.start_seconds,
            **measured_driver(arguments.clips[0], Path(folder)),
        )
    frame_seconds = statistics.mean(clip["frame_seconds"] for clip in clips)
    result = {
        "processor": processor_name(),
        "cores": available_cores(),
        "fps_per_core": 1 / (frame_seconds * available_cores()),
        "costs": dataclasses.asdict(costs),
        "clips": clips,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


class TimedExecutor(LocalExecutor):
    """Works as an actor does, and notes frames and seconds of every segment."""

    def __init__(self, models: Models) -> None:
        super().__init__(models, Position(), None, SegmentProcesses())
        self.taken: list[tuple[int, float]] = []

    def run(
        self, clip: OpenClip, tasks: Iterable[SegmentTask], on_frames: Callable[[int], object]
    ) -> Generator[Done, None, None]:
        for task in tasks:
            cpu_before = process_cpu_seconds()
            source = open_source(task.settings.config, self.cores)
            [done] = super().run(dataclasses.replace(clip, source=source), [task], on_frames)
            source.close()
            seconds = (process_cpu_seconds() - cpu_before) / self.cores
            self.taken.append((done[1].num_frames, round(seconds, 4)))
            yield done


def measured_clip(clip: Path, weights: Path | None, folder: Path) -> dict[str, Any]:
    """segments: frames and seconds of each; frame_seconds, segment_seconds: of a line through them;
    clip_seconds: around the frames of a clip with a model that is loaded already."""
    longer = folder / f"long-{clip.name}"
    repeat_packets(clip, longer, _NUM_FRAMES)
    models = Models()
    executor = TimedExecutor(models)

    def process(num_frames: int, segment_seconds: float) -> None:
        config = ProcessConfig(
            source=longer,
            output_dir=folder / "output",
            weights=weights,
            num_frames=num_frames,
            segment_seconds=segment_seconds,
            overwrite=True,
            reuse_duplicates=False,
        )
        process_video(config, models=models, executor=executor)

    process(_SHORT_FRAMES, 60.0)
    around = []
    for _ in range(_ROUNDS):
        executor.taken.clear()
        cpu_before = process_cpu_seconds()
        process(_SHORT_FRAMES, 60.0)
        around.append(process_cpu_seconds() - cpu_before - executor.taken[0][1] * executor.cores)
    executor.taken.clear()
    for segment_seconds in _SEGMENT_SECONDS:
        process(_NUM_FRAMES, segment_seconds)
    frames, seconds = np.array(executor.taken).T
    slope, intercept = np.polyfit(frames, seconds, 1)
    return {
        "name": clip.name,
        "frame_seconds": slope,
        "segment_seconds": intercept,
        "clip_seconds": statistics.median(around),
        "segments": executor.taken,
    }


def measured_driver(clip: Path, folder: Path) -> dict[str, float]:
    """Costs of the driver, in seconds: of a frame and of a byte, planning and joining; of a segment
    and of each of its bytes, recording."""
    small, noise, large = (folder / f"{name}.mp4" for name in ("small", "noise", "large"))
    write_noise(noise)
    repeat_packets(clip, small, _SMALL_FRAMES)
    repeat_packets(noise, large, _LARGE_FRAMES)
    counts, planned, joined = [], [], []
    for path in (small, large):
        pieces, num_frames = in_pieces(path, folder / f"{path.stem}-pieces")
        counts.append((sum(num_frames), path.stat().st_size))
        planned.append(seconds_of(functools.partial(plan, path)))
        joined.append(seconds_of(functools.partial(join, path, pieces, num_frames)))
    plan_frame, plan_byte = np.linalg.solve(np.array(counts, float), planned)
    join_frame, join_byte = np.linalg.solve(np.array(counts, float), joined)
    record, record_byte = measured_records(folder)
    return {
        "plan_frame_seconds": plan_frame,
        "plan_byte_seconds": plan_byte,
        "record_seconds": record,
        "record_byte_seconds": record_byte,
        "join_frame_seconds": join_frame,
        "join_byte_seconds": join_byte,
    }


def plan(path: Path) -> tuple[Segment, ...]:
    """What a run does before it knows the segments of a clip."""
    scan = scan_clip(path)
    VideoReader(path, timeline=scan.timeline).close()
    file_sha256(path)
    return cut_clip(scan, 10.0)


def join(source: Path, pieces: Sequence[Path], num_frames: Sequence[int]) -> None:
    """What a run does when all segments of a clip are done."""
    target = source.with_name("joined.mp4")
    mux(pieces, target, SourceStreams(source))
    with av.open(str(target)) as made:
        stream = made.streams.video[0]
        assert stream.time_base is not None
        end_seconds = ((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base
    verify(target, sum(num_frames), float(end_seconds))
    lines = [piece.with_suffix(".jsonl") for piece in pieces]
    join_lines(lines, num_frames, target.with_suffix(".jsonl"))


def measured_records(folder: Path) -> tuple[float, float]:
    """Seconds to note in the journal that a segment is done: at least, and for each byte."""
    medians, sizes = [], []
    for count, size in _RECORDS:
        journal = Journal(folder / f"journal-{size}")
        journal.folder.mkdir()
        journal.begin("key", count, 1)
        taken = []
        for number in range(count):
            files = [journal.making / f"{number}{end}" for end in (".mp4", ".jsonl", ".json")]
            files[0].write_bytes(os.urandom(size))
            for path in files[1:]:
                path.write_bytes(20 * _LINE)
            started = time.perf_counter()
            journal.add(number, files)
            taken.append(time.perf_counter() - started)
        medians.append(statistics.median(taken))
        sizes.append(size)
    byte_seconds, record_seconds = np.polyfit(sizes, medians, 1)
    return float(record_seconds), float(byte_seconds)


def seconds_of(work: Callable[[], object]) -> float:
    """CPU time, the median of several rounds."""
    taken = []
    for _ in range(_ROUNDS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return statistics.median(taken)


def repeat_packets(source: Path, target: Path, num_frames: int) -> None:
    """The video of a clip laid end to end, until it has at least so many frames."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert stream.average_rate is not None
        assert stream.time_base is not None
        tick = round(1 / (stream.average_rate * stream.time_base))
        copy = out.add_stream_from_template(stream, opaque=True)
        for turn in range(-(-num_frames // len(packets))):
            later = turn * len(packets) * tick
            for packet in packets:
                again: Any = av.Packet(bytes(packet))
                again.stream, again.time_base = copy, stream.time_base
                again.dts = (packet.dts or 0) + later
                again.pts = again.dts if packet.pts is None else packet.pts + later
                again.duration, again.is_keyframe = tick, packet.is_keyframe
                out.mux(again)


def in_pieces(source: Path, folder: Path) -> tuple[list[Path], list[int]]:
    """A clip cut at key frames into about _NUM_PIECES files, with lines; the frames of each."""
    folder.mkdir()
    pieces: list[Path] = []
    num_frames: list[int] = []
    out: Any = None
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if not packet.size:
                continue
            due = len(pieces) * stream.frames / _NUM_PIECES
            if packet.is_keyframe and sum(num_frames) >= due:
                if out is not None:
                    out.close()
                pieces.append(folder / f"{len(pieces)}.mp4")
                num_frames.append(0)
                out = av.open(str(pieces[-1]), "w")
                copy = out.add_stream_from_template(stream, opaque=True)
            num_frames[-1] += 1
            packet.stream = copy
            out.mux(packet)
    out.close()
    for piece, count in zip(pieces, num_frames, strict=True):
        piece.with_suffix(".jsonl").write_bytes(count * _LINE)
    return pieces, num_frames


def write_noise(path: Path) -> None:
    """Pictures of which each takes some 300 kB."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        options = {"qp": "10", "preset": "ultrafast", "g": "5", "bf": "0"}
        stream: Any = container.add_stream("libx264", rate=Fraction(25), options=options)
        stream.width, stream.height = _NOISE_WH
        stream.pix_fmt = "yuv420p"
        for _ in range(_NOISE_FRAMES):
            image = random.integers(0, 255, (*_NOISE_WH[::-1], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
