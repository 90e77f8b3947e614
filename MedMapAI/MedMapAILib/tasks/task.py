"""What training, prediction and evaluation ask of a task. One protocol, one implementation a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor

from ..decoding import Answer
from ..plan import Plan

#: A network that takes a whole volume (1, C, *S) on the model grid: ``logits = network(volume)``, (1, K, *S).
VolumeNetwork = Callable[[torch.Tensor], torch.Tensor]
#: The same, but the logits come plane by plane, and only where there is something to see.
StreamingNetwork = Callable[[torch.Tensor], Answer]


class Task(Protocol):
    """One kind of question, for one set of classes, asked of volumes prepared by one plan.

    A case that is ready for training is a dictionary of arrays on the model grid ("image" and what the task adds);
    a sample is the same cut to the patch and augmented; a batch is samples stacked.
    """

    name: str
    #: Name → builder, of what can be chosen for this task.
    networks: dict[str, Any]
    losses: dict[str, Any]
    #: The metric (higher is better) by which checkpoints are compared, for example "dice".
    key_metric: str

    def __init__(self, plan: Plan, segments: tuple, options: dict): ...

    @property
    def output_channels(self) -> int:
        """Channels that the network must give."""

    def prepare(self, image: MetaTensor, reference: Any) -> dict[str, np.ndarray]:
        """A case on the model grid, ready to be sampled again and again."""

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """(prepared case, seed) → one random sample; the same seed gives the same sample."""

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The image on the model grid."""

    def training_loss(self, loss: Callable, outputs: Any, batch: dict) -> torch.Tensor:
        """The loss of a batch, a scalar."""

    def validate(
        self, network: VolumeNetwork, loss: Callable, prepared: dict, device: torch.device
    ) -> dict[str, float]:
        """Loss and key metric of one prepared case, on the model grid: quick, for following a training."""

    def predict(self, network: StreamingNetwork, image: MetaTensor) -> Any:
        """The result, on the grid of the image."""

    def evaluate(self, result: Any, reference: Any) -> dict[str, Any]:
        """{metric: value} of a result against a reference on the same grid."""
