"""Playlists and other files that try to make whoever reads them open something else."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import av
import cv2

from tests.conftest import gray, with_light, write_clip

CANARY = b"canary-7d1f9c52"
"""Bytes that must never be seen outside the file that a trap leads to."""


def write_canary(folder: Path) -> Path:
    """A whole clip that says CANARY, so that a reader who is led there has something to show."""
    path = folder / "canary.ts"
    with av.open(str(path), "w", options={"mpegts_flags": "resend_headers"}) as container:
        container.metadata.update(service_name=CANARY.decode(), title=CANARY.decode())
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(10):
            image = av.VideoFrame.from_ndarray(with_light((index, 5)), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    assert CANARY in path.read_bytes()
    return path


def playlists(folder: Path, canary: Path, port: int) -> dict[str, str]:
    """Traps by name, each as what is given for a clip; they lead to the canary or to the port.

    Some are no files at all but what FFmpeg would take for an address.
    """
    http = f"http://127.0.0.1:{port}"
    traps: dict[str, str] = {}
    for name, (file_name, content) in _text_traps(canary, http).items():
        place = folder / name
        place.mkdir(parents=True)
        (place / file_name).write_text(content, encoding="utf-8")
        traps[name] = str(place / file_name)
    for name, make in _BINARY_TRAPS.items():
        place = folder / name
        place.mkdir()
        traps[name] = str(make(place, canary, http))
    for name, make in _SPECIAL_FILES.items():
        place = folder / name
        place.mkdir()
        traps[name] = str(make(place, canary, http))
    return {**traps, **_addresses(canary, port)}


OWN_FRAMES = ("avi-gab2-hls", "avi-gab2-ass", "mkv-attachment")
"""Traps that hold frames of their own, which may be read."""
NUM_OWN_FRAMES = 8


def _hls(target: str, *tags: str) -> str:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", *tags, "#EXTINF:1.0,", target, "#EXT-X-ENDLIST"]
    return "\n".join(lines) + "\n"


def _mpd(base: str) -> str:
    return f"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">
<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">
<BaseURL>{base}</BaseURL></Representation></AdaptationSet></Period></MPD>
"""


