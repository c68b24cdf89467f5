"""The one owner of OpenVINO's objects: a compiled model and the requests made of it.

Hazard: `~CompiledModel` joins OpenVINO's threads and holds the GIL meanwhile. A thread that has
run a callback drops its reference to the Python function only after its request counts as idle,
and takes the GIL for that if the reference is the last one. Both wait for each other for ever.

So everything is released in this order, on a dedicated thread: every request is idle,
the Python function that they call is dead (from then on no thread of OpenVINO can want the GIL),
requests and queue are destroyed, the model is destroyed last. That thread is not interrupted by
signals; dropping an object without closing it only sends that thread a message. A request that
never becomes idle is kept alive by the stack of that thread.
"""

from __future__ import annotations

import atexit
import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pipeline.core.closing import Closing
from pipeline.core.errors import InferenceError
from pipeline.core.machine import nicer, process_cpu_seconds, thread_cpu_seconds

CLOSE_SECONDS = 2.0
"""How long `close`, and the exit of the interpreter, wait for running work."""

INFERENCE_NICENESS = 10
"""The niceness of inference threads above that of the others. Decoder and encoder process one frame
after the other: while they wait for a core, the inference threads run out of frames."""

OnIdle = Callable[[int], None]


@functools.cache
def core() -> ov.Core:
    """The only one. A second one loads and unloads the libraries of devices, on whatever thread
    ends the last model of it, and crashes if others are at work meanwhile."""
    return ov.Core()


def compile_for(model: ov.Model, device: str, config: dict[str, str]) -> ov.CompiledModel:
    """Compile, for a `Compiled` to own; the threads that infer are nicer. Raises RuntimeError."""
    return nicer(INFERENCE_NICENESS, lambda: core().compile_model(model, device, config))


def infers(thread_id: int) -> bool:
    """Whether a thread of this process, by the kernel's id, is as nice as those that infer."""
    try:
        niceness = os.getpriority(os.PRIO_PROCESS, thread_id)
    except OSError:
        return False  # It has ended.
    return niceness == min(os.getpriority(os.PRIO_PROCESS, 0) + INFERENCE_NICENESS, 19)


def inference_cpu_seconds() -> float:
    """CPU time of all threads that infer so far; of the process where threads have no niceness.

    Threads of the host program do not count, whatever they do.
    """
    if sys.platform != "linux":
        return process_cpu_seconds()
    return sum(s for thread_id, s in thread_cpu_seconds().items() if infers(thread_id))


class Requests:
    """Asynchronous requests, each known by its number, for one user at a time.

    queue: none of its requests runs. on_idle: a method, which is held weakly; it is called on a
    thread of OpenVINO with the number of a request whose outputs are there.
    """

    def __init__(self, queue: ov.AsyncInferQueue, on_idle: OnIdle) -> None:
        self._queue = queue
        self._requests = list(queue)
        # OpenVINO reads the memory of an input, but does not keep it alive.
        self._inputs: dict[int, ov.Tensor] = {}
        self._lock = threading.Lock()
        self._is_open = True
        # A partial object, because no frame refers to it: tracebacks keep frames alive, and those
        # their functions. `put` is C code: the thread that calls it cannot lose the GIL in between.
        self._dead: SimpleQueue[object] = SimpleQueue()
        callback = functools.partial(_call_back, weakref.WeakMethod(on_idle))
        self._callback = weakref.ref(callback, self._dead.put)
        queue.set_callback(callback)

    def __len__(self) -> int:
        return len(self._requests)

    def wait_for_any(self) -> int:
        """The number of a request that is idle. Raises RuntimeError if its inference has failed."""
        self._require_open()
        number: int = self._queue.get_idle_request_id()
        return number

    def start(self, number: int, model_input: ov.Tensor) -> None:
        """Infer an input with the request that `wait_for_any` gave."""
        with self._lock:
            self._require_open()
            self._inputs[number] = model_input
            self._requests[number].set_input_tensor(model_input)
            self._queue.start_async(userdata=number)

    def wait(self, number: int) -> None:
        """Wait until a request is idle. Raises RuntimeError if its inference has failed."""
        self._require_open()
        self._requests[number].wait()

    def outputs(self, number: int) -> list[NDArray[Any]]:
        """Views that are valid until the request is started again."""
        return [tensor.data for tensor in self._requests[number].output_tensors]

    def end(self) -> tuple[ov.AsyncInferQueue, bool]:
        """The queue, and whether none of its inferences failed.

        Returns when no thread of OpenVINO can want the GIL any more. Call it once.
        """
        with self._lock:
            self._is_open = False
        sound = True
        for request in self._requests:
            try:
                request.wait()
            except RuntimeError:
                sound = False
        self._queue.set_callback(_do_nothing)
        self._dead.get()
        self._inputs.clear()
        self._requests.clear()
        queue, self._queue = self._queue, None
        return queue, sound

    def _require_open(self) -> None:
        if not self._is_open:
            raise InferenceError("the pool of requests is closed")


def _call_back(on_idle: weakref.WeakMethod[OnIdle], request: ov.InferRequest, number: int) -> None:
    del request  # A traceback would keep it beyond the end of its model.
    call = on_idle()
    if call is not None:
        call(number)


