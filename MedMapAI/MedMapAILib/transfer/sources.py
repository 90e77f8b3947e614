"""Where weights to start from come from: ImageNet, a file, or one of our own bundles. Read as data, never run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..bundle import Bundle, find_bundle, load_bundle
from ..errors import InputError
from .imagenet import Progress, architecture_of, imagenet_file
from .layouts import torchvision_names

#: Under what names training code keeps the state dict in its checkpoints.
_CONTAINERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights")
_FILES = (".pt", ".pth", ".bin", ".tar", ".ckpt")


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights to start from.

    title: what to call them in a sentence. layout: "torchvision", "MONAI", "MedicalNet", "RadImageNet" or "MedMapAI".
    members: a state dict each, more than one for an ensemble; foreign ones under torchvision's names, our own under
    ours. network: section [network] of our bundle's network; empty for others.
    """

    title: str
    layout: str
    members: tuple[dict[str, torch.Tensor], ...] = field(repr=False)
    network: dict[str, Any] = field(default_factory=dict)
    #: Whether they are a segmentation network's, with its decoder.
    of_segmentation: bool = False


def open_weights(
    weights: str | Path, names: Iterable[str], on_progress: Progress = lambda fraction, message: None
) -> PretrainedWeights:
    """Read weights: "imagenet", the path of a file of weights, or the path or name of a bundle.

    names: torchvision's, of the tensors of the network to fill; they say whose ImageNet weights are meant.
    Raises InputError when they cannot be had or read, or hold more than weights.
    """
    if str(weights) == "imagenet":
        architecture = architecture_of(names)
        if architecture is None:
            raise InputError(
                "There are no ImageNet weights for this network; choose a ResNet, a DenseNet or a VGG, or set "
                "transfer.weights to a file or a bundle."
            )
        opened = _from_file(imagenet_file(architecture, on_progress))
        return PretrainedWeights(f"of ImageNet (torchvision's {architecture})", opened.layout, opened.members)
    path = Path(weights).expanduser()
    if path.is_file() and not _is_bundle(path):
        return _from_file(path)
    if not path.exists() and path.suffix.lower() in _FILES:
        raise InputError(f"There are no weights at {path}; check transfer.weights.")
    return _from_bundle(load_bundle(find_bundle(path if path.exists() else str(weights))))


def network_for(name_or_path: str | Path) -> dict[str, Any]:
    """Section [network] of the classifier that a bundle's weights fit: {"name": …, option: value, …}.

    For a classifier its own network, as a single one; for a segmentation model a classifier on its encoder.
    Raises InputError when it is no bundle.
    """
    return _from_bundle(load_bundle(name_or_path)).network


def _from_bundle(bundle: Bundle) -> PretrainedWeights:
    from ..networks import SEGMENTATION

    name, options = bundle.network["name"], dict(bundle.network["options"])
    tensors = _plain(bundle.weights)
    if name in SEGMENTATION:
        options.pop("deep_supervision", None)
        network = {"name": "unet-encoder", "encoder": name, "encoder_options": options}
        return PretrainedWeights(f"of {bundle.info.name}'s encoder", "MedMapAI", (tensors,), network, True)
    count = int(options.pop("members", 1) or 1)
    members = (
        (tensors,)
        if count == 1
        else tuple(
            {n.removeprefix(f"members.{m}."): t for n, t in tensors.items() if n.startswith(f"members.{m}.")}
            for m in range(count)
        )
    )
    return PretrainedWeights(f"of {bundle.info.name}", "MedMapAI", members, {"name": name, **options})


def _from_file(path: Path) -> PretrainedWeights:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} holds something other than weights ({str(error).splitlines()[0]}), so it was not opened; give a "
            "file with a state dict only."
        ) from None
    tensors = _tensors(content)
    if not tensors:
        raise InputError(f"{path} holds no weights; give a file with a state dict, name → tensor.")
    layout, there = torchvision_names(tensors)
    return PretrainedWeights(f"in {path}", layout, ({there[n]: t for n, t in _plain(tensors).items()},))


def _tensors(content: Any) -> dict[str, torch.Tensor]:
    """The state dict in what a file holds."""
    while isinstance(content, dict):
        inner = next((content[name] for name in _CONTAINERS if isinstance(content.get(name), dict)), None)
        if inner is None:
            return {n: t for n, t in content.items() if isinstance(n, str) and isinstance(t, torch.Tensor)}
        content = inner
    return {}


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As float32 where they are fractions. One tensor under several names, as MONAI's U-Nets have them, stays one."""

    def place(tensor: torch.Tensor) -> tuple:
        return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype

    once = {place(t): t.float() if t.is_floating_point() else t for t in tensors.values()}
    return {name: once[place(t)] for name, t in tensors.items()}


def _is_bundle(path: Path) -> bool:
    """Whether a zip is a bundle: torch's own files are zips as well."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("configs/metadata.json") for name in archive.namelist())
