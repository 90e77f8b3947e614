"""Reconstruction of images from measurements: the network is given a sinogram or k-space, and the physics of it.

Measurements are simulated anew for every sample, slice by slice, so that the network never sees the same noise twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from ..errors import InputError
from ..measurements.acquisition import acquisition_of
from ..measurements.measured import CtMeasurement, Measurement
from ..measurements.settings import name_seed
from ..physics.attenuation import without_padding
from ..physics.coil_sensitivities import espirit
from ..physics.mr_operator import MrOperator
from ..plan import Plan
from ..preprocessing import Grid, to_model_grid
from ..results import ImageKind, ImageReference, Reconstruction

#: Slices of a case that a training is watched on.
_WATCHED = 8
#: Value outside of the image: air, HU; nothing, magnitude.
_OUTSIDE = {"ct": -1000.0, "mr": 0.0}


class MeasurementDomain:
    """Measurement in, image out.

    plan: patch (columns, rows, 1) is the image that is made, spacing (mm, mm, 0) its pixels. kind.acquisition: how a
    measurement comes about. Inside, CT images are in water units (0 air, 1 water: HU = 1000 (x - 1)), and MR images are
    divided by their largest value. Sensitivities of several coils are estimated, in training as afterwards.
    """

    def __init__(self, plan: Plan, kind: ImageKind):
        self.plan, self.kind = plan, kind
        self.acquisition = acquisition_of(kind.acquisition)
        self._modality = self.acquisition.kind
        if self._modality not in _OUTSIDE:
            raise InputError(
                "A network that reconstructs from measurements needs to know how they come about; set acquisition.kind "
                'to "ct" or "mr".'
            )
        if isinstance(self.acquisition.about.get("views"), list) and plan.batch > 1:
            raise InputError(
                f"Measurements of different numbers of views, {self.acquisition.about['views']}, do not fit into one "
                "batch; set plan.batch to 1."
            )
        if plan.patch[2] != 1 or 0 in plan.spacing[:2]:
            raise InputError(
                f"A reconstruction from measurements is made slice by slice: plan.patch is {list(plan.patch)} and "
                f"plan.spacing {list(plan.spacing)}; give columns, rows and 1, and lengths for the first two."
            )

    @property
    def data_range(self) -> float:
        """The window in water units, or in parts of the largest value."""
        low, high = self.kind.window
        return (high - low) / 1000 if self._modality == "ct" else 1.0

    @property
    def low(self) -> float:
        """The low end of the window in these units."""
        return self.kind.window[0] / 1000 + 1 if self._modality == "ct" else 0.0

    @property
    def _finer(self) -> int:
        return int(self.acquisition.about.get("oversampling") or 1)

    @property
    def _size(self) -> tuple[int, int]:
        """Rows and columns of the image that is made."""
        return self.plan.patch[1], self.plan.patch[0]

    @property
    def _spacing(self) -> tuple[float, float]:
        """Of its rows and columns, mm."""
        return self.plan.spacing[1], self.plan.spacing[0]

    @property
    def _fine_spacing(self) -> tuple[float, float]:
        return self._spacing[0] / self._finer, self._spacing[1] / self._finer

    def prepare(self, image: MetaTensor | Measurement, reference: ImageReference | None) -> dict[str, np.ndarray]:
        """image: the truth (1, I, J, K). "truth" float32 (S, H', W'): its slices, as many times finer than the image
        that is made as the acquisition's oversampling says; "watched": numbers of slices to follow a training on;
        "noise": what the noise is a part of."""
        if not isinstance(image, torch.Tensor):
            raise InputError(
                "A network learns to reconstruct from true images, of which measurements are simulated; give a data "
                "set of volumes."
            )
        truth, _ = self._slices(image)
        scale = self.acquisition.scale_of(truth)
        if self._modality == "mr":
            # An empty slice has nothing to learn from, and no k-space.
            truth = truth[(truth != 0).any(axis=(1, 2))]
            if not len(truth):
                raise InputError("The image is zero everywhere; leave it out.")
        watched = np.unique(np.linspace(0, len(truth) - 1, min(_WATCHED, len(truth)) + 2)[1:-1].round().astype(int))
        return {"truth": truth, "watched": watched if len(watched) else np.array([0]), "noise": np.array(scale)}

    def _slices(self, image: MetaTensor) -> tuple[np.ndarray, np.ndarray]:
        """Slices (S, H', W') of a volume, cut or filled up around its middle, and the matrix (column, row, slice) of
        the image that is made → RAS mm."""
        columns, rows = (n * self._finer for n in self.plan.patch[:2])
        fine = (self._fine_spacing[1], self._fine_spacing[0], 0.0)
        plan = replace(self.plan, spacing=fine, normalization={"kind": "none"}, axes="image", interpolation="linear")
        on_grid = to_model_grid(image, plan)
        values = on_grid.numpy()[0]
        first = [(n - wanted) // 2 for n, wanted in zip(values.shape[:2], (columns, rows), strict=True)]
        outside = _OUTSIDE[self._modality]
        framed = np.full((columns, rows, values.shape[2]), outside, dtype=np.float32)
        source = tuple(slice(max(0, f), max(0, f) + min(n, w)) for f, n, w in _lengths(first, values, columns, rows))
        place = tuple(slice(max(0, -f), max(0, -f) + min(n, w)) for f, n, w in _lengths(first, values, columns, rows))
        framed[place] = without_padding(values[source]) if self._modality == "ct" else values[source]
        affine = Grid.of(on_grid).affine.copy()
        # The middle of the first of the coarse pixels.
        middle = np.array([first[0], first[1], 0, 0]) + np.array([1, 1, 0, 0]) * (self._finer - 1) / 2
        affine[:, 3] = affine @ (middle + [0, 0, 0, 1])
        affine[:3, :2] *= self._finer
        return np.ascontiguousarray(framed.transpose(2, 1, 0)), affine

    def _coarse(self, slices: torch.Tensor) -> torch.Tensor:
        """(S, 1, H', W') → (S, 1, H, W): the mean over the fine pixels of each pixel."""
        return F.avg_pool2d(slices, self._finer) if self._finer > 1 else slices

    def training_transform(self, settings: dict) -> Callable[[dict, int], dict]:
        """A random slice, moved (flip_axes, rotate_degrees, scale, translate) and with another contrast, and a
        measurement of it."""

        def sample(prepared: dict, seed: int) -> dict:
            random = np.random.default_rng(seed)
            truth = torch.from_numpy(np.array(prepared["truth"][random.integers(len(prepared["truth"]))]))[None, None]
            truth = self._changed(truth, settings, random)
            return self._measured(truth, int(random.integers(2**31)), float(prepared["noise"]))

        return sample

    def _measured(self, truth: torch.Tensor, seed: int, noise: float) -> dict[str, torch.Tensor]:
        """A measurement of a slice (1, 1, H', W') and the image to be made of it, as a sample."""
        drawn = self.acquisition.drawn(seed)
        data = drawn.measure(truth, self._fine_spacing, seed, scale=noise)[0]
        target = self._coarse(truth)[0]
        if self._modality == "ct":
            return {"data": data, "target": target / 1000 + 1, "draw": torch.tensor(seed)}
        operator = drawn.operator(self._size, self._spacing)
        largest = target.max().clamp(min=1e-12)
        mask = operator.mask.expand(*operator.mask.shape[:-2], *self._size).reshape(1, *self._size)
        sensitivities = operator.sensitivities.reshape(-1, *self._size)
        if len(sensitivities) > 1:
            # A scanner's are not known; a network learns with such as it will be given.
            try:
                sensitivities = espirit(data, mask[0], crop=0.0)
            except InputError as error:
                raise InputError(f"{error} Raise acquisition.center_fraction, or set acquisition.coils to 1.") from None
        return {
            "data": data,
            "mask": mask,
            "sensitivities": sensitivities,
            "target": target / largest,
            "scale": largest,
        }

    def _changed(self, truth: torch.Tensor, settings: dict, random: np.random.Generator) -> torch.Tensor:
        for axis in settings["flip_axes"]:
            if axis < 2 and random.random() < settings["flip"]:
                truth = truth.flip(3 - axis)
        outside = _OUTSIDE[self._modality]
        if random.random() < settings["affine"]:
            angle = np.radians(random.uniform(-1, 1) * settings["rotate_degrees"][0])
            zoom = 1 + random.uniform(-1, 1) * settings["scale"]
            shift = random.uniform(-1, 1, 2) * 2 * settings["translate"]
            turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
            # Of coordinates from -1 to 1 along sides that may not be as long.
            wide = truth.shape[-2] / truth.shape[-1]
            turned *= np.array([[1, wide], [1 / wide, 1]])
            theta = torch.from_numpy(np.concatenate([turned, shift[:, None]], axis=1)).float()[None]
            grid = F.affine_grid(theta, list(truth.shape), align_corners=False)
            # Bicubic keeps the sharpness that bilinear would take away.
            truth = F.grid_sample(truth - outside, grid, mode="bicubic", align_corners=False) + outside
            if self._modality == "mr":
                truth = truth.clamp(min=0)
        if random.random() < settings["contrast"]:
            factor = 1 + random.uniform(-1, 1) * settings["contrast_factor"]
            truth = (truth - outside) * factor + outside
        return truth

    def forward(self, network: torch.nn.Module, batch: dict) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Output and target, (B, 1, H, W)."""
        data = batch["data"]
        if self._modality == "ct":
            operator = self.acquisition.drawn(int(batch["draw"][0])).operator(
                self._size, self._spacing, device=data.device
            )
            return network(data, operator), batch["target"], None
        operator = MrOperator(batch["mask"], batch["sensitivities"])
        return network(data, operator).abs() / batch["scale"].reshape(-1, 1, 1, 1), batch["target"], None

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """There is nothing to transform."""
        return image

    def answer(
        self, network: Callable, prepared: dict, device: torch.device
    ) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Output and target (S, H, W) of the watched slices, in inner units; shift and scale to the unit of images."""
        outputs, targets = [], []
        for number in prepared["watched"]:
            output, target = self._one(network, prepared, int(number), device)
            outputs.append(output)
            targets.append(target)
        return np.concatenate(outputs), np.concatenate(targets), *self._numbers

    def _one(self, network: Callable, prepared: dict, number: int, device: torch.device) -> tuple[np.ndarray, ...]:
        truth = torch.from_numpy(np.array(prepared["truth"][number]))[None, None]
        batch = {
            key: value[None].to(device)
            for key, value in self._measured(truth, number, float(prepared["noise"])).items()
        }
        output, target, _ = self.forward(network, batch)
        return output[0].float().cpu().numpy(), target[0].cpu().numpy()

    @property
    def _numbers(self) -> tuple[float, float]:
        """Shift and scale from inner units to those of the images; of MR, to the window."""
        if self._modality == "ct":
            return -1000.0, 1000.0
        return self.kind.window[0], self.kind.window[1] - self.kind.window[0]

    def example(self, network: Callable, prepared: dict, device: torch.device) -> tuple[list[np.ndarray], float, float]:
        """[FBP or zero-filled, output, target] of the slice in the middle; shift, scale."""
        number = int(prepared["watched"][len(prepared["watched"]) // 2])
        output, target = self._one(network, prepared, number, device)
        truth = torch.from_numpy(np.array(prepared["truth"][number]))[None, None]
        drawn = self.acquisition.drawn(number)
        data = drawn.measure(truth, self._fine_spacing, number, scale=float(prepared["noise"]))
        first = drawn.first_images(data, self._size, self._spacing)[0, 0]
        shift, scale = self._numbers
        first = (first.numpy() - shift) / scale if self._modality == "ct" else (first / truth.max()).numpy()
        return [np.asarray(each)[::-1, ::-1] for each in (first, output[0], target[0])], shift, scale

    def given(self, image: MetaTensor, name: str) -> tuple[Measurement, ImageReference]:
        """A measurement of a true image, and that image on the pixels that are to be made."""
        seed = name_seed(name)
        slices, affine = self._slices(image)
        truth = torch.from_numpy(slices)[:, None]
        drawn = self.acquisition.drawn(seed)
        data = drawn.measure(truth, self._fine_spacing, seed)
        target = self._coarse(truth)[:, 0].numpy().transpose(2, 1, 0)
        operator = drawn.operator(self._size, self._spacing)
        if self._modality == "ct":
            measured = CtMeasurement(data[:, 0].numpy(), operator.geometry, affine, about=drawn.about)
        else:
            from ..measurements.measured import MrMeasurement

            mask = operator.mask.expand(*operator.mask.shape[:-2], *self._size).reshape(self._size).numpy()
            measured = MrMeasurement(data.numpy(), mask, affine, about=drawn.about)
        return measured, ImageReference(np.ascontiguousarray(target), affine)

    def predict(self, network: Any, measurement: Measurement) -> Reconstruction:
        """network: (measurement) → slices (S, H, W), CT in water units; see inference.measurement_predictor."""
        if isinstance(measurement, torch.Tensor) or measurement.kind != self._modality:
            wanted = {"ct": "a sinogram", "mr": "a k-space"}[self._modality]
            raise InputError(
                f"This model makes images of {wanted}, not of what was given; use `medmapai reconstruct` with "
                f"{wanted}, or make one with `medmapai simulate`."
            )
        values = network(measurement)
        if self._modality == "ct":
            values = (values - 1) * np.float32(1000)
            if not measurement.hounsfield:
                values = (values / 1000 + 1) * np.float32(measurement.water_per_mm)
        hounsfield = self._modality == "ct" and measurement.hounsfield
        return Reconstruction(
            np.ascontiguousarray(values.transpose(2, 1, 0), dtype=np.float32),
            measurement.affine,
            self.kind.unit if hounsfield or self._modality == "mr" else "1/mm",
            self.kind.window if hounsfield else None,
            notes=measurement.notes,
        )


def _lengths(first: list[int], values: np.ndarray, columns: int, rows: int) -> list[tuple[int, int, int]]:
    return [(f, n, w) for f, n, w in zip(first, values.shape[:2], (columns, rows), strict=True)]
