"""Clips and results in an object store, on a server that speaks S3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.commands import main
from pipeline.core.cache import cache_dir
from pipeline.core.errors import InputError, UsageError
from pipeline.execution.store import download, exists, is_url, local_copy, upload
from tests.conftest import gray, with_light, write_clip

pytest.importorskip("s3fs", reason="needs s3fs: pip install s3fs")

import s3fs

from tests.buckets import SECRET, a_bucket, settings_of


@pytest.fixture(autouse=True)
def _cache_of_one_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results for an address are made in the cache, and other tests have the same addresses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def store(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in settings_of(s3_server).items():
        monkeypatch.setenv(name, value)
    with a_bucket() as filesystem:
        yield filesystem


@pytest.fixture
def clip(tmp_path: Path, store: Any) -> str:
    path = write_clip(tmp_path / "clip.mp4", [gray(50), with_light((3, 3))] * 4)
    store.put_file(str(path), "footage/cams/clip.mp4")
    return "s3://footage/cams/clip.mp4"


def files_below(store: Any, folder: str) -> set[str]:
    store.invalidate_cache()
    return {name.removeprefix(f"{folder}/") for name in store.find(folder)}


def test_a_clip_in_a_store_is_annotated_into_the_store(
    store: Any, clip: str, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["process", clip, "--output-dir", "s3://footage/out", "--weights", str(tiny_weights)]
    assert main(command) == 0
    assert files_below(store, "footage/out") == {
        "annotated.mp4",
        "detections.jsonl",
        "report.json",
        "report.html",
        "viewer.html",
        "viewer_data/events.js",
        "viewer_data/index.js",
        "viewer_data/00000.js",
    }
    assert store.cat_file("footage/out/detections.jsonl").count(b"\n") == 8
    assert b'"name": "clip.mp4"' in store.cat_file("footage/out/report.json")
    shown = capsys.readouterr()
    assert "s3://footage/out/annotated.mp4" in shown.out
    assert not list((cache_dir() / "remote-output").iterdir())


def test_the_same_command_on_results_in_a_store_is_done_before(
    store: Any,
    clip: str,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["process", clip, "--output-dir", "s3://footage/out", "--weights", str(tiny_weights)]
    complete = "footage/out/annotated.mp4"
    assert main(command) == 0
    written = store.modified(complete)
    # On another machine, which has no copy of the clip.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert main(command) == 0
    assert f"{clip}: skipped, already done" in capsys.readouterr().out
    assert not list(cache_dir().glob("remote/*/*"))
    # Another command, another clip of this name, or a part of the results alone are not the same.
    assert main([*command, "--conf", "0.5"]) == 1
    assert f"s3://{complete} exists already: --overwrite" in capsys.readouterr().err
    store.put_file(
        str(write_clip(tmp_path / "other.mp4", [with_light((5, 5))] * 3)),
        clip.removeprefix("s3://"),
    )
    assert main(command) == 1
    store.invalidate_cache()
    assert store.modified(complete) == written
    assert main([*command, "--overwrite"]) == 0
    assert store.cat_file("footage/out/detections.jsonl").count(b"\n") == 3
    store.rm(complete)
    assert main(command) == 0
    assert "skipped" not in capsys.readouterr().out
    assert "annotated.mp4" in files_below(store, "footage/out")


def test_results_that_could_not_be_sent_are_sent_by_the_next_run(
    store: Any, clip: str, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["process", clip, "--output-dir", "s3://later/out", "--weights", str(tiny_weights)]
    assert main(command) == 1
    assert "s3://later/out/" in capsys.readouterr().err
    (kept,) = (cache_dir() / "remote-output").iterdir()
    report = (kept / "report.json").read_bytes()
    store.mkdir("later")
    try:
        assert main(command) == 0
        assert store.cat_file("later/out/report.json") == report
        assert "annotated.mp4" in files_below(store, "later/out")
    finally:
        store.rm("later", recursive=True)


def test_either_may_be_a_path(store: Any, clip: str, tmp_path: Path, tiny_weights: Path) -> None:
    weights = ["--weights", str(tiny_weights)]
    assert main(["process", clip, "--output-dir", str(tmp_path / "out"), *weights]) == 0
    assert (tmp_path / "out" / "annotated.mp4").exists()
    local = str(tmp_path / "clip.mp4")
    assert main(["process", local, "--output-dir", "s3://footage/up", *weights]) == 0
    assert "annotated.mp4" in files_below(store, "footage/up")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://footage/none.mp4", "s3://footage/none.mp4: no such object or bucket"),
        ("s3://nobucket/clip.mp4", "s3://nobucket/clip.mp4: no such object or bucket"),
    ],
)
def test_what_is_not_there_is_told_of(
    store: Any, tmp_path: Path, source: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", source, "--output-dir", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


def test_a_server_that_is_away_is_told_of_without_a_word_of_credentials(
    store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    arguments = ["process", "s3://footage/a.mp4", "--output-dir", str(tmp_path / "out"), "--debug"]
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert "s3://footage/a.mp4: unexpected answer of the store" in shown.err.splitlines()[-1]
    assert SECRET not in shown.err + shown.out
    s3fs.S3FileSystem.clear_instance_cache()


def test_without_credentials_the_message_says_where_they_come_from(
    store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    assert main(["process", "s3://footage/a.mp4"]) == 1
    assert "no credentials were found" in capsys.readouterr().err
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "address",
    [f"someone:{SECRET}@footage/a.mp4", f"someone:x/{SECRET}@footage/a.mp4", f"{SECRET}@footage/a"],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["process", f"s3://{address}"]) == 2
    shown = capsys.readouterr()
    assert "leave credentials out of the address" in shown.err
    assert SECRET not in shown.err + shown.out


def test_a_package_that_is_missing_is_named(store: Any) -> None:
    with pytest.raises(UsageError, match="gs:// needs the package gcsfs: pip install gcsfs"):
        exists("gs://footage/clip.mp4")


@pytest.mark.parametrize(
    "name", ["clip.mp4", "/a/s3:/b", "http://x/y.mp4", "memory://x", "file:///etc/passwd", "s3:/x"]
)
def test_paths_and_other_addresses_are_left_alone(name: str) -> None:
    assert not is_url(name)


@pytest.mark.parametrize(
    "name",
    ["s3://footage/a@2x.mp4", "gs://b/x@y/z.mp4", "s3://arn:aws:s3:eu:1:accesspoint/a/k@1.mp4"],
)
def test_an_at_sign_in_a_key_is_part_of_its_name(name: str) -> None:
    assert is_url(name)


def test_a_clip_with_an_at_sign_in_its_key_is_annotated(
    store: Any, clip: str, tmp_path: Path, tiny_weights: Path
) -> None:
    store.copy("footage/cams/clip.mp4", "footage/cams/clip@2x.mp4")
    out = ["--output-dir", "s3://footage/me@home"]
    assert (
        main(["process", "s3://footage/cams/clip@2x.mp4", *out, "--weights", str(tiny_weights)])
        == 0
    )
    assert "annotated.mp4" in files_below(store, "footage/me@home")


def test_one_copy_is_shared_and_gives_way_to_the_next_clip(store: Any, clip: str) -> None:
    with local_copy(clip) as first, local_copy(clip) as second:
        assert first == second
        store.put_file(str(first), "footage/other.mp4")
        with local_copy("s3://footage/other.mp4"):
            assert first.exists()  # It is in use.
    store.put_file(str(first), "footage/third.mp4")
    with local_copy("s3://footage/third.mp4") as third:
        assert not first.exists()
        assert third.name == "third.mp4"


def test_a_clip_that_was_written_anew_is_copied_anew(store: Any, clip: str) -> None:
    with local_copy(clip) as first:
        before = first.read_bytes()
    store.pipe_file("footage/cams/clip.mp4", b"other")
    with local_copy(clip) as second:
        assert second.read_bytes() == b"other" != before


def test_folders_go_there_and_come_back(store: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("x", "y"):
        (tmp_path / "a" / name).write_text(name)
    upload(tmp_path / "a", "s3://footage/folder")
    download("s3://footage/folder", tmp_path / "b")
    assert {path.name: path.read_text() for path in (tmp_path / "b").iterdir()} == {
        "x": "x",
        "y": "y",
    }
    with pytest.raises(InputError, match="no such object"), contextlib.ExitStack() as stack:
        stack.enter_context(local_copy("s3://footage/nothing"))
