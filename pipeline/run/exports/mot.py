"""The format of the MOTChallenge: a folder per clip with seqinfo.ini and a table of boxes.

https://arxiv.org/abs/1603.00831, section 3.4. The columns of a table: frame from 1, track id, left,
top, width, height, confidence, class from 1, visibility (-1: unknown).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.run.exports.classes import classes_of
from pipeline.run.exports.clip import ExportedClip


def write_mot(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write gt/gt.txt for clips with tracks, else det/det.txt, where each track id is -1.

    Class names stand in labels.txt beside it, one in a line, in the order of the numbers. With the
    classes of COCO 1 is a person, which is the pedestrian of the MOTChallenge. seqinfo.ini has a
    whole number as frame rate, as the format asks.
    """
    classes = classes_of(clips)
    labels = "".join(f"{' '.join(name.split())}\n" for name in classes)
    for clip in clips:
        folder = target / clip.key
        table = _write_boxes(clip, classes, folder)
        (table.parent / "labels.txt").write_text(labels, encoding="utf-8")
        (folder / "seqinfo.ini").write_text(_seqinfo(clip), encoding="utf-8")


def _write_boxes(clip: ExportedClip, classes: dict[str, int], folder: Path) -> Path:
    """Write boxes with and without a track into a table each; keep and return the right one."""
    tracked, others = folder / "gt" / "gt.txt", folder / "det" / "det.txt"
    for path in (tracked, others):
        path.parent.mkdir(parents=True)
    with tracked.open("w", encoding="utf-8") as gt, others.open("w", encoding="utf-8") as det:
        for frame in clip.frames():
            for box in frame.boxes:
                left, top, right, bottom = box.xyxy
                track = -1 if box.track_id is None else box.track_id
                out = det if box.track_id is None else gt
                out.write(
                    f"{frame.frame_index + 1},{track},{left},{top},{right - left:.2f},"
                    f"{bottom - top:.2f},{box.confidence},{classes[box.class_name] + 1},-1\n"
                )
    kept, dropped = (tracked, others) if tracked.stat().st_size else (others, tracked)
    shutil.rmtree(dropped.parent)
    return kept


def _seqinfo(clip: ExportedClip) -> str:
    width, height = clip.size_wh
    return (
        f"[Sequence]\nname={clip.key}\nimDir=img1\nframeRate={max(1, round(clip.frame_rate))}\n"
        f"seqLength={clip.num_frames}\nimWidth={width}\nimHeight={height}\nimExt=.jpg\n"
    )
