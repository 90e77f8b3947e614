"""Several classifiers that are trained together and answer as one.

Lakshminarayanan, Pritzel, Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
NeurIPS 2017, https://arxiv.org/abs/1612.01474: members differ by their random weights. Here their logits are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .checks import check_count
from .classifier import Classifier

_TARGET = "MedMapAILib.networks.ensemble.Ensemble"
#: More would not fit into memory by mistake.
MOST = 16


class Ensemble(Classifier):
    """Members of one kind: a list of their logits in training, the mean of their logits (B, O) in evaluation.

    Its features and its embedding are those of the members, one after the other along the second axis.
    """

    def __init__(self, members: Sequence[Classifier]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        logits = [member(x) for member in self.members]
        return logits if self.training else torch.stack(logits).mean(dim=0)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([member.features(x) for member in self.members], dim=1)

    def embedding(self, features: torch.Tensor) -> torch.Tensor:
        parts = features.chunk(len(self.members), dim=1)
        return torch.cat([m.embedding(part) for m, part in zip(self.members, parts, strict=True)], dim=1)

    def head(self, embedding: torch.Tensor) -> torch.Tensor:
        """(B, E) → the mean of the members' logits (B, O)."""
        parts = embedding.chunk(len(self.members), dim=1)
        return torch.stack([m.head(part) for m, part in zip(self.members, parts, strict=True)]).mean(dim=0)

    def output_layer(self) -> nn.Linear:
        raise NotImplementedError("each member has its own")

    def stages(self) -> list[tuple[str, nn.Module]]:
        """Those of the members, side by side."""
        together = zip(*(member.stages() for member in self.members), strict=True)
        return [(same[0][0], nn.ModuleList([module for _, module in same])) for same in together]

    def attention_map(self, x: torch.Tensor) -> torch.Tensor | None:
        """The mean of the members' maps."""
        maps = [member.attention_map(x) for member in self.members]
        return None if maps[0] is None else torch.stack(maps).mean(dim=0)

    def published_name(self, key: str) -> str | None:
        _, index, key = key.split(".", 2)
        return self.members[int(index)].published_name(key)


def build_members(make: Callable[[], Classifier], members: Any) -> Classifier:
    """One network of ``make``, or an ensemble of as many as asked for. Raises InputError."""
    members = _checked(members)
    return make() if members == 1 else Ensemble([make() for _ in range(members)])


def define_members(member: dict[str, Any], members: Any) -> dict[str, Any]:
    """The ``network_def`` of ``build_members``, from that of one member. Raises InputError."""
    members = _checked(members)
    return member if members == 1 else {"_target_": _TARGET, "members": [dict(member) for _ in range(members)]}


def _checked(members: Any) -> int:
    if check_count(members, "members") > MOST:
        raise InputError(f"Network option members is {members}; give at most {MOST}.")
    return members
