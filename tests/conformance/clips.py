"""Clips that FFmpeg's own program makes: containers, codecs, clocks, shapes, colours and sounds."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PICTURE_RATE = 25
PICTURE = ("-f", "lavfi", "-i", f"testsrc2=s=96x64:r={PICTURE_RATE}:d=0.8")
SOUND = ("-f", "lavfi", "-i", "sine=f=440:r=48000:d=0.8")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "10")
X264_B = (*X264, "-bf", "2")
JOINED = "joined recordings"
_MAKE_SECONDS = 60

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One clip: commands of ffmpeg that run in an empty folder; the last one writes `file`.

    even: its time stamps are known to be wrong, and its frames to be evenly spaced.
    """

    family: str
    name: str
    file: str
    commands: tuple[Command, ...]
    even: bool = False

    def make(self, folder: Path) -> Path | None:
        """Make the clip; None where this build of FFmpeg refuses the combination."""
        for command in self.commands:
            full = ("ffmpeg", "-v", "error", "-nostdin", "-y", *command)
            try:
                done = subprocess.run(
                    full, cwd=folder, capture_output=True, timeout=_MAKE_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                return None
            if done.returncode:
                return None
        clip = folder / self.file
        return clip if clip.exists() and clip.stat().st_size else None


def all_recipes() -> list[Recipe]:
    """Every clip, in the order of the table."""
    return [
        *_containers_and_codecs(),
        *_starts(),
        *_edits(),
        *_joined(),
        *_rates(),
        *_turned(),
        *_sizes(),
        *_pixel_formats(),
        *_color_tags(),
        *_interlaced(),
        *_sounds(),
        *_other_streams(),
    ]


def _one(family: str, name: str, file: str, *command: str) -> Recipe:
    return Recipe(family, name, file, ((*command, file),))


_CONTAINERS = (
    *("mp4", "mov", "mkv", "webm", "avi", "ts", "m2ts", "mpg", "vob", "flv", "ogv", "asf"),
    *("wmv", "mxf", "nut", "3gp", "3g2", "f4v", "ismv", "wtv", "rm", "gxf", "dv", "swf"),
)
_CODECS = {
    "h264": X264,
    "h264-b": X264_B,
    "hevc": (*("-c:v", "libx265", "-preset", "ultrafast"), *("-x265-params", "log-level=error")),
    "mpeg1": ("-c:v", "mpeg1video", "-q:v", "3"),
    "mpeg2": ("-c:v", "mpeg2video", "-q:v", "3"),
    "mpeg2-b": ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "3"),
    "mpeg4-b": ("-c:v", "mpeg4", "-q:v", "3", "-bf", "2"),
    "h263": ("-s", "128x96", "-c:v", "h263", "-q:v", "3"),
    "flv1": ("-c:v", "flv", "-q:v", "3"),
    "wmv1": ("-c:v", "wmv1", "-q:v", "3"),
    "wmv2": ("-c:v", "wmv2", "-q:v", "3"),
    "msmpeg4": ("-c:v", "msmpeg4", "-q:v", "3"),
    "vp8": ("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "1M"),
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M"),
    "av1": ("-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", "-crf", "30"),
    "theora": ("-c:v", "libtheora", "-q:v", "7"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p"),
    "ffv1": ("-c:v", "ffv1"),
    "huffyuv": ("-c:v", "huffyuv", "-pix_fmt", "yuv422p"),
    "utvideo": ("-c:v", "utvideo", "-pix_fmt", "yuv422p"),
    "prores": ("-c:v", "prores_ks"),
    "dnxhr": ("-c:v", "dnxhd", "-profile:v", "dnxhr_sq", "-s", "256x128", "-pix_fmt", "yuv422p"),
    "dv": ("-c:v", "dvvideo", "-s", "720x576", "-pix_fmt", "yuv420p"),
    "png": ("-c:v", "png"),
    "qtrle": ("-c:v", "qtrle"),
    "cinepak": ("-c:v", "cinepak"),
    "svq1": ("-c:v", "svq1", "-q:v", "3"),
    "rv10": ("-c:v", "rv10", "-q:v", "3"),
    "rv20": ("-c:v", "rv20", "-q:v", "3"),
    "jpeg2000": ("-c:v", "jpeg2000"),
    "dirac": ("-c:v", "vc2"),
    "zmbv": ("-c:v", "zmbv"),
    "raw": ("-c:v", "rawvideo"),
}
_RAW_CONTAINERS = {
    "h264": "h264",
    "h264-b": "h264",
    "hevc": "hevc",
    "mpeg2": "m2v",
    "mpeg4": "m4v",
    "h263": "h263",
    "vp8": "ivf",
    "vp9": "ivf",
    "av1": "obu",
    "mjpeg": "mjpeg",
    "dirac": "drc",
    "raw": "y4m",
}


_GUESSED = {("mpeg1", "avi"), ("hevc", "mpg"), ("hevc", "vob"), ("h264-b", "mxf")}
"""Written without the pts of each frame. FFmpeg's program guesses them: one frame late behind the
first, or two frames at once at the end. Players that count frames show them evenly."""
_REORDERED = ("mpeg1", "mpeg2")
"""Codecs of which FFmpeg takes every stream for one with B-frames."""


def _containers_and_codecs() -> Iterator[Recipe]:
    family = "containers and codecs"
    for container, (name, codec) in itertools.product(_CONTAINERS, _CODECS.items()):
        if (name.endswith("-b") or name in _REORDERED) and container in ("asf", "wmv"):
            continue  # FFmpeg writes times there that its own player does not show in order.
        if (name, container) == ("huffyuv", "wtv"):
            continue  # It is written without its tables: what FFmpeg shows of it is noise.
        command = (*PICTURE, *codec, f"clip.{container}")
        even = (name, container) in _GUESSED
        yield Recipe(family, f"{name} in {container}", f"clip.{container}", (command,), even)
    for name, extension in _RAW_CONTAINERS.items():
        file = f"clip.{extension}"
        command = (*PICTURE, *_CODECS[name], file)
        even = name == "dirac"  # FFmpeg takes the numbers of its pictures for ticks of 90 kHz.
        yield Recipe(family, f"bare {name}", file, (command,), even)
    yield _one(family, "gif", "clip.gif", *PICTURE)
    yield _one(family, "apng", "clip.apng", *PICTURE, "-f", "apng")


_WITH_SOUND = {
    "mp4": ("-c:a", "aac"),
    "mov": ("-c:a", "aac"),
    "mkv": ("-c:a", "aac"),
    "ts": ("-c:a", "mp2"),
    "mpg": ("-c:a", "mp2"),
    "flv": ("-c:a", "aac"),
    "avi": ("-c:a", "mp3"),
    "asf": ("-c:a", "aac"),
    "nut": ("-c:a", "aac"),
}


def _starts() -> Iterator[Recipe]:
    family = "clocks that do not start at 0"
    offsets = ("0.02", "0.5", "7", "4557", "95442.9", "95443.7", "1000000")
    for (container, sound), offset in itertools.product(_WITH_SOUND.items(), offsets):
        if container == "avi":
            continue  # It has no time to start at.
        command: Command = (*PICTURE, *SOUND, *X264_B, *sound, "-output_ts_offset", offset)
        yield _one(family, f"{container} from {offset} s", f"clip.{container}", *command)
    for container, late in itertools.product(("mp4", "mkv", "ts", "mov"), ("v", "a")):
        shift = ("-itsoffset", "0.3")
        inputs = (*shift, *PICTURE, *SOUND) if late == "v" else (*PICTURE, *shift, *SOUND)
        name = f"{container}, {'picture' if late == 'v' else 'sound'} 0.3 s late"
        command = (*inputs, *X264_B, *_WITH_SOUND[container])
        yield _one(family, name, f"clip.{container}", *command)
    for container in ("mp4", "mkv", "nut"):
        moved = ("-itsoffset", "-0.2", *PICTURE, *X264, "-avoid_negative_ts", "disabled")
        yield _one(family, f"{container} from -0.2 s", f"clip.{container}", *moved)


def _edits() -> Iterator[Recipe]:
    family = "edit lists and cuts"
    for container, cut, sounds in itertools.product(
        ("mp4", "mov", "mkv"), ("0.1", "0.25", "0.5"), (False, True)
    ):
        sound, audio = (SOUND, ("-c:a", "aac")) if sounds else ((), ())
        long = (*PICTURE, *sound, *X264_B, "-g", "100", *audio, f"long.{container}")
        short = ("-ss", cut, "-i", f"long.{container}", "-c", "copy", f"clip.{container}")
        name = f"{container} cut at {cut} s{', with sound' if sounds else ''}"
        yield Recipe(family, name, f"clip.{container}", (long, short))
    for flags in (
        "frag_keyframe+empty_moov",
        "frag_keyframe+empty_moov+default_base_moof",
        "frag_every_frame+empty_moov",
        "frag_keyframe",
        "faststart",
        "negative_cts_offsets",
    ):
        command: Command = (*PICTURE, *SOUND, *X264_B, "-c:a", "aac", "-movflags", flags)
        yield _one(family, f"mp4 with {flags}", "clip.mp4", *command)
    command = (*PICTURE, *X264_B, "-use_editlist", "0")
    yield _one(family, "mp4 without an edit list", "clip.mp4", *command)
    made = (*PICTURE, *X264_B, "b.mp4")
    for container in ("mp4", "avi", "mkv"):
        copied = ("-i", "b.mp4", "-c", "copy", "-bsf:v", "setts=pts=DTS", f"clip.{container}")
        name = f"{container}, pts equal to dts"
        yield Recipe(family, name, f"clip.{container}", (made, copied), even=True)


def _joined() -> Iterator[Recipe]:
    family = JOINED
    # Without sound: with it, ffmpeg's program leaves a hole between the two.
    for second_offset in ("0", "0.3", "50", "95443"):
        first = (*PICTURE, *X264, "a.ts")
        second = (*PICTURE, *X264, "-output_ts_offset", second_offset, "b.ts")
        # As `cat` would: bytes after bytes.
        join = ("-f", "data", "-i", "concat:a.ts|b.ts", "-map", "0", "-c", "copy")
        commands = (first, second, (*join, "-f", "data", "clip.ts"))
        yield Recipe(family, f"ts after ts, second from {second_offset} s", "clip.ts", commands)


def _rates() -> Iterator[Recipe]:
    family = "rates and clocks"
    rates = ("1", "5", "25/2", "24000/1001", "30", "50", "60000/1001", "120", "240", "480", "1000")
    for rate, container in itertools.product(rates, ("mp4", "mkv", "avi", "flv", "ts")):
        source = ("-f", "lavfi", "-i", f"testsrc2=s=96x64:r={rate}", "-frames:v", "12")
        name = f"{container} at {rate} fps"
        yield _one(family, name, f"clip.{container}", *source, *X264_B)
    for scale in ("90000", "1000000", "1000000000"):
        command: Command = (*PICTURE, *X264_B, "-video_track_timescale", scale)
        yield _one(family, f"mp4 on a clock of {scale} Hz", "clip.mp4", *command)
    uneven = ("-vf", "setpts='(N+0.4*mod(N,3))/25/TB'", "-fps_mode", "passthrough")
    for container in ("mp4", "mov", "mkv", "nut", "ts", "flv"):
        command = (*PICTURE, *uneven, "-enc_time_base", "1/1000", *X264)
        yield _one(family, f"{container} with uneven times", f"clip.{container}", *command)
    dropped = ("-vf", "select=mod(n\\,7)", "-fps_mode", "passthrough")
    for container in ("mp4", "mkv", "avi", "ts"):
        command = (*PICTURE, *dropped, *X264)
        yield _one(family, f"{container} with missing frames", f"clip.{container}", *command)
    for count, container in itertools.product(("1", "2", "3"), ("mp4", "mkv", "ts", "webm")):
        codec = _CODECS["vp8"] if container == "webm" else X264_B
        command = (*PICTURE, "-frames:v", count, *codec)
        yield _one(family, f"{container} of {count} frames", f"clip.{container}", *command)


def _turned() -> Iterator[Recipe]:
    family = "turned"
    made = (*PICTURE, *X264, "upright.mp4")
    for container, degrees in itertools.product(("mp4", "mov"), ("0", "90", "180", "270")):
        turn = ("-i", "upright.mp4", "-c", "copy", "-metadata:s:v:0", f"rotate={degrees}")
        file = f"clip.{container}"
        yield Recipe(family, f"{container} by {degrees}", file, (made, (*turn, file)))


def _sizes() -> Iterator[Recipe]:
    family = "sizes and shapes of pixels"
    sizes = ("16x16", "8x8", "64x48", "97x65", "321x241", "48x200", "1280x16")
    for size, codec in itertools.product(sizes, ("ffv1", "mpeg4", "vp9", "png")):
        source = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.4")
        yield _one(family, f"{codec} of {size}", "clip.mkv", *source, *_CODECS[codec])
    for aspect, container in itertools.product(("4/3", "16/11", "1/2"), ("mp4", "mkv", "ts")):
        command = (*PICTURE, "-vf", f"setsar={aspect}", *X264)
        yield _one(family, f"{container}, pixels of {aspect}", f"clip.{container}", *command)


_PIXEL_FORMATS = (
    *("yuv410p", "yuv411p", "yuv420p", "yuv422p", "yuv440p", "yuv444p", "yuva420p", "yuva444p"),
    *("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv444p12le", "yuv420p16le"),
    *("gray", "gray10le", "gray12le", "gray16le", "ya8", "bgr0", "bgra", "rgb48le", "rgba64le"),
    *("gbrp", "gbrp10le", "gbrap", "yuv420p9le", "yuv422p12le", "yuva444p10le"),
)
_RAW_FORMATS = (
    *("yuyv422", "uyvy422", "nv12", "nv21", "rgb24", "bgr24", "rgb565le", "rgb555le", "argb"),
    *("pal8", "monow", "monob", "gray", "p010le", "yvyu422", "rgb8", "bgr4_byte", "gray16be"),
)


def _pixel_formats() -> Iterator[Recipe]:
    family = "pixel formats"
    for name in _PIXEL_FORMATS:
        command: Command = (*PICTURE, "-c:v", "ffv1", "-pix_fmt", name)
        yield _one(family, f"ffv1 in {name}", "clip.mkv", *command)
    for name in _RAW_FORMATS:
        yield _one(
            family, f"raw {name}", "clip.nut", *PICTURE, "-c:v", "rawvideo", "-pix_fmt", name
        )
    for codec, name in (
        *(("libx264", f) for f in ("yuv422p", "yuv444p", "yuv420p10le", "yuvj420p", "gray")),
        *(("libx265", f) for f in ("yuv420p10le", "yuv422p10le", "yuv444p12le", "gray", "gbrp")),
        *(("libvpx-vp9", f) for f in ("yuv444p", "yuv422p10le", "yuva420p", "gbrp")),
        *(("prores_ks", f) for f in ("yuv422p10le", "yuv444p10le", "yuva444p10le")),
        *(("png", f) for f in ("pal8", "gray", "rgb24", "rgba", "rgb48be", "gray16be", "monob")),
        *(("qtrle", f) for f in ("rgb24", "argb", "gray", "rgb555be")),
        *(("mjpeg", f) for f in ("yuvj422p", "yuvj444p")),
        *(("huffyuv", f) for f in ("rgb24", "bgra")),
        *(("libaom-av1", f) for f in ("yuv420p10le", "yuv444p", "gray")),
    ):
        quiet = ("-x265-params", "log-level=error") if codec == "libx265" else ()
        speed = ("-cpu-used", "8") if codec in ("libaom-av1", "libvpx-vp9") else ()
        command = (*PICTURE, "-c:v", codec, *quiet, *speed, "-pix_fmt", name)
        yield _one(family, f"{codec} in {name}", "clip.mov", *command)
        yield _one(family, f"{codec} in {name}, mkv", "clip.mkv", *command)


def _color_tags() -> Iterator[Recipe]:
    family = "colour tags"
    matrices = ("bt709", "smpte170m", "bt470bg", "smpte240m", "bt2020nc", "fcc", "ycgco", "rgb")
    for matrix, color_range in itertools.product(matrices, ("tv", "pc")):
        tags: Command = ("-colorspace", matrix, "-color_range", color_range)
        yield _one(family, f"matrix {matrix}, {color_range}", "clip.mkv", *PICTURE, *X264, *tags)
    for primaries in ("bt709", "bt470m", "bt470bg", "smpte170m", "film", "bt2020", "smpte432"):
        tags = ("-colorspace", "bt709", "-color_primaries", primaries, "-color_trc", "bt709")
        yield _one(family, f"primaries {primaries}", "clip.mp4", *PICTURE, *X264, *tags)
    for trc in ("bt709", "gamma22", "gamma28", "smpte2084", "arib-std-b67", "iec61966-2-1"):
        tags = ("-colorspace", "bt2020nc", "-color_primaries", "bt2020", "-color_trc", trc)
        yield _one(family, f"transfer {trc}", "clip.mp4", *PICTURE, *X264, *tags)


def _interlaced() -> Iterator[Recipe]:
    family = "interlaced"
    fields = ("-flags", "+ildct+ilme")
    for order, mode in (("tff", "interleave_top"), ("bff", "interleave_bottom")):
        weave = ("-vf", f"tinterlace=mode={mode},setfield={order}")
        mpeg2 = ("-c:v", "mpeg2video", "-q:v", "3", "-pix_fmt", "yuv420p")
        for container in ("mpg", "ts", "mkv", "mxf"):
            command = (*PICTURE, *weave, *mpeg2, *fields)
            yield _one(family, f"mpeg2 {order} in {container}", f"clip.{container}", *command)
        h264 = (*X264, *fields, "-x264-params", f"{order}=1")
        for container in ("mp4", "mkv", "ts"):
            name = f"h264 {order} in {container}"
            yield _one(family, name, f"clip.{container}", *PICTURE, *weave, *h264)


_SOUND_CODECS = (
    *("aac", "ac3", "eac3", "mp2", "libmp3lame", "libopus", "libvorbis", "flac", "alac", "dca"),
    *("truehd", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_u8"),
    *("pcm_alaw", "pcm_mulaw", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "wmav1", "wmav2"),
    *("g722", "libopencore_amrnb", "wavpack", "tta", "libspeex", "adpcm_swf", "adpcm_yamaha"),
)


def _sounds() -> Iterator[Recipe]:
    family = "sound"
    for codec, container in itertools.product(_SOUND_CODECS, ("mkv", "mov", "mp4", "avi", "nut")):
        rate = ("-ar", "8000") if "amr" in codec or codec == "libspeex" else ()
        rate = ("-ar", "44100") if codec == "adpcm_swf" else rate
        command: Command = (*PICTURE, *SOUND, *X264, "-c:a", codec, *rate, "-strict", "-2")
        yield _one(family, f"{codec} in {container}", f"clip.{container}", *command)
    for channels, codec, container in itertools.product(
        ("1", "2", "6", "8"), ("pcm_s16le", "aac", "flac"), ("mkv", "mov", "avi", "nut")
    ):
        command = (*PICTURE, *SOUND, *X264, "-c:a", codec, "-ac", channels)
        name = f"{codec} with {channels} channels in {container}"
        yield _one(family, name, f"clip.{container}", *command)
    for length in ("0.3", "2"):
        sound = ("-f", "lavfi", "-i", f"sine=r=44100:d={length}")
        for container in ("mp4", "mkv", "ts"):
            command = (*PICTURE, *sound, *X264, *_WITH_SOUND[container])
            name = f"{length} s of sound in {container}"
            yield _one(family, name, f"clip.{container}", *command)
    two = (*PICTURE, *SOUND, "-f", "lavfi", "-i", "sine=f=880:r=48000:d=0.8")
    for container in ("mp4", "mkv", "ts", "mov"):
        maps = ("-map", "0", "-map", "1", "-map", "2")
        command = (*two, *maps, *X264, *_WITH_SOUND[container])
        yield _one(family, f"two sounds in {container}", f"clip.{container}", *command)


_SUBTITLES = "data:text/plain,1%0A00:00:00,100 --> 00:00:00,600%0AHello%0A"


def _other_streams() -> Iterator[Recipe]:
    family = "other streams"
    text = ("-f", "srt", "-i", _SUBTITLES)
    for codec, container in (
        *(("mov_text", c) for c in ("mp4", "mov")),
        *((codec, "mkv") for codec in ("srt", "ass", "webvtt")),
    ):
        command: Command = (*PICTURE, *text, *X264, "-c:s", codec)
        yield _one(family, f"{codec} in {container}", f"clip.{container}", *command)
    chapters = ";FFMETADATA1%0A[CHAPTER]%0ATIMEBASE=1/1000%0ASTART=0%0AEND=400%0Atitle=One"
    for container in ("mp4", "mkv", "mov"):
        data = ("-f", "ffmetadata", "-i", f"data:text/plain,{chapters}", "-map_metadata", "1")
        command = (*PICTURE, *data, *X264, "-map", "0:v")
        yield _one(family, f"chapters in {container}", f"clip.{container}", *command)
    cover = ("-f", "lavfi", "-i", "testsrc=s=64x64:d=0.04", "-frames:v", "1", "cover.png")
    for container in ("mp4", "mov"):
        both = (*PICTURE, "-i", "cover.png", "-map", "0", "-map", "1", *X264, "-c:v:1", "png")
        file = f"clip.{container}"
        command = (*both, "-disposition:v:1", "attached_pic", file)
        yield Recipe(family, f"a cover in {container}", file, (cover, command))
    timecode = (*PICTURE, *X264, "-timecode", "10:00:00:00")
    yield _one(family, "a time code in mov", "clip.mov", *timecode)
