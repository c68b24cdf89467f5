"""A finished result -> clips of what was found in it, and lists of their times."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.core.config import EncodeOptions
from pipeline.core.detection_lines import read_detections
from pipeline.core.errors import InputError, UsageError
from pipeline.core.files import file_sha256
from pipeline.core.highlight_options import HighlightOptions
from pipeline.core.position import Beat, no_beat
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.run.events.follow import Events
from pipeline.run.highlights.annotated import AnnotatedClip, clip_names
from pipeline.run.highlights.cuts import (
    Cut,
    cuts_of,
    num_frames_in,
    stretches_of_events,
    stretches_of_finds,
)
from pipeline.run.highlights.edit_lists import Edit, Medium, has_edl, write_edl, write_otio
from pipeline.run.highlights.source import SourcePackets
from pipeline.run.outputs import (
    EDL_NAME,
    HIGHLIGHTS_NAME,
    OTIO_NAME,
    replace_folder,
    unfinished_folder,
)
from pipeline.run.recorded import from_report
from pipeline.run.report_files import update_report

_REEL_NAME = "highlights.mp4"


@dataclass(frozen=True, slots=True)
class FoundClip:
    """A finished result, as far as highlights need it.

    report: all of it. frame_rate: the average. annotated: None without an annotated clip.
    """

    detections: Path
    report: dict[str, Any]
    name: str
    frame_rate: Fraction
    num_frames: int
    annotated: Path | None
    encode: EncodeOptions
    is_picture: bool
    is_redacted: bool

    @property
    def end_seconds(self) -> float:
        """About how long it lasts."""
        known = self.report["source"]["duration_seconds"]
        return float(known or self.num_frames / self.frame_rate)

    @property
    def folder(self) -> Path:
        return self.detections.parent


def read_found(detections: Path) -> FoundClip:
    """A result by its detections, with the report beside them. Raises InputError."""
    return from_report(detections, _found)


def _found(detections: Path, report: dict[str, Any]) -> FoundClip:
    source, output, used = report["source"], report["output"], report["configuration"]
    annotated = output["file"] and detections.parent / str(output["file"])
    return FoundClip(
        detections=detections,
        report=report,
        name=str(source["name"]),
        frame_rate=Fraction(source["frame_rate"] or 25),
        num_frames=int(output["num_frames"]),
        annotated=annotated,
        encode=EncodeOptions(**used["encode"]),
        is_picture=bool(source["is_picture"]),
        is_redacted=bool((used.get("redact") or {}).get("covered")),
    )


def require_possible(clip: FoundClip, options: HighlightOptions) -> None:
    """Raise UsageError for highlights that a result cannot have."""
    if clip.is_picture:
        raise UsageError(f"{clip.name} is a picture: only clips have highlights")
    if options.from_source and clip.is_redacted:
        raise UsageError(
            f"{clip.detections}: is redacted, and its source shows what it covers: leave "
            "--from-source out"
        )
    if clip.annotated is None and not options.from_source:
        raise UsageError(
            f"{clip.detections}: has no annotated clip to cut highlights from: add --from-source"
        )


def write_highlights(
    clip: FoundClip,
    options: HighlightOptions,
    events: Events | None = None,
    source: Path | None = None,
    on_progress: ProgressCallback = no_progress,
    beat: Beat = no_beat,
) -> dict[str, Any]:
    """Write the highlights of a result beside it, in place of earlier ones, and into its report.

    events: what to cut out; None cuts out what was found. source: the file of the clip, with
    options.from_source. beat: called for each line of detections. Returns what the report says
    of them.
    Highlights with the same key are not made again. Raises PipelineError.
    """
    require_possible(clip, options)
    source = source if options.from_source else None
    key = _key(clip, options, events)
    if (known := _made_before(clip, key)) is not None:
        return known
    frames = functools.partial(read_detections, clip.detections, beat)
    stretches = stretches_of_finds(frames()) if events is None else stretches_of_events(events)
    assert options.padding_seconds is not None
    cuts = cuts_of(frames(), stretches, options.padding_seconds, clip.frame_rate)
    target = clip.folder / HIGHLIGHTS_NAME
    unfinished = unfinished_folder(target)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        record = {
            "key": key,
            "padding_seconds": options.padding_seconds,
            "of": "finds" if events is None else "events",
            "from_source": options.from_source,
            **_write(clip, options, source, cuts, unfinished, on_progress),
        }
        replace_folder(target, unfinished)
    except OSError as error:
        raise InputError(f"{error.filename or clip.folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    update_report(clip.folder, {"highlights": record})
    return record


def _write(
    clip: FoundClip,
    options: HighlightOptions,
    source: Path | None,
    cuts: Sequence[Cut],
    folder: Path,
    on_progress: ProgressCallback,
) -> dict[str, Any]:
    """Write the files of all cuts. source: to copy from; None takes the annotated clip."""
    if source is not None:
        return _write_source(clip, source, cuts, folder, on_progress)
    assert clip.annotated is not None
    notes: list[str] = []
    total, done = num_frames_in(cuts), 0

    def on_frame() -> None:
        nonlocal done
        done += 1
        on_progress(Progress("highlights", done, total, clip=clip.name))

    names = list(clip_names(cuts, ".mp4"))
    with contextlib.closing(
        AnnotatedClip(clip.annotated, clip.encode, clip.num_frames)
    ) as annotated:
        if options.form == "one" and cuts:
            names = [_REEL_NAME] * len(cuts)
            notes += annotated.write(cuts, folder / _REEL_NAME, on_frame)
        else:
            for name, cut in zip(names, cuts, strict=True):
                notes += annotated.write([cut], folder / name, on_frame)
    offsets = [0.0] * len(cuts)
    if options.form == "one":
        lengths = [cut.end_seconds - cut.begin_seconds for cut in cuts]
        offsets = list(itertools.accumulate(lengths, initial=0.0))[: len(cuts)]
    edits = [Edit(cut.begin_seconds, cut.end_seconds, cut.title) for cut in cuts]
    address = f"../{clip.annotated.name}"
    medium = Medium(clip.annotated.name, address, clip.frame_rate, clip.end_seconds)
    return {
        "clips": [_record(*known) for known in zip(cuts, names, offsets, strict=True)],
        "lists": _write_lists(edits, medium, clip.name, folder),
        "notes": list(dict.fromkeys(notes)),
    }


def _write_source(
    clip: FoundClip,
    source: Path,
    cuts: Sequence[Cut],
    folder: Path,
    on_progress: ProgressCallback,
) -> dict[str, Any]:
    packets = SourcePackets(source, sound=not clip.encode.drop_audio)
    names, offsets, edits = list(clip_names(cuts, packets.suffix)), [], []
    for number, (name, cut) in enumerate(zip(names, cuts, strict=True), 1):
        offsets.append(packets.write(cut, folder / name))
        assert cut.begin_pts is not None
        begin = packets.seconds(cut.begin_pts)
        edits.append(Edit(begin, begin + cut.end_seconds - cut.begin_seconds, cut.title))
        on_progress(Progress("highlights", number, len(cuts), unit="clip", clip=clip.name))
    address = Path(os.path.abspath(source)).as_uri()  # noqa: PTH100
    medium = Medium(clip.name, address, clip.frame_rate, packets.end_seconds)
    return {
        "clips": [_record(*known) for known in zip(cuts, names, offsets, strict=True)],
        "lists": _write_lists(edits, medium, clip.name, folder),
        "notes": [],
    }


def _write_lists(edits: Sequence[Edit], medium: Medium, title: str, folder: Path) -> list[str]:
    lists = [OTIO_NAME]
    write_otio(edits, medium, title, folder / OTIO_NAME)
    if has_edl(medium.frame_rate):
        lists.append(EDL_NAME)
        write_edl(edits, medium, title, folder / EDL_NAME)
    return lists


def _record(cut: Cut, name: str, offset_seconds: float) -> dict[str, Any]:
    return {
        "file": f"{HIGHLIGHTS_NAME}/{name}",
        "offset_seconds": round(offset_seconds, 6),
        "first_frame": cut.first_frame,
        "num_frames": cut.num_frames,
        "begin_seconds": cut.begin_seconds,
        "end_seconds": cut.end_seconds,
        "shows": list(cut.names),
    }


def _key(clip: FoundClip, options: HighlightOptions, events: Events | None) -> str:
    """A hash of everything that the highlights of a result depend on."""
    of_events = events and [*map(str, events.crossings), *map(str, events.visits)]
    asked = [clip.report["result_key"], options.padding_seconds, options.form]
    known = [*asked, options.from_source, of_events, file_sha256(clip.detections)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _made_before(clip: FoundClip, key: str) -> dict[str, Any] | None:
    """What the report says of highlights with this key, if all of them are there."""
    known = clip.report.get("highlights")
    if not isinstance(known, dict) or known.get("key") != key:
        return None
    files = [clip.folder / entry["file"] for entry in known["clips"]]
    return known if all(file.is_file() for file in files) else None
