"""Finds the model file: the given one, the bundled one, or the official one, verified."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pipeline.core.cache import cache_dir
from pipeline.core.config import MODEL_NAMES, ModelName
from pipeline.core.errors import ModelError
from pipeline.core.progress import Progress, ProgressCallback

OFFICIAL_NAME = "yolov5n.pt"
OFFICIAL_URL = f"https://github.com/ultralytics/yolov5/releases/download/v7.0/{OFFICIAL_NAME}"
OFFICIAL_SHA256 = "4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3"
DEMO_NAME = "demo.pt"
ENVIRONMENT_VARIABLE = "PIPELINE_WEIGHTS"

MOST_BYTES = 1 << 30
"""Three times the size of the largest YOLOv5 in float32."""

_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 20.0


def find_weights(
    given: Path | ModelName | None, on_progress: ProgressCallback, default: ModelName = "official"
) -> Path:
    """The model file to use: a file or a name that was asked for, else the default.

    The official one is the first yolov5n.pt of the usual places, else it is downloaded. Raises
    ModelError if the file is nowhere, with the places that were tried.
    """
    wanted = given or _from_environment() or default
    if wanted == "official":
        return _official(on_progress)
    if wanted == "demo":
        return _bundled()
    named = Path(wanted)
    if named.is_dir():
        return _graph_in(named)
    if not named.is_file():
        raise ModelError(
            f"{named}: no such model file; give a .pt, .onnx or .xml, or the folder of an OpenVINO "
            "export"
        )
    return named


def _graph_in(folder: Path) -> Path:
    """The .xml in a folder, which has its .bin beside it. Raises ModelError."""
    graphs = sorted(folder.glob("*.xml"))
    if len(graphs) != 1:
        found = ", ".join(path.name for path in graphs) or "none"
        raise ModelError(
            f"{folder}: not the folder of an OpenVINO export, which has one .xml with its .bin; "
            f"found {found}"
        )
    if not graphs[0].with_suffix(".bin").is_file():
        missing = graphs[0].with_suffix(".bin").name
        raise ModelError(f"{folder}: {missing}, the weights of {graphs[0].name}, is not in it")
    return graphs[0]


def _bundled() -> Path:
    package = Path(__file__).resolve().parents[1]
    folders = [package / "samples", package.parent / "samples"]  # Installed, or in a checkout.
    for folder in folders:
        if (folder / DEMO_NAME).is_file():
            return folder / DEMO_NAME
    raise ModelError(
        f"the demo model {folders[-1] / DEMO_NAME} is missing, though it comes with the sources; "
        "name another model with --weights"
    )


def placed_official() -> Path | None:
    """The official model in the first of the usual places; None if it would be downloaded."""
    places = (folder / OFFICIAL_NAME for folder in _official_folders())
    return next(filter(Path.is_file, places), None)


def _official_folders() -> list[Path]:
    return [Path("weights"), Path("../shared/weights"), cache_dir()]


def _official(on_progress: ProgressCallback) -> Path:
    if placed := placed_official():
        return placed
    try:
        return download(OFFICIAL_URL, OFFICIAL_SHA256, cache_dir() / OFFICIAL_NAME, on_progress)
    except ModelError as error:
        tried = ", ".join(map(str, _official_folders()))
        raise ModelError(
            f"{OFFICIAL_NAME} is in none of {tried} and could not be downloaded: {error}; "
            f"put the file into one of them, or give it with --weights or {ENVIRONMENT_VARIABLE}; "
            "--model demo (with make: MODEL=demo) selects the bundled model, which is for the "
            "synthetic scene only"
        ) from error


def download(url: str, sha256: str, target: Path, on_progress: ProgressCallback) -> Path:
    """Download a file; it appears under its name only if its SHA-256 is right.

    Raises ModelError if it cannot be downloaded or stored, or is another file.
    """
    # Imported here, because most runs do not download.
    import http.client
    import urllib.error
    import urllib.request

    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,  # noqa: S310
            tempfile.NamedTemporaryFile(
                dir=target.parent, prefix=f"{target.name}.", delete=False
            ) as file,
        ):
            part = Path(file.name)
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            digest, done = hashlib.sha256(), 0
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                on_progress(Progress("download", done, total, unit="B"))
        if digest.hexdigest() != sha256:
            raise ModelError(f"{url} returned a file with another SHA-256: {digest.hexdigest()}")
        part.replace(target)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # It is a response too, with the connection.
        raise ModelError(f"{url}: {error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target


def require_size(path: Path) -> None:
    """Raise ModelError for a file that cannot be a model, before it is read."""
    if not path.is_file():
        raise ModelError(f"{path}: not found, or not a regular file")
    size = path.stat().st_size
    if not 0 < size <= MOST_BYTES:
        raise ModelError(f"{path}: {size} bytes; a model file has 1 to {MOST_BYTES} bytes")


def _from_environment() -> Path | str | None:
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if not named or named in MODEL_NAMES:
        return named
    if not Path(named).exists():
        raise ModelError(f"{named}: no such model file, which {ENVIRONMENT_VARIABLE} names")
    return Path(named)
