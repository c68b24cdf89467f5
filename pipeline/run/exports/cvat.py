"""CVAT for video 1.1: a file per clip, with tracks.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from pipeline.run.exports.classes import classes_of
from pipeline.run.exports.clip import ExportedClip
from pipeline.run.exports.tracks import Track, TrackBox, tracks_of


def write_cvat(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write one XML file for each clip.

    A box without a track is a track of one frame. Boxes of interpolated frames are key frames only
    at the beginning of a track: CVAT moves the others with their neighbours. Each box
    has an attribute `confidence`.
    """
    target.mkdir(parents=True)
    for clip in clips:
        with (target / f"{clip.key}.xml").open("w", encoding="utf-8") as out:
            out.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
            out.write(f"<version>1.1</version>\n{_meta(clip)}")
            free_id = 0
            for track in tracks_of(clip):
                track_id = free_id if track.track_id is None else track.track_id
                free_id = track_id + 1  # Tracks come in the order of their ids.
                out.writelines(_track_lines(clip, track, track_id))
            out.write("</annotations>\n")


def _meta(clip: ExportedClip) -> str:
    width, height = clip.size_wh
    labels = "".join(
        f"<label><name>{_text(name)}</name><attributes><attribute><name>confidence</name>"
        "<mutable>True</mutable><input_type>text</input_type><default_value></default_value>"
        "<values></values></attribute></attributes></label>\n"
        for name in classes_of([clip])
    )
    return (
        f"<meta><task><name>{_text(clip.name)}</name><size>{clip.num_frames}</size>"
        f"<mode>interpolation</mode><start_frame>0</start_frame>"
        f"<stop_frame>{clip.num_frames - 1}</stop_frame>\n<labels>\n{labels}</labels>\n"
        f"<original_size><width>{width}</width><height>{height}</height></original_size>"
        f"</task><source>{_text(clip.name)}</source></meta>\n"
    )


def _track_lines(clip: ExportedClip, track: Track, track_id: int) -> Iterator[str]:
    yield f'<track id="{track_id}" label={_attribute(track.class_name)} source="auto">\n'
    is_visible = False
    for box, following in zip(track.boxes, [*track.boxes[1:], None], strict=True):
        yield _box_line(box, box.frame_index, is_key_frame=not (is_visible and box.is_interpolated))
        after = box.frame_index + clip.every_nth
        is_visible = following is not None and following.frame_index == after
        if not is_visible and after < clip.num_frames:
            yield _box_line(box, after, is_key_frame=True, is_outside=True)
    yield "</track>\n"


def _box_line(
    box: TrackBox, frame_index: int, *, is_key_frame: bool, is_outside: bool = False
) -> str:
    left, top, right, bottom = box.xyxy
    return (
        f'<box frame="{frame_index}" outside="{is_outside:d}" occluded="0" '
        f'keyframe="{is_key_frame:d}" xtl="{left}" ytl="{top}" xbr="{right}" ybr="{bottom}" '
        f'z_order="0"><attribute name="confidence">{box.confidence}</attribute></box>\n'
    )


def _text(text: str) -> str:
    return escape(_allowed(text))


def _attribute(text: str) -> str:
    return quoteattr(_allowed(text))


def _allowed(text: str) -> str:
    """The text without characters that XML 1.0 cannot contain."""
    return "".join(char if char.isprintable() else " " for char in text)
