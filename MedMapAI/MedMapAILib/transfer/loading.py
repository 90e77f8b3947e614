"""Filling a classifier with weights that were learned elsewhere, and saying of each layer where it came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..networks.classifier import Classifier, members_of
from .fitting import adapt_channels, check_inflation, inflate_kernel
from .imagenet import Progress, architecture_of, backbone_names
from .layouts import COUNTERS, torchvision_names
from .sources import PretrainedWeights, open_weights


@dataclass(frozen=True)
class TransferReport:
    """Where the tensors of a network came from; of an ensemble, those of its first member.

    taken: names of those that are the source's own. adapted: "name: what was done". left: names of those that stay as
    they were, the head's among them. unused: names of the source's that have no place here. sentence: all of it in one.
    """

    taken: tuple[str, ...]
    adapted: tuple[str, ...]
    left: tuple[str, ...]
    unused: tuple[str, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "taken": list(self.taken),
            "adapted": list(self.adapted),
            "left": list(self.left),
            "unused": list(self.unused),
            "sentence": self.sentence,
        }


def load_pretrained(
    network: nn.Module,
    weights: str | Path,
    *,
    in_channels: int,
    inflate: str = "mean",
    on_progress: Progress = lambda fraction, message: None,
) -> TransferReport:
    """Fill a classifier, or each member of an ensemble, with weights; its head stays as it is. Another network is
    filled whole, with those of a bundle or file of the same network: to go on where that one ended.

    weights: "imagenet" (torchvision's; downloaded once), a file with a state dict, or the path or name of a bundle: a
    classifier, or a segmentation model whose encoder the network is built on. in_channels: of the network's images;
    filters for other numbers of channels are adapted. inflate: how 2D filters become 3D ones, "mean" or "center".
    on_progress: told how far a download is. From an ensemble each member takes one, in turn.
    Raises InputError, and leaves the network as it was, when the weights cannot be had, hold more than weights, are
    another network's, or have a layer that should fit and does not: it names the layer and both shapes.
    """
    check_inflation(inflate)
    members = members_of(network)
    if not all(isinstance(member, Classifier) for member in members):
        return _fill_whole(network, open_weights(weights, (), on_progress))
    source = open_weights(weights, _published_names(members[0]).values(), on_progress)
    fits = [
        _Fit(member, source, source.members[number % len(source.members)], in_channels, inflate)
        for number, member in enumerate(members)
    ]
    # Only now: a tensor that does not fit must leave the network as it was.
    with torch.no_grad():
        for member, fit in zip(members, fits, strict=True):
            state = member.state_dict()
            for name, tensor in fit.tensors.items():
                state[name].copy_(tensor)
    return fits[0].report()


def _fill_whole(network: nn.Module, source: PretrainedWeights) -> TransferReport:
    """Fill a network with all weights of one of the same kind. Raises InputError where it is another one."""
    state, theirs = network.state_dict(), source.members[0]
    for name, mine in state.items():
        if name not in theirs or theirs[name].shape != mine.shape:
            there = _shape(theirs[name]) if name in theirs else "nothing"
            raise InputError(
                f"The weights {source.title} have {there} where this network has {name} ({_shape(mine)}), and only "
                f"classifiers are filled in part; {_choose(source)}."
            )
    unused = tuple(name for name in theirs if name not in state)
    if unused:
        raise InputError(f"The weights {source.title} are of a larger network than this; {_choose(source)}.")
    network.load_state_dict({name: theirs[name].to(mine.dtype) for name, mine in state.items()})
    sentence = f"It began with the weights {source.title}: all {len(state)} tensors taken as they are."
    return TransferReport(tuple(state), (), (), (), sentence)


class _Fit:
    """Of one network and one state dict: the tensors to fill in, and what was done to them."""

    def __init__(
        self,
        network: Classifier,
        source: PretrainedWeights,
        tensors: Mapping[str, torch.Tensor],
        in_channels: int,
        inflate: str,
    ):
        self._source, self._theirs = source, tensors
        self._in_channels, self._inflate = in_channels, inflate
        self.tensors: dict[str, torch.Tensor] = {}
        self._taken: list[str] = []
        self._adapted: dict[str, str] = {}
        self._left: list[str] = []
        state = network.state_dict()
        names = self._names(network)
        stages = [set(_names_in(network, stage)) for _, stage in network.stages()]
        self._first, head = stages[0], stages[-1]
        required = self._required(network) - head
        self._used: set[str] = set()
        for name, mine in state.items():
            there = names.get(name)
            if name in head or there is None:
                self._left.append(name)
            elif there in tensors:
                self._used.add(there)
                self._take(name, mine, tensors[there])
            elif there.endswith(COUNTERS):
                continue
            elif self._passes_through(there):
                self.tensors[name] = _pass_through(there, mine)
                self._adapted[name] = "shortcuts without weights made convolutions that pass on"
            elif name in required:
                raise InputError(
                    f"The weights {source.title} have no {there}, which this network needs ({_shape(mine)}); "
                    f"{_choose(source)}."
                )
            else:
                self._left.append(name)
        self._fold_biases({there: name for name, there in names.items()})

    def report(self) -> TransferReport:
        """Names in the network's order."""
        # A source may have one tensor under several names.
        used = {id(self._theirs[name]) for name in self._used}
        unused = tuple(n for n, t in self._theirs.items() if id(t) not in used and not n.endswith(COUNTERS))
        kinds = sorted(set(self._adapted.values()))
        parts = [f"{len(self._taken)} tensors taken as they are"]
        if self._adapted:
            parts.append(f"{len(self._adapted)} adapted ({'; '.join(kinds)})")
        parts.append(f"{len(self._left)} new ({_listed(self._left)})" if self._left else "none new")
        if unused:
            parts.append(f"{len(unused)} of the source not used ({_listed(unused)})")
        return TransferReport(
            tuple(self._taken),
            tuple(f"{name}: {how}" for name, how in self._adapted.items()),
            tuple(self._left),
            unused,
            f"Started from the weights {self._source.title}, layout {self._source.layout}: {', '.join(parts)}.",
        )

    def _names(self, network: Classifier) -> dict[str, str]:
        """Key here → name in the source, for all that can have one."""
        own, source = network.state_dict(), self._source
        if source.of_segmentation and not hasattr(network, "segmentation_names"):
            raise InputError(
                f"The weights {source.title} are a segmentation model's and fill only a classifier of the same layers; "
                f"{_choose(source)}."
            )
        if source.of_segmentation:
            return network.segmentation_names()
        if source.layout == "MedMapAI":
            return {name: name for name in own}
        if hasattr(network, "segmentation_names"):
            theirs = network.segmentation_names()
            there = torchvision_names(theirs.values())[1]
            return {name: there[of] for name, of in theirs.items()}
        return _published_names(network)

    def _required(self, network: Classifier) -> set[str]:
        """Keys of what may not stay new. InputError where the source is of another network than this one.

        What attention adds is not among them: it is new wherever the source does not have it.
        """
        published = _published_names(network)
        here = architecture_of(published.values())
        there = architecture_of(torchvision_names(self._theirs)[1].values())
        if here != there:
            raise InputError(
                f"The weights {self._source.title} are of {there or 'no ResNet, DenseNet or VGG of known depth'}, and "
                f"this network is {here or 'none of these'}; {_choose(self._source)}."
            )
        if here is None:
            return set(network.segmentation_names() if hasattr(network, "segmentation_names") else network.state_dict())
        backbone = backbone_names(here)
        return {name for name, there in published.items() if there in backbone}

    def _take(self, name: str, mine: torch.Tensor, theirs: torch.Tensor) -> None:
        fitted, how = theirs, []
        if theirs.ndim == 4 and mine.ndim == 5:
            fitted = inflate_kernel(fitted, mine.shape[-1], self._inflate)
            how.append(f"2D filters inflated to 3D, {self._inflate}")
        channels = mine.shape[1] if mine.ndim > 1 else 0
        if mine.ndim == fitted.ndim >= 4 and name in self._first and channels == self._in_channels != fitted.shape[1]:
            how.append(f"{fitted.shape[1]} input channels to {channels}")
            fitted = adapt_channels(fitted, channels)
        if fitted.shape != mine.shape:
            raise InputError(
                f"The weights {self._source.title} do not fit this network at {name}: {_shape(theirs)} there and "
                f"{_shape(mine)} here; {_advice(self._source, mine, fitted)}."
            )
        self.tensors[name] = fitted
        if how:
            self._adapted[name] = ", ".join(how)
        else:
            self._taken.append(name)

    def _passes_through(self, name: str) -> bool:
        """Whether a source of basic residual blocks has shortcuts without weights, and this is one of them.

        He et al.'s option A, which MedicalNet's ResNet-18 and ResNet-34 have: strides, and zeros for new channels.
        """
        block, _, rest = name.partition(".downsample.")
        return (
            bool(rest)
            and f"{block}.conv1.weight" in self._theirs
            and f"{block}.conv3.weight" not in self._theirs
            and not any(".downsample." in there for there in self._theirs)
        )

    def _fold_biases(self, own: dict[str, str]) -> None:
        """Move biases that convolutions here do not have into the means of the normalizations after them."""
        for name in list(self._theirs):
            mean = own.get(name.replace(".downsample.0.bias", ".downsample.1.running_mean"))
            if name.endswith(".downsample.0.bias") and name not in own and mean in self.tensors:
                self.tensors[mean] = self.tensors[mean] - self._theirs[name]
                self._used.add(name)
                self._taken.remove(mean)
                self._adapted[mean] = "the bias of the convolution before it taken off"


def _published_names(network: Classifier) -> dict[str, str]:
    """Key here → torchvision's, for what torchvision's network has."""
    names = {name: network.published_name(name) for name in network.state_dict()}
    return {name: there for name, there in names.items() if there is not None}


def _pass_through(name: str, mine: torch.Tensor) -> torch.Tensor:
    """A tensor of a convolution of one voxel and batch norm that together change nothing and add channels of zeros."""
    if name.endswith(".running_var"):
        # So that with the usual epsilon the normalization divides by exactly one.
        return torch.full_like(mine, 1 - 1e-5)
    if mine.ndim > 1:
        weight = torch.zeros_like(mine)
        inputs = torch.arange(min(mine.shape[:2]))
        weight[inputs, inputs] = 1
        return weight
    return torch.ones_like(mine) if name.endswith(".weight") else torch.zeros_like(mine)


def _names_in(network: nn.Module, stage: nn.Module) -> Iterable[str]:
    """The names that parameters and buffers of a stage have in the whole network."""
    inside = {id(t) for t in [*stage.parameters(), *stage.buffers()]}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) in inside:
            yield name


def _choose(source: PretrainedWeights) -> str:
    """What to do where the network is another one; for our own models, which it must be."""
    if not source.network:
        return "choose the network that they were made for"
    return f"set [network] to {', '.join(f'{name} = {_toml(value)}' for name, value in source.network.items())}"


def _advice(source: PretrainedWeights, mine: torch.Tensor, fitted: torch.Tensor) -> str:
    if fitted.ndim > mine.ndim:
        return "3D filters cannot become 2D ones, so choose other weights"
    if source.network:
        return _choose(source)
    if mine.ndim == fitted.ndim >= 4 and mine.shape[:2] == fitted.shape[:2]:
        return f'{_choose(source)}, or set network.stem to "standard" or "small" as they have it'
    return f"{_choose(source)}, with its network.width"


def _toml(value: Any) -> str:
    """A value as TOML has it in one line; JSON has all but tables so."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_toml(inner)}' for name, inner in value.items())} }}"
    return json.dumps(value)


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(str(n) for n in tensor.shape) or "a number"


def _listed(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
