"""Random changes of training samples, all of them MONAI's transforms, so that a model meets more than it was shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai import transforms


def augmentation(settings: dict, *, patch: Sequence[int], spacing: Sequence[float], label: bool = True):
    """Build the augmentation of one training sample.

    settings: section [augmentation] of a training configuration; each probability 0 leaves its transform out.
    patch: output size in voxels, two or three numbers. spacing: of the model grid, mm, as many numbers.
    The transform takes and gives ``{"image": (C, *S) float, "label": (1, *S)}``; labels are moved by nearest neighbor.
    label: False where there is only the image.
    Rotation in the plane alone for two axes. Seed it with ``set_random_state``.
    """
    dimensions = len(patch)
    both, image = ["image", "label"] if label else ["image"], ["image"]
    modes = ["bilinear", "nearest"] if label else ["bilinear"]
    steps: list = []

    def use(name: str) -> bool:
        return settings[name] > 0

    angles = [math.radians(a) for a in settings["rotate_degrees"]]
    geometry = {
        "rotate_range": angles[:dimensions] if dimensions == 3 else angles[:1],
        "scale_range": [settings["scale"]] * dimensions,
        "translate_range": [
            settings["translate_mm"] / mm + settings["translate"] * n for mm, n in zip(spacing, patch, strict=True)
        ],
        "spatial_size": tuple(patch),
        "mode": modes,
        "padding_mode": "border",
    }
    if use("elastic"):
        elastic = transforms.Rand3DElasticd if dimensions == 3 else transforms.Rand2DElasticd
        strength = {"magnitude_range": tuple(settings["elastic_magnitude"])}
        if dimensions == 3:
            strength["sigma_range"] = tuple(settings["elastic_sigma"])
        else:
            strength["spacing"] = tuple(4 * s for s in settings["elastic_sigma"])
        steps.append(elastic(both, prob=settings["elastic"], **strength, **geometry))
    if use("affine"):
        steps.append(transforms.RandAffined(both, prob=settings["affine"], **geometry))
    for axis in settings["flip_axes"]:
        if axis < dimensions:
            steps.append(transforms.RandFlipd(both, prob=settings["flip"], spatial_axis=axis))
    if use("noise"):
        steps.append(transforms.RandGaussianNoised(image, prob=settings["noise"], std=settings["noise_sd"]))
    if use("blur"):
        low, high = settings["blur_sigma"]
        sigma = {f"sigma_{axis}": (low, high) for axis in "xyz"[:dimensions]}
        steps.append(transforms.RandGaussianSmoothd(image, prob=settings["blur"], **sigma))
    if use("brightness"):
        steps.append(transforms.RandShiftIntensityd(image, settings["brightness_shift"], prob=settings["brightness"]))
    if use("contrast"):
        steps.append(
            transforms.RandScaleIntensityd(image, factors=settings["contrast_factor"], prob=settings["contrast"])
        )
    if use("low_resolution"):
        steps.append(
            transforms.RandSimulateLowResolutiond(
                image,
                prob=settings["low_resolution"],
                zoom_range=tuple(settings["low_resolution_zoom"]),
                upsample_mode="trilinear" if dimensions == 3 else "bilinear",
            )
        )
    if use("gamma"):
        steps.append(
            transforms.RandAdjustContrastd(
                image, prob=settings["gamma"], gamma=settings["gamma_range"], retain_stats=True
            )
        )
    if use("bias_field"):
        steps.append(
            transforms.RandBiasFieldd(
                image, prob=settings["bias_field"], coeff_range=tuple(settings["bias_field_coefficient"])
            )
        )
    if use("erase"):
        low, high = settings["erase_size"]
        steps.append(
            transforms.RandCoarseDropoutd(
                image,
                holes=1,
                spatial_size=[max(1, round(low * n)) for n in patch],
                max_spatial_size=[max(2, round(high * n)) for n in patch],
                fill_value=0.0,
                prob=settings["erase"],
            )
        )
    return transforms.Compose(steps)
