"""Small CT-like volumes with known content, and a training on them that takes seconds."""

from __future__ import annotations

import numpy as np
from MedMapAILib.image import write_array


def body(seed, size=48, slices=6):
    """A volume (I, J, K) in HU: an ellipse of water in air with denser and thinner discs, and its matrix."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(size) - (size - 1) / 2, np.arange(size) - (size - 1) / 2, indexing="ij")
    volume = np.full((size, size, slices), -1000.0, np.float32)
    for number in range(slices):
        inside = (x / (0.42 * size)) ** 2 + (y / (0.36 * size)) ** 2 < 1
        plane = np.where(inside, 0.0, -1000.0)
        for _ in range(6):
            center, radius = random.uniform(-0.22, 0.22, 2) * size, random.uniform(0.05, 0.14) * size
            disc = (x - center[0]) ** 2 + (y - center[1]) ** 2 < radius**2
            plane = np.where(disc & inside, random.choice([-800.0, -100.0, 60.0, 500.0]), plane)
        volume[..., number] = plane
    return volume, np.diag([2.0, 2.0, 5.0, 1.0])


def write_bodies(folder, count):
    """A folder of volumes, named body1.nrrd and so on."""
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        volume, affine = body(number)
        write_array(volume, affine, folder / "images" / f"body{number + 1}.nrrd")
    return folder


def reconstruction_config(path, *, network=None, acquisition=None, loss=None, epochs=2, iterations=6, **training):
    """A training that takes seconds."""
    return {
        "task": {"name": "reconstruction"},
        "dataset": {"path": str(path)},
        "split": {"validation": 0.25},
        "acquisition": acquisition or {"kind": "ct", "views": 40, "photons": 2e4},
        "network": network or {"name": "fbpconvnet", "width": 8, "levels": 2},
        "loss": loss or {"name": "mse"},
        "optimizer": {"learning_rate": 2e-3},
        "training": {
            "epochs": epochs,
            "iterations_per_epoch": iterations,
            "ema_decay": 0.9,
            "device": "cpu",
            **training,
        },
        "model": {"name": "test-reconstruction", "modality": "CT"},
    }
