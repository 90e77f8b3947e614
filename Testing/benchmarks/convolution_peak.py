"""What this machine can do in the convolutions of a network, and how much of that the network as a whole reaches.

Each convolution of the network (transposed ones too) is run alone, at the shape that it has for one window, by every
kernel there is: torch (oneDNN) with plain and with channels-last memory, and OpenVINO; in float32, and in bfloat16
where the processor has it. OpenVINO's time is that of the convolution itself by its own profile, without the turning
of memory before and after, so the peak is a high one. The fastest counts. The peak of the machine for the network is
all its operations over the sum of the fastest times.

Beside it stand the same operations over the time of the whole network for one window (``network``), and over the wall
time of whole runs of the Predictor, resampling and all else included (``predictor``), from the rounds of the benchmark.
A multiplication and an addition are two operations: 2 · C_in / groups · kernel volume · (voxels out · C_out).

    python Testing/benchmarks/convolution_peak.py CASE
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

_TESTING = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(_TESTING), str(_TESTING.parent / "MedMapAI")]

if TYPE_CHECKING:
    import torch
    from benchmarks.results import Results
    from torch import nn

#: Each layer is run for about this long, and at least so often.
_SECONDS, _TIMES = 0.5, 3
#: The contender whose rounds tell how fast the Predictor is in that precision.
_CONTENDERS = {"fp32": "ours-fp32", "bf16": "ours-auto"}


@dataclass(frozen=True)
class Layer:
    """A convolution at a shape; equal ones compare equal. shape: of its input, (1, C, *S)."""

    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
    bias: bool
    shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def operations(self) -> int:
        """Multiplications and additions. A transposed convolution multiplies each voxel of its input by its kernel."""
        voxels = math.prod(self.shape[2:] if "Transpose" in self.kind else self.out_shape[2:])
        return 2 * voxels * self.in_channels * self.out_channels // self.groups * math.prod(self.kernel)

    def module(self) -> nn.Module:
        """The layer, with some weights."""
        from torch import nn

        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "groups": self.groups}
        made = getattr(nn, self.kind)(self.in_channels, self.out_channels, self.kernel, bias=self.bias, **options)
        return made.eval()

    @property
    def name(self) -> str:
        """Such as "Conv3d 32→64 3×3×3 at 64×64×64"."""
        kernel, size = ("×".join(str(n) for n in numbers) for numbers in (self.kernel, self.shape[2:]))
        return f"{self.kind} {self.in_channels}→{self.out_channels} {kernel} at {size}"


def layers_of(network: nn.Module, shape: Sequence[int]) -> Counter[Layer]:
    """The convolutions that run when the network is given an input of ``shape``, and how often each; nothing is
    computed."""
    import copy

    import torch
    from torch.nn.modules.conv import _ConvNd

    found: Counter[Layer] = Counter()

    def note(module: _ConvNd, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if any(step != 1 for step in module.dilation):
            raise ValueError("dilated convolutions are not set up here")
        found[
            Layer(
                type(module).__name__,
                module.in_channels,
                module.out_channels,
                tuple(module.kernel_size),
                tuple(module.stride),
                tuple(module.padding),
                module.groups,
                module.bias is not None,
                tuple(inputs[0].shape),
                tuple(output.shape),
            )
        ] += 1

    pretended = copy.deepcopy(network).to("meta")
    for module in pretended.modules():
        if isinstance(module, _ConvNd):
            module.register_forward_hook(note)
    with torch.inference_mode():
        pretended(torch.empty(tuple(shape), device="meta"))
    return found


# --------------------------------------------------------------------------------------------------------------------
# The kernels


def torch_seconds(layer: Layer, precision: str) -> float:
    """The better of plain and channels-last memory, in torch."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    last = torch.channels_last_3d if len(layer.shape) == 5 else torch.channels_last
    best = math.inf
    with torch.inference_mode():
        for memory in (torch.contiguous_format, last):
            module = layer.module().to(dtype=dtype, memory_format=memory)
            data = torch.randn(layer.shape).to(dtype=dtype, memory_format=memory)
            best = min(best, _least_seconds(lambda module=module, data=data: module(data)))
    return best


def openvino_seconds(layer: Layer, precision: str, threads: int) -> float:
    """The time of the convolution inside OpenVINO's compiled layer, by its profile."""
    import torch
    from MedMapAILib.inference.backends.openvino_quietly import openvino as ov

    example = torch.randn(layer.shape)
    model = ov.convert_model(layer.module(), example_input=example, input=[list(layer.shape)])
    compiled = ov.Core().compile_model(model, "CPU", _openvino_settings(precision, threads) | {"PERF_COUNT": "YES"})
    request = compiled.create_infer_request()
    data = example.numpy()
    inside: list[float] = []

    def run() -> None:
        request.infer([data])
        nodes = request.profiling_info
        kernels = [n.real_time.total_seconds() for n in nodes if n.node_type in ("Convolution", "Deconvolution")]
        inside.append(sum(kernels) or sum(n.real_time.total_seconds() for n in nodes))

    _least_seconds(run)
    return min(inside[1:])


def _openvino_settings(precision: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }


