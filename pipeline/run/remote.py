"""A run whose clip or results are in an object store."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from typing import Any

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, PipelineError
from pipeline.core.position import Beat, no_beat
from pipeline.core.progress import ProgressCallback
from pipeline.execution.store import exists, joined, local_copy, upload
from pipeline.run.identity import model_sha256, result_key
from pipeline.run.outputs import ANNOTATED_NAMES, REPORT_JSON_NAME, finished_report


@contextlib.contextmanager
def local_places(config: ProcessConfig, beat: Beat = no_beat) -> Iterator[ProcessConfig]:
    """What to run in place of a config whose clip or output is in a store.

    When the context ends well, the results are in the store. Raises UsageError, InputError.
    """
    remote = config.remote
    if remote.output_url is not None:
        # It comes last: without it, what is there is of a run that was cut.
        for complete in (joined(remote.output_url, name) for name in ANNOTATED_NAMES):
            if not config.overwrite and exists(complete):
                raise InputError(f"{complete} exists already: --overwrite replaces it")
        # The folder here is ours; what is in it is of a run whose results did not get there.
        config = dataclasses.replace(config, overwrite=True)
    with contextlib.ExitStack() as stack:
        if remote.source_url is not None:
            source = stack.enter_context(local_copy(remote.source_url, beat))
            config = dataclasses.replace(config, source=source)
        yield config
    if remote.output_url is not None:
        upload(config.output_dir, remote.output_url, beat, last=ANNOTATED_NAMES)
        shutil.rmtree(config.output_dir)


def made_before(config: ProcessConfig, on_progress: ProgressCallback) -> dict[str, Any] | None:
    """The report of an earlier run that was asked for the very same, if its results are here.

    Those for a store did not get there then.
    """
    if config.remote.output_url is None and config.overwrite:
        return None
    if not (config.output_dir / REPORT_JSON_NAME).exists():
        return None
    try:
        key = result_key(config, model_sha256(config, on_progress))
    except (OSError, PipelineError):  # The run itself says what is wrong.
        return None
    return finished_report(config.output_dir, key)
