"""Cuts of a source -> clips of its own packets, each from the key frame before the cut on."""

from __future__ import annotations

import contextlib
import itertools
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from numpy.typing import NDArray

from pipeline.core.errors import EncodeError, InputError
from pipeline.media.container import exact, open_header
from pipeline.media.picture_track import picture_track
from pipeline.media.scan import kept_pts
from pipeline.run.highlights.cuts import Cut

_KEPT_CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".ts", ".mts", ".m2ts")
_OTHER_CONTAINER = ".mkv"
_MOST_APART_SECONDS = 10
"""So far behind the picture its sound may be stored."""
_KINDS = ("audio", "subtitle")
_REFUSALS = (av.FFmpegError, ValueError)


@dataclass(frozen=True, slots=True)
class _Copied:
    """What of a source a cut takes, in ticks of its picture.

    key_pts: of the first packet. last: the number of the last packet of the picture, as stored.
    """

    key_pts: int
    last: int
    end_seconds: float


class SourcePackets:
    """The packets of a source, from which cuts are copied without decoding any.

    sound: whether it goes along. Raises InputError if its packets are not found by time.
    """

    def __init__(self, path: Path, *, sound: bool = True) -> None:
        self._path, self._kinds = path, _KINDS if sound else _KINDS[1:]
        kept = path.suffix.lower() in _KEPT_CONTAINERS
        self.suffix = path.suffix.lower() if kept else _OTHER_CONTAINER
        with open_header(path) as container:
            stream, _ = picture_track(path, container)
            self._index = stream.index
            self._time_base = exact(stream.time_base) or Fraction(1)
            packets = [
                (_sure_pts(packet, container.format.name), packet.dts, packet.is_keyframe)
                for packet in container.demux(stream)
                if packet.size
            ]
        pts = [pts for pts, _, _ in packets if pts is not None]
        dts = [dts for _, dts, _ in packets if dts is not None]
        if len(set(pts)) != len(packets) or any(a >= b for a, b in itertools.pairwise(dts)):
            raise InputError(
                f"{path}: its time stamps are missing, repeat or jump, so that packets cannot be "
                "cut by time: leave --from-source out"
            )
        self._pts: NDArray[np.int64] = np.array(pts, np.int64)  # As stored.
        self._numbers = {time: number for number, time in enumerate(pts)}
        self._keys = sorted(pts for pts, _, is_key in packets if is_key and pts is not None)
        self._start = min(pts, default=0)

    def seconds(self, pts: int) -> float:
        """From the first picture of the source to that of a time stamp."""
        return float((pts - self._start) * self._time_base)

    @property
    def end_seconds(self) -> float:
        """About how long the source lasts."""
        return self.seconds(int(self._pts.max()))

    def write(self, cut: Cut, target: Path) -> float:
        """Copy a cut; returns from which second of the new clip on it is shown.

        Raises InputError for a cut of another source, EncodeError.
        """
        copied = self._copied(cut)
        assert cut.begin_pts is not None
        try:
            with contextlib.ExitStack() as stack:
                container = stack.enter_context(open_header(self._path))
                out = stack.enter_context(av.open(f"file:{target}", "w"))
                targets = self._targets(container, out)
                origin = copied.key_pts * self._time_base
                for packet, stream in self._packets(container, targets, copied):
                    ticks = round(origin / (exact(packet.time_base) or Fraction(1)))
                    packet.pts = None if packet.pts is None else packet.pts - ticks
                    packet.dts = None if packet.dts is None else packet.dts - ticks
                    packet.stream = stream
                    out.mux(packet)
        except _REFUSALS as error:
            raise EncodeError(
                f"{target.name} could not be copied ({error}): leave --from-source out"
            ) from error
        return float((cut.begin_pts - copied.key_pts) * self._time_base)

    def _copied(self, cut: Cut) -> _Copied:
        begin, end = cut.begin_pts, cut.end_pts
        if begin is None or end is None or not np.isin([begin, end], self._pts).all():
            raise InputError(
                f"{self._path}: has no pictures at the times of the detections, so that packets "
                "cannot be cut: leave --from-source out"
            )
        before = bisect_right(self._keys, begin)
        key = self._keys[before - 1] if before else int(self._pts[0])
        last = int(np.flatnonzero((self._pts >= key) & (self._pts <= end))[-1])
        lasts = cut.end_seconds - cut.begin_seconds
        return _Copied(key, last, float(begin * self._time_base) + lasts)

    def _targets(self, container: InputContainer, out: OutputContainer) -> dict[int, Stream]:
        """The streams of the copy, by the index of those that go along."""
        targets: dict[int, Stream] = {}
        for stream in container.streams:
            if stream.index == self._index or stream.type in self._kinds:
                try:
                    copy = out.add_stream_from_template(stream, opaque=True)
                except _REFUSALS:
                    if stream.index == self._index:
                        raise
                    continue
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
                targets[stream.index] = copy
        return targets

    def _packets(
        self, container: InputContainer, targets: dict[int, Stream], copied: _Copied
    ) -> Iterator[tuple[Packet[Stream], Stream]]:
        """The packets of a cut, each with its stream of the copy."""
        self._seek(container, copied.key_pts)
        streams = [container.streams[index] for index in targets]
        begin_seconds = float(copied.key_pts * self._time_base)
        picture_done = False
        for packet in container.demux(streams):
            if not packet.size or packet.pts is None:
                continue
            seconds = float(packet.pts * (packet.time_base or 0))
            if packet.stream_index == self._index:
                number = self._numbers[packet.pts]
                picture_done = number >= copied.last
                # What is shown before the key frame refers to what precedes it.
                if number <= copied.last and packet.pts >= copied.key_pts:
                    yield packet, targets[packet.stream_index]
            elif begin_seconds <= seconds < copied.end_seconds:
                yield packet, targets[packet.stream_index]
            if picture_done and seconds > copied.end_seconds + _MOST_APART_SECONDS:
                return

    def _seek(self, container: InputContainer, key_pts: int) -> None:
        """Go to where a key frame is read next, or an earlier packet: to the beginning if need be.

        Not every container is as good as its index.
        """
        stream = container.streams[self._index]
        container.seek(key_pts, stream=stream)
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                if self._numbers[packet.pts] <= self._numbers[key_pts]:
                    container.seek(key_pts, stream=stream)
                    return
                break
        container.seek(self._start, stream=stream)


def _sure_pts(packet: Packet[Stream], format_name: str) -> int | None:
    """The time stamp of a packet; None for one that is a guess of FFmpeg."""
    return packet.pts if kept_pts(packet, format_name) == packet.pts else None
