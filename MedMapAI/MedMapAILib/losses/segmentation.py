"""What training a segmentation makes small: MONAI's and torch's losses behind one face.

All take logits (B, K, *S) with K ≥ 2 and class indices (B, 1, *S), 0 for background, compute in float32 whatever the
precision of the logits, and give a scalar that stays finite when a class is absent. "Background excluded" means that
class 0 counts only through what it takes from the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, GeneralizedDiceLoss, TverskyLoss
from torch import nn
from torch.nn.functional import interpolate

from ..errors import InputError

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Kind:
    """A loss class, the arguments that make it take logits and class indices, and the options left to choose."""

    make: Callable[..., nn.Module]
    fixed: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    #: torch's own takes class indices without a channel axis.
    drop_channel: bool = False


_ONE_HOT = {"to_onehot_y": True, "softmax": True}
_DICE = {
    "include_background": False,
    "squared_pred": False,
    "jaccard": False,
    "batch": False,
    "smooth_nr": 1e-5,
    "smooth_dr": 1e-5,
    "weight": None,
}
_KINDS: dict[str, _Kind] = {
    # Mean over voxels of -log p(class); with weight, the weighted mean.
    "cross-entropy": _Kind(nn.CrossEntropyLoss, {}, {"weight": None, "label_smoothing": 0.0}, drop_channel=True),
    # 1 - 2 Σpt / (Σp + Σt), mean over classes; with squared_pred: Milletari et al. 2016, https://arxiv.org/abs/1606.04797.
    "dice": _Kind(DiceLoss, _ONE_HOT, _DICE),
    # The sum of the two above, as in nnU-Net.
    "dice-ce": _Kind(DiceCELoss, _ONE_HOT, _DICE | {"lambda_dice": 1.0, "lambda_ce": 1.0, "label_smoothing": 0.0}),
    # -(1 - p)^γ log p, mean over voxels and classes (so K times less than the mean over voxels): Lin et al. 2017,
    # https://arxiv.org/abs/1708.02002, with softmax in place of sigmoid.
    "focal": _Kind(
        FocalLoss,
        {"to_onehot_y": True, "use_softmax": True},
        {"gamma": 2.0, "alpha": None, "weight": None, "include_background": True},
    ),
    # 1 - tp / (tp + α fp + β fn); α = β = 1/2 is Dice, and a β above α makes missed voxels cost more:
    # Salehi et al. 2017, https://arxiv.org/abs/1706.05721, whose best values these defaults are.
    "tversky": _Kind(
        TverskyLoss,
        _ONE_HOT,
        {"alpha": 0.3, "beta": 0.7, "include_background": False, "batch": False, "smooth_nr": 1e-5, "smooth_dr": 1e-5},
    ),
    # 1 - 2 Σ_k w_k Σpt / Σ_k w_k (Σp + Σt) with w_k = 1 / (Σt)²: Sudre et al. 2017, https://arxiv.org/abs/1707.03237;
    # background is one of the classes there. The weights of large classes are so small that MONAI's smoothing of 1e-5
    # would outweigh them; with background among the classes the denominator is never zero, so next to none is needed.
    "generalized-dice": _Kind(
        GeneralizedDiceLoss,
        _ONE_HOT,
        {"include_background": True, "w_type": "square", "batch": False, "smooth_nr": 1e-12, "smooth_dr": 1e-12},
    ),
}


def build_loss(name: str, **options: Any) -> Loss:
    """A loss: ``loss(logits, target)`` of (B, K, *S) and (B, 1, *S) → scalar float32, on the logits' device.

    options: those of the MONAI or torch class of that name; see ``options_of``. weight: one number for each class,
    background first (its own is left out where background is).
    Raises InputError for an unknown name or option, listing what there is, and for a value that the class refuses.
    """
    known = options_of(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"Loss {name!r} has no option {unknown[0]!r}; there are {', '.join(known)}.")
    return _Loss(name, {**known, **options})


def options_of(name: str) -> dict[str, Any]:
    """The options of a loss and their defaults. Raises InputError for an unknown name."""
    if name not in _KINDS:
        raise InputError(f"There is no loss {name!r}; choose one of {', '.join(_KINDS)}.")
    return dict(_KINDS[name].options)


#: Name → builder.
LOSSES: dict[str, Callable[..., Loss]] = {name: functools.partial(build_loss, name) for name in _KINDS}


def deep_supervision(loss: Loss, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """The loss of outputs at several resolutions: a mean with weights 1, 1/2, 1/4 …

    outputs: logits (B, K, *S_n) from fine to coarse. target: class indices (B, 1, *S), brought to each S_n by nearest
    neighbor. The weights are nnU-Net's (https://doi.org/10.1038/s41592-020-01008-z).
    """
    weights = [0.5**n for n in range(len(outputs))]
    total = sum(
        w * loss(output, _resized(target, output.shape[2:])) for w, output in zip(weights, outputs, strict=True)
    )
    return total / sum(weights)


def _resized(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if target.shape[2:] == tuple(size):
        return target
    return interpolate(target.float(), size=tuple(size), mode="nearest-exact").long()


class _Loss:
    def __init__(self, name: str, options: dict[str, Any]):
        self._name = name
        self._kind = _KINDS[name]
        self._weights = _class_weights(name, options.pop("weight", None))
        self._include_background = options.get("include_background", True)
        try:
            self._options = options
            self._make(None)
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(f"Loss {name!r} cannot be made with {options}: {str(error).splitlines()[0]}.") from None
        self._loss: nn.Module | None = None

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if logits.shape[1] < 2:
            raise ValueError(
                f"loss {self._name!r} needs two output channels or more, background being one; got {logits.shape[1]}"
            )
        if self._loss is None:
            self._loss = self._make(self._weights_for(logits.shape[1]))
        self._loss.to(logits.device)
        target = target.long()
        # Sums over a volume overflow float16, and lose small structures in bfloat16.
        with torch.autocast(logits.device.type, enabled=False):
            return self._loss(logits.float(), target.squeeze(1) if self._kind.drop_channel else target)

    def _make(self, weights: torch.Tensor | None) -> nn.Module:
        arguments = {**self._kind.fixed, **self._options}
        if weights is not None:
            arguments["weight"] = weights
        return self._kind.make(**arguments)

    def _weights_for(self, classes: int) -> torch.Tensor | None:
        if self._weights is None:
            return None
        if len(self._weights) != classes:
            raise InputError(
                f"Loss option weight has {len(self._weights)} numbers for {classes} classes; give one for each, "
                "background first."
            )
        # DiceCELoss leaves background's weight out by itself, where it is left out.
        own = self._include_background or self._kind.make is DiceCELoss
        return self._weights if own else self._weights[1:]


def _class_weights(name: str, weight: Any) -> torch.Tensor | None:
    if weight is None:
        return None
    numbers = isinstance(weight, (list, tuple)) and all(
        isinstance(w, (int, float)) and not isinstance(w, bool) for w in weight
    )
    if not numbers or not all(0 <= w < float("inf") for w in weight):
        raise InputError(
            f"Option weight of loss {name!r} is {weight!r}; give a list of numbers from 0, one for each class."
        )
    return torch.tensor(weight, dtype=torch.float32)
