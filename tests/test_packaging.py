"""What `pip install .` puts in place."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import needs_demo

ROOT = Path(__file__).resolve().parents[1]
WHERE = """
from pipeline.model.weights import find_weights
from pipeline.core.progress import no_progress
print(find_weights("demo", no_progress))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel built from this checkout holds."""
    pytest.importorskip("setuptools", "77", reason="builds a wheel with setuptools")
    sources, wheels, unpacked = (tmp_path_factory.mktemp(name) for name in "abc")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    for name in ("pipeline", "samples"):
        shutil.copytree(ROOT / name, sources / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(wheels), str(sources)],
        check=True,
        capture_output=True,
        timeout=90,
    )
    [wheel] = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    return unpacked


@pytest.mark.slow
def test_every_module_and_page_of_the_package_is_installed(installed: Path) -> None:
    wanted = {
        path.relative_to(ROOT)
        for pattern in ("*.py", "*.jinja", "*.css", "*.js", "py.typed")
        for path in (ROOT / "pipeline").rglob(pattern)
    }
    assert wanted == {
        path.relative_to(installed)
        for path in (installed / "pipeline").rglob("*")
        if path.is_file() and path.suffix != ".pt"
    }


@pytest.mark.slow
@needs_demo
def test_the_demo_model_is_installed_with_the_package(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHERE],
        env={"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert Path(done.stdout.strip()) == installed / "pipeline" / "samples" / "demo.pt"
