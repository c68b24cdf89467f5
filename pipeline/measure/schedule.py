"""When a job of many clips is done on a cluster: its segments handed out in a simulation.

It models how the work is organised: a driver takes one clip at a time, plans it, hands its
segments in order to whichever actor is idle, records every result, and joins the clip. There may be
several drivers, each of which does one thing after the other. How long everything takes is given.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.core.config import MOST_ATTEMPTS

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class ClipWork:
    """A clip's work, in seconds: of the driver before and after, of an actor for each segment."""

    plan_seconds: float
    segment_seconds: tuple[float, ...]
    join_seconds: float

    @property
    def least_seconds(self) -> float:
        """What the clip takes when no segment ever waits."""
        return self.plan_seconds + max(self.segment_seconds) + self.join_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Who works, and what working together costs.

    num_drivers: each takes a clip of its own; together they share all actors.
    dispatch_seconds, record_seconds: of a driver, for every segment handed out and come back.
    start_seconds: until an actor takes its first segment.
    losses_per_node_hour: how often a node is lost, with the segments its actors are at.
    return_seconds: until another one is there in its place; its actors then start.
    """

    num_nodes: int
    actors_per_node: int
    num_drivers: int = 1
    dispatch_seconds: float = 0.0
    record_seconds: float = 0.0
    start_seconds: float = 0.0
    losses_per_node_hour: float = 0.0
    return_seconds: float = 0.0

    @property
    def num_actors(self) -> int:
        return self.num_nodes * self.actors_per_node


@dataclass(frozen=True, slots=True)
class Schedule:
    """What came of it.

    work_seconds: of actors, on segments that were done; lost_seconds: on those that were not.
    driver_seconds: that all drivers were busy, in sum.
    num_lost, num_given_up: segments that went down with a node, and those of them that did so
    MOST_ATTEMPTS times.
    """

    wall_seconds: float
    work_seconds: float
    lost_seconds: float
    driver_seconds: float
    num_lost: int
    num_given_up: int
    cluster: Cluster

    @property
    def utilisation(self) -> float:
        """The share of all actors' time that went into segments that were done."""
        available = self.wall_seconds * self.cluster.num_actors
        return self.work_seconds / available if available else 0.0

    @property
    def driver_load(self) -> float:
        """The share of the time that a driver is busy."""
        available = self.wall_seconds * self.cluster.num_drivers
        return self.driver_seconds / available if available else 0.0


def simulate(clips: Sequence[ClipWork], cluster: Cluster, seed: int = 0) -> Schedule:
    """Take clips through a cluster in the order given; seed: of the nodes that are lost."""
    return _Simulation(clips, cluster, seed).run()


@dataclass(eq=False, slots=True)
class _Driver:
    free_at: float = 0.0
    busy_seconds: float = 0.0
    clip: ClipWork | None = None
    num_left: int = 0

    def work(self, now: float, seconds: float) -> float:
        """Be busy for so long as soon as possible; returns when that is done."""
        self.free_at = max(now, self.free_at) + seconds
        self.busy_seconds += seconds
        return self.free_at


@dataclass(eq=False, slots=True)
class _Task:
    seconds: float
    driver: _Driver
    num_attempts: int = 0


@dataclass(eq=False, slots=True)
class _Node:
    """generation: counts the nodes that were lost here; what one of them was to do is void.

    running: each task with the time at which its actor begins.
    """

    generation: int = 0
    running: dict[_Task, float] = field(default_factory=dict)


class _Simulation:
    def __init__(self, clips: Sequence[ClipWork], cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._clips = iter(clips)
        self._num_clips_left = len(clips)
        self._random = random.Random(seed)  # noqa: S311
        self._nodes = [_Node() for _ in range(cluster.num_nodes)]
        self._drivers = [_Driver() for _ in range(cluster.num_drivers)]
        self._waiting: deque[_Task] = deque()
        self._idle: deque[tuple[_Node, int]] = deque()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._now = self._work_seconds = self._lost_seconds = 0.0
        self._num_lost = self._num_given_up = 0

    def run(self) -> Schedule:
        for driver in self._drivers:
            self._take_clip(driver)
        for node in self._nodes:
            self._start_actors(node, 0.0)
        self._expect_loss()
        while self._num_clips_left:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
            self._hand_out()
        return Schedule(
            wall_seconds=self._now,
            work_seconds=self._work_seconds,
            lost_seconds=self._lost_seconds,
            driver_seconds=sum(driver.busy_seconds for driver in self._drivers),
            num_lost=self._num_lost,
            num_given_up=self._num_given_up,
            cluster=self._cluster,
        )

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (seconds, next(self._order), happen))

    def _take_clip(self, driver: _Driver) -> None:
        clip = next(self._clips, None)
        if clip is not None:
            planned = driver.work(self._now, clip.plan_seconds)
            self._at(planned, functools.partial(self._planned, driver, clip))

    def _planned(self, driver: _Driver, clip: ClipWork) -> None:
        driver.clip, driver.num_left = clip, len(clip.segment_seconds)
        self._waiting.extend(_Task(seconds, driver) for seconds in clip.segment_seconds)

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            node, generation = self._idle.popleft()
            if generation != node.generation:
                continue  # Lost while it was idle.
            task = self._waiting.popleft()
            begin = task.driver.work(self._now, self._cluster.dispatch_seconds)
            node.running[task] = begin
            done = functools.partial(self._done, node, generation, task)
            self._at(begin + task.seconds, done)

    def _done(self, node: _Node, generation: int, task: _Task) -> None:
        if generation != node.generation:
            return
        del node.running[task]
        self._idle.append((node, generation))
        self._work_seconds += task.seconds
        self._finish(task)

    def _finish(self, task: _Task) -> None:
        driver = task.driver
        recorded = driver.work(self._now, self._cluster.record_seconds)
        driver.num_left -= 1
        if not driver.num_left:
            assert driver.clip is not None
            joined = driver.work(recorded, driver.clip.join_seconds)
            self._at(joined, functools.partial(self._joined, driver))

    def _joined(self, driver: _Driver) -> None:
        self._num_clips_left -= 1
        self._take_clip(driver)

    def _start_actors(self, node: _Node, after_seconds: float) -> None:
        ready = self._now + after_seconds + self._cluster.start_seconds
        self._at(ready, functools.partial(self._ready, node, node.generation))

    def _ready(self, node: _Node, generation: int) -> None:
        if generation == node.generation:
            self._idle.extend([(node, generation)] * self._cluster.actors_per_node)

    def _expect_loss(self) -> None:
        rate = self._cluster.losses_per_node_hour * self._cluster.num_nodes / _SECONDS_PER_HOUR
        if rate:
            self._at(self._now + self._random.expovariate(rate), self._lose_node)

    def _lose_node(self) -> None:
        node = self._random.choice(self._nodes)
        node.generation += 1
        for task, begin in node.running.items():
            self._num_lost += 1
            self._lost_seconds += max(0.0, self._now - begin)
            task.num_attempts += 1
            if task.num_attempts < MOST_ATTEMPTS:
                self._waiting.appendleft(task)
            else:
                self._num_given_up += 1
                self._finish(task)
        node.running.clear()
        self._start_actors(node, self._cluster.return_seconds)
        self._expect_loss()
