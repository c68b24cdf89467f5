"""Whether a process makes progress: by what its threads do, not by the clock of a busy machine.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.core.config import ProcessConfig
from pipeline.core.position import Position, Step
from pipeline.execution.endings import hung

POLL_SECONDS = 0.25
_LEAST_CPU_SECONDS = 0.001
"""Of CPU time between two looks: what uses less is blocked. Threads that only look whether there is
work for them use a tenth; one thread beside twelve others per core gets twenty times as much."""

_CPU_FACTOR_WITHOUT_FRAME = 10
"""Preparing and joining may take a thread so many times the CPU time of a step on a frame."""

_SLACK_FACTOR = 2
"""Where all wait for the model, its own limit, in the worker, comes first: it says more."""

_CLUSTER_FACTOR = 10
"""What others are at is not seen in what this process does; Ray, too, has limits of its own."""

_STOPPED = ("T", "t")


class Watchdog:
    """Looks at a process every POLL_SECONDS, and tells when it has hung.

    A heartbeat, or a message, is progress. Without one, the process hangs if for
    `--stall-seconds` of looks it used no CPU time and read and wrote nothing, or if a single
    thread used as much CPU time as that. It does not count how long the process is stopped
    (Ctrl-Z). Where the system does not list threads, looks without a heartbeat are counted.

    process_id: may be that of this process; the thread that looks does not count then.
    others: threads, by the kernel's ids, whose doings are no progress.
    """

    def __init__(
        self,
        process_id: int,
        position: Position,
        config: ProcessConfig,
        others: frozenset[int] = frozenset(),
    ) -> None:
        self._process = Path("/proc", str(process_id))
        self._position = position
        self._config = config
        self._others = others
        self.progressed()

    def progressed(self) -> None:
        """Restart the count: there was progress."""
        self._heartbeat = self._position.heartbeat
        self._blocked_seconds = 0.0
        self._cpu_seconds: dict[int, float] = {}
        self._spent_seconds: dict[int, float] = {}
        self._num_bytes = -1

    def look(self) -> None:
        """To be called every POLL_SECONDS. Raises WorkerDied if the process hangs."""
        waits = self._position.encoding.step == Step.WAIT_TURN  # For a run that is watched itself.
        if waits or self._heartbeat != self._position.heartbeat:
            self.progressed()
            return
        if self._is_stopped():
            return
        if self._uses_cpu() or self._reads_or_writes():
            self._blocked_seconds = 0.0
        else:
            self._blocked_seconds += POLL_SECONDS
        self._judge()

    def _judge(self) -> None:
        limit_seconds, position = self._config.stall_seconds, self._position
        most_blocked = most_spent = limit_seconds
        if position.working is None:
            most_spent *= _CPU_FACTOR_WITHOUT_FRAME
        if position.waits_for_model:
            most_blocked, most_spent = _SLACK_FACTOR * limit_seconds, float("inf")
        if position.encoding.step == Step.WAIT_CLUSTER:
            most_blocked = _CLUSTER_FACTOR * limit_seconds
        if self._blocked_seconds >= most_blocked:
            raise hung(f"no progress for {most_blocked:g} s", position, self._config)
        if max(self._spent_seconds.values(), default=0.0) >= most_spent:
            raise hung(f"no end after {most_spent:g} s of CPU time", position, self._config)

    def _is_stopped(self) -> bool:
        # The name of the program, in brackets, may hold anything.
        state = _text(self._process / "stat").rpartition(")")[2].split()
        return bool(state) and state[0] in _STOPPED

    def _uses_cpu(self) -> bool:
        """Whether CPU time was used since the last look; keeps how much, by thread."""
        now = {
            int(thread.name): int(words[0]) / 1e9
            for thread in self._threads()
            if (words := _text(thread / "schedstat").split())
        }
        before, self._cpu_seconds = self._cpu_seconds, now
        if not before:
            return False
        used = {thread: seconds - before.get(thread, 0.0) for thread, seconds in now.items()}
        self._spent_seconds = {
            thread: self._spent_seconds.get(thread, 0.0) + seconds
            for thread, seconds in used.items()
        }
        return sum(used.values()) > _LEAST_CPU_SECONDS

    def _reads_or_writes(self) -> bool:
        """Whether a file or pipe was read or written since this was last asked."""
        now = 0
        for thread in self._threads():
            for line in _text(thread / "io").splitlines():
                name, _, number = line.partition(":")
                now += int(number) if name.endswith(("char", "_bytes")) else 0
        before, self._num_bytes = self._num_bytes, now
        return before >= 0 and now != before

    def _threads(self) -> Iterator[Path]:
        own = _own_thread()
        try:
            threads = list((self._process / "task").iterdir())
        except OSError:
            return
        for thread in threads:
            if thread.name != own and int(thread.name) not in self._others:
                yield thread


def _own_thread() -> str:
    try:
        return Path("/proc/thread-self").readlink().name
    except OSError:
        return ""


def _text(path: Path) -> str:
    """What the kernel tells; nothing where it does not, or of a thread that has ended."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
