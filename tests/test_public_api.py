"""What `import pipeline` promises."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.core import errors as errors
from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, UsageError
from pipeline.core.progress import Progress
from pipeline.measure.benchmark import benchmark
from pipeline.measure.evaluate import evaluate
from pipeline.measure.tuner import tune
from pipeline.run.process import process_video
from tests.commands import HEAVY
from tests.conftest import with_light, write_clip

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
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__))
    assert drawn == {error.__name__ for error in ERRORS} - {"PipelineError"}


def test_no_error_is_one_that_python_raises_by_itself() -> None:
    assert errors.PipelineError.__bases__ == (Exception,)


@pytest.mark.parametrize("module", ["pipeline", "pipeline.__main__", "pipeline.cli.commands"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == []
    assert done.stderr == ""


def test_the_package_tells_type_checkers_that_it_is_typed() -> None:
    assert pipeline.__file__ is not None
    assert (Path(pipeline.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("call", [process_video, benchmark, tune], ids=lambda call: call.__name__)
def test_a_function_says_what_it_takes(call: Callable[[Any], object]) -> None:
    with pytest.raises(UsageError, match=r"must be \w+(Config|Options), not 'clip\.mp4'"):
        call("clip.mp4")


def test_evaluate_takes_text_and_refuses_other_types(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no folder images/"):
        evaluate(str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="imgsz must be an integer, not '640'"):
        evaluate(tmp_path, imgsz="640")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="data must be a path, not None"):
        evaluate(None)  # type: ignore[arg-type]


def test_text_and_integers_are_enough_for_a_run(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [with_light((i, 3)) for i in range(8)])
    report = process_video(
        ProcessConfig(
            source=str(clip),  # type: ignore[arg-type]
            output_dir=str(tmp_path / "out"),  # type: ignore[arg-type]
            weights=str(tiny_weights),  # type: ignore[arg-type]
            detect=pipeline.DetectOptions(classes=[0]),  # type: ignore[arg-type]
        )
    )
    assert report["detections"]["per_class"] == {"light": 8}


@pytest.mark.parametrize(
    "error", [ValueError("mine"), OSError(28, "mine"), InputError("mine"), StopIteration("mine")]
)
@pytest.mark.parametrize("stage", ["convert", "frames"])
def test_an_exception_of_the_callers_callback_is_the_callers(
    error: Exception, stage: str, tmp_path: Path, tiny_weights: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clip = write_clip(tmp_path / "clip.mp4", [with_light((i, 3)) for i in range(8)])
    config = ProcessConfig(source=clip, output_dir=tmp_path / "out", weights=tiny_weights)

    def fail(progress: Progress) -> None:
        if progress.stage == stage:
            raise error

    with pytest.raises(type(error)) as caught:
        process_video(config, fail)
    assert caught.value is error
    assert str(error) in ("mine", "[Errno 28] mine")
    assert not (tmp_path / "out").exists()
    assert process_video(config)["output"]["num_frames"] == 8
