"""The processes side by side that take segments of long clips, and short clips as one segment."""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from pipeline.core.closing import Closing
from pipeline.core.cores import core_shares
from pipeline.execution.processes import SideBySide
from pipeline.execution.remote_tasks import share_model
from pipeline.execution.segment_process import ProcessSegments
from pipeline.execution.segment_worker import Attempt, RemoteTask, SharedModel
from pipeline.model.prepare import PreparedModel

_MOST_MODELS = 8
"""That are kept where the processes find them: footage of a few sizes. Others come and go with
their clips."""

Group = SideBySide[RemoteTask, Attempt]


class SegmentProcesses(Closing):
    """Starts them when the first clip asks for some, and keeps them, with their models compiled.

    num_clips: that are there to be processed. scratch: where the models of many clips are put for
    the processes; None for the system's folder. Any thread may ask. A context manager, which ends
    the processes.
    """

    def __init__(self, num_clips: int = 1, scratch: Path | None = None) -> None:
        self.num_clips = num_clips
        self._scratch = scratch
        self.at_once = 1
        self._group: Group | None = None
        self._models: list[tuple[PreparedModel, SharedModel]] = []
        self._lock = threading.Lock()
        self._folder = ExitStack()

    def group(self, at_once: int, cores: int) -> Group | None:
        """Those that there are; else so many, with their shares of the cores; None for one."""
        with self._lock:
            if self._group is None and at_once > 1:
                shares, cores_each = core_shares(at_once), max(1, cores // at_once)
                self._group, self.at_once = SideBySide(ProcessSegments(cores_each), shares), at_once
            return self._group

    def shared_model(self, prepared: PreparedModel, imgsz: int) -> SharedModel | None:
        """The model where all processes find it; None where it is to be put beside its clip."""
        if self.num_clips == 1:
            return None
        with self._lock:
            for other, shared in self._models:
                if other.model is prepared.model:  # Of all clips that give its input this size.
                    return shared
            if len(self._models) == _MOST_MODELS:
                return None
            made = tempfile.TemporaryDirectory(prefix="pipeline-", dir=self._scratch)
            folder = Path(self._folder.enter_context(made))
            self._models.append((prepared, share_model(prepared, folder, imgsz)))
            return self._models[-1][1]

    def close(self) -> None:
        with self._lock:
            group, self._group, self.at_once = self._group, None, 1
            self._models.clear()
        if group is not None:
            group.close()
        self._folder.close()
