"""Cuts of an annotated clip -> clips with exactly their frames, encoded as it was."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.core.config import EncodeOptions
from pipeline.core.errors import InputError
from pipeline.core.machine import available_cores
from pipeline.core.text import counted
from pipeline.frames.decode import VideoReader
from pipeline.frames.encode import VideoEncoder, require_decodable
from pipeline.media.cut import key_pts, seek_before
from pipeline.media.frame import Segment
from pipeline.media.mux import SourceStreams, mux, verify
from pipeline.media.scan import scan_clip
from pipeline.media.stretch import beginning_at
from pipeline.run.highlights.cuts import Cut

OnFrame = Callable[[], object]


class AnnotatedClip:
    """An annotated clip from which cuts are taken.

    encode: the options of its encoder. num_frames: that it must have. Raises InputError.
    """

    def __init__(self, path: Path, encode: EncodeOptions, num_frames: int) -> None:
        self._path = path
        self._encode = dataclasses.replace(encode, output_size=None)
        scan = scan_clip(path)
        self._timeline = scan.timeline
        pts = sorted(packet.pts for packet in scan.packets if packet.pts is not None)
        self._places = [self._timeline.shown(time) for time in pts]
        if len(pts) != num_frames:
            raise InputError(
                f"{path}: has {counted(len(pts), 'frame')} where there are detections of "
                f"{num_frames}: it was changed; process the clip again"
            )
        self._keys = key_pts(scan.packets)
        cores = available_cores()
        self._reader = VideoReader(path, num_threads=max(1, cores // 2), timeline=self._timeline)

    def close(self) -> None:
        self._reader.close()

    def write(self, cuts: Sequence[Cut], target: Path, on_frame: OnFrame) -> list[str]:
        """Write cuts one after the other, with their sound and subtitles; returns notes.

        on_frame: called once per frame. Raises PipelineError.
        """
        video = target.with_name(f".{target.name}.video")
        threads = self._encode.threads or 1
        try:
            encoder = VideoEncoder(video, self._reader.info, self._encode, num_threads=threads)
            with contextlib.ExitStack() as stack:
                stack.callback(encoder.abandon)
                begins = 0
                parts = []
                for cut in cuts:
                    ends = self._encode_cut(cut, encoder, begins, on_frame)
                    parts.append(self._others(cut, begins, ends))
                    begins = ends
                encoder.flush()
                encoder.close()
            require_decodable(video, self._encode, encoder.num_frames)
            notes = mux([video], target, parts[0], more=parts[1:])
            time_base = self._timeline.time_base
            times = {number: pts * time_base for number, pts in encoder.some_times()}
            verify(target, encoder.num_frames, float(begins * time_base), times)
            return notes
        finally:
            video.unlink(missing_ok=True)

    def _encode_cut(self, cut: Cut, encoder: VideoEncoder, begins: int, on_frame: OnFrame) -> int:
        """Encode the frames of a cut; returns where the last one ends, in ticks."""
        start, end = self._place(cut.first_frame), self._place(cut.end_frame)
        assert start is not None
        seek = seek_before(self._keys, self._timeline.closed(start))
        segment, ends = Segment(0, start, end, seek), begins
        for frame in self._reader.frames(segment):
            pts = begins + frame.pts - start
            encoder.encode(frame.image, pts, frame.duration, frame.time_base)
            ends = pts + frame.duration
            on_frame()
        return ends

    def _others(self, cut: Cut, begins: int, ends: int) -> SourceStreams:
        """The other streams of a cut whose frames are shown from and to these ticks."""
        time_base = self._timeline.time_base
        start = self._places[cut.first_frame]
        return SourceStreams(
            self._path,
            timeline=beginning_at(self._timeline, start - begins),
            begin_seconds=float(begins * time_base) if begins else None,
            end_seconds=float(ends * time_base),
            seek_seconds=float(start * time_base + self._timeline.offset_seconds),
        )

    def _place(self, index: int) -> int | None:
        """Where a frame is shown, in ticks; None behind the last one."""
        return self._places[index] if index < len(self._places) else None


def clip_names(cuts: Sequence[Cut], suffix: str) -> Iterator[str]:
    """The file of each cut: its number, and when it begins."""
    for number, cut in enumerate(cuts, 1):
        minutes, milliseconds = divmod(round(cut.begin_seconds * 1000), 60_000)
        hours, minutes = divmod(minutes, 60)
        clock = f"{hours:02d}h{minutes:02d}m{milliseconds / 1000:06.3f}s"
        yield f"{number:04d}_{clock}{suffix}"