def _text_traps(canary: Path, http: str) -> dict[str, tuple[str, str]]:
    """Name -> (file name, content)."""
    file = f"file://{canary}"
    under = {
        f"hls-as-{suffix}": (f"clip.{suffix}", _hls(str(canary)))
        for suffix in ("m3u8", "mp4", "mkv", "avi", "ts", "webm")
    }
    size = canary.stat().st_size
    return under | {
        "hls-http": ("clip.mp4", _hls(f"{http}/a.ts")),
        "hls-file-url": ("clip.mp4", _hls(file)),
        "hls-nested": (
            "clip.mp4",
            f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{http}/inner.m3u8\n",
        ),
        "hls-key": (
            "clip.mp4",
            _hls(str(canary), f'#EXT-X-KEY:METHOD=AES-128,URI="{http}/key"'),
        ),
        "hls-map": ("clip.mp4", _hls(str(canary), f'#EXT-X-MAP:URI="{file}"')),
        "hls-concat": ("clip.mp4", _hls(f"concat:{http}/header.m3u8|{file}")),
        "hls-subfile": ("clip.mp4", _hls(f"subfile,,start,0,end,{size},,:{canary}")),
        "hls-data": ("clip.mp4", _hls("data:video/mp2t;base64,R0AAEA==")),
        "hls-gopher": ("clip.mp4", _hls(http.replace("http", "gopher") + "/_x")),
        "hls-after-blank": ("clip.mp4", "\ufeff" + _hls(str(canary))),
        "ffconcat": ("clip.ffconcat", f"ffconcat version 1.0\nfile '{canary}'\n"),
        "ffconcat-as-mp4": ("clip.mp4", f"ffconcat version 1.0\nfile '{canary}'\n"),
        "ffconcat-http": (
            "clip.mkv",
            f"ffconcat version 1.0\nfile '{http}/a.ts'\noption protocol_whitelist file,http,tcp\n",
        ),
        "dash-file": ("clip.mpd", _mpd(file)),
        "dash-http-as-mp4": ("clip.mp4", _mpd(f"{http}/a.mp4")),
        "sdp": (
            "clip.sdp",
            "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
            f"a=control:rtsp://{http[7:]}/x\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ),
        "smooth-streaming": (
            "clip.ism",
            f'<SmoothStreamingMedia><StreamIndex Type="video" Url="{http}/a"/>'
            "</SmoothStreamingMedia>",
        ),
        "asx": ("clip.asx", f'<asx version="3.0"><entry><ref href="{http}/a"/></entry></asx>'),
        "wmv-reference": ("clip.wmv", f"[Reference]\nRef1={http}/a.asf?MSWMExt=.asf\n"),
        "ram": ("clip.ram", f"rtsp://{http[7:]}/a.rm\n"),
        "rm-as-text": ("clip.rm", f".ra\xfd rtsp://{http[7:]}/a.rm\n"),
        "smil": ("clip.smil", f'<smil><body><video src="{http}/a.mp4"/></body></smil>'),
        "xspf": (
            "clip.xspf",
            '<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track><location>'
            f"{file}</location></track></trackList></playlist>",
        ),
        "pls": ("clip.pls", f"[playlist]\nFile1={http}/a.ts\nNumberOfEntries=1\n"),
        "svg": (
            "clip.svg",
            f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{file}"/></svg>',
        ),
        "imf": (
            "CPL.xml",
            '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/'
            f'2067-3/2016"><Id>urn:uuid:x</Id><Path>{file}</Path></CompositionPlaylist>',
        ),
        "vobsub": ("clip.idx", "# VobSub index file, v7 (do not modify this line!)\nid: en\n"),
        "avisynth": ("clip.avs", f'DirectShowSource("{canary}")\n'),
        "lavfi": ("clip.lavfi", f"movie={canary}[out0]\n"),
        "metadata-script": ("clip.ffmeta", f";FFMETADATA1\ntitle={file}\n"),
    }


def _addresses(canary: Path, port: int) -> dict[str, str]:
    """What FFmpeg would take for an address, though there is no such file."""
    http = f"http://127.0.0.1:{port}"
    return {
        "name-http": f"{http}/clip.mp4",
        "name-tcp": f"tcp://127.0.0.1:{port}",
        "name-rtsp": f"rtsp://127.0.0.1:{port}/clip",
        "name-rtmp": f"rtmp://127.0.0.1:{port}/clip",
        "name-ftp": f"ftp://127.0.0.1:{port}/clip.mp4",
        "name-file": f"file:{canary}",
        "name-concat": f"concat:{canary}|{canary}",
        "name-subfile": f"subfile,,start,0,end,0,,:{canary}",
        "name-crypto": f"crypto:{canary}",
        "name-cache": f"cache:{canary}",
        "name-async": f"async:{http}/clip.mp4",
        "name-data": "data:video/mp4;base64,AAAA",
        "name-pipe": "pipe:0",
        "name-fd": "fd:0",
        "name-unix": f"unix:{canary}",
        "name-hls": f"hls+{http}/clip.m3u8",
        "name-sequence": str(canary.parent / "canary%d.ts"),
    }


def _avi_gab2(place: Path, subtitle: bytes) -> Path:
    """An AVI with a GAB2 subtitle track, which FFmpeg opens as a file within the file."""
    path = _own_clip(place / "clip.avi")
    data = path.read_bytes()
    content = b"GAB2\0" + struct.pack("<HI", 2, 2) + b"x\0" + struct.pack("<HI", 4, len(subtitle))
    content += subtitle + b"\0" * (len(subtitle) % 2)
    header = struct.pack("<4s4sIHHIIIIIIII8x", b"txts", b"\0" * 4, 0, 0, 0, 0, 1, 25, 0, 9, 0, 0, 0)
    stream = _riff(b"strh", header) + _riff(b"strf", b"")
    chunks = []
    at = 12
    while at + 8 <= len(data):
        [size] = struct.unpack_from("<I", data, at + 4)
        kind, body = data[at : at + 4], bytearray(data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
        if body[:4] == b"hdrl":
            struct.pack_into("<I", body, 4 + 8 + 24, 2)
            body += _riff(b"LIST", b"strl" + stream)
        elif body[:4] == b"movi":
            body[4:4] = _riff(b"01tx", content)
        if kind != b"idx1":
            chunks.append(_riff(kind, bytes(body)))
    path.write_bytes(_riff(b"RIFF", b"AVI " + b"".join(chunks)))
    return path


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _mov_dref(place: Path, canary: Path, _: str) -> Path:
    """A clip whose samples are said to lie in another file, by an alias record."""
    path = _own_clip(place / "clip.mov")
    target = str(canary).encode()
    name = bytes([len(target) % 63]) + target[:63].ljust(63, b"\0")
    # An alias record: volume, file name, levels, then the absolute path (2) and the end (-1).
    record = bytes(10 + 28 + 12) + name + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    record += struct.pack(">HH", 2, len(target)) + target + bytes(len(target) % 2)
    record += struct.pack(">hH", -1, 0)
    entry = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    data = bytearray(path.read_bytes())
    at = data.index(b"dref") - 4
    [old] = struct.unpack_from(">I", data, at)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        size_at = data.rindex(name, 0, at) - 4
        [size] = struct.unpack_from(">I", data, size_at)
        struct.pack_into(">I", data, size_at, size + len(box) - old)
    data[at : at + old] = box
    path.write_bytes(data)
    return path


def _mkv_attachment(place: Path, canary: Path, http: str) -> Path:
    """Attachments with names that leave the folder."""
    path = place / "clip.mkv"
    source = _own_clip(place / "own.mkv")
    with av.open(str(source)) as clip, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(clip.streams.video[0])
        out.add_attachment("../../../escaped.sh", "text/x-sh", b"touch escaped")
        out.add_attachment(str(canary), "video/mp2t", _hls(f"{http}/a.ts").encode())
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    source.unlink()
    return path


def _mkv_linked(place: Path, canary: Path, _: str) -> Path:
    """A segment without tracks that says that another file comes next."""
    name = str(canary).encode()
    next_file = b"\x3e\x83\xbb" + bytes([0x40, len(name)]) + name
    info = b"\x15\x49\xa9\x66" + struct.pack(">H", 0x4000 | len(next_file)) + next_file
    ebml = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska"
    path = place / "clip.mkv"
    path.write_bytes(ebml + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" + info)
    return path


def _picture_sequence(place: Path, canary: Path, _: str) -> Path:
    """A file whose name is the pattern of a sequence, and which is no picture itself."""
    for name in ("picture001.png", "picture002.png"):
        cv2.imwrite(str(place / name), with_light((1, 1)))
    (place / "picture%03d.png").write_bytes(b"no picture")
    return place / "picture%03d.png"


def _fifo(place: Path, canary: Path, _: str) -> Path:
    os.mkfifo(place / "clip.mp4")
    return place / "clip.mp4"


def _link_to_fifo(place: Path, canary: Path, _: str) -> Path:
    os.mkfifo(place / "fifo")
    (place / "clip.mp4").symlink_to(place / "fifo")
    return place / "clip.mp4"


def _socket(place: Path, canary: Path, _: str) -> Path:
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(place)  # The path of a socket may only be short.
        try:
            server.bind("clip.mp4")
        finally:
            os.chdir(before)
    return place / "clip.mp4"


def _own_clip(path: Path) -> Path:
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    return write_clip(path, [gray(40 + index) for index in range(NUM_OWN_FRAMES)], codec=codec)


_Make = Callable[[Path, Path, str], Path]
_BINARY_TRAPS: dict[str, _Make] = {
    "avi-gab2-hls": lambda place, canary, http: _avi_gab2(place, _hls(str(canary)).encode()),
    "avi-gab2-ass": lambda place, canary, http: _avi_gab2(
        place, f"[Script Info]\nScriptType: v4.00+\n[Fonts]\nfontname: {canary}\n".encode()
    ),
    "mov-dref": _mov_dref,
    "mkv-attachment": _mkv_attachment,
    "mkv-linked": _mkv_linked,
    "picture-sequence": _picture_sequence,
}
_SPECIAL_FILES: dict[str, _Make] = {
    "fifo": _fifo,
    "link-to-fifo": _link_to_fifo,
    "socket": _socket,
    "device": lambda place, canary, http: Path("/dev/zero"),
}
