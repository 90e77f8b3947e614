"""Small scans with bright balls in noise, for tests of detection."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from MedMapAILib.image import write_array

SPACING = (1.0, 1.0, 2.0)


def scan_with_balls(
    number: int, balls: int = 2, shape: tuple = (40, 36, 20)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels (I, J, K) int16 in HU, their affine, and the balls (N, 4): center, RAS mm, and diameter, mm."""
    random = np.random.default_rng(number)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -30, -20, 5
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * SPACING
    voxels = random.normal(-700, 30, shape)
    found = []
    while len(found) < balls:
        diameter = random.uniform(8, 12)
        center = random.uniform(diameter / 2 + 2, np.array(shape) * SPACING - diameter / 2 - 4)
        if all(np.linalg.norm(center - other[:3]) > 16 for other in found):
            voxels[np.linalg.norm(places - center, axis=-1) < diameter / 2] += 500
            found.append(np.append(center, diameter))
    truth = np.array(found).reshape(-1, 4)
    truth[:, :3] += affine[:3, 3]
    return np.rint(voxels).astype(np.int16), affine, truth


def write_findings_dataset(folder: Path, scans: int) -> Path:
    """A table of balls beside their scans; its path."""
    (folder / "images").mkdir(parents=True)
    with open(folder / "findings.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "x", "y", "z", "diameter_mm", "class", "patient", "frame"])
        for number in range(scans):
            voxels, affine, truth = scan_with_balls(number)
            write_array(voxels, affine, folder / "images" / f"scan{number}.nrrd")
            for row in truth:
                writer.writerow([f"images/scan{number}.nrrd", *row.round(4), "ball", f"patient{number}", "RAS"])
    return folder / "findings.csv"


def detection_config(table: Path, epochs: int = 2, iterations: int = 10, network: dict | None = None) -> dict:
    """A training that takes seconds."""
    return {
        "task": {"name": "detection"},
        "dataset": {"path": str(table)},
        "plan": {"spacing": list(SPACING), "patch": [32, 32, 16]},
        "network": network or {"name": "retinanet", "width": 0.5},
        "optimizer": {"learning_rate": 3e-3},
        "training": {
            "epochs": epochs,
            "iterations_per_epoch": iterations,
            "validate_every": epochs,
            "ema_decay": 0.9,
            "device": "cpu",
        },
        "inference": {"overlap": 0.25},
    }
