"""A window of decoded pictures, without a copy of their planes."""

from __future__ import annotations

import av
from av.filter import Graph

from pipeline.core.region import Window
from pipeline.media.geometry import filter_graph


class Cropper:
    """Cuts one window out of the pictures of a clip; for one thread at a time."""

    def __init__(self, window: Window) -> None:
        (width, height), left, top = window.size_wh, window.left, window.top
        self._argument = f"{width}:{height}:{left}:{top}:exact=1"
        self._graph: Graph | None = None
        self._kind: tuple[int, int, str] | None = None

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        """The window of a picture; it shares its memory."""
        kind = (image.width, image.height, image.format.name)
        if self._graph is None or kind != self._kind:
            self._graph = filter_graph(image, (("crop", self._argument),))
            self._kind = kind
        self._graph.vpush(image)
        return self._graph.vpull()
