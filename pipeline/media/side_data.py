"""Names of the data beside a clip's pictures that no result has."""

from __future__ import annotations

import av

from pipeline.media.geometry import has_icc_profile, side_data_of

_NAMES = {
    "STEREO3D": "stereo 3D",
    "SPHERICAL": "spherical (360 degrees)",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient viewing environment",
    "DYNAMIC_HDR_PLUS": "HDR10+",
    "DYNAMIC_HDR_VIVID": "HDR Vivid",
    "DOVI_METADATA": "Dolby Vision",
    "ICC_PROFILE": "ICC profile",
    "S12M_TIMECODE": "timecode of every picture",
}


def side_data_warnings(image: av.VideoFrame) -> tuple[str, ...]:
    """A line that names what of a clip's first picture PyAV cannot write into a file."""
    # Asked by name: iterating over it gives the data in PyAV 18, and their kinds in PyAV 19.
    found = side_data_of(image)
    kinds = {name for name in _NAMES if name in found}
    if has_icc_profile(image):
        kinds.add("ICC_PROFILE")
    names = [name for kind, name in _NAMES.items() if kind in kinds]
    return (f"metadata of the video is left out: {', '.join(names)}",) if names else ()


def has_captions(image: av.VideoFrame) -> bool:
    """Whether a picture brings closed captions along, which H.264 and HEVC keep."""
    return "A53_CC" in side_data_of(image)
