"""How different two images look to a network that was trained on other pictures: the distance of their features.

Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016,
https://arxiv.org/abs/1603.08155; for low-dose CT: Yang and others, IEEE Transactions on Medical Imaging 37(6), 2018,
https://arxiv.org/abs/1708.00961.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError

#: The networks whose ImageNet weights may be asked for by name.
NAMES = ("vgg16", "resnet18")
#: Mean and deviation that ImageNet's networks expect, over the colors: images are shown to them in gray.
_MEAN, _DEVIATION = 0.449, 0.226
#: How many stages of a VGG or a ResNet look at the images (of a ResNet the stem is the first).
_STAGES = 3


class Perceptual(nn.Module):
    """The mean squared difference of the features of output and target (B, C, *S), values 0 to 1 over the data range.

    weights: "vgg16" or "resnet18" (of ImageNet, downloaded once), a file of weights of a VGG or a ResNet, or a bundle
    of a classifier. spatial_dims: of the images; filters for slices become ones for volumes. low: what is taken from
    the values first, so that the data range begins at 0. Each channel is looked at by itself. The features are frozen
    and in no state dictionary. What differs from the papers: those of VGG's third stage count (Yang takes the last),
    and of a ResNet's second layer; they cost less, and keep more of where things are.
    Raises InputError where weights cannot be had.
    """

    def __init__(self, weights: str, *, spatial_dims: int, low: float = 0.0) -> None:
        super().__init__()
        self.low = low
        features = feature_network(weights, spatial_dims).requires_grad_(False)
        # In a list, so that they are no part of this module: neither trained nor saved nor put into training mode.
        self._features = [features.eval()]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """A scalar; gradients flow to the output alone."""
        with torch.no_grad():
            wanted = self._look(target)
        return (self._look(output) - wanted).square().mean()

    def _look(self, images: Tensor) -> Tensor:
        gray = (images.reshape(-1, 1, *images.shape[2:]) - self.low - _MEAN) / _DEVIATION
        return self._features[0].to(images.device).features(gray)


def feature_network(weights: str, spatial_dims: int) -> nn.Module:
    """A classifier for images of one channel whose ``features`` are those that ``Perceptual`` compares.

    weights: as there. Raises InputError.
    """
    from .. import networks
    from ..transfer import load_pretrained

    section = {"name": weights} if weights in NAMES else _network_of(weights)
    options = {**section, "stem": "standard"} if weights in NAMES else dict(section)
    options.pop("members", None)
    name = options.pop("name")
    size = options.get("image_size")
    if size is not None and len(size) > spatial_dims:
        raise InputError(
            f"The classifier {weights} of loss.perceptual takes volumes, and the images are slices; name another one."
        )
    if size is not None:
        # Only whether images are small matters: it decides on the first layers.
        options["image_size"] = [*size, *[size[-1]] * (spatial_dims - len(size))]
    network = networks.build(name, spatial_dims=spatial_dims, in_channels=1, out_channels=1, **options)
    load_pretrained(network, "imagenet" if weights in NAMES else weights, in_channels=1)
    stages = network.body_stages()
    if name.startswith("vgg"):
        network.features = network.features[: sum(len(stage) for _, stage in stages[:_STAGES])]
    elif name.startswith("resnet"):
        for stage, _ in stages[_STAGES:]:
            setattr(network, stage, nn.Identity())
    return network


def _network_of(weights: str) -> dict:
    """Section [network] of the classifier that a file's or a bundle's weights fit. Raises InputError."""
    from ..transfer import network_for
    from ..transfer.imagenet import architecture_of
    from ..transfer.sources import open_weights

    path = Path(weights).expanduser()
    if not path.is_file():
        return network_for(weights)
    opened = open_weights(path, ())
    if opened.network:
        return opened.network
    name = (architecture_of(opened.members[0]) or "").removesuffix("_bn")
    from ..networks import CLASSIFICATION

    if name not in CLASSIFICATION:
        raise InputError(
            f"The weights {weights} are of none of the classifiers that there are; set loss.perceptual to "
            f"{' or '.join(NAMES)}, a file of weights of such a network, or a bundle."
        )
    return {"name": name, "stem": "standard"}
