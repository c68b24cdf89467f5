"""The work of a process that draws recorded detections onto segments of a clip, beside others."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from pipeline.core.memory import release_memory
from pipeline.core.notes import collected_notes
from pipeline.core.position import Position
from pipeline.core.progress import ProgressCallback
from pipeline.execution.frame_counter import FrameCounter
from pipeline.execution.latest_source import LatestSource
from pipeline.frames.render import RecordedLines, render_segment
from pipeline.frames.source import open_source
from pipeline.frames.task import SegmentTask


@dataclass(slots=True)
class RenderSegments:
    """Draws one segment after the other, and writes its manifest; returns the notes of each.

    cores: how many this process has.
    """

    cores: int
    lines: RecordedLines
    _source: LatestSource = field(default_factory=LatestSource, init=False)

    def __call__(
        self, task: SegmentTask, on_progress: ProgressCallback, position: Position
    ) -> list[str]:
        settings, counter = task.settings, FrameCounter(on_progress)
        open_it = functools.partial(open_source, settings.config, self.cores, settings.timeline)
        with collected_notes() as notes, self._source.opened("", task.segment, open_it) as source:
            manifest = render_segment(source, self.lines, task, position, counter.on_frame)
        manifest.write(task.files.manifest)
        release_memory()
        counter.end()
        return notes
