"""A segment to be processed, its files, and what is known of it when it is done, as values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.core.config import InferOptions, ProcessConfig
from pipeline.core.file_part import FilePart, PackedText
from pipeline.frames.report_pictures import Picture
from pipeline.frames.stats import RunStats
from pipeline.media.frame import Segment, SourceFaults
from pipeline.media.timeline import Timeline


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
    def weak(self) -> Path:
        """The boxes that only a tracker needs; missing if nothing is tracked."""
        return self._named(".weak.jsonl")

    @property
    def truth(self) -> Path:
        return self._named(".truth.jsonl")

    @property
    def manifest(self) -> Path:
        return self._named(".json")

    def existing(self) -> list[Path]:
        parts = (self.annotated, self.detections, self.weak, self.truth, self.manifest)
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
class RecordedPart:
    """The detection lines of a segment.

    class_names: by class_id. covers: the lines that say what is covered; None where nothing is
    redacted.
    """

    lines: FilePart | PackedText
    class_names: tuple[str, ...]
    covers: FilePart | PackedText | None = None


@dataclass(frozen=True, slots=True)
class SegmentTask:
    """One segment to be done: everything that decides its result, as values.

    files: where to make the results.
    first_index: of its first frame in the clip, for messages; where that is not known yet, about.
    num_frames: take the first so many only; None takes all.
    recorded: detections to draw; first_index is then exact. None has the model find them.
    """

    settings: RunSettings
    segment: Segment
    files: SegmentFiles
    first_index: int
    num_frames: int | None
    recorded: RecordedPart | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What there is to know about a segment that is done.

    end_seconds: where its last frame ends on the clip's timeline; 0 without frames.
    ended: whether it has every frame that could be read, rather than as many as were asked for.
    times: (number, pts) of some frames of the segment, in ticks of the result.
    pictures: annotated frames for the report.
    engine: how the model ran, as plain values for the report.
    """

    end_seconds: float
    ended: bool
    faults: SourceFaults
    times: list[tuple[int, int]]
    pictures: list[Picture]
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
            "pictures": [picture.as_record() for picture in self.pictures],
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
            pictures=[Picture.from_record(picture) for picture in record["pictures"]],
            stats=RunStats.from_record(record["stats"]),
            engine=record["engine"],
        )
