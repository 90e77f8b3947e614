"""Does a saliency map show what the network has learned, or only what the image looks like?

Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018: a map that stays the same when the network's weights are
replaced by random ones says nothing about the network.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import nn

from ..networks.classifier import members_of
from . import saliency_map

#: A map that keeps this rank correlation with itself, whatever the weights, has not changed.
SIMILAR = 0.8
_DRAWS = 3


def changes_with_weights(
    network: nn.Module,
    x: torch.Tensor,
    output: Callable[[torch.Tensor], torch.Tensor],
    method: str,
    values: np.ndarray | None = None,
) -> tuple[bool, float]:
    """Whether the map changes when the head and the later half of the network's stages get random weights.

    network, x, output, method: as in ``saliency_map``. values: the map itself, where it is known already. The network
    is not changed; the random weights are the same at every call. Returns (it changes, Spearman's rank correlation of
    the two maps over all voxels, the mean of three draws, one for occlusion).
    """
    values = saliency_map(network, x, output, method) if values is None else values
    correlations = []
    for seed in range(1 if method == "occlusion" else _DRAWS):
        other = saliency_map(randomized(network, seed), x, output, method)
        correlations.append(rank_correlation(values, other))
    similarity = float(np.mean(correlations))
    return similarity < SIMILAR, similarity


def warning_of(
    network: nn.Module,
    x: torch.Tensor,
    output: Callable[[torch.Tensor], torch.Tensor],
    method: str,
    values: np.ndarray | None = None,
) -> str | None:
    """The sentence that the user should read with the map, or None. Arguments as of :func:`changes_with_weights`."""
    values = saliency_map(network, x, output, method) if values is None else values
    if not values.any():
        return "The map is empty: by this method no place in the image speaks for this class."
    if values.min() == values.max():
        return "The map is the same everywhere: the network's features are too coarse for this method to say where."
    changes, similarity = changes_with_weights(network, x, output, method, values)
    if changes:
        return None
    return (
        f"The map hardly changes (rank correlation {similarity:.2f}) when the network's last stages are replaced by "
        "random ones: it shows what the image looks like, not what the model has learned."
    )


def randomized(network: nn.Module, seed: int) -> nn.Module:
    """A copy of the network whose head and later half of stages have random weights of the size of the trained ones.

    Kernels and matrices are drawn from a normal distribution of the same root mean square, so that activations stay of
    their order; biases and the scales of normalization are shuffled.
    """
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for member in members_of(network):
            stages = member.stages()
            for _, stage in stages[len(stages) // 2 :]:
                for parameter in stage.parameters():
                    if parameter.ndim > 1:
                        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                        parameter.copy_(noise * parameter.square().mean().sqrt())
                    else:
                        order = torch.randperm(len(parameter.flatten()), generator=generator).to(parameter.device)
                        parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))
    return network


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two maps; 1 where both are constant and 0 where only one is."""
    constant = [np.ptp(values) == 0 for values in (a, b)]
    if any(constant):
        return float(all(constant))
    return float(stats.spearmanr(a.ravel(), b.ravel()).statistic)
