"""The best picture of each track, or of each appearance of a class, cut out of the source."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import ProcessConfig
from pipeline.core.cover_lines import CoverLine
from pipeline.core.detection_lines import read_detections
from pipeline.core.errors import InputError
from pipeline.core.files import file_sha256
from pipeline.core.machine import available_cores
from pipeline.core.position import Beat, no_beat
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.frames.redact import Redactor
from pipeline.frames.source import open_source, scan_source
from pipeline.media.color import ToBgr
from pipeline.media.cut import is_seekable, key_pts, seek_before
from pipeline.media.frame import Frame, FrameSource, Segment, VideoInfo
from pipeline.media.hdr import is_hdr
from pipeline.media.scan import ClipScan
from pipeline.model.tone_map import ToneMap
from pipeline.run.exports.clip import as_file_name
from pipeline.run.outputs import (
    COVERS_NAME,
    CROPS_JSON_NAME,
    CROPS_NAME,
    replace_folder,
    unfinished_folder,
)
from pipeline.run.report_files import update_report
from pipeline.run.viewer.appearances import Appearance, Appearances

_JPEG = [
    *(cv2.IMWRITE_JPEG_QUALITY, 95),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
]
_TOLERANCE_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class _Pick:
    """A thing and the frame that shows it best. name: of its picture."""

    name: str
    found: Appearance
    seconds: float


def write_crops(
    detections: Path,
    report: dict[str, Any],
    config: ProcessConfig,
    on_progress: ProgressCallback = no_progress,
    beat: Beat = no_beat,
) -> list[dict[str, Any]]:
    """Write the best pictures of a result beside it, in place of earlier ones, and into its report.

    report: beside the detections. config: of the run, or with its source, slice and deinterlacing.
    beat: called for each line of detections, and for each frame that is decoded. Returns what the
    report says of them. Pictures of the same detections are not made again. Raises PipelineError.
    """
    folder, key = detections.parent, file_sha256(detections)
    known = report.get("crops") or {}
    if known.get("key") == key and all((folder / p["file"]).is_file() for p in known["pictures"]):
        return list(known["pictures"])
    picks = _picks(detections, beat)
    unfinished = unfinished_folder(folder / CROPS_NAME)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        with _opened(config, beat) as (source, scan):
            covered = _covers(folder, report, source.info, {p.found.best_frame for p in picks})
            frames = _frames(source, scan, config, picks, beat)
            for done, (frame, of_frame) in enumerate(frames, 1):
                pixels = _bgr(covered(frame.image, of_frame[0].found.best_frame))
                for pick in of_frame:
                    left, top, right, bottom = _edges(pick.found, source.info.size_wh)
                    _, jpeg = cv2.imencode(".jpg", pixels[top:bottom, left:right], _JPEG)
                    (unfinished / pick.name).write_bytes(np.asarray(jpeg).tobytes())
                on_progress(Progress("crops", done, None, clip=config.source_name))
            pictures = [_record(pick, source.info.size_wh) for pick in picks]
        text = json.dumps(pictures, indent=1, ensure_ascii=False) + "\n"
        (unfinished / CROPS_JSON_NAME).write_text(text, encoding="utf-8")
        replace_folder(folder / CROPS_NAME, unfinished)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    update_report(folder, {"crops": {"key": key, "pictures": pictures}})
    return pictures


def _picks(detections: Path, beat: Beat) -> list[_Pick]:
    """What is cut out, by its first frame."""
    appearances, seconds = Appearances(), array("d")
    for frame in read_detections(detections, beat):
        appearances.add(frame)
        seconds.append(frame.pts_seconds)
    return [
        _Pick(_name(number, found), found, seconds[found.best_frame])
        for number, found in enumerate(appearances.in_order(), 1)
    ]


def _name(number: int, found: Appearance) -> str:
    track = "" if found.track_id is None else f"_{found.track_id}"
    return f"{number:04d}_{as_file_name(found.best.class_name)}{track}.jpg"


def _record(pick: _Pick, size_wh: tuple[int, int]) -> dict[str, Any]:
    box = pick.found.best
    return {
        "file": f"{CROPS_NAME}/{pick.name}",
        "class_id": box.class_id,
        "class_name": box.class_name,
        "track_id": pick.found.track_id,
        "confidence": box.confidence,
        "frame_index": pick.found.best_frame,
        "pts_seconds": pick.seconds,
        "xyxy": list(_edges(pick.found, size_wh)),
    }


def _edges(found: Appearance, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """All pixels that the box touches, one at least."""
    width, height = size_wh
    left, top, right, bottom = found.best.xyxy
    left, top = min(max(0, left), width - 1), min(max(0, top), height - 1)
    x, y = math.floor(left), math.floor(top)
    return (
        x,
        y,
        min(width, max(x + 1, math.ceil(right))),
        min(height, max(y + 1, math.ceil(bottom))),
    )


@contextlib.contextmanager
def _opened(config: ProcessConfig, beat: Beat) -> Iterator[tuple[FrameSource, ClipScan | None]]:
    scan = scan_source(config, beat)
    source = open_source(config, available_cores(), scan.timeline if scan else None)
    with contextlib.closing(source):
        yield source, scan


def _frames(
    source: FrameSource,
    scan: ClipScan | None,
    config: ProcessConfig,
    picks: Sequence[_Pick],
    beat: Beat,
) -> Iterator[tuple[Frame, list[_Pick]]]:
    """The frames that show something best, each with what it shows, in order.

    Raises InputError if one is not in the source.
    """
    time_base = source.info.time_base
    wanted: dict[int, list[_Pick]] = {}
    for pick in sorted(picks, key=lambda pick: pick.found.best_frame):
        wanted.setdefault(round(pick.seconds / time_base), []).append(pick)
    segments = [Segment()]
    if scan is not None and is_seekable(scan) and config.deinterlace == "off":
        segments = _segments(scan, list(wanted))
    for segment in segments:
        for frame in source.frames(segment):
            beat()
            of_frame = wanted.get(frame.pts)
            if of_frame and abs(frame.pts_seconds - of_frame[0].seconds) <= _TOLERANCE_SECONDS:
                del wanted[frame.pts]
                yield frame, of_frame
            if not wanted:
                return
    if wanted:
        missing = next(iter(wanted.values()))[0]
        raise InputError(
            f"{config.source_name}: has no frame at {missing.seconds:.6f} s, where the detections "
            "have one: they belong to another clip, or were changed"
        )


def _segments(scan: ClipScan, places: Sequence[int]) -> list[Segment]:
    """Where to read the frames at these places: from a key frame on, if one is skipped by that."""
    timeline = scan.timeline
    keys = key_pts(scan.packets)
    first_seek = timeline.stretch.seek_pts if timeline.stretch else None
    found: list[Segment] = []
    for place in places:
        seek = seek_before(keys, timeline.closed(place))
        if seek is None:
            seek = first_seek
        if found and (seek is None or seek <= timeline.closed(found[-1].end_pts or 0)):
            begins = found.pop()
            seek, place_from = begins.seek_pts, begins.start_pts
        else:
            place_from = place
        found.append(Segment(len(found), place_from, place + 1, seek))
    return found


def _covers(
    folder: Path, report: dict[str, Any], info: VideoInfo, indices: set[int]
) -> Callable[[av.VideoFrame, int], av.VideoFrame]:
    """Gives an image, of the frame with this index, with what the run covers in it covered.

    indices: that are asked for. Raises InputError if it is not known what is covered.
    """
    redact = report["configuration"].get("redact") or {}
    if redact.get("covered") is None:
        return lambda image, _: image
    path = folder / COVERS_NAME
    try:
        with path.open(encoding="utf-8") as lines:
            known = {n: CoverLine.from_json(text) for n, text in enumerate(lines) if n in indices}
        if known.keys() != indices or any(line.frame_index != n for n, line in known.items()):
            raise ValueError("lines are missing")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is missing or damaged: without it, what was covered would be shown"
        ) from error
    redactor = Redactor(info, redact["cover_style"], ())
    return lambda image, index: redactor(image, known[index].covers)


def _bgr(image: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width, 3), as the model sees it."""
    if is_hdr(int(image.color_trc)):
        rgb = ToneMap()(image, (image.width, image.height))
        return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)
    return ToBgr()(image)
