"""Where the checkpoint comes from: the usual places, or a download that is verified."""

from __future__ import annotations

import gc
import hashlib
import http.server
import socket
import threading
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.core.errors import ModelError
from pipeline.core.files import file_sha256
from pipeline.core.progress import Progress, no_progress
from pipeline.model import weights
from pipeline.model.weights import download, find_weights
from tests.conftest import DEMO, needs_demo

CONTENT = bytes(range(256)) * 1024
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each path in its own way, as good and bad servers do."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path == "/nonsense":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            self.close_connection = True
            return
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        self.send_response(200)
        if self.path != "/unknown-length":
            extra = 1000 if self.path == "/truncated" else 0
            self.send_header("Content-Length", str(len(CONTENT) + extra))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@contextmanager
def closed_port() -> Iterator[str]:
    """A port that is taken but that nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/file"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder to stand in, with an empty cache and no network."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "OFFICIAL_URL", "http://127.0.0.1:1/no-such-server")
    return folder


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_first_of_the_usual_places_wins(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [
        project / "asked-for.pt",
        project / "environment.pt",
        project / "weights" / "yolov5n.pt",
        tmp_path / "shared" / "weights" / "yolov5n.pt",
        tmp_path / "cache" / "pipeline" / "yolov5n.pt",
    ]
    for place in places:
        put(place)
    monkeypatch.setenv("PIPELINE_WEIGHTS", str(places[1]))
    assert find_weights(places[0], no_progress) == places[0]
    assert find_weights(None, no_progress) == places[1]
    monkeypatch.delenv("PIPELINE_WEIGHTS")
    for place in places[2:]:
        assert find_weights(None, no_progress).resolve() == place
        place.unlink()


def test_an_empty_environment_variable_names_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_WEIGHTS", "")
    expected = put(project / "weights" / "yolov5n.pt")
    assert find_weights(None, no_progress).resolve() == expected


@needs_demo
def test_the_demo_model_comes_with_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_weights("demo", no_progress) == DEMO
    assert find_weights(None, no_progress, "demo") == DEMO
    monkeypatch.setenv("PIPELINE_WEIGHTS", str(put(project / "environment.pt")))
    assert find_weights("demo", no_progress) == DEMO
    assert find_weights(None, no_progress, "demo") == project / "environment.pt"


def test_the_official_model_by_name_is_that_of_the_usual_places(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_WEIGHTS", str(put(project / "environment.pt")))
    with pytest.raises(ModelError, match="could not be downloaded"):
        find_weights("official", no_progress, "demo")
    put(project / "weights" / "yolov5n.pt")
    assert find_weights("official", no_progress, "demo") == Path("weights/yolov5n.pt")


@pytest.mark.parametrize("installed", [False, True])
def test_the_demo_model_is_found_installed_and_in_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "pipeline" / "model" / "weights.py"))
    with pytest.raises(ModelError, match=r"samples/demo\.pt is missing.*--weights"):
        find_weights("demo", no_progress)
    root = tmp_path / "pipeline" if installed else tmp_path
    placed = put(root / "samples" / "demo.pt")
    assert find_weights("demo", no_progress) == placed


@pytest.mark.parametrize("by_environment", [False, True])
@pytest.mark.parametrize("kind", ["missing", "folder", "no weights"])
def test_what_was_asked_for_is_never_replaced_by_something_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, kind: str, by_environment: bool
) -> None:
    put(project / "weights" / "yolov5n.pt")
    (project / "folder").mkdir()
    put(project / "no weights" / "model.xml")
    if by_environment:
        monkeypatch.setenv("PIPELINE_WEIGHTS", kind)
    reason = {
        "missing": "no such model file.* " + ("PIPELINE" if by_environment else "give a .pt"),
        "folder": "not the folder of an OpenVINO export.*found none",
        "no weights": r"model\.bin, the weights of model\.xml, is not in it",
    }
    with pytest.raises(ModelError, match=f"{kind}: {reason[kind]}"):
        find_weights(None if by_environment else Path(kind), no_progress)


def test_the_folder_of_an_export_is_its_graph(project: Path) -> None:
    for name in ("best.xml", "best.bin", "metadata.yaml"):
        put(project / "best_openvino_model" / name)
    found = find_weights(Path("best_openvino_model"), no_progress)
    assert found == Path("best_openvino_model/best.xml")


@needs_demo
def test_the_environment_variable_takes_a_model_by_name_too(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(project / "weights" / "yolov5n.pt")
    monkeypatch.setenv("PIPELINE_WEIGHTS", "demo")
    assert find_weights(None, no_progress) == DEMO


def test_when_it_is_nowhere_the_message_names_the_places_and_the_way_out(
    project: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        find_weights(None, no_progress)
    message = str(caught.value)
    for named in ("weights", "../shared/weights", str(tmp_path / "cache"), "yolov5n.pt"):
        assert named in message
    assert "--weights" in message
    assert "PIPELINE_WEIGHTS" in message
    assert "MODEL=demo" in message
    assert "\n" not in message


def test_when_it_is_nowhere_it_is_downloaded_into_the_cache_once(
    project: Path, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "OFFICIAL_URL", f"{server}/good")
    monkeypatch.setattr(weights, "OFFICIAL_SHA256", SHA256)
    found = find_weights(None, no_progress)
    assert found == tmp_path / "cache" / "pipeline" / "yolov5n.pt"
    assert found.read_bytes() == CONTENT
    monkeypatch.setattr(weights, "OFFICIAL_URL", "http://127.0.0.1:1/no-such-server")
    assert find_weights(None, no_progress) == found


@pytest.mark.parametrize("path", ["good", "moved", "unknown-length"])
def test_a_good_download_lands_under_its_name_and_nothing_else_is_left(
    tmp_path: Path, server: str, path: str
) -> None:
    target = tmp_path / "new" / "folder" / "model.pt"
    assert download(f"{server}/{path}", SHA256, target, no_progress) == target
    assert target.read_bytes() == CONTENT
    assert file_sha256(target) == SHA256
    assert all_files(tmp_path) == [target]


def test_a_download_tells_how_far_it_is(tmp_path: Path, server: str) -> None:
    seen: list[Progress] = []
    download(f"{server}/good", SHA256, tmp_path / "model.pt", seen.append)
    assert {(step.stage, step.total, step.unit) for step in seen} == {
        ("download", len(CONTENT), "B")
    }
    done = [step.done for step in seen]
    assert len(done) > 1
    assert done == sorted(set(done))
    assert done[-1] == len(CONTENT)


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [
        ("good", "0" * 64, "SHA-256"),
        ("truncated", hashlib.sha256(CONTENT + bytes(1000)).hexdigest(), "truncated"),
        ("missing", SHA256, "404"),
    ],
)
def test_a_bad_download_leaves_nothing(
    tmp_path: Path, server: str, path: str, sha256: str, reason: str
) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        download(f"{server}/{path}", sha256, tmp_path / "model.pt", no_progress)
    assert f"{server}/{path}" in str(caught.value)
    assert all_files(tmp_path) == []


def test_a_refused_download_leaves_no_connection(tmp_path: Path, server: str) -> None:
    with pytest.raises(ModelError) as caught:
        download(f"{server}/missing", SHA256, tmp_path / "model.pt", no_progress)
    answer = caught.value.__cause__
    assert isinstance(answer, urllib.error.HTTPError)
    assert answer.closed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_does_not_speak_http_is_one_clear_error(tmp_path: Path, server: str) -> None:
    with pytest.raises(ModelError, match="nonsense"):
        download(f"{server}/nonsense", SHA256, tmp_path / "model.pt", no_progress)
    assert all_files(tmp_path) == []
    # Python's own client leaves the socket of such an answer to the garbage collector.
    gc.collect()


def test_a_refused_connection_leaves_nothing(tmp_path: Path) -> None:
    with closed_port() as url, pytest.raises(ModelError, match="refused"):
        download(url, SHA256, tmp_path / "model.pt", no_progress)
    assert all_files(tmp_path) == []


@pytest.mark.parametrize("url", ["not a url", "http://", "nosuch://host/file"])
def test_a_wrong_address_is_one_clear_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(ModelError, match=url):
        download(url, SHA256, tmp_path / "model.pt", no_progress)


def test_a_file_that_was_there_survives_a_bad_download(tmp_path: Path, server: str) -> None:
    target = put(tmp_path / "model.pt")
    with pytest.raises(ModelError):
        download(f"{server}/good", "0" * 64, target, no_progress)
    assert target.read_bytes() == b"weights"
    assert all_files(tmp_path) == [target]


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, server: str) -> None:
    in_the_way = put(tmp_path / "cache")
    with pytest.raises(ModelError, match=str(in_the_way)):
        download(f"{server}/good", SHA256, in_the_way / "model.pt", no_progress)


def _stop(_: Progress) -> None:
    raise KeyboardInterrupt


def _break(_: Progress) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("fault", "error"), [(_stop, KeyboardInterrupt), (_break, ModelError)])
def test_a_download_that_is_stopped_leaves_nothing(
    tmp_path: Path,
    server: str,
    fault: Callable[[Progress], None],
    error: type[BaseException],
) -> None:
    with pytest.raises(error):
        download(f"{server}/good", SHA256, tmp_path / "model.pt", fault)
    assert all_files(tmp_path) == []
