"""Networks on OpenVINO, the fastest there is on CPUs."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ...devices import processor_name
from ...errors import RunError
from .backend import Choice, memory_errors
from .compile_cache import CompileCache
from .network_memory import forward_bytes, weight_bytes
from .openvino_quietly import openvino as ov

_log = logging.getLogger(__name__)

_PLACE = "this computer"
_TYPES = {"fp32": "f32", "bf16": "bf16"}
#: Peak of an inference over what the network's own values need at once, measured; see ``memory_bytes``.
_FACTOR = 1.1
#: The weights as they came, and as OpenVINO orders them for its kernels.
_WEIGHT_COPIES = 2
#: What torch's tracing and OpenVINO's conversion leave behind in the allocator.
_CONVERSION = 128 * 2**20


class OpenVINOBackend:
    """A network on OpenVINO, see ``Backend``. Each shape is compiled for itself, or taken from the cache on disk.

    network: float32, on the CPU, in evaluation mode, left as it is; or a function that makes it, called only when
    something is to be compiled. key: digest of weights and definition, under which compiled networks are kept; "" for
    none kept. threads: None lets OpenVINO choose.
    """

    def __init__(
        self,
        choice: Choice,
        network: nn.Module | Callable[[], nn.Module],
        *,
        key: str,
        threads: int | None = None,
        cache: CompileCache | None = None,
    ):
        self.choice = choice
        self.device = torch.device("cpu")
        self._source: Any = network
        self._key = key
        self._threads = threads or 0
        self._cache = CompileCache() if cache is None else cache
        self._core = ov.Core()
        self._requests: dict[tuple[int, ...], tuple[Any, torch.Tensor]] = {}
        self._sizes: dict[tuple[int, ...], int] = {}

    @property
    def description(self) -> str:
        """Such as "OpenVINO on Intel(R) Xeon(R) Processor, bf16"."""
        return f"OpenVINO on {processor_name()}, {self.choice.precision}"

    def prepare(self, shape: Sequence[int]) -> None:
        """Compile for windows (B, C, *S), or take what was compiled before from the disk. Raises OutOfMemory,
        RunError for a network that OpenVINO cannot take."""
        shape = tuple(int(n) for n in shape)
        if shape in self._requests:
            return
        with memory_errors(_PLACE, shape):
            compiled = self._stored(shape) or self._compiled(shape)
            request = compiled.create_infer_request()
            # One tensor of our own for all calls: nothing is copied, and its pages are fetched once.
            logits = torch.empty(tuple(compiled.output(0).shape))
            request.set_output_tensor(ov.Tensor(logits.numpy(), shared_memory=True))
            self._requests[shape] = (request, logits)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, *S), float32, on the CPU; the next call with the same shape writes into the same tensor."""
        shape = tuple(windows.shape)
        self.prepare(shape)
        request, logits = self._requests[shape]
        values = np.ascontiguousarray(windows.detach().cpu().float().numpy())
        with memory_errors(_PLACE, shape):
            request.set_input_tensor(ov.Tensor(values, shared_memory=True))
            request.infer()
        return logits

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """The most that lives at once times a measured factor, and the weights twice; before a shape is compiled for
        the first time, what writing the network down needs if that is more, for it runs once in torch for that.

        Set on Linux x86-64 with nnU-Net's PlainConvUNet (125 MB of weights) at 96³: resident memory grew by 872 MB in
        float32 and 590 MB in bfloat16 with a compiled network from the disk, by 1105 MB and 1098 MB without.
        """
        shape = tuple(int(n) for n in shape)
        if shape not in self._sizes:
            entry = None
            if self._key:
                entry = self._cache.load(self._identity(shape))
            if entry is not None:
                self._sizes[shape] = int(entry.notes["memory_bytes"])
            else:
                self._sizes[shape] = self._estimate(shape)
        if shape in self._requests or (self._key and self._cache.holds(self._identity(shape))):
            return self._sizes[shape]
        tracing = forward_bytes(self._network(), shape, copies=True) + weight_bytes(self._network())
        return max(self._sizes[shape], tracing + _CONVERSION)

    def close(self) -> None:
        """Let go of everything compiled."""
        self._requests.clear()
        self._source = None

    def _network(self) -> nn.Module:
        if not isinstance(self._source, nn.Module):
            self._source = self._source()
        return self._source

    def _estimate(self, shape: tuple[int, ...]) -> int:
        network = self._network()
        dtype = torch.bfloat16 if self.choice.precision == "bf16" else torch.float32
        return int(_FACTOR * forward_bytes(network, shape, dtype) + _WEIGHT_COPIES * weight_bytes(network))

    def _options(self) -> dict[str, Any]:
        return {
            # OpenVINO takes bfloat16 by itself where a processor has it; float32 has to be asked for.
            "INFERENCE_PRECISION_HINT": _TYPES[self.choice.precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            # Pinned threads of two processes would share the same cores.
            "ENABLE_CPU_PINNING": False,
        }

    def _identity(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "format": 1,
            "key": self._key,
            "shape": list(shape),
            "precision": self.choice.precision,
            "openvino": ov.__version__,
            "cpu": processor_name(),
            "threads": self._threads,
        }

    def _stored(self, shape: tuple[int, ...]) -> Any:
        if not self._key:
            return None
        entry = self._cache.load(self._identity(shape))
        if entry is None:
            return None
        try:
            compiled = self._core.import_model(io.BytesIO(entry.blob), "CPU", self._options())
        except Exception as error:  # of another build, for example
            _log.debug("a compiled network was of no use: %s", error)
            self._cache.discard(self._identity(shape))
            return None
        _log.debug("compiled network taken from the disk")
        return compiled

    def _compiled(self, shape: tuple[int, ...]) -> Any:
        _log.debug("compiling a network")
        compiled = self._core.compile_model(self._graph(shape), "CPU", self._options())
        if self._key:
            stream = io.BytesIO()
            exported = compiled.export_model()
            stream.write(exported.getvalue() if hasattr(exported, "getvalue") else exported)
            self._cache.store(self._identity(shape), stream.getvalue(), {"memory_bytes": self._estimate(shape)})
        return compiled

    def _graph(self, shape: tuple[int, ...]) -> Any:
        """The network as OpenVINO's graph, for that shape alone."""
        example = torch.zeros(shape)
        with warnings.catch_warnings(), torch.no_grad(), memory_errors(_PLACE, shape):
            # Branches on sizes are right for this one shape, and the rest is advice to those who write networks.
            warnings.simplefilter("ignore")
            try:
                # Traced here, since OpenVINO would have torch run the network twice more to check.
                graph = torch.jit.trace(_First(self._network()).eval(), example, check_trace=False, strict=False)
                return ov.convert_model(graph, example_input=example, input=[list(shape)])
            except MemoryError:
                raise
            except Exception as error:
                if isinstance(error, RuntimeError) and "memory" in str(error).lower():
                    raise
                raise RunError(
                    f"OpenVINO cannot take this network ({str(error).splitlines()[0][:200]}); choose back end torch."
                ) from error


class _First(nn.Module):
    """A network that gives its first output alone, where it has several."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.network(x)
        return result[0] if isinstance(result, (list, tuple)) else result
