"""Which part of a pretrained network may move when, and how fast: frozen stages, thawing, slower early stages."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ..errors import InputError
from ..networks.classifier import Classifier, members_of


def parameter_groups(network: nn.Module, *, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """The parameters by stage, from input to output, with what their learning rate is multiplied by.

    layer_decay: of each stage from that of the one after it, above 0 and up to 1; the head has 1 (discriminative
    fine-tuning: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, section 3.2).
    Returns [{"params": [parameters], "scale": float, "stage": name}, …], each parameter in exactly one; the members of
    an ensemble share groups. Frozen ones are among them: they may thaw. Raises InputError.
    """
    if not isinstance(layer_decay, (int, float)) or not 0 < layer_decay <= 1:
        raise InputError(f"transfer.layer_decay is {layer_decay!r}; give a number above 0 and up to 1.")
    members = [_stages(member, "layer_decay") for member in members_of(network)]
    last = len(members[0]) - 1
    return [
        {
            "params": [p for stages in members for p in stages[number][1].parameters()],
            "scale": float(layer_decay) ** (last - number),
            "stage": members[0][number][0],
        }
        for number in range(last + 1)
    ]


def set_frozen(network: nn.Module, *, frozen: int | list[str], unfreeze_every: float = 0.0, epoch: float = 0.0) -> None:
    """Hold stages still, weights and batch-norm statistics alike; call it before each iteration, after ``train()``.

    frozen: how many stages from the input on, or their names; the head always learns. unfreeze_every: epochs after
    which one more of them thaws, from the one nearest to the head on (gradual unfreezing: Howard and Ruder 2018,
    section 3.3); 0 for never. epoch: how many have passed, with the fraction of the present one.
    Raises InputError that names the stages there are.
    """
    if not isinstance(unfreeze_every, (int, float)) or not 0 <= unfreeze_every < math.inf:
        raise InputError(f"transfer.unfreeze_every is {unfreeze_every!r}; give a number of epochs, or 0 for never.")
    names = frozen_stages(network, frozen)
    thawed = int(epoch / unfreeze_every) if unfreeze_every else 0
    still = set(names[: max(0, len(names) - thawed)])
    for member in members_of(network):
        for name, stage in member.stages():
            for parameter in stage.parameters():
                parameter.requires_grad_(name not in still)
            if name in still:
                for module in stage.modules():
                    if getattr(module, "running_mean", None) is not None:
                        module.eval()


def frozen_stages(network: nn.Module, frozen: int | list[str]) -> list[str]:
    """The names of the stages that ``set_frozen`` holds still at first, from input to output. Raises InputError."""
    body = [name for name, _ in _stages(members_of(network)[0], "frozen")][:-1]
    if isinstance(frozen, int) and not isinstance(frozen, bool) and 0 <= frozen <= len(body):
        return body[:frozen]
    if isinstance(frozen, (list, tuple)) and all(name in body for name in frozen):
        return [name for name in body if name in frozen]
    raise InputError(
        f"transfer.frozen is {frozen!r}; give a number from 0 to {len(body)}, or a list of stages among "
        f"{', '.join(body)}."
    )


def _stages(member: nn.Module, setting: str) -> list[tuple[str, nn.Module]]:
    if not isinstance(member, Classifier):
        raise InputError(f"transfer.{setting} needs the stages of a classifier, which this network is not; leave it.")
    return member.stages()
