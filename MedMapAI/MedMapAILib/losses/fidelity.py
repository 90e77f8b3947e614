"""How far a made image is from the one it should be, pixel by pixel or window by window.

All take an output and a target (B, C, *S) in the unit in which the network works, compute in float32, and give a mean.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import SSIMLoss
from torch import Tensor, nn
from torch.nn import functional


class ReconstructionLoss(nn.Module):
    """What training a network for reconstruction makes small: ``loss(output, target, condition)``.

    output, target: (B, C, *S), real, in the task's normalized unit. condition: the network's input (B, D, *S) where
    that is an image, else None.

    blind_spots: whether the network is to be given ``blind(x)[0]`` instead of x (see ``blind_spots.BlindSpots``).
    opponent: the critic of an adversarial loss, or None. Its parameters are trained by an optimizer of their own, with
    ``opponent_loss``, ``opponent_steps`` times before each step of the network; ``opponent_optimizer`` has the
    arguments "learning_rate" and "betas" of torch's Adam.
    parts: what the last loss was made of, by name ("fidelity", "adversarial", "perceptual"), before weighing.
    """

    blind_spots = False

    def __init__(self) -> None:
        super().__init__()
        self.opponent: nn.Module | None = None
        self.opponent_steps = 1
        self.opponent_optimizer: dict[str, Any] = {}
        self._parts: dict[str, Tensor] = {}

    @property
    def parts(self) -> dict[str, float]:
        """Name → value of each part of the last loss."""
        return {name: float(value) for name, value in self._parts.items()}

    def forward(self, output: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """A scalar to make small, by the network."""
        raise NotImplementedError

    def opponent_loss(self, output: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        """A scalar to make small, by the opponent; output: detached from the network."""
        raise NotImplementedError


class Fidelity(ReconstructionLoss):
    """A loss of output and target alone. name: one of ``FIDELITIES``."""

    def __init__(self, name: str, spatial_dims: int, data_range: float, low: float = 0.0, **options: Any) -> None:
        super().__init__()
        self.measure = fidelity(name, spatial_dims, data_range, low, **options)

    def forward(self, output: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        with precise(output):
            value = self.measure(output, target)
            self._parts = {"fidelity": value.detach()}
        return value


class MeanSquared(nn.Module):
    """The mean of (output - target)²: the most PSNR."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(output.float(), target.float())


class MeanAbsolute(nn.Module):
    """The mean of |output - target|."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.l1_loss(output.float(), target.float())


class Charbonnier(nn.Module):
    """The mean of √((output - target)² + ε²) - ε: squares below ε, absolute values above, smooth between.

    epsilon: in the unit of the images. Charbonnier and others, "Two deterministic half-quadratic regularization
    algorithms for computed imaging", ICIP 1994.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        difference = output.float() - target.float()
        return (difference.square() + self.epsilon**2).sqrt().mean() - self.epsilon


class Similarity(nn.Module):
    """weight · (1 - SSIM) + (1 - weight) · mean |output - target| / data range.

    SSIM in Gaussian windows of ``window`` pixels a side, or the largest odd number that the images have. After Zhao and
    others, "Loss functions for image restoration with neural networks", IEEE Transactions on Computational Imaging
    3(1), 2017, https://arxiv.org/abs/1511.08861, who take 0.84 and several scales: SSIM alone leaves the level of flat
    regions nearly free. low: the value that is black, which SSIM counts from.
    """

    def __init__(self, spatial_dims: int, data_range: float, low: float, weight: float, window: int) -> None:
        super().__init__()
        self.spatial_dims, self.data_range, self.weight, self.window = spatial_dims, data_range, weight, window
        self.low = low

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        output, target = output.float(), target.float()
        side = min(self.window, *output.shape[2:])
        similar = SSIMLoss(self.spatial_dims, data_range=self.data_range, win_size=side - (side % 2 == 0))
        absolute = functional.l1_loss(output, target) / self.data_range
        return self.weight * similar(output - self.low, target - self.low) + (1 - self.weight) * absolute


FIDELITIES = ("mse", "l1", "charbonnier", "ssim")


def fidelity(
    name: str,
    spatial_dims: int,
    data_range: float,
    low: float = 0.0,
    *,
    epsilon: float = 1e-3,
    weight: float = 0.84,
    window: int = 11,
) -> nn.Module:
    """One of ``FIDELITIES``. low: the value that is black.

    epsilon: of "charbonnier", a part of the data range; weight, window: of "ssim"."""
    if name == "mse":
        return MeanSquared()
    if name == "l1":
        return MeanAbsolute()
    if name == "charbonnier":
        return Charbonnier(epsilon * data_range)
    return Similarity(spatial_dims, data_range, low, weight, window)


def precise(values: Tensor) -> torch.autocast:
    """The context in which a loss computes in float32 whatever the precision of the network."""
    return torch.autocast(values.device.type, enabled=False)
