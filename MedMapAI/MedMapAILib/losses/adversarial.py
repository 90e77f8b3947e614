"""Losses with an opponent: a critic that learns to tell made images from real ones while the network learns to please.

Images are divided by the data range before anything else, so that the balance of the parts does not depend on the unit
in which the network works. Random numbers come from torch's global generator on the CPU, so that a run that was
interrupted goes on bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.critics import ImageCritic, PatchCritic
from .fidelity import ReconstructionLoss, fidelity, precise
from .perceptual import Perceptual


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor) -> Tensor:
    """The mean of (|∇ critic| - 1)² at random points between real and made images (B, C, *S), a scalar.

    critic: (B, C, *S) → (B, …), any number of values an image, which are added up. The norm is over all of an image.
    Gulrajani and others, "Improved training of Wasserstein GANs", NeurIPS 2017, https://arxiv.org/abs/1704.00028.
    """
    part = torch.rand(len(real), *[1] * (real.ndim - 1)).to(real)
    between = torch.lerp(made.detach(), real.detach(), part).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1).square().mean()


@contextlib.contextmanager
def left_alone(critic: nn.Module) -> Iterator[None]:
    """What is computed inside gives no gradient to the critic's weights; it goes through to the images all the same."""
    learning = [p for p in critic.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


class _Adversarial(ReconstructionLoss):
    """weights[0] · fidelity + weights[1] · what the critic says + weights[2] · perceptual term."""

    def __init__(
        self,
        options: dict[str, Any],
        critic: nn.Module,
        *,
        conditional: bool,
        spatial_dims: int,
        data_range: float,
        low: float,
    ) -> None:
        super().__init__()
        self.data_range, self.conditional = data_range, conditional
        self.measure = fidelity(options["fidelity"], spatial_dims, 1.0)
        self.weights = tuple(options[f"{part}_weight"] for part in ("fidelity", "adversarial", "perceptual"))
        self.perceptual = None
        if options["perceptual"]:
            self.perceptual = Perceptual(options["perceptual"], spatial_dims=spatial_dims, low=low / data_range)
        self.opponent = critic
        self.opponent_steps = options["steps"]
        self.opponent_optimizer = {"learning_rate": options["learning_rate"], "betas": list(options["betas"])}

    def forward(self, output: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        with precise(output):
            output, target = output.float() / self.data_range, target.float() / self.data_range
            parts = {"fidelity": self.measure(output, target)}
            with left_alone(self.opponent):
                parts["adversarial"] = self.please(self.opponent(self._judged(output, condition)))
            if self.perceptual is not None:
                parts["perceptual"] = self.perceptual(output, target)
            self._parts = {name: value.detach() for name, value in parts.items()}
            return sum(weight * value for weight, value in zip(self.weights, parts.values(), strict=False))

    def opponent_loss(self, output: Tensor, target: Tensor, condition: Tensor | None = None) -> Tensor:
        with precise(output):
            made, real = (
                self._judged(image.detach().float() / self.data_range, condition) for image in (output, target)
            )
            return self.tell_apart(real, made)

    def please(self, verdict: Tensor) -> Tensor:
        """What the network makes small, of the critic's verdict on its images."""
        raise NotImplementedError

    def tell_apart(self, real: Tensor, made: Tensor) -> Tensor:
        """What the critic makes small."""
        raise NotImplementedError

    def _judged(self, image: Tensor, condition: Tensor | None) -> Tensor:
        """What the critic is shown: the image alone or after what it was made of."""
        if not self.conditional:
            return image
        if condition is None:
            raise ValueError("this loss was built for a condition, and there is none")
        return torch.cat([condition.detach().float() / self.data_range, image], dim=1)


class ConditionalGan(_Adversarial):
    """Isola and others, "Image-to-image translation with conditional adversarial networks" (pix2pix), CVPR 2017.

    https://arxiv.org/abs/1611.07004. The critic sees each patch of an image beside what it was made of, and answers
    with the probability that it is real; the network makes -log of that small, and 100 times the mean absolute error.
    As published, the critic's loss is halved.
    """

    def __init__(
        self, options: dict[str, Any], *, channels: int, condition_channels: int, spatial_dims: int, **common: Any
    ) -> None:
        critic = PatchCritic(spatial_dims, channels + condition_channels, options["width"], options["layers"])
        conditional = condition_channels > 0
        super().__init__(options, critic, conditional=conditional, spatial_dims=spatial_dims, **common)

    def please(self, verdict: Tensor) -> Tensor:
        return functional.softplus(-verdict).mean()

    def tell_apart(self, real: Tensor, made: Tensor) -> Tensor:
        # One image after the other: the critic's normalization is for each by itself, and one pass has less overhead.
        on_real, on_made = self.opponent(torch.cat([real, made])).chunk(2)
        return (functional.softplus(-on_real).mean() + functional.softplus(on_made).mean()) / 2


class WassersteinGan(_Adversarial):
    """Yang and others, "Low-dose CT image denoising using a generative adversarial network with Wasserstein distance
    and perceptual loss", IEEE Transactions on Medical Imaging 37(6), 2018, https://arxiv.org/abs/1708.00961.

    The critic, with a gradient penalty of weight 10, estimates how far made images as a whole are from real ones, and
    the network makes that distance small, and a tenth of the perceptual term. As published: four updates of the critic
    for one of the network, and Adam's betas. What differs: a fidelity term with the larger weight, without which the
    network may move structures, and nothing keeps HU; the adversarial term is weighted so that its pull on the image
    is a fraction of the fidelity's.
    """

    def __init__(
        self, options: dict[str, Any], *, channels: int, condition_channels: int, spatial_dims: int, **common: Any
    ) -> None:
        conditional = bool(options["conditional"]) and condition_channels > 0
        critic = ImageCritic(spatial_dims, channels + conditional * condition_channels, options["width"])
        super().__init__(options, critic, conditional=conditional, spatial_dims=spatial_dims, **common)
        self.penalty = options["penalty"]

    def please(self, verdict: Tensor) -> Tensor:
        return -verdict.mean()

    def tell_apart(self, real: Tensor, made: Tensor) -> Tensor:
        on_real, on_made = self.opponent(torch.cat([real, made])).chunk(2)
        distance = on_made.mean() - on_real.mean()
        return distance + self.penalty * gradient_penalty(self.opponent, real, made)
