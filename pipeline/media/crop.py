"""A window of decoded pictures, without a copy of their planes."""

from __future__ import annotations

from fractions import Fraction

import av
from av.filter import Graph

from pipeline.core.region import Window

_ANY_TIME_BASE = Fraction(1, 1000)


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
            self._graph, self._kind = self._open(image), kind
        self._graph.vpush(image)
        return self._graph.vpull()

    def _open(self, image: av.VideoFrame) -> Graph:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=image.width,
            height=image.height,
            format=image.format,
            time_base=image.time_base or _ANY_TIME_BASE,
        )
        crop = graph.add("crop", self._argument)
        graph.link_nodes(source, crop, graph.add("buffersink")).configure()
        return graph
