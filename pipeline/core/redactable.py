"""What --redact goes along with: nothing that leaves something uncovered, or leaks it elsewhere."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.config import STANDARD_INPUT, DetectOptions, ProcessConfig
from pipeline.core.options import require


def require_redactable(config: ProcessConfig) -> None:
    """Raise UsageError for options that --redact does not go along with."""
    if config.redact.covered is None:
        return
    require(
        config.video,
        "--redact covers objects in the annotated file, which --no-video leaves out: leave one of "
        "them out",
    )
    is_copied = config.remote.source_url or config.source == Path(STANDARD_INPUT)
    require(
        not is_copied,
        "--redact needs a file: otherwise an unredacted copy of the clip would be written to the "
        "disk of this machine; save the clip where it may be stored, and give its path",
    )
    detect, usual = config.detect, DetectOptions()
    for flag, is_given in (
        ("--roi", detect.roi is not None),
        ("--agnostic-nms", detect.agnostic_nms),
        ("--max-det", detect.max_detections < usual.max_detections),
    ):
        require(
            not is_given,
            f"{flag} can leave out boxes that --redact must cover: leave one of the two out",
        )
