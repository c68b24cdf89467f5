"""A clip that stays open from one of its segments to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.core.closing import Closing
from pipeline.media.frame import FrameSource, Segment


class LatestSource(Closing):
    """Keeps the source of the last segment: one that follows on it is simply read on to.

    Another process would open the clip again, seek, and decode from the key frame before.
    """

    def __init__(self) -> None:
        self._run = ""
        self._source: FrameSource | None = None

    @contextmanager
    def opened(
        self, run: str, segment: Segment, make: Callable[[], FrameSource]
    ) -> Iterator[FrameSource]:
        """The source for a segment; closed behind the last one of its clip, and if this fails.

        run: tells those of one run from others. make: opens it.
        """
        # What is skipped at the opening counts for the first segment.
        if self._source is None or run != self._run or segment.start_pts is None:
            self.close()
            self._source, self._run = make(), run
        try:
            yield self._source
        except BaseException:
            self.close()
            raise
        if segment.end_pts is None:
            self.close()

    def close(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()
