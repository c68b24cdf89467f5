"""Footage made to do harm: mutated, truncated, lying, or a playlist that leads elsewhere.

Everything follows from a seed. `main` is that of a worker which takes such files through the
pipeline, so that a crash of native code ends the worker and not the tests. Its arguments are the
weights and a folder; it reads a path a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.commands import Command

CONTAINERS = ("mp4", "mkv", "avi", "webm", "ts")
SECONDS_PER_FILE = 30.0
MEMORY_MB = 1500
"""Resident, of the worker with all its libraries; a run over a whole clip takes about 300."""

# Mutation

_EBML = (b"\x1a\x45\xdf\xa3", b"\x16\x54\xae\x6b", b"\x1f\x43\xb6\x75", b"\x2a\xd7\xb1", b"\xa3")
_MARKERS = {
    "mp4": tuple(b"moov stsd stts ctts stsz stco mdhd mvhd avcC elst".split()),
    "mkv": _EBML,
    "webm": _EBML,
    "avi": tuple(b"RIFF avih strh strf movi 00dc idx1".split()),
    "ts": (b"\x47",),
}
"""What sizes, counts and time bases stand next to."""

_EXTREME = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(content: bytes, container: str, seed: int) -> bytes:
    """One to eight random changes to a file, most of them where its structure is."""
    rng = random.Random(f"{container} {seed}")
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        rng.choice(_MUTATIONS)(data, _place(data, container, rng), rng)
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def _place(data: bytearray, container: str, rng: random.Random) -> int:
    """Anywhere, near the beginning, near the end, or at a field next to a marker."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randrange(len(data))
    if kind == 1:
        return rng.randrange(min(len(data), 1024))
    if kind == 2:
        return len(data) - 1 - rng.randrange(min(len(data), 1024))
    places: list[int] = []
    marker = rng.choice(_MARKERS[container])
    at = data.find(marker)
    while at >= 0 and len(places) < 1000:
        places.append(at)
        at = data.find(marker, at + 1)
    if not places:
        return rng.randrange(len(data))
    return min(len(data) - 1, max(0, rng.choice(places) + rng.randrange(-4, 48)))


def _flip(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _replace(data: bytearray, at: int, rng: random.Random) -> None:
    data[at] = rng.randrange(256)


def _insert(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 64, 1000)))


def _delete(data: bytearray, at: int, rng: random.Random) -> None:
    del data[at : at + rng.choice((1, 2, 4, 64, 1000))]


def _splice(data: bytearray, at: int, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.choice((4, 64, 188, 1000, 4000))
    data[at:at] = data[start : start + size]


def _blank(data: bytearray, at: int, rng: random.Random) -> None:
    size = min(len(data) - at, rng.choice((4, 64, 512, 4096)))
    data[at : at + size] = bytes([rng.choice((0x00, 0xFF))]) * size


def _size_field(data: bytearray, at: int, rng: random.Random) -> None:
    size = min(len(data) - at, rng.choice((1, 2, 4)))
    value = rng.choice(_EXTREME) & (1 << 8 * size) - 1
    data[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))


def _near_value(data: bytearray, at: int, rng: random.Random) -> None:
    """A 32-bit number a little larger or smaller, or shifted."""
    if len(data) - at < 4:
        return
    order = rng.choice((">I", "<I"))
    [value] = struct.unpack_from(order, data, at)
    changed = rng.choice((value + 1, value - 1, value << 8, value >> 8, ~value))
    struct.pack_into(order, data, at, changed & 0xFFFFFFFF)


_MUTATIONS: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    _flip,
    _replace,
    _insert,
    _delete,
    _splice,
    _blank,
    _size_field,
    _size_field,
    _near_value,
)


def mutated_files(clips: dict[str, Path], folder: Path, seeds: Iterable[int]) -> Iterator[Path]:
    """For every seed a file, of each container in turn, written when it is asked for."""
    contents = {container: path.read_bytes() for container, path in clips.items()}
    names = sorted(contents)
    for seed in seeds:
        container = names[seed % len(names)]
        path = folder / f"mutated-{seed}.{container}"
        path.write_bytes(mutate(contents[container], container, seed))
        yield path


def truncated_files(clip: Path, folder: Path, percents: Iterable[float]) -> Iterator[Path]:
    """The first so many percent of a clip."""
    content = clip.read_bytes()
    for percent in percents:
        path = folder / f"{clip.stem}-to-{percent:05.2f}{clip.suffix}"
        path.write_bytes(content[: round(len(content) * percent / 100)])
        yield path


