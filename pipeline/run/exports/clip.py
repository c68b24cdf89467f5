"""A finished result as the exporters see it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.core.detection_lines import DetectedFrame, read_detections
from pipeline.core.errors import InputError
from pipeline.core.files import fingerprint
from pipeline.core.position import Beat, no_beat
from pipeline.run.outputs import BATCH_JSON_NAME, DETECTIONS_NAME, TRUTH_NAME
from pipeline.run.recorded import from_report


@dataclass(frozen=True, slots=True)
class ExportedClip:
    """The detections of one clip or picture.

    source_name, fingerprint: of the file; fingerprint is None for the synthetic scene and for
    pictures in a folder. name: that of the file, with a number if another clip has it too. key: the
    name without its suffix, for folders and files. frame_rate: the average of the clip.
    num_frames: lines of the detections. class_names: by class_id. model: name of its file.
    deinterlace, start, end: as in ProcessConfig. starts_at: when the recording of its first frame
    began, in ISO 8601; None if the file does not say. is_tracked: whether the run gave boxes their
    tracks, if there were any. is_redacted: whether it covered classes. every_nth: only frames whose
    index is a multiple of this are exported.
    """

    detections: Path
    source_name: str
    fingerprint: str | None
    name: str
    key: str
    is_picture: bool
    size_wh: tuple[int, int]
    frame_rate: Fraction
    num_frames: int
    class_names: tuple[str, ...]
    model: str
    created: str
    deinterlace: str
    start: str | None = None
    end: str | None = None
    starts_at: str | None = None
    is_tracked: bool = False
    is_redacted: bool = False
    every_nth: int = 1

    def frames(self, beat: Beat = no_beat) -> Iterator[DetectedFrame]:
        """The exported frames in order, read from the file anew. Raises InputError.

        beat: called for each line.
        """
        for frame in read_detections(self.detections, beat):
            if frame.frame_index % self.every_nth == 0:
                yield frame

    def picture_name(self, frame_index: int) -> str:
        """The name of the picture of a frame, without folder and suffix."""
        return self.key if self.is_picture else f"{self.key}_{frame_index:06d}"


def find_results(paths: Sequence[Path]) -> list[Path]:
    """The detection files of results: each path is one, its folder, or the folder of a batch.

    Raises InputError for a path that is none of these.
    """
    found: dict[Path, None] = {}
    for path in paths:
        for detections in _results_of(path):
            found.setdefault(detections)
    return list(found)


def _results_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        return [path]
    if (path / DETECTIONS_NAME).is_file():
        return [path / DETECTIONS_NAME]
    try:
        record = json.loads((path / BATCH_JSON_NAME).read_text(encoding="utf-8"))
        folders = [
            path / clip["output_dir"]
            for clip in record["clips"]
            if clip["status"] in ("done", "skipped")
        ]
    except FileNotFoundError:
        raise InputError(
            f"{path}: contains neither {DETECTIONS_NAME} nor {BATCH_JSON_NAME}; give the output "
            "folder of `pipeline process`"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / BATCH_JSON_NAME}: is damaged ({error!r})") from error
    if not folders:
        raise InputError(f"{path}: no clip of this batch has a result")
    return [folder / DETECTIONS_NAME for folder in folders]


def source_file(name: str, known_fingerprint: str | None, at: Path) -> Path:
    """The file of a clip of this name: `at` itself, or the one in that folder or below it.

    Raises InputError if it is missing, or is not the file that was processed.
    """
    named = [at] if at.is_file() else sorted(at.rglob(name))
    same = (p for p in named if p.is_file() and fingerprint(p) == known_fingerprint)
    if (found := next(same, None)) is None:
        reason = "is another file than the one processed" if named else "is not there"
        raise InputError(f"{named[0] if named else at / name}: {reason}")
    return found


def read_clips(detections: Sequence[Path], every_nth: int = 1) -> list[ExportedClip]:
    """The clips of detection files, which have their reports beside them. Raises InputError."""
    clips: list[ExportedClip] = []
    names: set[str] = set()
    keys: set[str] = set()
    for path in detections:
        clip = from_report(path, _clip)
        name = _unique(clip.source_name, names)
        key = _unique(as_file_name(Path(clip.source_name).stem), keys)
        clips.append(dataclasses.replace(clip, name=name, key=key, every_nth=every_nth))
    return clips


def _clip(detections: Path, report: dict[str, Any]) -> ExportedClip:
    """The clip under its own name. Raises KeyError, TypeError, ValueError, ZeroDivisionError."""
    source = report["source"]
    name = str(source["name"])
    width, height = source["size_wh"]
    return ExportedClip(
        detections=detections,
        source_name=name,
        fingerprint=source["fingerprint"],
        name=name,
        key=name,
        is_picture=bool(source["is_picture"]),
        size_wh=(int(width), int(height)),
        frame_rate=Fraction(source["frame_rate"] or 1),
        num_frames=int(report["output"]["num_frames"]),
        class_names=_class_names(detections, report),
        model=str(report["model"]["file"]),
        created=str(report["created"]),
        deinterlace=str(report["configuration"]["deinterlace"]),
        start=report["configuration"].get("start"),
        end=report["configuration"].get("end"),
        starts_at=source.get("creation_time"),
        is_tracked=report["configuration"].get("track") is not None,
        is_redacted=bool(report["configuration"].get("redact", {}).get("covered")),
    )


def _class_names(detections: Path, report: dict[str, Any]) -> tuple[str, ...]:
    names = report["model"]["class_names"]
    if detections.name == TRUTH_NAME:
        # The scene has classes of its own; its model may be another one.
        from pipeline.synthetic.sprites import CLASS_NAMES

        names = CLASS_NAMES
    return tuple(map(str, names))


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number before its suffix if it is taken; it is taken then."""
    path, number, found = Path(name), 2, name
    while found.casefold() in taken:
        found = f"{path.stem}_{number}{path.suffix}"
        number += 1
    taken.add(found.casefold())
    return found


def as_file_name(name: str) -> str:
    """The name without what separates folders, or has a meaning in a list of columns."""
    return "".join("_" if char in '/\\,:"' or not char.isprintable() else char for char in name)
