"""The packets of a clip's video stream -> its images, in presentation order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from pipeline.core.config import LimitOptions
from pipeline.core.machine import thread_ids
from pipeline.media.container import exact, max_pixels, open_header
from pipeline.media.frame import SourceFaults
from pipeline.media.jumps import LEAP_SECONDS
from pipeline.media.picture_track import picture_track
from pipeline.media.scan import kept_pts
from pipeline.media.timeline import Timeline, in_order


class ClipDecoder:
    """An open file and its decoder. What is broken is skipped and counted in `faults`.

    worker_threads: ids of the decoder's threads, from the first image on. Raises InputError if the
    file cannot be opened or exceeds a limit.
    """

    def __init__(
        self, path: Path, limits: LimitOptions, num_threads: int, timeline: Timeline
    ) -> None:
        self.faults = SourceFaults()
        self.worker_threads: frozenset[int] = frozenset()
        self._path = path
        self._limits = limits
        self._num_threads = num_threads
        self._timeline = timeline
        self._num_cut = 0
        self._decoding = threading.Lock()
        self._open()

    def next_image(self) -> tuple[int | None, av.VideoFrame] | None:
        """The next image with its pts, in ticks of the stream with joins closed; None at the end.

        Images that an edit list hides are not among them.
        """
        with self._decoding:
            return next(self._images, None)

    @property
    def sample_aspect_ratio(self) -> Fraction | None:
        """That of the file, else of the decoder, which knows it from the first image on."""
        context = self.stream.codec_context
        return exact(self.stream.sample_aspect_ratio) or exact(context.sample_aspect_ratio)

    def seek(self, pts: int) -> None:
        """Go on from a key frame at or before a time stamp of the file."""
        self.container.seek(pts, stream=self.stream)
        self._begin()

    def reopen(self) -> None:
        """Begin with the clip once more: not every file can be sought to where it begins."""
        self.container.close()
        self._open()

    def close(self) -> None:
        """Let go of the file; not while another thread is inside the decoder and hangs there."""
        if self._decoding.acquire(blocking=False):
            self.container.close()
            self._decoding.release()

    def count_corrupt(self) -> None:
        """Count a corrupt image, unless it is that of a packet which was counted before."""
        if self._num_cut:
            self._num_cut -= 1
        else:
            self.faults.corrupt_frames += 1

    def _open(self) -> None:
        self.container = open_header(self._path, self._limits)
        try:
            self.stream, self.header = picture_track(self._path, self.container)
            # Slices only: a decoder of whole frames in parallel, when it is drained, silently
            # drops every frame behind the first broken one.
            self.stream.thread_type = "SLICE"
            self.stream.codec_context.thread_count = self._num_threads
            self.stream.codec_context.options = {"max_pixels": str(max_pixels(self._limits))}
        except BaseException:
            self.container.close()
            raise
        self._begin()

    def _begin(self) -> None:
        """Decode from where the container is."""
        self._images = in_order(self._decode(), self._timeline.reorder_depth)

    def _decode(self) -> Iterator[tuple[int | None, av.VideoFrame]]:
        """Images as the decoder gives them; broken packets are counted and left out."""
        context, timeline = self.stream.codec_context, self._timeline
        discarded: set[int] = set()
        num_packets = num_images = num_broken = 0
        for packet in self._packets():
            if packet is not None and packet.is_discard:
                discarded.add(packet.pts or 0)
            num_packets += packet is not None and not packet.is_discard
            cut = packet is not None and packet.is_corrupt
            num_broken += cut
            try:
                for image in self._decoded(packet):
                    pts = image.pts if image.pts is not None else image.dts
                    if pts in discarded or timeline.is_hidden(pts):
                        continue
                    num_images += 1
                    yield pts if timeline.has_times else None, image
            except av.FFmpegError as error:
                self._note_broken(error.strerror or str(error), counted=cut)
                num_broken += not cut
        if context.name == "libdav1d":
            # It says nothing of packets that it cannot decode, and makes one image of each other.
            self.faults.broken_packets += max(0, num_packets - num_images - num_broken)

    def _decoded(self, packet: av.Packet[VideoStream] | None) -> list[av.VideoFrame]:
        """What the decoder makes of a packet; with the first one it starts its threads."""
        context = self.stream.codec_context
        if context.is_open:
            return context.decode(packet)
        threads_before = thread_ids()
        try:
            return context.decode(packet)
        finally:
            self.worker_threads = thread_ids() - threads_before

    def _note_broken(self, reason: str, *, counted: bool) -> None:
        """Count a packet that cannot be decoded; counted: the container said so before."""
        if counted:
            self._num_cut = max(0, self._num_cut - 1)  # No image will come of it.
            self.faults.first_error = self.faults.first_error or reason
        else:
            self.faults.note_broken_packet(reason)

    def _packets(self) -> Iterator[av.Packet[VideoStream] | None]:
        """The stream's packets, joins closed, then None: the decoder gives up what it holds."""
        cut, clock, last_shift = False, self._timeline.video, 0
        ordinals = itertools.count()
        try:
            for packet in self.container.demux(self.stream):
                if packet.size:
                    cut = packet.is_corrupt
                    self.faults.broken_packets += cut
                    self._num_cut += cut
                    shift = clock.shift(next(ordinals))
                    if (last_shift - shift) * clock.time_base > LEAP_SECONDS:
                        self.faults.repaired_timestamps += 1
                    last_shift = shift
                    packet.pts = kept_pts(packet, self.container.format.name)
                    if shift:
                        packet.pts = None if packet.pts is None else packet.pts + shift
                        packet.dts = None if packet.dts is None else packet.dts + shift
                    yield packet
        except av.FFmpegError as error:
            self._note_broken(f"reading stopped: {error.strerror or error}", counted=cut)
        yield None
