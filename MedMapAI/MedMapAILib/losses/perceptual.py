"""How different two images look to a network that was trained on other pictures: the distance of their features.

Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016,
https://arxiv.org/abs/1603.08155; for low-dose CT: Yang and others, IEEE Transactions on Medical Imaging 37(6), 2018.
"""

from __future__ import annotations


import torch
from torch import Tensor, nn

from ..errors import InputError

#: The networks whose ImageNet weights may be asked for by name.
NAMES = ("vgg16", "resnet18")
#: Mean and deviation of the colors that torchvision's networks expect.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Perceptual(nn.Module):
    """The mean squared difference of the features of output and target (B, C, *S), values 0 to 1 over the data range.

    weights: "vgg16" or "resnet18" (of ImageNet, downloaded once), or a file of weights of one of torchvision's
    networks, or a bundle of a classifier. channels: of the images; each is looked at by itself, in gray. low: what is
    taken from the values first, so that the data range begins at 0. Volumes are looked at slice by slice across their
    last axis. The features are frozen and are in no state dictionary. Raises InputError where weights cannot be had.
    """

    def __init__(self, weights: str, *, channels: int, low: float = 0.0) -> None:
        super().__init__()
        self.channels, self.low = channels, low
        # In a list, so that they are no part of this module: neither trained nor saved.
        self._features = [_features(weights)]

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """A scalar; gradients flow to the output alone."""
        features = self._features[0].to(output.device)
        with torch.no_grad():
            wanted = features(self._pictures(target.detach()))
        return (features(self._pictures(output)) - wanted).square().mean()

    def _pictures(self, images: Tensor) -> Tensor:
        """(B, C, *S) → (B · C · slices, 3, H, W) as torchvision's networks take them."""
        if images.ndim == 5:
            images = images.movedim(-1, 1).flatten(0, 1)
        gray = (images - self.low).reshape(-1, 1, *images.shape[-2:])
        mean, deviation = (gray.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _DEVIATION))
        return (gray - mean) / deviation


def _features(weights: str) -> nn.Module:
    raise NotImplementedError
