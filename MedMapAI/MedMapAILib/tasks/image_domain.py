"""Reconstruction of images from images: what is noisy or has artifacts is made better, on its own grid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError
from ..image import make_image
from ..measurements.settings import name_seed
from ..patches import cut
from ..physics.attenuation import PADDING, without_padding
from ..plan import Plan
from ..preprocessing import Grid, from_model_grid, intensity_scale, to_model_grid
from ..region import check_values
from ..results import ImageKind, ImageReference, Reconstruction
from .kept_means import keep_means

#: How often a patch is drawn anew because there is next to nothing in it.
_DRAWS = 4
#: A patch is next to empty where its values vary by less than this part of the volume's.
_EMPTY = 0.05


class ImageDomain:
    """Image in, image out. What the network changes is added to the image as it was: where images are resampled for the
    network, or clipped, the rest of them is not touched.

    keep_means: voxels; what the network changes at scales coarser than this in the mean of like tissue is taken back,
    see ``kept_means``. 0: nothing is."""

    def __init__(self, plan: Plan, kind: ImageKind, keep_means: float = 0.0):
        self.plan, self.kind, self._finer = plan, kind, keep_means
        self._flat = plan.patch.index(1) if 1 in plan.patch else None

    @property
    def data_range(self) -> float:
        """The width of the window in normalized units; four standard deviations where these differ from image to
        image."""
        low, high = self.kind.window
        numbers = self.plan.normalization
        return (high - low) / float(numbers["sd"]) if "sd" in numbers else 4.0

    @property
    def low(self) -> float:
        """The low end of the window in normalized units."""
        numbers = self.plan.normalization
        return (self.kind.window[0] - float(numbers["mean"])) / float(numbers["sd"]) if "sd" in numbers else -2.0

    def prepare(self, image: MetaTensor, reference: ImageReference | None) -> dict[str, np.ndarray]:
        """image: (C, I, J, K). reference: the truth, or None where there is none (then the image is its own).

        "inputs" float32 (N, C, *S): N inputs that should become the same, each normalized by its own numbers;
        "target" (1, *S), by those of the first; "scale" (N, 2): shift and scale of each input.
        """
        image = self._measured(image)
        truth = image if reference is None else make_image(self._possible(reference.values)[None], reference.affine)
        if reference is not None and self.kind.acquisition.get("kind", "none") != "none":
            copies = int(self.kind.acquisition.get("copies", 1))
            images = [self._degraded(image, seed) for seed in seeds_of(image, copies)]
        else:
            images = [image]
        inputs = [to_model_grid(each, self.plan).numpy() for each in images]
        scales = np.array([intensity_scale(each.numpy(), self.plan.normalization) for each in images])
        return {
            "inputs": np.ascontiguousarray(np.stack(inputs), dtype=np.float32),
            "target": np.ascontiguousarray(self._with_numbers(truth, *scales[0]).numpy(), dtype=np.float32),
            "scale": scales,
        }

    def _possible(self, truth: np.ndarray) -> np.ndarray:
        """An image as a scan can show it: a CT's padding is not measured."""
        return without_padding(truth).astype(np.float32) if self._is_ct else truth

    @property
    def _is_ct(self) -> bool:
        return self.kind.unit == "HU" or self.kind.acquisition.get("kind") == "ct"

    def _measured(self, image: MetaTensor) -> MetaTensor:
        """The image with air where there is padding."""
        if not self._is_ct or not bool((image < PADDING).any()):
            return image
        about = {key: value for key, value in image.meta.items() if key != "affine"}
        return make_image(self._possible(image.numpy()), Grid.of(image).affine, meta=about)

    def _degraded(self, image: MetaTensor, seed: int) -> MetaTensor:
        from ..measurements.acquisition import acquisition_of

        return acquisition_of(self.kind.acquisition).degraded(image, seed)

    def _with_numbers(self, image: MetaTensor, shift: float, scale: float) -> MetaTensor:
        """On the model grid, normalized by these numbers and not by its own, and clipped as the plan says."""
        clip = self.plan.normalization.get("clip", (-np.inf, np.inf))
        numbers = {"kind": "fixed", "clip": clip, "mean": shift, "sd": scale}
        return to_model_grid(image, replace(self.plan, normalization=numbers))

    def training_transform(self, settings: dict) -> Callable[[dict, int], dict]:
        """Cut a random patch of one of the inputs and of the target, flipped along flip_axes and turned by quarters."""
        patch = np.asarray(self.plan.patch)
        kept = [axis for axis in range(3) if axis != self._flat]
        flips = [axis for axis in settings["flip_axes"] if axis in kept]
        turned = _square_axes(patch, kept)

        def sample(prepared: dict, seed: int) -> dict:
            random = np.random.default_rng(seed)
            number = int(random.integers(len(prepared["inputs"])))
            start = _start(prepared["target"], patch, random)
            pair = [cut(array, start, patch) for array in (prepared["inputs"][number], prepared["target"])]
            if number:
                # In the numbers that this input was normalized by.
                (first_shift, first_scale), (shift, scale) = prepared["scale"][0], prepared["scale"][number]
                pair[1] = ((pair[1] * first_scale + first_shift - shift) / scale).astype(np.float32)
            for axis in flips:
                if random.random() < settings["flip"]:
                    pair = [np.flip(array, axis + 1) for array in pair]
            if turned and random.random() < settings["quarter_turns"]:
                quarters = int(random.integers(1, 4))
                pair = [np.rot90(array, quarters, [axis + 1 for axis in turned]) for array in pair]
            if self._flat is not None:
                pair = [array.squeeze(self._flat + 1) for array in pair]
            image, target = (torch.from_numpy(np.ascontiguousarray(array)) for array in pair)
            return {"image": image, "target": target}

        return sample

    def forward(self, network: torch.nn.Module, batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Output, target and the image that the output was made of."""
        return network(batch["image"]), batch["target"], batch["image"]

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The image on the model grid, a CT's padding as air."""
        return to_model_grid(self._measured(image), self.plan)

    def answer(
        self, network: Callable, prepared: dict, device: torch.device
    ) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Output and target (*S) of a prepared case's first input, normalized; shift and scale."""
        output = network(torch.from_numpy(np.ascontiguousarray(prepared["inputs"][:1])).to(device))
        values = self._kept(output[0, 0].float().cpu().numpy(), np.asarray(prepared["inputs"][0, 0]))
        return values, np.asarray(prepared["target"][0]), *map(float, prepared["scale"][0])

    def example(self, network: Callable, prepared: dict, device: torch.device) -> tuple[list[np.ndarray], float, float]:
        """[input, output, target], the slice in the middle of the thinnest axis, rows from anterior; shift, scale."""
        shape = prepared["target"].shape[1:]
        axis = self._flat if self._flat is not None else int(np.argmin(shape))
        middle = [slice(None)] * 3
        # As thick as the network wants it: one slice, or a patch of them.
        thick = min(shape[axis], self.plan.patch[axis])
        first = (shape[axis] - thick) // 2
        middle[axis] = slice(first, first + thick)
        inputs = np.ascontiguousarray(prepared["inputs"][:1][(slice(None), slice(None), *middle)])
        output = network(torch.from_numpy(inputs).to(device))[0, 0].float().cpu().numpy()
        images = [inputs[0, 0], output, np.asarray(prepared["target"][0][tuple(middle)])]
        images[1] = self._kept(output, images[0])
        return [_upright(np.take(each, thick // 2, axis)) for each in images], *map(float, prepared["scale"][0])

    def given(self, image: MetaTensor, name: str) -> tuple[MetaTensor, ImageReference]:
        """An image as it would have come from a worse measurement, and itself."""
        seed = name_seed(name)
        return self._degraded(image, seed), ImageReference(self._possible(image.numpy()[0]), Grid.of(image).affine)

    def predict(self, network: Any, image: MetaTensor) -> Reconstruction:
        """image: (C, I, J, K), of which the first channel is made better. Raises NotHounsfield where a model for CT is
        given what does not look like it, unless ``image.meta["assume_hounsfield"]`` says that it is."""
        if not isinstance(image, torch.Tensor):
            raise InputError("This model makes images of images; give an image, or reconstruct the measurement first.")
        if self.kind.unit == "HU" and not image.meta.get("is_region"):
            check_values(image)
        prepared = self.inference_transform(image)
        _, scale = intensity_scale(image.numpy(), self.plan.normalization)
        output = network(prepared.as_tensor()[None]).whole()[0, 0].float().cpu().numpy()
        given = prepared.numpy()[0]
        change = (self._kept(output, given) - given) * np.float32(scale)
        source = Grid.of(image)
        values = image.numpy()[0] + from_model_grid(change, Grid.of(prepared), source)
        notes = ()
        if self._is_ct and (padding := image.numpy()[0] < PADDING).any():
            values[padding] = image.numpy()[0][padding]
            notes = (f"{padding.mean():.0%} of the voxels are a scanner's padding; they stay as they are.",)
        return Reconstruction(values.astype(np.float32), source.affine, self.kind.unit, self.kind.window, notes=notes)

    def _kept(self, output: np.ndarray, given: np.ndarray) -> np.ndarray:
        """The output with the means of what was given, where they are to be kept."""
        if not self._finer:
            return output
        window = {"low": self.low, "high": self.low + self.data_range}
        return keep_means(output, given, finer=self._finer, flat=self._flat, **window)


def seeds_of(image: MetaTensor, count: int) -> list[int]:
    """Seeds that depend on the voxels alone, so that the same image is always degraded the same way."""
    digest = hashlib.sha256(np.ascontiguousarray(image.numpy(), dtype=np.float32)).digest()
    return [int.from_bytes(digest[:4], "big") + number for number in range(count)]


def _start(target: np.ndarray, patch: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """First voxel of a random patch that is not next to empty, if one is found soon."""
    room = np.asarray(target.shape[1:]) - patch
    spread = float(target[:, ::4, ::4].std())
    for _ in range(_DRAWS):
        start = np.where(room > 0, random.integers(0, np.maximum(room, 0) + 1), room // 2)
        if float(cut(target, start, patch).std()) >= _EMPTY * spread:
            break
    return start


def _square_axes(patch: np.ndarray, kept: list[int]) -> list[int]:
    """Two axes along which the patch is as long, the first that there are; empty where there are none."""
    pairs = [(a, b) for a in kept for b in kept if a < b and patch[a] == patch[b]]
    return list(pairs[0]) if pairs else []


def _upright(plane: np.ndarray) -> np.ndarray:
    """A plane of the model grid as a picture: the second of its axes upward, the first to the left (as radiologists
    look at a patient)."""
    return plane.T[::-1, ::-1]
