"""A run whose clip or results may be in an object store."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Iterator
from typing import Any

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError
from pipeline.core.position import Beat, Position, Step
from pipeline.core.progress import ProgressCallback
from pipeline.execution.store import exists, joined, local_copy, read, size, upload, version
from pipeline.run.identity import model_sha256, result_key
from pipeline.run.outputs import (
    ANNOTATED_NAMES,
    REPORT_JSON_NAME,
    finished_report,
    is_complete,
)
from pipeline.run.process import process_video


def process_or_skip(
    config: ProcessConfig, on_progress: ProgressCallback, position: Position
) -> dict[str, Any]:
    """Annotate a clip, unless the same was done before; results for a store are there then.

    Returns the report, in which "done_before" says which of the two it was. Raises PipelineError.
    """
    beat = functools.partial(position.encoding.enter, Step.PREPARE)
    if (url := config.remote.source_url) is not None:
        remote = dataclasses.replace(config.remote, source_version=version(url))
        config = dataclasses.replace(config, remote=remote)
    if not config.overwrite and (report := _published_before(config, on_progress)) is not None:
        return {**report, "done_before": True}
    output_url = config.remote.output_url
    if output_url is None:
        with _local_source(config, beat) as local:
            return {**process_video(local, on_progress, position), "done_before": False}
    if not config.overwrite and (complete := _complete(output_url)):
        raise InputError(f"{complete} exists already: --overwrite replaces it")
    # The folder here is ours; what is in it is of a run whose results did not get there.
    config = dataclasses.replace(config, overwrite=True)
    report = _made_before(config, on_progress)
    if report is None:
        with _local_source(config, beat) as local:
            report = process_video(local, on_progress, position)
    last = ANNOTATED_NAMES if config.video else (REPORT_JSON_NAME,)
    upload(config.output_dir, output_url, beat, last=last)
    shutil.rmtree(config.output_dir)
    return {**report, "done_before": False}


@contextlib.contextmanager
def _local_source(config: ProcessConfig, beat: Beat) -> Iterator[ProcessConfig]:
    """The config with a clip that is here."""
    with contextlib.ExitStack() as stack:
        if config.remote.source_url is not None:
            source = stack.enter_context(local_copy(config.remote.source_url, beat))
            config = dataclasses.replace(config, source=source)
        yield config


def _published_before(
    config: ProcessConfig, on_progress: ProgressCallback
) -> dict[str, Any] | None:
    """The report of an earlier run that was asked for the same, if its results are in place."""
    url = config.remote.output_url
    if url is None:
        return _made_before(config, on_progress)
    if (text := read(joined(url, REPORT_JSON_NAME))) is None:
        return None
    try:
        report: dict[str, Any] = json.loads(text)
        key = _key(config, on_progress)
        return report if is_complete(report, key, lambda name: size(joined(url, name))) else None
    except (ValueError, KeyError, TypeError):
        return None


def _complete(url: str) -> str | None:
    """The address of the file that came last to a folder, of any result that is whole; else None.

    Without it, what is there is of a run that was cut.
    """
    for name in ANNOTATED_NAMES:
        if exists(joined(url, name)):
            return joined(url, name)
    with contextlib.suppress(ValueError, KeyError, TypeError):
        report = joined(url, REPORT_JSON_NAME)
        if json.loads(read(report) or "null")["output"]["file"] is None:
            return report
    return None


def _made_before(config: ProcessConfig, on_progress: ProgressCallback) -> dict[str, Any] | None:
    """The same of results in the folder here."""
    if not (config.output_dir / REPORT_JSON_NAME).exists():
        return None
    key = _key(config, on_progress)
    return None if key is None else finished_report(config.output_dir, key)


def _key(config: ProcessConfig, on_progress: ProgressCallback) -> str | None:
    """None for a missing input, of which the run itself says so. Raises PipelineError."""
    try:
        return result_key(config, model_sha256(config, on_progress))
    except OSError:
        return None
