"""Reconstruction: what did the scanner really see?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError
from ..image import check_same_geometry
from ..losses import RECONSTRUCTION as LOSSES
from ..losses import build_reconstruction_loss
from ..measurements.measured import Measurement
from ..metrics import summarize_rows
from ..metrics.image_quality import image_quality
from ..metrics.tissue_bias import mean_difference, tissue_bias
from ..networks import RECONSTRUCTION as NETWORKS
from ..physics.attenuation import PADDING
from ..plan import Plan
from ..preprocessing import Grid
from ..results import ImageKind, ImageReference, Reconstruction
from .image_domain import ImageDomain
from .measurement_domain import MeasurementDomain


class ReconstructionTask:
    """Make the image that it should be: of one that is noisy or has artifacts, or of what was measured.

    plan: how images are brought to the model grid, and the patch. kind: unit, window and domain of the images. Which
    domain a network works in decides about everything that differs; see ``image_domain`` and ``measurement_domain``.
    options: "keep_means", for the domain of images.
    """

    name = "reconstruction"
    networks = NETWORKS
    losses = LOSSES
    key_metric = "psnr_db"
    skips_air = False
    calibrates = False

    def __init__(self, plan: Plan, kind: ImageKind, options: dict):
        self.plan, self.kind = plan, kind
        self._domain: ImageDomain | MeasurementDomain
        finer = float(options.get("keep_means", 0.0))
        if kind.domain == "measurement":
            if finer:
                raise InputError(
                    "A network that reconstructs from measurements is given no image whose means it could keep; set "
                    "inference.keep_means to 0."
                )
            self._domain = MeasurementDomain(plan, kind)
        else:
            self._domain = ImageDomain(plan, kind, finer)

    @property
    def windows(self) -> str:
        """Images are seen in windows; a measurement is seen whole."""
        return "measured" if self.kind.domain == "measurement" else "blended"

    @property
    def output_channels(self) -> int:
        """One: the image."""
        return 1

    def prepare(self, image: MetaTensor | Measurement, reference: ImageReference | None) -> dict[str, np.ndarray]:
        """A case ready to be sampled; see the domains."""
        return self._domain.prepare(image, reference)

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """(prepared case, seed) → one random sample; see the domains. foreground_fraction plays no part."""
        return self._domain.training_transform(settings)

    def training_batch(self, batch: dict, settings: dict, seed: int) -> dict:
        """The batch as it is."""
        return batch

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The image on the model grid."""
        return self._domain.inference_transform(image)

    def build_loss(self, settings: dict, cases: Sequence[dict]) -> Callable:
        """The loss of that name and those options; see losses.reconstruction. Raises InputError where they do not
        fit."""
        if settings.get("name") == "noise2void" and self.kind.domain == "measurement":
            raise InputError(
                "The loss noise2void learns from images; a network that reconstructs from measurements is given none. "
                "Choose another loss, or a network for images such as fbpconvnet."
            )
        condition = int(cases[0]["inputs"].shape[1]) if len(cases) and "inputs" in cases[0] else 0
        return build_reconstruction_loss(
            settings,
            channels=1,
            condition_channels=condition,
            spatial_dims=self.plan.spatial_dims,
            data_range=self._domain.data_range,
            low=self._domain.low,
        )

    def training_loss(self, loss: Callable, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """The loss of what the network makes of a batch, in normalized units."""
        if loss.blind_spots:
            blind, mask = loss.blind(batch["image"])
            return loss(network(blind), batch["image"][:, :1], mask[:, :1])
        return loss(*self._domain.forward(network, batch))

    def opponent_losses(self, loss: Callable, network: torch.nn.Module, batch: dict) -> Iterator[torch.Tensor]:
        """What the critic makes small: the network's images, which stay the same meanwhile, against the true ones."""
        with torch.no_grad():
            output, target, condition = self._domain.forward(network, batch)
        for _ in range(loss.opponent_steps):
            yield loss.opponent_loss(output, target, condition)

    def validate(
        self, network: Callable, loss: Callable, cases: Sequence[dict], device: torch.device
    ) -> dict[str, float]:
        """Means over cases of the mean squared error (normalized units) and of the PSNR over the window, dB.

        The loss that is trained with may need more than a network and an image (a critic, blind spots), so it is the
        squared error that is followed.
        """
        scores = [self._score(*self._domain.answer(network, cases[n], device)) for n in range(len(cases))]
        return {key: float(np.mean([score[key] for score in scores])) for key in ("loss", "psnr_db")}

    def _score(self, output: np.ndarray, target: np.ndarray, shift: float, scale: float) -> dict[str, float]:
        low, high = self.kind.window
        images = [np.clip(image.astype(np.float64) * scale + shift, low, high) for image in (output, target)]
        error = max(float(np.mean((images[0] - images[1]) ** 2)), 1e-12 * (high - low) ** 2)
        return {
            "loss": float(np.mean((output.astype(np.float64) - target) ** 2)),
            "psnr_db": float(10 * np.log10((high - low) ** 2 / error)),
        }

    def picture(self, network: Callable, cases: Sequence[dict], device: torch.device) -> np.ndarray | None:
        """Input, output and truth of one slice of the first case, side by side, over the window."""
        if not len(cases):
            return None
        low, high = self.kind.window
        shown, shift, scale = self._domain.example(network, cases[0], device)
        gray = [np.clip((image * scale + shift - low) / (high - low), 0, 1) * 255 for image in shown]
        return np.concatenate(gray, axis=1).round().astype(np.uint8)

    def conclude(self, network: Any, training: Sequence[dict], validation: Sequence[dict], settings: dict) -> dict:
        """Nothing: the weights say it all."""
        return {}

    def calibrate(self, results: Sequence[Any], references: Sequence[Any], settings: dict) -> dict:
        """Nothing."""
        return {}

    def given(self, image: MetaTensor, name: str) -> tuple[MetaTensor | Measurement, ImageReference]:
        """What a model is shown of a true image (1, I, J, K), and what it should make of it.

        The measurement is simulated; the same name draws the same dose and the same noise.
        """
        return self._domain.given(image, name)

    def predict(self, network: Any, image: MetaTensor | Measurement) -> Reconstruction:
        """network: the answer for a volume (1, C, *S), or slice by slice for a measurement. Raises InputError for
        what is not the kind of input that it takes."""
        return self._domain.predict(network, image)

    def uncropped(
        self, result: Reconstruction, image: MetaTensor, slices: tuple[slice, slice, slice]
    ) -> Reconstruction:
        """The image as it was, and in the part what became of it."""
        values = np.array(image.numpy()[0], dtype=np.float32)
        values[slices] = result.values
        return Reconstruction(
            values, Grid.of(image).affine, result.unit, result.window, result.method, result.residuals, result.notes
        )

    def evaluate(self, result: Reconstruction, reference: ImageReference) -> dict[str, Any]:
        """PSNR (dB), SSIM and MS-SSIM slice by slice, NRMSE (euclidean) over the window, and "bias", the mean of result
        minus reference in the unit of the image; of CT also that in air, where it is like water, and in bone. None
        where it is not defined. See metrics.image_quality and metrics.tissue_bias."""
        check_same_geometry(
            Grid(result.values.shape, result.affine),
            Grid(reference.values.shape, reference.affine),
            "the result",
            "the reference",
        )
        if not np.isfinite(reference.values).all():
            raise InputError("The reference holds values that are no numbers; it cannot be compared with.")
        values, truth = result.values, reference.values
        flat = next((axis for axis, n in enumerate(values.shape) if n == 1), None)
        if flat is not None:
            values, truth = values.squeeze(flat), truth.squeeze(flat)
        scores = image_quality(truth, values, window=self.kind.window, slices=2 if values.ndim == 3 else None)
        found = scores.as_dict()
        return {
            "psnr_db": found["psnr"],
            "ssim": found["ssim"],
            "ms_ssim": found["ms_ssim"],
            "nrmse": found["nrmse"],
            **self._biases(values, truth),
        }

    def _biases(self, values: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
        if self.kind.unit != "HU":
            return {"bias": mean_difference(truth, values, np.ones(truth.shape, dtype=bool))}
        tissues = tissue_bias(truth, values, slices=2 if truth.ndim == 3 else None)
        whole = {"bias": mean_difference(truth, values, truth >= PADDING)}
        return whole | {f"bias_{name}": found for name, found in tissues.items()}

    def row(self, result: Reconstruction, reference: ImageReference) -> dict[str, Any]:
        """The same."""
        return self.evaluate(result, reference)

    def summarize(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, dict[str, float]]:
        """Mean and 95 % bootstrap interval over cases of every number in the rows; what is not defined is left out."""
        return summarize_rows(rows)

    def details(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, Any]:
        """The window that the numbers are over."""
        return {"window": list(self.kind.window), "unit": self.kind.unit}