def _least_seconds(run: Callable[[], Any]) -> float:
    """The fastest of several runs, which is what the machine can do; one run before them does not count."""
    run()
    seconds: list[float] = []
    while len(seconds) < _TIMES or sum(seconds) < _SECONDS:
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 itself, as OpenVINO says."""
    try:
        from MedMapAILib.inference.backends.openvino_quietly import openvino as ov
    except ImportError:
        return False
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


# --------------------------------------------------------------------------------------------------------------------
# A network


def measure_layer(layer: Layer, precision: str, threads: int) -> dict[str, float]:
    """Seconds by each kernel, {"torch": …, "openvino": …}; one that is not there or refuses is left out."""
    found = {}
    kernels = {
        "torch": lambda: torch_seconds(layer, precision),
        "openvino": lambda: openvino_seconds(layer, precision, threads),
    }
    for name, kernel in kernels.items():
        try:
            found[name] = kernel()
        except (ImportError, RuntimeError) as error:
            print(f"{layer.name}, {precision}: {name} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
    return found


def measure_network(network: nn.Module, shape: Sequence[int], precision: str, threads: int) -> float | None:
    """Seconds of the whole network for one window by the product's own back end; None where it cannot."""
    import torch
    from MedMapAILib.errors import InputError
    from MedMapAILib.inference.backends import choose, open_backend

    try:
        choice = choose("auto", "cpu", precision)
    except InputError as error:
        print(error, file=sys.stderr)
        return None
    backend = open_backend(choice, network, key="", threads=threads)
    try:
        backend.prepare(tuple(shape))
        windows = torch.randn(tuple(shape))
        with torch.inference_mode():
            return _least_seconds(lambda: backend(windows))
    finally:
        backend.close()


def measure_case(name: str, work: Path, threads: int) -> dict[str, Any]:
    """The peak for the network of a case, and what the network alone reaches of it.

    {"operations": of one window, "shape", "precisions": {precision: {"peak": GFLOP/s, "network": GFLOP/s, "layers":
    [{"layer", "count", "operations", "seconds": {kernel: …}}]}}}
    """
    import torch
    from benchmarks.cases import find_case

    torch.set_num_threads(threads)
    case = find_case(name)
    case.prepare(work)
    bundle = case.bundle(work)
    network = bundle.build_network()
    shape = (1, bundle.network["in_channels"], *bundle.plan.patch)
    layers = layers_of(network, shape)
    operations = sum(layer.operations * count for layer, count in layers.items())
    result: dict[str, Any] = {"operations": operations, "shape": list(shape), "precisions": {}}
    for precision in ("fp32", "bf16") if has_bfloat16() else ("fp32",):
        rows, total = [], 0.0
        for layer, count in layers.items():
            seconds = measure_layer(layer, precision, threads)
            total += count * min(seconds.values())
            rows.append({"layer": layer.name, "count": count, "operations": layer.operations, "seconds": seconds})
        found: dict[str, Any] = {"peak": operations / total / 1e9, "layers": rows}
        whole = measure_network(network, shape, precision, threads)
        if whole:
            found["network"] = operations / whole / 1e9
        result["precisions"][precision] = found
    return result


def predictor_speed(rows: Sequence[dict[str, Any]], operations: int, patch: Sequence[int]) -> float | None:
    """GFLOP/s of whole runs: the median over them of all operations of their windows over their wall time.

    rows: of one contender, with "windows" and "window", or without where it did not say. A window smaller than the
    patch has so many fewer operations.
    """
    rates = [
        operations * math.prod(row["window"]) / math.prod(patch) * row["windows"] / row["wall"] / 1e9
        for row in rows
        if row.get("windows")
    ]
    return statistics.median(rates) if rates else None


def measure_peaks(cases: Sequence[str], work: Path, threads: int, results: Results) -> None:
    """Measure each case in a process of its own and put it into the results, with the Predictor's speed from the
    rounds."""
    from benchmarks.cases import ROOT
    from benchmarks.contenders.launch import _THREAD_VARIABLES

    peaks = results.data.setdefault("convolution_peak", {})
    environment = os.environ | {variable: str(threads) for variable in _THREAD_VARIABLES}
    for name in cases:
        if name not in peaks:
            command = [sys.executable, __file__, name, str(work), str(threads)]
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
            if run.returncode:
                print(f"convolutions of {name}: could not be measured, see above", file=sys.stderr)
                continue
            peaks[name] = json.loads(run.stdout.splitlines()[-1])
        rows = results.data["cases"].get(name, {}).get("rows", [])
        for precision, found in peaks[name]["precisions"].items():
            own = [row for row in rows if row["contender"] == _CONTENDERS[precision]]
            found["predictor"] = predictor_speed(own, peaks[name]["operations"], peaks[name]["shape"][2:])
        results.save()


def main() -> None:
    """CASE [WORK [THREADS]]: measure one case and print it as one line of JSON."""
    from benchmarks.cases import ROOT

    name = sys.argv[1]
    work = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT / "bench"
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    print(json.dumps(measure_case(name, work, threads)))


if __name__ == "__main__":
    main()
