"""What a generator and its critic make small.

===========  =======================================================================================================
hinge        critic: mean max(0, 1 - D(real)) + mean max(0, 1 + D(made)); generator: -mean D(made) (Lim, Ye 2017,
             https://arxiv.org/abs/1705.02894; Miyato et al. 2018)
logistic     critic: mean softplus(-D(real)) + mean softplus(D(made)); generator: mean softplus(-D(made)), the
             non-saturating loss of Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
===========  =======================================================================================================

To either the critic's R1 penalty is added, γ/2 · mean |∇D(real)|², without which the two circle each other (Mescheder,
Geiger, Nowozin 2018, https://arxiv.org/abs/1801.04406). Means may be weighted so that every class counts the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import InputError
from ..networks.checks import check_count
from ..networks.generation.image_critic import ImageCritic
from .classification import class_weights
from .differentiable_augmentation import CHANGES, change, check_changes

_OPTIONS: dict[str, Any] = {
    "augmentation": list(CHANGES),
    "weight": None,
    "gradient_penalty": 0.1,
    "critic_width": 32,
    "critic_steps": 1,
    "critic_learning_rate": 1e-3,
}


class GenerationLoss(nn.Module):
    """The loss of a generator; its critic is ``opponent`` and is trained by an optimizer of its own.

    See ``build_generation_loss`` for the arguments. opponent_steps: updates of the critic for each of the generator.
    opponent_optimizer: arguments of torch.optim.Adam. parts: what the last loss was made of.
    """

    def __init__(
        self, name: str, critic: ImageCritic, weights: torch.Tensor | None, changes: tuple[str, ...], settings: dict
    ):
        super().__init__()
        self.opponent = critic
        self.opponent_steps = settings["critic_steps"]
        self.opponent_optimizer = {"learning_rate": settings["critic_learning_rate"], "betas": [0.0, 0.9]}
        self.parts: dict[str, float] = {}
        self._hinge, self._changes = name == "hinge", changes
        self._penalty = float(settings["gradient_penalty"])
        self._class_weights = weights

    def forward(self, made: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Loss of the generator, a scalar. made: images (B, C, *S) of the classes (B, K) that it was told."""
        score = self.opponent(change(made.float(), self._changes), classes)
        return self._mean(-score if self._hinge else F.softplus(-score), classes)

    def opponent_loss(self, made: torch.Tensor, real: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Loss of the critic, a scalar. made, real: images (B, C, *S) of the same classes (B, K)."""
        real = change(real.float(), self._changes)
        if self._penalty:
            real = real.detach().requires_grad_()
        of_real, of_made = self.opponent(real, classes), self.opponent(change(made.float(), self._changes), classes)
        one = (F.relu(1 - of_real), F.relu(1 + of_made)) if self._hinge else (F.softplus(-of_real), F.softplus(of_made))
        loss = self._mean(one[0], classes) + self._mean(one[1], classes)
        if self._penalty:
            (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            loss = loss + self._penalty / 2 * slope.flatten(1).square().sum(dim=1).mean()
        return loss

    def _mean(self, values: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        if self._class_weights is None:
            return values.mean()
        return (values * (classes.float() @ self._class_weights.to(values.device))).mean()


def build_generation_loss(
    name: str,
    *,
    image_channels: int,
    classes: int,
    image_size: Sequence[int],
    counts: Sequence[int] | None = None,
    **options: Any,
) -> GenerationLoss:
    """A loss with a new critic, whose random weights come from torch's global generator.

    name: "hinge" or "logistic". counts: training cases of each class. options: augmentation, a list of changes that the
    critic sees images through (see ``differentiable_augmentation``; all of them by default); weight, "balanced" to let
    every class count the same; gradient_penalty, γ of R1; critic_width, channels of its first layer; critic_steps,
    updates of the critic for each of the generator; critic_learning_rate, of Adam.
    Raises InputError for an unknown name or option, and for a value that makes no sense.
    """
    if name not in GENERATION:
        raise InputError(f"There is no loss {name!r} for generation; choose one of {', '.join(GENERATION)}.")
    unknown = [option for option in options if option not in _OPTIONS]
    if unknown:
        raise InputError(f"Loss {name!r} has no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}.")
    settings = {**_OPTIONS, **options}
    changes = check_changes(settings["augmentation"])
    for option, open_end in (("gradient_penalty", False), ("critic_learning_rate", True)):
        value = settings[option]
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0 or open_end and value == 0:
            least = "above 0" if open_end else "from 0"
            raise InputError(f"Option {option} of loss {name!r} is {value!r}; give a number {least}.")
    settings["critic_steps"] = check_count(settings["critic_steps"], "critic_steps")
    critic = ImageCritic(image_channels, classes, image_size, check_count(settings["critic_width"], "critic_width"))
    weights = None
    if settings["weight"] not in (None, "balanced"):
        raise InputError(f"Option weight of loss {name!r} is {settings['weight']!r}; give 'balanced', or leave it out.")
    if settings["weight"] and classes > 1:
        weights = class_weights("balanced", counts, kind="single-label")
    return GenerationLoss(name, critic, weights, changes, settings)


#: Name → builder.
GENERATION: dict[str, Callable[..., GenerationLoss]] = {
    name: functools.partial(build_generation_loss, name) for name in ("hinge", "logistic")
}
