"""Clips as cameras write them, with sound, tracks, times and damage; frames with their number."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

from pipeline.frames.encode import ordinary_priority
from tests.conftest import (
    read_detections,
    with_light,
    write_clip,
)
from tests.hostile import (
    CONTAINERS,
)

Image = NDArray[np.uint8]

LIMITED, FULL = 1, 2


Configure = Callable[[Any], None]


LOSSLESS = {
    "libx264": {"qp": "0", "preset": "ultrafast"},
    "libx264rgb": {"qp": "0", "preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=error:lossless=1"},
    "libvpx-vp9": {"lossless": "1", "deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"crf": "5", "preset": "12"},
    "mpeg4": {"qmin": "1", "qmax": "2"},
}


UNTAGGED = (0, 2, 2, 2)


def record(
    path: Path,
    images: list[Image],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: Fraction = Fraction(25),
    time_base: Fraction | None = None,
    pts: list[int] | None = None,
    last_duration: int = 1,
    options: dict[str, str] | None = None,
    container_format: str | None = None,
    tags: tuple[int, int, int, int] = UNTAGGED,
    configure: Configure = lambda stream: None,
) -> Path:
    """Encode RGB pictures, losslessly where the codec can; pts are in ticks of time_base."""
    time_base = time_base or 1 / rate
    pts = pts or list(range(len(images)))
    ends = [*pts[1:], pts[-1] + last_duration]
    full = FULL if tags[0] == FULL else LIMITED
    with ordinary_priority(), av.open(str(path), "w", format=container_format) as container:
        settings = {**LOSSLESS.get(codec, {}), **(options or {})}
        stream: Any = container.add_stream(codec, rate=rate, options=settings)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = time_base
        context.flags |= Flags.frame_duration
        context.color_range, context.color_primaries = tags[:2]
        context.color_trc, context.colorspace = tags[2:]
        configure(stream)
        for image, start, end in zip(images, pts, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_color_range=full)
            frame.pts, frame.duration, frame.time_base = start, end - start, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moving_lights(count: int) -> list[Image]:
    """A light that is elsewhere in every picture."""
    return [with_light((index % 16, index // 16 % 12)) for index in range(count)]


def frames_of(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@dataclass(frozen=True)
class Track:
    """A sound or subtitle track to be recorded with a clip."""

    codec: str
    language: str = "eng"


def record_with_tracks(
    path: Path,
    before: list[Track],
    after: list[Track],
    *,
    num_frames: int = 20,
    images: list[Image] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A clip with other tracks before and after its video track; without images, of lights."""
    with av.open(str(path), "w") as container:
        muxed: list[Any] = []
        for track in before:
            muxed += _track_packets(container, track)
        settings = options or LOSSLESS["libx264"]
        video: Any = container.add_stream("libx264", rate=25, options=settings)
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        for image in images or moving_lights(num_frames):
            muxed += video.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        muxed += video.encode(None)
        for track in after:
            muxed += _track_packets(container, track)
        for packet in sorted(muxed, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def _track_packets(container: Any, track: Track) -> list[Any]:
    if track.codec in ("mov_text", "subrip"):
        stream = container.add_mux_stream(track.codec)
        stream.metadata["language"] = track.language
        return list(_subtitle_packets(stream, track.codec))
    stream = container.add_stream(track.codec, rate=48000)
    stream.bit_rate = 96000
    stream.metadata["language"] = track.language
    seed = sum(track.language.encode())
    samples = np.random.default_rng(seed).normal(0, 0.1, (1, 38400)).astype(np.float32)
    sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    sound.sample_rate, sound.pts, sound.time_base = 48000, 0, Fraction(1, 48000)
    return [*stream.encode(sound), *stream.encode(None)]


def _subtitle_packets(stream: Any, codec: str) -> Iterator[Any]:
    for index, text in enumerate((b"first", b"second")):
        length = len(text).to_bytes(2, "big") if codec == "mov_text" else b""
        packet: Any = av.Packet(length + text)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 400 * index
        packet.duration = 300
        yield packet


def tracks_of(path: Path, kind: str) -> list[list[tuple[Fraction, bytes]]]:
    """Of each track of a kind: its packets, as time in exact seconds and content."""
    with av.open(str(path)) as container:
        wanted = [stream for stream in container.streams if stream.type == kind]
        tracks: dict[int, list[tuple[Fraction, bytes]]] = {stream.index: [] for stream in wanted}
        for packet in container.demux(wanted) if wanted else ():
            if packet.size and packet.pts is not None:
                content = (packet.pts * packet.time_base, bytes(packet))
                tracks[packet.stream.index].append(content)
        return list(tracks.values())


def damage_packets(path: Path, indices: list[int]) -> Path:
    """Replace what some video packets hold by noise; the container around them stays whole."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = path.read_bytes()
    random = np.random.default_rng(1)
    for index in indices:
        assert content.count(packets[index]) == 1
        content = content.replace(packets[index], random.bytes(len(packets[index])))
    path.write_bytes(content)
    return path


NUM_BITS = 10


BIT_PX = 8


def numbered(index: int) -> NDArray[np.uint8]:
    """A frame that says its number twice: a light to be detected, and a bar code below it.

    The bars are too dark for the light detector, so no box is drawn over them.
    """
    image = with_light(light_cell(index))
    for bit in range(NUM_BITS):
        if index >> bit & 1:
            image[-2 * BIT_PX :, bit * BIT_PX : (bit + 1) * BIT_PX] = 100
    return image


def light_cell(index: int) -> tuple[int, int]:
    return index % 16, 3 + index // 16 % 6


def number_read_from(image: NDArray[np.uint8]) -> int:
    bars = image[-BIT_PX:, : NUM_BITS * BIT_PX].reshape(BIT_PX, NUM_BITS, BIT_PX, 3)
    return sum(1 << bit for bit, level in enumerate(bars.mean(axis=(0, 2, 3))) if level > 60)


def assert_numbered(out: Path, num_frames: int) -> None:
    """Every frame of a numbered clip is there once, in order, and has its own detection."""
    with av.open(str(out / "annotated.mp4")) as container:
        images = [image.to_ndarray(format="rgb24") for image in container.decode(video=0)]
    assert [number_read_from(image) for image in images] == list(range(num_frames))
    lines = read_detections(out)
    assert [line["frame_index"] for line in lines] == list(range(num_frames))
    assert [
        [[round(value / 8) for value in box["xyxy"][:2]] for box in line["detections"]]
        for line in lines
    ] == [[list(light_cell(i))] for i in range(num_frames)]


def four_corners(size_wh: tuple[int, int] = (96, 64)) -> Image:
    """A picture whose corners are of different brightness, clockwise from the top left."""
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 40
    image[: height // 2, width // 2 :] = 100
    image[height // 2 :, width // 2 :] = 160
    image[height // 2 :, : width // 2] = 220
    return image


def jpeg_with_orientation(path: Path, orientation: int) -> Path:
    """A JPEG whose EXIF data says how it was held (TIFF 6.0, tag 274)."""
    encoded, content = cv2.imencode(".jpg", four_corners())
    assert encoded
    entry = struct.pack("<HHII", 0x112, 3, 1, orientation)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path.write_bytes(content.tobytes()[:2] + segment + content.tobytes()[2:])
    return path


NUM_FRAMES = 12


_CODECS = {"avi": "mpeg4", "webm": "libvpx-vp9", "flv": "flv1", "mpg": "mpeg2video"}


_FAST = {
    "libx264": {"g": "6", "preset": "ultrafast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def small_clip(path: Path, *, detail: int = 0, **container_options: str) -> Path:
    """A clip of a few kilobytes, more with detail (noise up to this level)."""
    codec = _CODECS.get(path.suffix[1:], "libx264")
    random = np.random.default_rng(2)
    images = [with_light((index, 3)) for index in range(NUM_FRAMES)]
    for image in images:
        image += random.integers(0, detail + 1, image.shape, np.uint8) * (image < 200)
    return write_clip(
        path,
        images,
        codec=codec,
        options=_FAST.get(codec, {}),
        container_options=container_options,
    )


def mutation_clips(folder: Path) -> dict[str, Path]:
    """A whole clip in each container, with sound where its packets are checked on the way."""
    clips = {name: small_clip(folder / f"whole.{name}") for name in CONTAINERS}
    for name in ("mp4", "ts"):
        record_with_tracks(clips[name], [Track("aac")], [], num_frames=NUM_FRAMES)
    return clips


def times_of(path: Path) -> list[Fraction]:
    """When each frame is shown, by FFmpeg's own account, in exact seconds."""
    return [
        frame.pts * frame.time_base
        for frame in frames_of(path)
        if frame.pts is not None and frame.time_base is not None
    ]


def since_first(times: list[Fraction]) -> list[Fraction]:
    """As a player shows them, which begins with the first."""
    return [time - times[0] for time in times]
