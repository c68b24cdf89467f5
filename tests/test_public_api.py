"""What `import pipeline` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pipeline
from pipeline import errors

HEAVY = ("openvino", "av", "cv2", "torch", "onnx", "ultralytics", "numpy", "tqdm")

ERRORS = [value for value in vars(errors).values() if isinstance(value, type)]


@pytest.mark.parametrize("name", pipeline.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(pipeline, name)
    assert value.__name__ == name
    assert value.__module__.startswith("pipeline.")
    assert value.__doc__


def test_the_public_names_are_sorted_and_named_once() -> None:
    assert list(pipeline.__all__) == sorted(set(pipeline.__all__))


def test_a_name_that_is_not_public_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'pipeline' has no attribute 'nonsense'"):
        _ = pipeline.nonsense
    assert not hasattr(pipeline, "np")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_belongs_to_the_tree_and_is_public(error: type[BaseException]) -> None:
    assert issubclass(error, errors.PipelineError)
    assert error.__name__ in pipeline.__all__
    assert error.__doc__


def test_the_drawn_tree_of_errors_is_the_real_one() -> None:
    assert errors.__doc__ is not None
    drawn = {line.split()[1] for line in errors.__doc__.splitlines() if line[:1] in "├└" and line}
    assert drawn == {error.__name__ for error in ERRORS} - {"PipelineError"}


def test_no_error_is_one_that_python_raises_by_itself() -> None:
    assert errors.PipelineError.__bases__ == (Exception,)


@pytest.mark.parametrize("module", ["pipeline", "pipeline.__main__", "pipeline.cli"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == []
    assert done.stderr == ""


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert pipeline.__file__ is not None
    from pathlib import Path

    assert (Path(pipeline.__file__).parent / "py.typed").is_file()
