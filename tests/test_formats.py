"""Which files are read: every format that stands for itself alone, and nothing else."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.media.demuxers import ALLOWED_DEMUXERS, REFUSED_DEMUXERS
from tests.conftest import process, read_detections, write_clip
from tests.programs import needs_ffmpeg


def installed_demuxers() -> set[str]:
    names: set[str] = set()
    for entry in av.formats_available:
        try:
            av.ContainerFormat(entry, "r")
        except ValueError:
            continue
        names.update(entry.split(","))
    return names


def test_it_is_decided_for_every_demuxer_whether_it_may_be_used() -> None:
    refused = {name for names in REFUSED_DEMUXERS.values() for name in names.split()}
    assert not refused & ALLOWED_DEMUXERS
    assert installed_demuxers() - refused - ALLOWED_DEMUXERS == set()


@pytest.mark.parametrize("name", ["concat", "hls", "image2", "lavfi", "rtsp", "sdp", "vobsub"])
def test_a_demuxer_that_opens_other_files_is_not_used(name: str) -> None:
    assert name not in ALLOWED_DEMUXERS


@needs_ffmpeg
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("clip.gxf", ("-s", "720x576", "-c:v", "mpeg2video", "-pix_fmt", "yuv420p")),
        ("clip.apng", ("-f", "apng")),
        ("clip.swf", ("-c:v", "flv")),
        ("clip.h263", ("-s", "128x96", "-c:v", "h263")),
        ("clip.drc", ("-c:v", "vc2")),
        ("clip.h261", ("-s", "176x144", "-c:v", "h261")),
        ("clip.flm", ("-c:v", "rawvideo", "-pix_fmt", "rgba")),
    ],
)
def test_formats_that_few_programs_write_are_read(
    tmp_path: Path, tiny_weights: Path, file: str, options: tuple[str, ...]
) -> None:
    clip = tmp_path / file
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.4")
    command = ("ffmpeg", "-v", "error", "-y", *source, *options, str(clip))
    if subprocess.run(command, check=False).returncode:
        pytest.skip("this ffmpeg does not write the format")
    process(clip, tmp_path / "out", tiny_weights)
    assert len(read_detections(tmp_path / "out")) == 10


def zip_archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip.mp4", b"\0" * 100)


def mp4_without_index(path: Path) -> None:
    whole = path.with_name("whole.mp4")
    write_clip(whole, [np.zeros((64, 96, 3), np.uint8)] * 3)
    content = whole.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 4])


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>Not found</body></html>")


def git_lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (zip_archive, "an archive: unpack it first"),
        (mp4_without_index, "an MP4 without its index"),
        (web_page, "a web page"),
        (git_lfs_pointer, "a Git LFS pointer"),
    ],
)
def test_what_is_no_clip_is_named(
    tmp_path: Path, tiny_weights: Path, make: Callable[[Path], None], reason: str
) -> None:
    clip = tmp_path / "clip.mp4"
    make(clip)
    with pytest.raises(InputError, match=reason):
        process(clip, tmp_path / "out", tiny_weights)
