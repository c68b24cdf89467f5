"""What a run asks of the cluster's autoscaler."""

from __future__ import annotations

import contextlib

from ray.autoscaler.sdk import request_resources


class ResourceRequest:
    """Asks for nodes on which as many actors fit as there are jobs.

    Ray keeps a request, also beyond the end of the program that made it, until the next one:
    `withdraw` it. Without an autoscaler nothing happens. cores: of one actor.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._num_actors = 0

    def ask(self, num_actors: int) -> None:
        """Ask for room for so many actors, unless that is what was asked for last."""
        if num_actors != self._num_actors:
            request_resources(bundles=[{"CPU": self._cores}] * num_actors)
            self._num_actors = num_actors

    def withdraw(self) -> None:
        """Ask for nothing; nodes that are idle may go."""
        with contextlib.suppress(Exception):  # The cluster may be gone already.
            self.ask(0)
