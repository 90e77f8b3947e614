"""A model that sees an image at once, ready to be run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from monai.data import MetaTensor

from ..bundle import Bundle
from ..devices import choose_device, choose_precision, describe
from ..errors import Cancelled, InputError
from ..image import check_not_constant
from ..pictures import with_channels
from ..preprocessing import Grid, crop_to_roi
from ..results import Classification, Saliency
from ..saliency import METHODS, explain
from ..tasks import task_class
from ..tasks.classification import outputs_and_embedding
from .estimate import Estimate
from .predictor import Roi


class WholeImagePredictor:
    """Runs a classifier. Building it loads the network to the device; ``predict`` may then be called again and again.

    bundle: from ``load_bundle``. device, precision: as ``Predictor``. backend: "auto" or "torch", which is what
    computes here: the images are small, and saliency maps need gradients. mirror: whether answers for mirrored images
    are averaged; None takes what the model says.
    Raises InputError when there is no such device, or it cannot compute in that precision.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        *,
        mirror: bool | None = None,
    ):
        self.bundle = bundle
        if backend not in ("auto", "torch"):
            raise InputError(f"A classification is computed by torch, not by {backend}; choose auto or torch.")
        mirror_axes = tuple(bundle.inference["mirror_axes"])
        if mirror and not mirror_axes:
            raise InputError(
                f"The model {bundle.info.name} was not trained on mirrored images, so mirroring would not help; leave "
                "it out."
            )
        self._mirror_axes = () if mirror is False else mirror_axes
        self._device = choose_device(device)
        # On a CPU float32 is no slower for images this small, and its probabilities do not depend on the processor.
        self._dtype = torch.float32 if self._device.type == "cpu" and precision == "auto" else None
        self._dtype = self._dtype or choose_precision(precision, self._device)
        self.task = task_class(bundle.info.task)(bundle.plan, bundle.info.answers, bundle.inference)
        self._network = bundle.build_network().to(self._device)
        #: Seconds that the last prediction took, reading and writing left out.
        self.seconds = 0.0

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes."""
        return describe(self._device, self._dtype)

    @property
    def passes(self) -> int:
        """How often an image goes through the network: 1, or 2ⁿ where n axes are mirrored."""
        return 2 ** len(self._mirror_axes)

    def close(self) -> None:
        """Give back what the network holds; it can be run no more."""
        self._network = None

    def predict(
        self,
        image: MetaTensor,
        *,
        roi: Roi | None = None,
        saliency: str | None = None,
        of_class: str | None = None,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        on_estimate: Callable[[Estimate], None] | None = None,
    ) -> Classification:
        """What an image (C, I, J, K) shows.

        roi: (center, size) of a box along the patient's axes, RAS mm; the model then sees that part alone. saliency:
        one of ``saliency.METHODS``, to show where the network looked, on the grid of the image. of_class: whose score
        the map explains; by default the class of the highest probability. progress, cancelled: as ``Predictor``.
        Raises InputError for an image that the model cannot take and for a method that there is not, Cancelled.
        """
        began = time.monotonic()
        channels, name = self.bundle.network["in_channels"], self.bundle.info.name
        # A gray picture may be saved in color, and a network for color can be shown a gray one.
        with contextlib.suppress(InputError):  # real color, which is told below
            image = with_channels(image, channels, "the image")
        if image.shape[0] != channels:
            raise InputError(
                f"The model {name} takes images of {channels} channel(s) and this one has {image.shape[0]}; choose one "
                "of its channels or another model."
            )
        if of_class is not None and of_class not in self.task.classes.names:
            raise InputError(
                f"The model {name} has no class {of_class!r}; there are {', '.join(self.task.classes.names)}."
            )
        if saliency is not None and saliency not in METHODS:
            raise InputError(f"There is no saliency map {saliency!r}; choose one of {', '.join(METHODS)}.")
        # A region that reaches beyond the image is cut off there, but what is in its middle stays in the middle.
        part, center = (image, None) if roi is None else (crop_to_roi(image, *roi)[0], roi[0])
        check_not_constant(part, "The image" if roi is None else "The image in the ROI")
        if progress is not None:
            progress(0.0, "looking at the image")
        result = self.task.predict(self._answer, part, center)
        if saliency is not None:
            if cancelled is not None and cancelled():
                raise Cancelled
            if progress is not None:
                progress(0.5, f"{saliency}: finding where the network looked")
            result = replace(result, saliency=self._map(image, part, center, saliency, of_class, result))
        self.seconds = time.monotonic() - began
        if progress is not None:
            progress(1.0, "done")
        notes = (*image.meta.get("notes", ()), *result.notes, f"Computed on {self.device_description}.")
        return replace(result, notes=notes)

    def probabilities(self, parts: Sequence[tuple[MetaTensor, Sequence[float]]], batch: int = 32) -> np.ndarray:
        """Probabilities (N, K) of many small parts of images at once, each with the middle of its crop, RAS mm.

        Neither the operating point nor what is familiar is looked at.
        """
        rows = []
        for start in range(0, len(parts), batch):
            framed = [self.task.inference_transform(part, center) for part, center in parts[start : start + batch]]
            logits, _ = self._answer(torch.cat([self.task.network_input(each) for each in framed]))
            rows.append(self.task.chances(logits))
        return np.concatenate(rows) if rows else np.zeros((0, len(self.task.classes.names)))

    def _answer(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and embeddings of (B, C, *S), the mean over mirrored images."""
        logits, embeddings = [], []
        with torch.inference_mode(), self._autocast():
            for number in range(self.passes):
                flipped = [2 + axis for bit, axis in enumerate(self._mirror_axes) if number >> bit & 1]
                output, embedding = outputs_and_embedding(self._network, x.flip(flipped).to(self._device))
                logits.append(output.float())
                embeddings.append(embedding.float())
        # What is familiar was learned from images that were not mirrored.
        return torch.stack(logits).mean(dim=0), embeddings[0]

    def _map(self, image, part, center, method, of_class, result) -> Saliency:
        name = of_class or max(zip(result.probabilities, result.classes, strict=True))[1]
        framed = self.task.inference_transform(part, center)
        return explain(
            self._network,
            self.task.network_input(framed).to(self._device),
            self.task.score_of(name),
            method,
            model_grid=self.task.network_grid(framed),
            image_grid=Grid.of(image),
            of_class=name,
        )

    def _autocast(self):
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)
