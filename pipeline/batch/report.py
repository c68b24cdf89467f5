"""The outcome of a batch -> batch.json and batch.html.

Heavy imports happen when something is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.batch.batch import Batch, ClipResult, Figures
from pipeline.core.errors import InputError
from pipeline.run.outputs import (
    BATCH_JSON_NAME,
    BATCH_VERSION,
    REPORT_PAGE_NAME,
)


def batch_record(batch: Batch, notes: Sequence[str], output_dir: Path) -> dict[str, Any]:
    """The record of a batch, as plain values.

    Its this_run is about the clips done now, in the time of the whole command; its results about
    all clips with a result, of an earlier run or this one. notes: further messages.
    """
    results = batch.results
    now = [r.figures for r in results if r.figures and r.status == "done"]
    frames, footage = _num_frames(now), _footage_seconds(now)
    seconds = batch.wall_seconds
    existing = [r.figures for r in results if r.figures]
    return {
        "schema_version": BATCH_VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "total": {
            "clips": len(results),
            "done": batch.number_of("done"),
            "skipped": batch.number_of("skipped"),
            "failed": batch.number_of("failed"),
            "not_reached": batch.number_of("not reached"),
            "wall_seconds": seconds,
            "this_run": {
                "num_frames": frames,
                "footage_hours": footage / 3600,
                "fps": frames / seconds if seconds else None,
                "times_real_time": footage / seconds if seconds else None,
            },
            "results": {
                "num_frames": _num_frames(existing),
                "footage_hours": _footage_seconds(existing) / 3600,
            },
        },
        "notes": list(notes),
        "clips": [_clip_record(result, output_dir) for result in results],
    }


def has_news(record: dict[str, Any], output_dir: Path) -> bool:
    """Whether a command did anything that is not in the existing record.

    If it processed no clip, the figures of the earlier command are kept.
    """
    if record["total"]["done"]:
        return True
    try:
        earlier = json.loads((output_dir / BATCH_JSON_NAME).read_text(encoding="utf-8"))
        known = {clip["output_dir"] for clip in earlier["clips"]}
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return not {clip["output_dir"] for clip in record["clips"]} <= known


def write_batch(record: dict[str, Any], output_dir: Path) -> None:
    """Write batch.json and batch.html, in place of those of an earlier command.

    Raises InputError if they cannot be written.
    """
    # Imported here, to keep the time before the first frame short.
    from pipeline.batch.page import write_batch_page

    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        _write_whole(output_dir / BATCH_JSON_NAME, json.dumps(record, indent=2) + "\n")
        write_batch_page(record, output_dir)
    except OSError as error:
        place = error.filename2 or error.filename or output_dir
        raise InputError(f"{place}: cannot write there ({error.strerror})") from error


def _write_whole(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _clip_record(result: ClipResult, output_dir: Path) -> dict[str, Any]:
    figures, place = result.figures, result.clip.output_dir.relative_to(output_dir)
    record: dict[str, Any] = {
        "source": str(result.clip.path),
        "output_dir": str(place),
        "status": result.status,
        "reason": result.reason or None,
        "report": None,
        "annotated": None,
    }
    if figures:
        seconds, footage = figures.wall_seconds, figures.footage_seconds
        record |= {
            # Links are made of the bytes of the names, which need not be valid text.
            "report": quote(os.fsencode(place / REPORT_PAGE_NAME)),
            "annotated": figures.annotated and quote(os.fsencode(place / figures.annotated)),
            "num_frames": figures.num_frames,
            "footage_seconds": footage,
            "wall_seconds": seconds,
            "fps": figures.num_frames / seconds,
            "times_real_time": footage and footage / seconds,
        }
    return record


def _num_frames(figures: Sequence[Figures]) -> int:
    return sum(of_clip.num_frames for of_clip in figures)


def _footage_seconds(figures: Sequence[Figures]) -> float:
    """The footage of the clips with a known frame rate."""
    return sum(of_clip.footage_seconds or 0.0 for of_clip in figures)
