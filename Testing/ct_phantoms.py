"""Discs whose projections are known in closed form: a ray at distance s from the middle runs 2 √(r² - s²) inside."""

from __future__ import annotations

import numpy as np
import torch
from MedMapAILib.physics.ct_geometry import FanBeam

#: Middle x, y and radius, mm, and attenuation, 1/mm: two overlapping discs, one hole in them, one small and dense.
DISCS = (
    (5.0, -8.0, 60.0, 0.020),
    (-20.0, 10.0, 22.0, -0.012),
    (25.0, 20.0, 12.0, 0.010),
    (10.0, -40.0, 4.0, 0.030),
)


def disc_image(size, pixel_mm, discs=DISCS, *, parts=8):
    """The image (1, 1, H, W): each pixel the mean of parts × parts points in it."""
    rows, columns = (size, size) if np.ndim(size) == 0 else size
    x = ((np.arange(columns * parts) + 0.5) / parts - columns / 2) * pixel_mm
    y = -((np.arange(rows * parts) + 0.5) / parts - rows / 2) * pixel_mm
    total = np.zeros((rows * parts, columns * parts), np.float32)
    for middle_x, middle_y, radius, value in discs:
        total += value * ((x[None] - middle_x) ** 2 + (y[:, None] - middle_y) ** 2 < radius**2)
    image = total.reshape(rows, parts, columns, parts).mean(axis=(1, 3))
    return torch.from_numpy(image)[None, None]


def disc_sinogram(geometry, discs=DISCS, *, parts=8):
    """The sinogram (1, 1, A, D) in closed form, the mean of ``parts`` rays over the width of each detector."""
    edges, spacing = geometry.detector_edges_mm, geometry.detector_spacing_mm
    place = edges[0] + (np.arange(geometry.detectors * parts) + 0.5) / parts * spacing
    total = 0
    for x, y, radius, value in discs:
        total = total + 2 * value * np.sqrt(np.maximum(radius**2 - ray_distance(geometry, place, x, y) ** 2, 0))
    sinogram = total.reshape(len(total), geometry.detectors, parts).mean(axis=2)
    return torch.from_numpy(sinogram.astype(np.float32))[None, None]


def ray_distance(geometry, place, x, y):
    """How far the rays to these places (N,) on the detector pass by a point, (A, N), mm."""
    angle = geometry.angles[:, None]
    cosine, sine = np.cos(angle), np.sin(angle)
    if not isinstance(geometry, FanBeam):
        return place - (x * cosine + y * sine)
    source = (-geometry.source_to_center_mm * sine, geometry.source_to_center_mm * cosine)
    far = geometry.source_to_detector_mm
    along = (far * sine + place * cosine, -far * cosine + place * sine)
    return ((x - source[0]) * along[1] - (y - source[1]) * along[0]) / np.hypot(*along)
