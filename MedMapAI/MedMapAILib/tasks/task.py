"""What training, prediction and evaluation ask of a task. One protocol, one implementation a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor

from ..plan import Plan

#: A network that takes images on the model grid: ``logits = network(image)``. Of a segmentation it takes a whole volume
#: (1, C, *S) and gives (1, K, *S), in windows that it lays itself; of a classification (B, C, *S) → (B, O); of a
#: detection a whole volume (1, C, I, J, K) → FoundBoxes.
Network = Callable[[torch.Tensor], torch.Tensor]

#: One value a voxel: windows are "blended". Boxes: they are "joined". A network that sees an image at once: "none"; and
#: one that is given no image but what was "measured", or nothing but noise, of which images are "made".
WINDOWS = ("blended", "joined", "none", "measured", "made")


class Task(Protocol):
    """One kind of question, for one set of answers, asked of images prepared by one plan.

    A case that is ready for training is a dictionary of arrays on the model grid ("image" and what the task adds);
    a sample is the same cut to the patch and augmented; a batch is samples stacked.
    """

    name: str
    #: Name → builder, of what can be chosen for this task.
    networks: dict[str, Any]
    losses: dict[str, Any]
    #: The metric (higher is better) by which checkpoints are compared, for example "dice".
    key_metric: str
    #: How what a network says of the windows of a volume becomes one answer before the task sees it: one of WINDOWS.
    windows: str
    #: Of "blended" windows: whether those that show nothing but air can be left out.
    skips_air: bool
    #: Whether ``calibrate`` has something to do.
    calibrates: bool

    def __init__(self, plan: Plan, answers: Any, options: dict):
        """answers: segments (a tuple of Segment), Classes, FindingClasses or ImageKind. options: of inference and
        evaluation."""

    @property
    def output_channels(self) -> int:
        """Channels that the network must give."""

    def prepare(self, image: MetaTensor, reference: Any) -> dict[str, np.ndarray]:
        """A case on the model grid, ready to be sampled again and again."""

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """(prepared case, seed) → one random sample; the same seed gives the same sample."""

    def training_batch(self, batch: dict, settings: dict, seed: int) -> dict:
        """A batch as it goes into the network: samples may be mixed with each other."""

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The image on the model grid."""

    def build_loss(self, settings: dict, cases: Sequence[dict]) -> Callable:
        """The loss of section [loss] of a configuration; cases: prepared, of which some losses count classes."""

    def training_loss(self, loss: Callable, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """The loss of a batch, a scalar, by a network in training mode."""

    def opponent_losses(self, loss: Callable, network: torch.nn.Module, batch: dict) -> Iterator[torch.Tensor]:
        """Of a loss with an ``opponent`` (the critic of a GAN): what the opponent makes small, by the same batch. One
        for each of its updates before one of the network; the opponent is updated before the next is asked for."""

    def picture(self, network: Network, cases: Sequence[dict], device: torch.device) -> np.ndarray | None:
        """What a network can do at this moment, to look at: uint8 (H, W) or (H, W, 3); None where there is none."""

    def validate(
        self, network: Network, loss: Callable, cases: Sequence[dict], device: torch.device
    ) -> dict[str, float]:
        """Loss and key metric of prepared cases, on the model grid: quick, for following a training."""

    def conclude(self, network: Any, training: Sequence[dict], validation: Sequence[dict], settings: dict) -> dict:
        """What a finished network needs beside its weights (a calibration, an operating point), as JSON takes it; it
        joins the options of the task."""

    def calibrate(self, results: Sequence[Any], references: Sequence[Any], settings: dict) -> dict:
        """The same, of what can only be told from whole results on the validation part; ``calibrates`` says whether
        there is such a thing, because these results take their time."""

    def predict(self, network: Any, image: MetaTensor) -> Any:
        """The result, on the grid of the image."""

    def uncropped(self, result: Any, image: MetaTensor, slices: tuple[slice, slice, slice]) -> Any:
        """Of "blended" windows: the result of a part of an image, on the whole image's grid."""

    def evaluate(self, result: Any, reference: Any) -> dict[str, Any]:
        """Metrics of one result against its reference."""

    def row(self, result: Any, reference: Any) -> dict[str, Any]:
        """The same, flat, as one row of a table."""

    def summarize(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, dict[str, float]]:
        """Rows of many cases: metric → {"mean", "low", "high", "cases"}, with the 95 % bootstrap interval."""

    def details(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, Any]:
        """What there is to say of many cases besides, such as curves, as JSON takes it."""