# What became of a file


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    kind: "frames" (an output with this many frames, read back), "refused" (a PipelineError),
    "unexpected" (any other exception), "crash" (the worker ended), "hang" (no answer in time).
    """

    name: str
    kind: str
    num_frames: int = 0
    message: str = ""
    seconds: float = 0.0
    peak_mb: float = 0.0

    @property
    def harmless(self) -> bool:
        return self.kind in ("frames", "refused")


class Worker:
    """Takes files through the pipeline in a process of its own, which is replaced if it ends."""

    def __init__(self, weights: Path, folder: Path) -> None:
        self._weights, self._folder = weights, folder
        self._process: Command | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def outcome(self, path: Path) -> Outcome:
        """Run one file. Never raises for what the file does."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        try:
            answer = self._answers.get(timeout=SECONDS_PER_FILE)
        except queue.Empty:
            self._end()
            return Outcome(path.name, "hang", seconds=SECONDS_PER_FILE)
        if not answer:
            code = process.wait()
            self._end()
            return Outcome(path.name, "crash", message=f"exit code {code}")
        return Outcome(**json.loads(answer))

    def _start(self) -> Command:
        process = Command(
            self._weights,
            self._folder,
            module="tests.hostile",
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._process, self._answers = process, queue.SimpleQueue()
        arguments = (process, self._answers)
        self._reader = threading.Thread(target=_forward, args=arguments, daemon=True)
        self._reader.start()
        first = self._answers.get(timeout=SECONDS_PER_FILE)
        assert first, "the worker did not start"
        return process

    def _end(self) -> None:
        if self._process is not None and self._reader is not None:
            with self._process as process:
                process.kill()
                self._reader.join()
            self._process = None


def _forward(process: Command, answers: queue.SimpleQueue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(line)
    answers.put("")


def outcomes(files: Iterable[Path], weights: Path, folder: Path) -> list[Outcome]:
    """What becomes of every file; those that did no harm are deleted, the others are kept."""
    found = []
    with Worker(weights, folder) as worker:
        for path in files:
            outcome = worker.outcome(path)
            found.append(outcome)
            if outcome.harmless:
                path.unlink()
    return found


def main() -> int:
    """The worker's end: a path as JSON a line, an outcome a line."""
    weights, folder = map(Path, sys.argv[1:])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from pipeline.run.process import process_video  # Before the first file is timed.

    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        path, out = Path(json.loads(line)), folder / "out"
        answer = _outcome_of(process_video, path, out, weights)
        shutil.rmtree(out, ignore_errors=True)
        print(json.dumps(answer), file=answers, flush=True)
    return 0


def _outcome_of(run: Any, path: Path, out: Path, weights: Path) -> dict[str, Any]:
    import av

    from pipeline.core.config import EncodeOptions, InferOptions, ProcessConfig
    from pipeline.core.errors import PipelineError

    started = time.monotonic()
    result: dict[str, Any] = {"name": path.name}
    try:
        report = run(
            ProcessConfig(
                source=path,
                output_dir=out,
                weights=weights,
                infer=InferOptions(num_streams=1, num_requests=2),
                encode=EncodeOptions(preset="ultrafast", threads=1),
            )
        )
        with av.open(str(out / "annotated.mp4")) as container:
            num_frames = sum(1 for _ in container.decode(video=0))
        lines = len((out / "detections.jsonl").read_text(encoding="utf-8").splitlines())
        claimed = report["output"]["num_frames"]
        if not 0 < num_frames == lines == claimed:
            result.update(kind="unexpected", message=f"{num_frames}, {lines}, {claimed} frames")
        else:
            faults = {k: v for k, v in report["source"]["faults"].items() if v}
            result.update(kind="frames", num_frames=num_frames, message=str(faults))
    except PipelineError as error:
        kind = "refused" if not list(out.glob("*")) else "unexpected"
        result.update(kind=kind, message=f"{type(error).__name__}: {error}")
    except Exception as error:
        result.update(kind="unexpected", message=f"{type(error).__name__}: {error}")
    result["seconds"] = time.monotonic() - started
    result["peak_mb"] = _peak_mb()
    return result


def _peak_mb() -> float:
    """Of this program alone: getrusage also counts what the process was before it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
