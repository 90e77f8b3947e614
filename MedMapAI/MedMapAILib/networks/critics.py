"""Networks that tell made images from real ones: the opponents in adversarial training. They ship with no model.

``PatchCritic`` judges each small patch of an image by itself and is asked "real or made?"; ``ImageCritic`` gives one
number an image, whose mean over real images less that over made ones approaches the Wasserstein distance of the two
kinds, as far as its slope is kept at 1 (``losses.adversarial.gradient_penalty``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError

#: Of the leaky rectifiers of both.
_SLOPE = 0.2


class PatchCritic(nn.Module):
    """PatchGAN: images (B, C, *S) → logits (B, 1, *s), one for each patch; above 0 means real.

    Isola and others, "Image-to-image translation with conditional adversarial networks", CVPR 2017,
    https://arxiv.org/abs/1611.07004: ``layers`` 4-wide convolutions of stride 2 and two of stride 1, channels doubled
    from ``width`` at each to 8 times as many, so that a logit sees ``receptive_field`` pixels along each axis: 70 for
    three layers. Weights begin with the published deviation of 0.02. What differs: each image is normalized by itself
    (which is what the published batch normalization does with the published batch of one), and the width may be less
    than 64. Raises InputError for images smaller than ``least_size``.
    """

    def __init__(self, spatial_dims: int, channels: int, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        norm = (nn.InstanceNorm2d, nn.InstanceNorm3d)[spatial_dims - 2]
        self.layers = layers
        body: list[nn.Module] = []
        for number in range(layers + 1):
            outputs = width * min(2**number, 8)
            stride = 2 if number < layers else 1
            body.append(convolution(channels, outputs, 4, stride=stride, padding=1, bias=number == 0))
            if number:
                body.append(norm(outputs, affine=True))
            body.append(nn.LeakyReLU(_SLOPE, inplace=True))
            channels = outputs
        body.append(convolution(channels, 1, 4, padding=1))
        self.body = nn.Sequential(*body)
        for module in self.modules():
            if isinstance(module, convolution):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, norm):
                nn.init.normal_(module.weight, mean=1, std=0.02)

    @property
    def receptive_field(self) -> int:
        """How many pixels along each axis a logit sees."""
        # From the last layer back: a kernel of 4 adds 3 steps, and a stride of 2 doubles them.
        seen = 1 + 3 + 3
        for _ in range(self.layers):
            seen = 2 * seen + 2
        return seen

    @property
    def least_size(self) -> int:
        """The smallest image, pixels along each axis."""
        return 3 * 2**self.layers

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, *S) → logits (B, 1, *s)."""
        if min(images.shape[2:]) < self.least_size:
            size = "×".join(str(n) for n in images.shape[2:])
            raise InputError(
                f"The critic judges images of {self.least_size} pixels a side or more, and these are {size}; make the "
                "training patch larger or loss.layers less."
            )
        return self.body(images)


class ImageCritic(nn.Module):
    """A Wasserstein critic: images (B, C, *S) → one number each (B,), larger for real ones.

    As the critic of Yang and others, "Low-dose CT image denoising using a generative adversarial network with
    Wasserstein distance and perceptual loss", IEEE Transactions on Medical Imaging 37(6), 2018,
    https://arxiv.org/abs/1708.00961: six 3-wide convolutions, channels ``width``, twice and four times as many, every
    second one with stride 2, leaky rectifiers, a fully connected layer of 1024, and no normalization (the gradient
    penalty is for each image, and a norm over the batch would tie them). What differs: the features are averaged over
    space before the fully connected layers, so that patches of any size can be judged; and the width may be less
    than 64.
    """

    def __init__(self, spatial_dims: int, channels: int, width: int = 64, hidden: int = 1024) -> None:
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        body: list[nn.Module] = []
        for outputs in (width, 2 * width, 4 * width):
            for stride in (1, 2):
                layer = convolution(channels, outputs, 3, stride=stride, padding=1)
                body += [layer, nn.LeakyReLU(_SLOPE)]
                channels = outputs
        self.body = nn.Sequential(*body)
        self.head = nn.Sequential(nn.Linear(channels, hidden), nn.LeakyReLU(_SLOPE), nn.Linear(hidden, 1))
        for module in self.modules():
            if isinstance(module, (convolution, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, a=_SLOPE, nonlinearity="leaky_relu")
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, *S) → (B,)."""
        features = self.body(images)
        return self.head(torch.flatten(features, 2).mean(dim=2))[:, 0]
