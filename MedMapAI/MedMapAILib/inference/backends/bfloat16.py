"""Whether bfloat16 is faster than float32 on this processor.

Having the instructions is not enough: Intel's AVX512-BF16 without AMX does as many operations a second in either
format, and the conversions come on top, so that networks take 1.5 times as long. Where the answer is not known
beforehand one convolution is measured in both, once per machine, and the answer kept beside the compiled networks, so
that every run on a machine computes in the same format.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import conv3d

from ...devices import has_amx, has_bfloat16, processor_name
from ...errors import InputError, RunError
from ...files import write_atomically
from .compile_cache import cache_folder

#: By how much it has to be faster to be worth its rounding.
_LEAST = 1.2
_ROUNDS = 5


@functools.cache
def is_faster(backend: str) -> bool:
    """Whether that back end, "torch" or "openvino", runs convolutions in bfloat16 clearly faster than in float32."""
    if not has_bfloat16():
        return False
    return has_amx() or _kept(f"{backend}, torch {torch.__version__}, {processor_name()}", backend)


def _kept(name: str, backend: str) -> bool:
    """The answer of an earlier run, or a new one."""
    path = cache_folder() / "bfloat16.json"
    try:
        answers = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        answers = {}
    if not isinstance(answers.get(name), bool):
        answers[name] = _measure(*(_openvino() if backend == "openvino" else _torch())) >= _LEAST
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(answers).encode())
        except (OSError, InputError, RunError):
            pass  # Measured anew next time.
    return answers[name]


def _measure(full: Callable[[], object], half: Callable[[], object]) -> float:
    """How many times faster ``half`` is, the median of alternating rounds; other programs slow both down alike."""

    def seconds(run: Callable[[], object]) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    seconds(full), seconds(half)
    return statistics.median(seconds(full) / seconds(half) for _ in range(_ROUNDS))


def _torch() -> tuple[Callable[[], object], Callable[[], object]]:
    image, weight = torch.zeros(1, 32, 40, 40, 40), torch.zeros(32, 32, 3, 3, 3)
    half_image, half_weight = image.bfloat16(), weight.bfloat16()
    return lambda: conv3d(image, weight, padding=1), lambda: conv3d(half_image, half_weight, padding=1)


def _openvino() -> tuple[Callable[[], object], Callable[[], object]]:
    import numpy as np

    from .openvino_quietly import openvino as ov
    from .openvino_quietly import opset8

    image = opset8.parameter([1, 32, 40, 40, 40], np.float32)
    weight = opset8.constant(np.ones((32, 32, 3, 3, 3), np.float32))
    layer = image
    for _ in range(2):
        layer = opset8.convolution(layer, weight, [1] * 3, [1] * 3, [1] * 3, [1] * 3)
    model, values = ov.Model([layer], [image]), np.zeros((1, 32, 40, 40, 40), np.float32)
    requests = [
        ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": kind}).create_infer_request()
        for kind in ("f32", "bf16")
    ]
    return tuple(functools.partial(request.infer, [values]) for request in requests)