def _do_nothing(request: ov.InferRequest, number: int) -> None:
    """Takes the place of a callback. It lives as long as this module, and is never called."""


class Compiled(Closing):
    """A compiled model with its requests; a context manager.

    compile_model: makes it; what that raises is raised. Dropped without `close`, it ends all the
    same, but later.
    """

    def __init__(self, compile_model: Callable[[], ov.CompiledModel]) -> None:
        self._owned = _Owned()
        self._drop = weakref.finalize(self, self._owned.leave, self._owned.end)
        self._drop.atexit = False  # `_end_all` waits for it.
        try:
            self._owned.start()
            self._owned.model = compile_model()
        except BaseException:
            self.close()
            raise

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self._model.input().shape)

    def get_property(self, name: str) -> Any:
        """A property of the compiled model. Raises RuntimeError where the device has no such."""
        return self._model.get_property(name)

    def infer(self, model_input: NDArray[Any] | None = None) -> list[NDArray[Any]]:
        """Copies of the outputs for an input, or for whatever the input memory contains."""
        outputs = self._model({} if model_input is None else [model_input])
        return [np.array(output) for output in outputs.values()]

    def open_requests(self, number: int, on_idle: OnIdle) -> Requests:
        """So many requests, which may have been used before: their first inference is as fast.

        on_idle: see `Requests`. Hand them to `close_requests`, or to `leave_requests` where
        nothing may wait. Raises InferenceError if the model is closed.
        """
        return self._owned.open_requests(number, on_idle)

    def close_requests(self, requests: Requests) -> bool:
        """Take requests back; whether none of them runs any more. Waits CLOSE_SECONDS at most."""
        return self._owned.wait_for(functools.partial(self._owned.release, requests))

    def leave_requests(self, requests: Requests) -> None:
        """Take requests back without waiting and without a lock, as a finalizer must."""
        self._owned.leave(functools.partial(self._owned.release, requests))

    def close(self) -> None:
        """Release the model when none of its requests is in use; waits CLOSE_SECONDS at most."""
        self._owned.wait_for(self._owned.close)
        if self._owned.ended.is_set():
            self._drop.detach()

    @property
    def _model(self) -> ov.CompiledModel:
        if self._owned.model is None:
            raise InferenceError("the model is closed")
        return self._owned.model


class _Owned:
    """What OpenVINO has made, and the thread that ends it.

    `close`, `release` and `end` run on that thread only.
    """

    def __init__(self) -> None:
        self.model: ov.CompiledModel | None = None
        self._lock = threading.Lock()
        self._idle: list[ov.AsyncInferQueue] = []
        self._in_use: set[Requests] = set()
        self._is_closing = False
        self._is_late = False  # Then it may hang: no caller waits a second time.
        self.ended = threading.Event()
        self._messages: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.leave = self._messages.put
        self._thread = threading.Thread(target=self._run, name="openvino-end", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def open_requests(self, number: int, on_idle: OnIdle) -> Requests:
        with self._lock:
            if self._is_closing or self.model is None:
                raise InferenceError("the model is closed")
            queue = self._idle.pop() if self._idle else ov.AsyncInferQueue(self.model, number)
            requests = Requests(queue, on_idle)
            self._in_use.add(requests)
            return requests

    def wait_for(self, work: Callable[[], None]) -> bool:
        """Have work done on the thread; whether it is done. Unfinished work continues."""
        done = threading.Event()

        def do() -> None:
            work()
            done.set()

        self.leave(do)
        if self.ended.is_set():
            return True
        # In a process that was forked from the one that compiled, there is no thread.
        if self._thread.is_alive() and not self._is_late:
            self._is_late = not done.wait(CLOSE_SECONDS)
        return done.is_set()

    def close(self) -> None:
        with self._lock:
            self._is_closing = True
        self._end_if_unused()

    def release(self, requests: Requests) -> None:
        if requests not in self._in_use:
            return  # Ended, together with its model.
        queue, sound = requests.end()
        with self._lock:
            self._in_use.discard(requests)
            if sound:
                self._idle.append(queue)
        del queue
        self._end_if_unused()

    def end(self) -> None:
        with self._lock:
            self._is_closing = True
        for requests in self._in_use:
            requests.end()
        self._in_use.clear()
        self._idle.clear()
        self.model = None
        self.ended.set()

    def _end_if_unused(self) -> None:
        if self._is_closing and not self._in_use:
            self.end()

    def _run(self) -> None:
        _alive.add(self)
        try:
            while not (self.ended.is_set() and self._messages.empty()):
                self._messages.get()()
        except BaseException:
            thread = threading.current_thread()
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))
            threading.Event().wait()  # What cannot be ended in order is kept for ever.
        finally:
            _alive.discard(self)


_alive: set[_Owned] = set()


def _end_all() -> None:
    """The interpreter stops all threads when it ends: those of OpenVINO must be done by then."""
    left, deadline = list(_alive), time.monotonic() + CLOSE_SECONDS
    for owned in left:
        owned.leave(owned.end)
    for owned in left:
        owned.ended.wait(max(0.0, deadline - time.monotonic()))


atexit.register(_end_all)
