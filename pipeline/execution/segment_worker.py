"""What one process of many does: segments, with a model that it keeps compiled."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError
from pipeline.core.memory import release_memory
from pipeline.core.notes import collected_notes
from pipeline.core.position import Beat, Position, Step
from pipeline.core.progress import no_progress
from pipeline.execution.latest_source import LatestSource
from pipeline.execution.store import download, joined, local_copy, upload
from pipeline.frames.render import PartLines, render_segment
from pipeline.frames.segment import OpenClip, process_segment
from pipeline.frames.source import open_source
from pipeline.frames.task import SegmentFiles, SegmentTask
from pipeline.inference.models import Models
from pipeline.model.prepare import PreparedModel
from pipeline.model.quantization import Quantization

WITNESS_NAME = "witness"
"""A file beside the segments that are made; who reads in it what its task says sees that folder."""


@dataclass(frozen=True, slots=True)
class SharedModel:
    """A model that was prepared once, for everybody.

    ir: its graph, to be given as weights; key: tells it from others.
    """

    ir: Path
    key: str
    imgsz: int
    quantization: Quantization | None


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """A segment to be done elsewhere; all paths are absolute, and seen by every node.

    witness: what the file of that name holds. source_bytes: the size of the clip; None without one.
    exchange_url: a folder in a store that takes the place of the one where segments are made,
    which then need not be seen.
    """

    task: SegmentTask
    model: SharedModel
    witness: str
    source_bytes: int | None
    exchange_url: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A segment that is done: its files, in a folder of their own, and what was noted."""

    files: SegmentFiles
    notes: list[str]


class SegmentWorker:
    """Takes segments through all steps with so many cores.

    name: of the place where it runs, in messages.
    """

    def __init__(self, cores: int, name: str = "this machine") -> None:
        self._cores = cores
        self._name = name
        self._models = Models()
        self._prepared: tuple[tuple[str, tuple[int, int]], PreparedModel] | None = None
        self._source = LatestSource()

    def attempt(
        self, remote: RemoteTask, position: Position, on_frame: Callable[[], object]
    ) -> Attempt:
        """Do a segment, into a folder of its own: one that was given up may still be written to.

        position: set to where the work is. on_frame: called once per finished frame. Raises
        PipelineError.
        """
        number, config = remote.task.files.number, remote.task.settings.config
        name = f"{number:04d}-{uuid.uuid4().hex}"
        beat = _beat(position)
        with contextlib.ExitStack() as stack:
            if config.remote.source_url is not None:
                copy = stack.enter_context(local_copy(config.remote.source_url, beat))
                stack.callback(self._source.close)  # The copy does not stay.
                config = dataclasses.replace(config, source=copy)
            self._require_same(config, remote.source_bytes)
            if remote.exchange_url is None:
                self._require_shared(remote)
                making = remote.task.files.folder
            else:
                making = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            made = dataclasses.replace(remote.task.files, folder=making / name)
            made.folder.mkdir()
            settings = dataclasses.replace(remote.task.settings, config=config)
            task = dataclasses.replace(remote.task, settings=settings, files=made)
            notes = self._make(remote, task, position, on_frame)
            if remote.exchange_url is not None:
                upload(made.folder, joined(remote.exchange_url, name), beat)
        files = dataclasses.replace(remote.task.files, folder=remote.task.files.folder / name)
        return Attempt(files, notes)

    def _make(
        self,
        remote: RemoteTask,
        task: SegmentTask,
        position: Position,
        on_frame: Callable[[], object],
    ) -> list[str]:
        settings = task.settings
        open_it = functools.partial(open_source, settings.config, self._cores, settings.timeline)
        with (
            collected_notes() as notes,
            self._source.opened(remote.witness, task.segment, open_it) as source,
        ):
            if task.recorded is not None:
                lines = PartLines(task.recorded)
                manifest = render_segment(source, lines, task, position, on_frame)
            else:
                inferred_wh = settings.config.windows(source.info.size_wh)[0].size_wh
                prepared = self._prepare(remote, inferred_wh, position)
                infer = dataclasses.replace(settings.infer, num_threads=self._cores)
                with self._models.engine(prepared, infer) as engine:
                    clip = OpenClip(source, prepared)
                    manifest = process_segment(clip, engine, task, position, on_frame)
        manifest.write(task.files.manifest)
        if task.segment.end_pts is not None:  # Another one follows.
            release_memory()
        return notes

    def _require_shared(self, remote: RemoteTask) -> None:
        """Raise InputError where this node does not see the folder of the run."""
        folder = remote.task.files.folder
        try:
            witness = (folder / WITNESS_NAME).read_text(encoding="utf-8")
        except OSError:
            witness = ""
        if witness != remote.witness or not os.access(folder, os.W_OK):
            raise InputError(
                f"{self._name} does not see the output folder {folder.parent.parent}, or may not "
                "write there: it must be on storage that all nodes share, under the same path"
            )

    def _require_same(self, config: ProcessConfig, num_bytes: int | None) -> None:
        """Raise InputError where this node does not see the clip, or sees another one."""
        source = config.source_name
        try:
            found = config.origin.num_bytes()
        except OSError as error:
            raise InputError(
                f"{self._name} cannot read {source} ({error.strerror}): it must be on storage that "
                "all nodes share, under the same path"
            ) from error
        if found != num_bytes:
            raise InputError(
                f"{self._name} has another file as {source} ({found} bytes instead of "
                f"{num_bytes}): it must be on storage that all nodes share"
            )

    def _prepare(
        self, remote: RemoteTask, source_wh: tuple[int, int], position: Position
    ) -> PreparedModel:
        beat = _beat(position)
        model = remote.model
        key = model.key, source_wh
        if self._prepared is None or self._prepared[0] != key:
            with contextlib.ExitStack() as stack:
                ir = model.ir
                if remote.exchange_url is not None:
                    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    source = joined(remote.exchange_url, ir.parent.name)
                    download(source, scratch / "model", beat)
                    ir = scratch / "model" / ir.name
                prepared = self._models.prepare(ir, source_wh, model.imgsz, no_progress)
            # What is known of it where it was made.
            prepared = dataclasses.replace(prepared, quantization=model.quantization)
            self._prepared = key, prepared
        return self._prepared[1]


def _beat(position: Position) -> Beat:
    return functools.partial(position.encoding.enter, Step.PREPARE)
