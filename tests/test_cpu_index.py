"""Where CPU builds of PyTorch come from: an index that answers, and no other."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cpu_index import index_option


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_index_that_lists_torch_is_taken(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    page = '<a href="torch-2.13.0%2Bcpu-py3-none-any.whl">torch-2.13.0+cpu-py3-none-any.whl</a>'
    (tmp_path / "torch" / "index.html").write_text(page)
    with serving(tmp_path) as url:
        assert index_option(url) == f"--extra-index-url {url}"


def test_an_index_without_torch_is_left_out(tmp_path: Path) -> None:
    with serving(tmp_path) as url:
        assert index_option(url) == ""


@pytest.mark.parametrize("url", ["", "nowhere", "file:///etc", "http://127.0.0.1:9/"])
def test_what_is_no_index_is_left_out(url: str) -> None:
    assert index_option(url) == ""


def test_an_index_that_never_answers_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpu_index.TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        assert index_option(f"http://127.0.0.1:{mute.getsockname()[1]}") == ""
    assert time.monotonic() - started < 30
