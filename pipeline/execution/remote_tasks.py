"""Tasks as they travel to other processes, here or on other nodes, and what comes back."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

from pipeline.core.notes import note
from pipeline.core.position import Beat
from pipeline.core.work_folder import WORK_NAME
from pipeline.execution.segment_worker import WITNESS_NAME, Attempt, RemoteTask, SharedModel
from pipeline.execution.store import download, joined, upload
from pipeline.frames.segment import OpenClip
from pipeline.frames.task import Manifest, RunSettings, SegmentTask
from pipeline.inference.openvino import resolved_precision
from pipeline.model.parts import parts_sha256
from pipeline.model.prepare import PreparedModel, save_prepared

_MODEL_NAME = "model"


def remote_tasks(
    clip: OpenClip, tasks: list[SegmentTask], beat: Beat, model: SharedModel | None = None
) -> list[tuple[SegmentTask, RemoteTask]]:
    """The tasks as they travel; what all of them need is put where they are made.

    model: that of the clip, if it was shared before.
    """
    if not tasks:
        return []
    making, settings = tasks[0].files.folder.absolute(), tasks[0].settings
    config = settings.config
    witness = uuid.uuid4().hex
    (making / WITNESS_NAME).write_text(witness, encoding="utf-8")
    model = model or share_model(clip.prepared, making / _MODEL_NAME, config.imgsz)
    exchange_url = None
    if config.remote.output_url is not None:
        # The name is that of this run's folder here: a folder of another program has another.
        name = f"{WORK_NAME}-{making.parent.parent.name}"
        exchange_url = joined(config.remote.output_url, name)
        upload(model.ir.parent, joined(exchange_url, model.ir.parent.name), beat)
    settings = _elsewhere(settings, making)
    source_bytes = config.origin.num_bytes()
    return [
        (
            task,
            RemoteTask(_moved(task, settings, making), model, witness, source_bytes, exchange_url),
        )
        for task in tasks
    ]


def _elsewhere(settings: RunSettings, making: Path) -> RunSettings:
    """Settings that mean the same in every process and on every node."""
    infer = dataclasses.replace(
        settings.infer,
        # Decided once: nodes may differ in what they are fastest in.
        precision=resolved_precision(settings.infer.precision, settings.infer.device),
        # Processes of one machine would all be pinned to the same cores.
        pinning=False,
    )
    config = settings.config
    config = dataclasses.replace(
        config, source=config.origin.absolute(), output_dir=making.parent.parent
    )
    return dataclasses.replace(settings, config=config, infer=infer)


def _moved(task: SegmentTask, settings: RunSettings, making: Path) -> SegmentTask:
    """A task with paths that do not depend on where it is read."""
    files = dataclasses.replace(task.files, folder=making)
    return dataclasses.replace(task, settings=settings, files=files)


def share_model(prepared: PreparedModel, folder: Path, imgsz: int) -> SharedModel:
    """Put the very graph that was prepared here where all nodes can read it."""
    folder.mkdir(exist_ok=True)
    ir = folder / "model.xml"
    save_prepared(prepared, ir)
    return SharedModel(ir, parts_sha256(ir), imgsz, prepared.quantization)


def take_over(
    attempt: Attempt, task: SegmentTask, exchange_url: str | None, beat: Beat
) -> Manifest:
    """Move the files of an attempt to where the task wants them."""
    if exchange_url is not None:
        source = joined(exchange_url, attempt.files.folder.name)
        download(source, attempt.files.folder, beat)
    for text in attempt.notes:
        note(text)
    manifest = Manifest.read(attempt.files.manifest)
    for part in attempt.files.existing():
        part.replace(task.files.folder / part.name)
    attempt.files.folder.rmdir()
    return manifest
