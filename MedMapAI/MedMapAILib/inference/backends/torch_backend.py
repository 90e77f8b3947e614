"""Networks on torch: CUDA, MPS, and CPUs where OpenVINO is not installed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...devices import PRECISIONS, processor_name
from . import allocator
from .backend import Choice, memory_errors
from .network_memory import forward_bytes, weight_bytes

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
#: What cuDNN may take to work in while it tries algorithms.
_CUDA_WORKSPACE = 512 * 2**20


class TorchBackend:
    """A network on torch, see ``Backend``.

    network: float32, on the CPU, in evaluation mode; it is left as it is. threads: of torch, for the whole process.

    On a CPU, float32: convolutions go to oneDNN directly, because torch falls into a kernel of its own for a batch of
    one when the image is small, which takes 2 to 4 times as long. Reduced precision: weights of convolutions are
    converted once, everything else is autocast, so that normalization keeps its float32 weights and sums.
    """

    def __init__(self, choice: Choice, network: nn.Module, threads: int | None = None):
        self.choice = choice
        self.device = torch.device(choice.device)
        self._dtype = PRECISIONS[choice.precision]
        self._low = self._dtype != torch.float32
        self._cpu = self.device.type == "cpu"
        self._sizes: dict[tuple[int, ...], int] = {}
        self._prepared: set[tuple[int, ...]] = set()
        if threads is not None:
            torch.set_num_threads(threads)
        if self._cpu:
            allocator.keep_freed_memory()
        self._original = network
        with memory_errors(self._place, (1, 1, 0)):
            # A copy, since another back end may be opened with the same network after this one ran out of memory.
            self._network = network if self._cpu and not self._low else copy.deepcopy(network)
            if self._low:
                for module in self._network.modules():
                    if isinstance(module, _CONVOLUTIONS):
                        module.to(self._dtype)
            self._network.to(self.device)

    @property
    def description(self) -> str:
        """Such as "PyTorch on Intel(R) Xeon(R) Processor, fp32"."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else processor_name()
        return f"PyTorch on {name if self.device.type != 'mps' else f'{name} (MPS)'}, {self.choice.precision}"

    @property
    def _place(self) -> str:
        return "this computer" if self._cpu else "the GPU"

    def prepare(self, shape: Sequence[int]) -> None:
        """Run once over zeros on a GPU, so that kernels are chosen. A CPU needs no warming up."""
        shape = tuple(shape)
        if not self._cpu and shape not in self._prepared:
            self(torch.zeros(shape))
        self._prepared.add(shape)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Logits (B, K, *S), float32, on ``device``; a tensor of inference mode."""
        with memory_errors(self._place, windows.shape), torch.inference_mode(), contextlib.ExitStack() as modes:
            if self.device.type == "cuda":
                modes.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=self._low))
            if self._low:
                modes.enter_context(torch.autocast(self.device.type, dtype=self._dtype))
            elif self._cpu and torch.backends.mkldnn.is_available():
                modes.enter_context(_OneDnnConvolutions())
            windows = windows.to(self.device)
            if self.device.type == "cuda":
                windows = windows.to(memory_format=torch.channels_last if windows.ndim == 4 else torch.channels_last_3d)
            logits = self._network(windows)
            return (logits[0] if isinstance(logits, (list, tuple)) else logits).float()

    def memory_bytes(self, shape: Sequence[int]) -> int:
        """The most that lives at once, convolutions' reordered copies on CPUs, cuDNN's workspace, and the weights."""
        shape = tuple(shape)
        if shape not in self._sizes:
            network, copies = self._original, self._cpu or self._low
            self._sizes[shape] = forward_bytes(network, shape, self._dtype, copies=copies) + weight_bytes(self._network)
        return self._sizes[shape] + (_CUDA_WORKSPACE if self.device.type == "cuda" else 0)

    def close(self) -> None:
        """Let go of the network and give back what allocators kept."""
        self._network = self._original = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._cpu:
            allocator.return_freed_memory()


class _OneDnnConvolutions(TorchDispatchMode):
    """Sends plain convolutions to oneDNN whatever the batch; torch does so for some sizes only.

    aten/src/ATen/native/Convolution.cpp, ConvParams::use_mkldnn: for a batch of one, only when the product of the first
    four sizes exceeds 20480, which three-dimensional images of half the resolution do not reach.
    """

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation in (torch.ops.aten.conv2d.default, torch.ops.aten.conv3d.default) and not kwargs:
            image, weight, bias, stride, padding, dilation, groups = (*args, *_DEFAULTS[len(args) :])
            axes = image.ndim - 2
            if image.ndim == weight.ndim and image.dtype == weight.dtype == torch.float32:
                stride, padding, dilation = (
                    list(v) * (axes // len(v)) if isinstance(v, (list, tuple)) else [v] * axes
                    for v in (stride, padding, dilation)
                )
                return torch.ops.aten.mkldnn_convolution.default(image, weight, bias, padding, stride, dilation, groups)
        return operation(*args, **(kwargs or {}))


#: Of conv2d and conv3d: image, weight, bias, stride, padding, dilation, groups.
_DEFAULTS = (None, None, None, 1, 0, 1, 1)
