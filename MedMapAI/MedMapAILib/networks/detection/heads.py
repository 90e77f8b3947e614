"""What looks at a region: the head that says what it is and where exactly, and the head that draws it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BoxHead(nn.Module):
    """Two linear layers on the features of a region: logits (R, classes + 1), 0 for background, and deltas.

    Girshick, "Fast R-CNN", ICCV 2015, https://arxiv.org/abs/1504.08083, with normalization: nearly all regions are
    background at first, and without it that kills all that could tell the others apart.
    channels: of the features. bins: of a region, all axes together. hidden: outputs of each of the two layers. deltas:
    (R, classes, 2D), for each class its own.
    """

    def __init__(self, channels: int, bins: int, hidden: int, classes: int, spatial_dims: int, dropout: float):
        super().__init__()
        self.classes = classes
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * bins, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.logits = nn.Linear(hidden, classes + 1)
        self.deltas = nn.Linear(hidden, classes * 2 * spatial_dims)
        for layer in (self.body[1], self.body[4]):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        for layer, deviation in ((self.logits, 0.01), (self.deltas, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """regions: (R, channels, *bins). Both answers are float32."""
        x = self.body(regions)
        return self.logits(x).float(), self.deltas(x).float().unflatten(1, (self.classes, -1))


class MaskHead(nn.Module):
    """Convolutions on the features of a region, twice as fine at their end: logits (R, classes, 2 r, …, 2 r).

    He et al., "Mask R-CNN", ICCV 2017, https://arxiv.org/abs/1703.06870, with two convolutions in place of four.
    """

    def __init__(self, channels: int, classes: int, spatial_dims: int):
        super().__init__()
        convolution = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        finer = (nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial_dims - 2]
        self.body = nn.Sequential(
            convolution(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            convolution(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            finer(channels, channels, 2, stride=2),
            nn.ReLU(inplace=True),
        )
        self.logits = convolution(channels, classes, 1)
        for module in self.modules():
            if isinstance(module, (convolution, finer)):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)
        # The first masks are even: half likely everywhere.
        nn.init.normal_(self.logits.weight, std=0.01)

    def forward(self, regions: Tensor) -> Tensor:
        """regions: (R, channels, r, …, r). Float32."""
        return self.logits(self.body(regions)).float()


def of_class(values: Tensor, labels: Tensor) -> Tensor:
    """values: (R, classes, …). labels: (R,) int64. What each region says about its class: (R, …)."""
    return values[torch.arange(len(values), device=values.device), labels]
