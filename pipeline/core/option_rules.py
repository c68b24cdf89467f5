"""Which values of the options of a run are valid, and which of them go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.core.encode_options import DEFAULT_DRAWING, EncodeOptions
from pipeline.core.options import require

if TYPE_CHECKING:
    from pipeline.core.config import ProcessConfig  # It asks for the rules.

LEAST_AGREEMENT = 0.97

_SMALLEST_TILE_PX = 64


def require_valid_together(config: ProcessConfig) -> None:
    """Raise UsageError for a value that is not valid, or not beside the others."""
    _require_frames(config)
    _require_model_input(config)
    _require_precision(config)
    require(
        config.video or (config.encode == EncodeOptions() and config.draw == DEFAULT_DRAWING),
        "--codec, --crf, --preset, --output-size, --line-width, --no-labels and "
        "--no-confidence are for the annotated file, which --no-video leaves out",
    )


def _require_model_input(config: ProcessConfig) -> None:
    require(
        config.imgsz >= 32 and config.imgsz % 32 == 0,
        f"--imgsz must be a multiple of 32, not {config.imgsz}",
    )
    require(
        config.tile is None or config.tile >= _SMALLEST_TILE_PX,
        f"--tile must be {_SMALLEST_TILE_PX} or more, not {config.tile}",
    )
    require(
        config.tile is None or not config.nms_free,
        "--tile merges boxes before NMS, and --nms-free gives final ones only: leave one of "
        "them out",
    )


def _require_frames(config: ProcessConfig) -> None:
    asked = config.slice
    require(asked is None or not asked.is_surely_empty, f"{asked}: the end is not after the start")
    require(
        not (config.adaptive and config.every > 1),
        "--adaptive and --every both select the frames to infer: leave one of them out",
    )
    require(
        config.segment_seconds > 0,
        f"--segment-seconds must be more than 0, not {config.segment_seconds}",
    )


def _require_precision(config: ProcessConfig) -> None:
    is_int8 = config.infer.precision == "int8"
    require(
        0.0 < config.least_agreement <= 1.0,
        f"--least-agreement must be more than 0 and at most 1, not {config.least_agreement}",
    )
    require(
        config.adaptive or is_int8 or config.least_agreement == LEAST_AGREEMENT,
        "--least-agreement needs --adaptive or --precision int8",
    )
    require(config.calibration is None or is_int8, "--calibration needs --precision int8")
