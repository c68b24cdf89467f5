"""The codecs of the annotated file: their encoders, what these take, and their settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import av

from pipeline.core.config import EncodeOptions
from pipeline.core.errors import EncodeError
from pipeline.media.frame import BOTTOM_FIELD_FIRST, TOP_FIELD_FIRST, HdrMetadata, VideoInfo


@dataclass(frozen=True, slots=True)
class Codec:
    """An encoder of FFmpeg and its default settings.

    tag: the name of the codec in MP4 that players look for.
    preset_option: the option that takes --preset.
    fields: by field order, what makes it encode fields as such; empty where it cannot.
    even_sizes: whether an odd width or height must be made even.
    least_px: the shortest side that it takes; most_fps: the highest frame rate; None for no limit.
    decode_all: whether every frame it made has to be decoded, as it was seen to make some that no
        decoder takes; of the others one frame is enough.
    last_primaries: the largest number of colour primaries that it takes.
    captions: whether it keeps closed captions that come with the pictures.
    hdr_params: what makes it write HDR metadata, in the form of its parameters; None for an encoder
        that takes 8 bits only, or is made to.
    extra: other options; "{threads}" in a value stands for half of the threads, rounded down, but 1
        at least.
    """

    encoder: str
    tag: str
    crf: int
    preset: str
    preset_option: str = "preset"
    even_sizes: bool = False
    decode_all: bool = False
    last_primaries: int = 22
    least_px: int = 1
    most_fps: int | None = None
    captions: bool = False
    hdr_params: Callable[[HdrMetadata], list[str]] | None = None
    extra: dict[str, str] = field(default_factory=dict)
    fields: dict[int, dict[str, str]] = field(default_factory=dict)
    default_preset_extra: dict[str, str] = field(default_factory=dict)

    @property
    def has_10_bits(self) -> bool:
        return self.hdr_params is not None

    def crf_for(self, options: EncodeOptions) -> int:
        return self.crf if options.crf is None else options.crf

    def coded_size_wh(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """The size of the frames that it encodes for those of another size."""
        step = 2 if self.even_sizes else 1
        width, height = size_wh
        return -(-width // step) * step, -(-height // step) * step

    def extra_for(self, num_threads: int, info: VideoInfo) -> dict[str, str]:
        half = str(max(1, num_threads // 2))
        extra = {name: value.replace("{threads}", half) for name, value in self.extra.items()}
        if self.hdr_params is not None and info.hdr is not None and _bits(info) > 8:
            name = next(name for name in extra if name.endswith("-params"))
            extra[name] = ":".join([extra[name], *self.hdr_params(info.hdr)])
        return extra


def _of_x265(hdr: HdrMetadata) -> list[str]:
    params = []
    if hdr.mastering is not None:
        red, green, blue, white = _pairs(map(str, hdr.mastering[:8]))
        most, least = hdr.mastering[8:]
        colors = f"G({green})B({blue})R({red})WP({white})"
        params.append(f"master-display={colors}L({most},{least})")
    if hdr.light_level is not None:
        params.append("max-cll={},{}".format(*hdr.light_level))
    return params


def _of_svtav1(hdr: HdrMetadata) -> list[str]:
    params = []
    if hdr.mastering is not None:
        red, green, blue, white = _pairs(f"{value / 50_000:.5f}" for value in hdr.mastering[:8])
        most, least = (f"{value / 10_000:.4f}" for value in hdr.mastering[8:])
        colors = f"G({green})B({blue})R({red})WP({white})"
        params.append(f"mastering-display={colors}L({most},{least})")
    if hdr.light_level is not None:
        params.append("content-light={},{}".format(*hdr.light_level))
    return params


def _pairs(values: Iterable[str]) -> list[str]:
    each = iter(values)
    return [f"{x},{y}" for x, y in zip(each, each, strict=True)]


# No B-frames: MP4 keeps durations as differences of decoding times, so that only packets in the
# order of the frames keep theirs exactly. It also takes a fifth of x264's time off, for files
# that are a fifth larger at the same quality.
# x264 spends a quarter of its time on partitions of P frames that take 0.5 to 2.3% off the size
# at equal quality; who names a preset gets all that belongs to it.
CODECS = {
    "h264": Codec(
        "libx264",
        "avc1",
        crf=23,
        preset="veryfast",
        even_sizes=True,
        last_primaries=12,
        fields={
            TOP_FIELD_FIRST: {"x264-params": "tff=1"},
            BOTTOM_FIELD_FIRST: {"x264-params": "bff=1"},
        },
        captions=True,
        extra={"bf": "0"},
        default_preset_extra={"partitions": "i4x4"},
    ),
    "hevc": Codec(
        "libx265",
        "hvc1",
        crf=28,
        preset="veryfast",
        even_sizes=True,
        last_primaries=12,
        least_px=16,
        captions=True,
        hdr_params=_of_x265,
        extra={"x265-params": "log-level=error:bframes=0", "a53cc": "1"},
    ),
    "av1": Codec(
        "libsvtav1",
        "av01",
        crf=35,
        preset="12",
        even_sizes=True,
        decode_all=True,
        least_px=4,
        most_fps=240,
        hdr_params=_of_svtav1,
        # It takes no other number: by default it starts fifty threads. Its bytes are the same.
        extra={"svtav1-params": "lp={threads}"},
    ),
    "vp9": Codec(
        "libvpx-vp9",
        "vp09",
        crf=33,
        preset="8",
        preset_option="cpu-used",
        extra={"deadline": "realtime", "row-mt": "1", "b": "0"},
    ),
}

_SUBSAMPLINGS = {(16, 16): "4:4:4", (8, 16): "4:2:2", (16, 8): "4:4:0", (4, 16): "4:1:1"}
"""By the columns and rows of chroma for 16 of luma."""


def require_encodable(info: VideoInfo, options: EncodeOptions) -> None:
    """Raise EncodeError where the codec has no such frames or rates."""
    codec = CODECS[options.codec]
    width, height = codec.coded_size_wh(info.size_wh)
    if min(width, height) < codec.least_px:
        raise EncodeError(
            f"{info.name}: {codec.encoder} does not encode frames with less than {codec.least_px} "
            f"px a side, and these are {info.size_wh[0]}x{info.size_wh[1]}: choose another --codec"
        )
    if codec.most_fps and info.frame_rate and info.frame_rate > codec.most_fps:
        raise EncodeError(
            f"{info.name}: {codec.encoder} takes no more than {codec.most_fps} frames per second, "
            f"and this clip has {float(info.frame_rate):.4g}: choose another --codec"
        )


def encoding_warnings(info: VideoInfo, options: EncodeOptions) -> tuple[str, ...]:
    """What of the pictures the codec has no place for, a line each."""
    return (
        *_chroma_warnings(info),
        *_depth_warnings(info, options),
        *_caption_warnings(info, options),
    )


def annotated_bits(info: VideoInfo, options: EncodeOptions) -> int:
    """The bits of a sample of the annotated file: 10 for deeper sources if the codec has them."""
    is_deep = not info.is_picture and _bits(info) > 8
    return 10 if is_deep and CODECS[options.codec].has_10_bits else 8


def _bits(info: VideoInfo) -> int:
    return av.VideoFormat(info.pix_fmt).components[0].bits


def _chroma_warnings(info: VideoInfo) -> tuple[str, ...]:
    """What of the resolution of colours is lost: all codecs are given 4:2:0."""
    kind = av.VideoFormat(info.pix_fmt)
    width, height = kind.chroma_width(16), kind.chroma_height(16)
    if len(kind.components) < 3 or (not kind.is_rgb and max(width, height) <= 8):
        return ()
    has = "RGB" if kind.is_rgb else _SUBSAMPLINGS.get((width, height), "finer chroma")
    return (f"the clip has {has}, the annotated one has 4:2:0: with less detail in its colours",)


def _depth_warnings(info: VideoInfo, options: EncodeOptions) -> tuple[str, ...]:
    """What of the depth, and of the metadata of HDR, is lost."""
    bits = annotated_bits(info, options)
    if bits > 8:
        has = f"the clip has {_bits(info)} bits per sample, the annotated one has {bits}"
        return (has,) if _bits(info) > bits else ()
    warnings, is_deep = [], not info.is_picture and _bits(info) > 8
    keeping = " or ".join(name for name, codec in CODECS.items() if codec.has_10_bits)
    if is_deep:
        warnings.append(
            f"the clip has {_bits(info)} bits per sample, the annotated one in {options.codec} has "
            f"8: --codec {keeping} keeps 10"
        )
    if info.hdr is not None:
        parts = (
            ("mastering display", info.hdr.mastering),
            ("content light level", info.hdr.light_level),
        )
        names = ", ".join(name for name, part in parts if part is not None)
        hint = f"; --codec {keeping} keeps it" if is_deep else ""
        warnings.append(f"metadata of the video is left out: {names}{hint}")
    return tuple(warnings)


def _caption_warnings(info: VideoInfo, options: EncodeOptions) -> tuple[str, ...]:
    if info.has_captions and options.output_size is not None:
        return ("closed captions in the video are left out with --output-size",)
    if not info.has_captions or CODECS[options.codec].captions:
        return ()
    keeping = " or ".join(name for name, codec in CODECS.items() if codec.captions)
    return (
        f"closed captions in the video are left out with {options.codec}: --codec {keeping} keeps "
        "them",
    )


def encoder_settings(options: EncodeOptions, num_threads: int) -> dict[str, Any]:
    """The settings of the encoder for these options."""
    codec = CODECS[options.codec]
    return {
        "encoder": codec.encoder,
        "crf": codec.crf_for(options),
        "preset": options.preset or codec.preset,
        "threads": num_threads,
        **(codec.default_preset_extra if options.preset is None else {}),
    }
