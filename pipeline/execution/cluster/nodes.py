"""The nodes of a cluster: their names, how many actors fit on each, and those given up."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray

from pipeline.core.config import MOST_ATTEMPTS


def nodes_alive() -> dict[str, Any]:
    """Ray's records of the nodes that are alive, by their ids."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node for node in nodes if node["Alive"]}


def node_name(hostname: str, node_id: str) -> str:
    """The name of a node in messages."""
    return f"node {hostname} ({node_id[:8]})"


def actors_that_fit(node: dict[str, Any], cores: int) -> int:
    """The number of actors with so many cores each for which a node is large enough."""
    return int(node["Resources"].get("CPU", 0) // cores)


class Nodes:
    """The nodes as Ray last reported them, and the starts of actors that failed on each.

    cores: of one actor.
    """

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._alive: dict[str, Any] = {}
        self._hostnames: dict[str, str] = {}
        self._failed_starts: Counter[str] = Counter()

    def refresh(self) -> None:
        """Ask Ray which nodes are alive."""
        self._alive = nodes_alive()
        for node_id, node in self._alive.items():
            self._hostnames[node_id] = node["NodeManagerHostname"]

    def is_alive(self, node_id: str) -> bool:
        """Whether the node was alive at the last refresh."""
        return node_id in self._alive

    def name(self, node_id: str) -> str:
        """The name of a node in messages, also of one that was lost."""
        return node_name(self._hostnames.get(node_id, "?"), node_id)

    def usable(self) -> dict[str, int]:
        """How many actors fit on each node, without nodes that are too small or given up."""
        fit = {node_id: actors_that_fit(node, self._cores) for node_id, node in self._alive.items()}
        return {
            node_id: number
            for node_id, number in fit.items()
            if number > 0 and self._failed_starts[node_id] < MOST_ATTEMPTS
        }

    def count_failed_start(self, node_id: str) -> bool:
        """Count an actor that did not start; return whether that was the last attempt there."""
        self._failed_starts[node_id] += 1
        return self._failed_starts[node_id] == MOST_ATTEMPTS

    def give_up(self, node_id: str) -> None:
        """Start no more actors on a node."""
        self._failed_starts[node_id] = MOST_ATTEMPTS
