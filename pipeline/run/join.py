"""The files of all segments -> those of the whole clip."""

from __future__ import annotations

import shutil

from pipeline.core.config import ProcessConfig
from pipeline.core.detection_lines import join_lines
from pipeline.core.notes import note
from pipeline.core.position import Step
from pipeline.core.text import counted
from pipeline.frames.codecs import encoding_warnings
from pipeline.frames.scaled import annotated_info
from pipeline.frames.task import SegmentFiles
from pipeline.media.carried import carried_of
from pipeline.media.frame import FrameSource, SourceFaults, VideoInfo
from pipeline.media.mux import SourceStreams, mux, verify
from pipeline.media.still import require_picture_options, verify_picture
from pipeline.run.context import RunContext
from pipeline.run.outputs import DETECTIONS_NAME, TRUTH_NAME, WEAK_NAME, annotated_name
from pipeline.run.segments import TakenSegments


def note_what_is_left_out(config: ProcessConfig, source: FrameSource) -> None:
    """Note what an annotated file does not keep of its clip, and what is strange about that.

    Raises UsageError for options that pictures do not have.
    """
    if source.info.is_picture:
        require_picture_options(config)
    elif config.clip is not None and config.video:
        strange = source.timeline.notes if source.timeline else ()
        lost = source.streams_left_out(carried_of(config))
        for warning in (*strange, *lost, *encoding_warnings(source.info, config.encode)):
            note(warning)


def join_detections(run: RunContext, info: VideoInfo, taken: TakenSegments) -> None:
    """Join the lines of all segments."""
    config, finished = run.config, run.journal.finished
    parts = _parts(run, info, taken)
    counts = [manifest.num_frames for manifest in taken.manifests]
    join_lines([part.detections for part in parts], counts, finished / DETECTIONS_NAME)
    if config.keeps_weak:
        join_lines([part.weak for part in parts], counts, finished / WEAK_NAME)
    if config.scene:
        join_lines([part.truth for part in parts], counts, finished / TRUTH_NAME)


def notes_on_frames(source: FrameSource, taken: TakenSegments) -> list[str]:
    """Notes on frames that are missing or of another size."""
    notes = [] if taken.was_cut else _notes_on_length(source, taken.num_frames)
    return notes + _notes_on_size(source.info, taken.faults())


def _parts(run: RunContext, info: VideoInfo, taken: TakenSegments) -> list[SegmentFiles]:
    numbers = range(taken.first_number, taken.first_number + len(taken.manifests))
    return [SegmentFiles(run.journal.folder, n, info.annotated_suffix) for n in numbers]


def join_annotated(run: RunContext, source: FrameSource, taken: TakenSegments) -> list[str]:
    """Join the annotated files of all segments, read the result back and check it.

    Returns notes for the report. Raises PipelineError.
    """
    parts = _parts(run, source.info, taken)
    config, info, beat = run.config, source.info, run.beat(Step.JOIN)
    annotated = run.journal.finished / annotated_name(info)
    if info.is_picture:
        shutil.copyfile(parts[0].annotated, annotated)
        verify_picture(annotated, annotated_info(info, config.encode))
        return []
    others = None
    if config.clip is not None:
        stretch = source.timeline.stretch if source.timeline else None
        ends_before = taken.was_cut or (stretch is not None and stretch.end_pts is not None)
        end_seconds = taken.end_seconds if ends_before else None
        others = SourceStreams(
            config.clip, config.limits, source.timeline, end_seconds, carried_of(config)
        )
    videos = [part.annotated for part in parts if part.annotated.exists()]
    notes = mux(videos, annotated, others, beat)
    verify(annotated, taken.num_frames, taken.end_seconds, taken.times(info.time_base), beat)
    return notes


def _notes_on_size(info: VideoInfo, faults: SourceFaults) -> list[str]:
    """A note on frames of another size than the clip's."""
    if not faults.resized_frames:
        return []
    width, height = info.size_wh
    return [
        f"the frame size changes: {counted(faults.resized_frames, 'frame')} of another size "
        f"scaled to {width}x{height}"
    ]


def _notes_on_length(source: FrameSource, num_frames: int) -> list[str]:
    """A note if the header claims more frames than could be read."""
    claimed, timeline = source.info.num_frames_header, source.timeline
    if claimed and timeline:
        # Frames hidden by an edit list, or never recorded, are not missing.
        is_counted = timeline.is_complete or timeline.stretch is not None
        claimed = timeline.num_frames if is_counted else claimed - timeline.num_hidden
    if claimed and claimed > num_frames:
        return [f"the header claims {counted(claimed, 'frame')}, but {num_frames} could be read"]
    return []
