"""How much memory a network takes for a window, found without running it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVOLUTIONS = {"conv2d", "conv3d", "convolution", "conv_transpose2d", "conv_transpose3d"}


def weight_bytes(network: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers, each storage counted once."""
    storages = {
        t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in (*network.parameters(), *network.buffers())
    }
    return sum(storages.values())


def forward_bytes(
    network: torch.nn.Module, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, copies: bool = False
) -> int:
    """The most bytes that input, outputs and everything between take at one moment of a forward pass; no weights.

    shape: of the input (B, C, *S). dtype: of all values between. copies: count a second time the input and output of
    each convolution while it runs, as oneDNN has them in its own blocked order.
    The pass goes over the "meta" device, which knows shapes and holds no values, and each storage is followed until
    torch lets go of it. Raises what the network raises for a shape that it cannot take.
    """
    twin = _hollow_twin(network, dtype)
    ledger = _Ledger({t.untyped_storage()._cdata for t in (*twin.parameters(), *twin.buffers())}, copies)
    with torch.no_grad(), ledger:
        result = twin(torch.empty(tuple(shape), device="meta", dtype=dtype))
        del result
    return ledger.most


def _hollow_twin(network: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """A copy of the network whose weights have shapes and no values.

    torch.func.functional_call would need no copy, but leaves MONAI's networks, which name modules twice, with the
    weights it was given.
    """
    known: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        hollow = torch.empty_like(tensor, device="meta", dtype=dtype if tensor.is_floating_point() else None)
        is_weight = isinstance(tensor, torch.nn.Parameter)
        known[id(tensor)] = torch.nn.Parameter(hollow, requires_grad=False) if is_weight else hollow
    return copy.deepcopy(network, known)


class _Ledger(TorchDispatchMode):
    """Sums the storages that are alive, and remembers the most."""

    def __init__(self, ignored: set[int], copies: bool):
        super().__init__()
        self.most = 0
        self._now = 0
        self._ignored = ignored
        self._copies = copies
        self._alive: dict[int, Any] = {}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        results = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        for tensor in results:
            self._enter(tensor.untyped_storage())
        extra = 0
        if self._copies and operation.overloadpacket.__name__ in _CONVOLUTIONS:
            extra = sum(t.untyped_storage().nbytes() for t in (args[0], *results))
        self.most = max(self.most, self._now + extra)
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._alive or key in self._ignored:
            return
        size = storage.nbytes()
        self._now += size
        # The storage may not be held here; its end takes it off the sum again.
        self._alive[key] = weakref.finalize(storage, self._leave, key, size)
        self._alive[key].atexit = False

    def _leave(self, key: int, size: int) -> None:
        self._now -= size
        del self._alive[key]
