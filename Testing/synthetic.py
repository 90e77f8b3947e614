"""Small volumes with a known truth, for tests that need a whole data set in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from MedMapAILib.image import make_image, write_image
from MedMapAILib.results import Segment, Segmentation, write_segmentation

SEGMENTS = (Segment(1, "ball", (0.9, 0.3, 0.2), None), Segment(2, "box", (0.2, 0.4, 0.9), None))


def ball_and_box(seed: int, shape=(24, 26, 22), spacing=1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright ball and a dark box in noise. Returns voxels (I, J, K) float32, labels uint8 and the 4×4 RAS affine."""
    random = np.random.default_rng(seed)
    points = np.indices(shape).astype(float)
    center = np.array(shape) * random.uniform(0.35, 0.45, 3)
    labels = np.zeros(shape, dtype=np.uint8)
    radius = random.uniform(4, 6)
    labels[((points - center[:, None, None, None]) ** 2).sum(axis=0) < radius**2] = 1
    corner = (np.array(shape) * random.uniform(0.6, 0.7, 3)).astype(int)
    labels[tuple(slice(c, c + 5) for c in corner)] = 2
    voxels = 100 + 10 * random.normal(size=shape) + np.choose(labels, [0, 60, -60])
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (-10, 20, 5)
    return voxels.astype(np.float32), labels, affine


def write_dataset(folder: Path, count: int, **options) -> Path:
    """A folder with images/ and labels/ of ``count`` cases, case_00.nii.gz and so on."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        voxels, labels, affine = ball_and_box(number, **options)
        write_image(make_image(voxels[None], affine), folder / "images" / f"case_{number:02}.nii.gz")
        write_segmentation(Segmentation(labels, affine, SEGMENTS), folder / "labels" / f"case_{number:02}.nii.gz")
    return folder


def small_config(data: Path, **training) -> dict:
    """A configuration that trains a tiny network for a moment."""
    return {
        "dataset": {"path": str(data), "labels": {"1": "ball", "2": "box"}},
        "split": {"validation": 0.25, "seed": 1},
        "plan": {"spacing": [1.0, 1.0, 1.0], "patch": [16, 16, 16], "batch": 2},
        "network": {"name": "unet", "filters": [4, 8, 8], "dropout": 0.1},
        "training": {"epochs": 3, "iterations_per_epoch": 4, "device": "cpu", **training},
        "model": {"name": "ball-and-box", "title": "Ball and box", "modality": "synthetic"},
    }
