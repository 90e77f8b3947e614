"""The feature maps that a saliency map is made of: their values, the score's gradient, and where their voxels lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.classifier import Halving, members_of
from ..preprocessing import Grid, resample

#: Features of fewer voxels along their longest axis cannot say where; an earlier stage of the network is taken then.
_COARSEST = 3


@dataclass(frozen=True)
class Places:
    """Where the voxels of feature maps lie: number j along an axis at input voxel ``first + step * j``, each (n,)."""

    step: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class FeatureLayer:
    """features, gradient: (1, F, *s), of a member's last feature maps and of the score by them."""

    features: torch.Tensor
    gradient: torch.Tensor
    places: Places


def read(network: nn.Module, x: torch.Tensor, output: Callable[[torch.Tensor], torch.Tensor]) -> list[FeatureLayer]:
    """The feature maps of each member of the network and the gradient of the score by them.

    The score is that of the whole network: ``output`` of the mean of its members' logits. The maps are
    ``member.features(x)``, or, where these have hardly a place left, what the last stage with 3 voxels or more gives.
    """
    # Inference mode, if the caller is in it, makes tensors that no gradient can pass.
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone()
        leaves, places, logits = [], [], []
        for member in members_of(network):
            with torch.no_grad(), _traced(member) as steps:
                values = member.features(x)
            module = None
            if max(values.shape[2:]) < _COARSEST:
                values, module = _finer(member, x, values)
            places.append(_follow(steps, tuple(x.shape[2:]), tuple(values.shape[2:])))
            leaf = values.detach().clone().requires_grad_()
            leaves.append(leaf)
            # A copy, because activations in place must not change the leaf.
            if module is None:
                logits.append(member.head(member.embedding(leaf.clone())))
            else:
                hook = module.register_forward_hook(lambda *_, leaf=leaf: leaf.clone())
                try:
                    logits.append(member(x))
                finally:
                    hook.remove()
        score = output(torch.stack(logits).mean(dim=0))
        gradients = torch.autograd.grad(score, leaves, allow_unused=True)
    return [
        FeatureLayer(leaf.detach(), torch.zeros_like(leaf) if gradient is None else gradient.detach(), place)
        for leaf, gradient, place in zip(leaves, gradients, places, strict=True)
    ]


def _finer(member: nn.Module, x: torch.Tensor, features: torch.Tensor) -> tuple[torch.Tensor, nn.Module | None]:
    """What the last stage gives whose maps are fine enough, and the module that gives it; else features and None."""
    last: dict[int, tuple[torch.Tensor, nn.Module]] = {}
    hooks = []
    for number, (_, stage) in enumerate(member.stages()):
        for module in stage.modules():

            def record(module: nn.Module, _: Any, result: Any, number: int = number) -> None:
                if isinstance(result, torch.Tensor) and result.ndim == x.ndim:
                    last[number] = (result.clone(), module)

            hooks.append(module.register_forward_hook(record))
    try:
        with torch.no_grad():
            member.features(x)
    finally:
        for hook in hooks:
            hook.remove()
    for _, (values, module) in sorted(last.items(), reverse=True):
        if max(values.shape[2:]) >= _COARSEST:
            return values, module
    return features, None


def places_of(member: nn.Module, x: torch.Tensor, size: tuple[int, ...]) -> Places:
    """Where the voxels of maps of the given size lie that the member makes of x."""
    with torch.no_grad(), _traced(member) as steps:
        member.features(x)
    return _follow(steps, tuple(x.shape[2:]), size)


def spread(values: np.ndarray, places: Places, shape: tuple[int, ...]) -> np.ndarray:
    """A map (*s) of feature voxels on the input's voxels: linear between them, the nearest beyond the outermost.

    Returns float32 of the given shape.
    """
    missing = 3 - len(shape)
    affine = np.diag([*places.step, *[1.0] * missing, 1.0])
    affine[: len(shape), 3] = places.first
    source = Grid((*values.shape, *[1] * missing), affine)
    target = Grid((*shape, *[1] * missing), np.eye(4))
    array = np.asarray(values, dtype=np.float32).reshape(1, *source.shape)
    return resample(array, source, target, "linear").reshape(shape)


@contextmanager
def _traced(member: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """A list that fills, in the order in which they run, with the convolutions and poolings that change the size."""
    steps: list[dict[str, Any]] = []

    def record(module: nn.Module, inputs: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        before, after = tuple(inputs[0].shape[2:]), tuple(result.shape[2:])
        if before == after:
            return

        def along(value: Any) -> np.ndarray:
            return np.array(value if isinstance(value, tuple | list) else [value] * len(before), dtype=float)

        if isinstance(module, Halving):
            step = np.array([min(2, n) for n in before], dtype=float)
            reach, padding = step - 1, along(0)
        else:
            step = along(module.stride)
            reach = along(getattr(module, "dilation", 1)) * (along(module.kernel_size) - 1)
            padding = along(0 if module.padding == "valid" else module.padding)
        steps.append({"before": before, "after": after, "step": step, "first": reach / 2 - padding})

    hooks = [
        module.register_forward_hook(record)
        for module in member.modules()
        if isinstance(module, Halving) or all(hasattr(module, n) for n in ("kernel_size", "stride", "padding"))
    ]
    try:
        yield steps
    finally:
        for hook in hooks:
            hook.remove()


def _follow(steps: list[dict[str, Any]], shape: tuple[int, ...], size: tuple[int, ...]) -> Places:
    """The centers of the receptive fields (Araujo, Norris and Sim, Distill 2019, section on alignment).

    Strided convolutions look around voxel 0, 2, 4, …, poolings of two between voxels 0 and 1, 2 and 3, …: after five of
    either the places differ by half a feature voxel, which may be 16 voxels of the image. Branches that run beside
    each other come from and lead to the same size, so the first one stands for all.
    """
    step, first, now = np.ones(len(shape)), np.zeros(len(shape)), shape
    for part in steps:
        if now == size:
            break
        if part["before"] == now:
            first = first + step * part["first"]
            step = step * part["step"]
            now = part["after"]
    if now == size:
        return Places(step, first)
    # Something else changed the size: both grids are taken to cover the same field.
    step = np.array(shape, dtype=float) / np.array(size)
    return Places(step, (step - 1) / 2)
