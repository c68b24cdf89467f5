"""Which float precision this processor is fastest in, at the accuracy of float.

AMX multiplies bf16 many times as fast as float32. AVX-512 has bf16 instructions too, but how fast
they are depends on the processor: with the same flags, YOLOv5n was measured at 0.6 and at 1.6
times the speed of float32. OpenVINO takes bf16 on all of them, so here it is tried out, once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import time

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from pipeline.core.cache import NotKept, cache_dir, publish
from pipeline.core.machine import bf16_instructions, processor_name
from pipeline.core.notes import note
from pipeline.model.compiled import Compiled, compile_for

_STORE_NAME = "float_precision.json"
_WORTHWHILE_GAIN = 1.1
_ROUNDS, _INFERENCES = 7, 6


@functools.cache
def fastest_float_precision() -> str:
    """ "bf16" where it is clearly faster than "f32"; measured once per processor and OpenVINO."""
    instructions = bf16_instructions()
    if instructions != "avx512":
        return "bf16" if instructions == "amx" else "f32"
    store, key = cache_dir() / _STORE_NAME, f"{processor_name()}, OpenVINO {ov.get_version()}"
    try:
        known = dict(json.loads(store.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    if known.get(key) not in ("bf16", "f32"):
        known[key] = "bf16" if bf16_gain() > _WORTHWHILE_GAIN else "f32"
        text = json.dumps(known, indent=2) + "\n"
        try:
            publish(store, lambda path: path.write_text(text, encoding="utf-8"))
        except NotKept as error:
            note(str(error))
    return str(known[key])


def bf16_gain() -> float:
    """How many times as fast as in float32 a few convolutions of YOLOv5n's kind are in bf16."""
    model = _convolutions()
    config = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
    seconds: dict[str, list[float]] = {"f32": [], "bf16": []}
    with contextlib.ExitStack() as stack:
        models = {
            precision: stack.enter_context(
                Compiled(
                    functools.partial(
                        compile_for,
                        model,
                        "CPU",
                        {"INFERENCE_PRECISION_HINT": precision, **config},
                    )
                )
            )
            for precision in seconds
        }
        for _ in range(_ROUNDS):
            for precision, compiled in models.items():
                started = time.perf_counter()
                for _ in range(_INFERENCES):
                    compiled.infer()
                seconds[precision].append(time.perf_counter() - started)
    return statistics.median(seconds["f32"]) / statistics.median(seconds["bf16"])


def _convolutions() -> ov.Model:
    image = ops.parameter([1, 32, 48, 80], np.float32)
    value: ov.Node = image
    weights = np.random.default_rng(0).normal(0, 0.05, (32, 32, 3, 3)).astype(np.float32)
    for _ in range(4):
        value = ops.swish(ops.convolution(value, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([value], [image], "convolutions")
