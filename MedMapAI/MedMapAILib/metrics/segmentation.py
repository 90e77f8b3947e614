"""How well a label map agrees with a reference: overlap, surface distances in mm, volume.

Definitions follow "Metrics reloaded" (Maier-Hein, Reinke et al., Nature Methods 21, 2024,
https://doi.org/10.1038/s41592-023-02151-z); surfaces and distances are MONAI's. P is the predicted label, R the
reference.

=====================  ===========================================================================================
dice                   2 |P ∩ R| / (|P| + |R|)
iou                    |P ∩ R| / |P ∪ R|
hd95_mm                the larger of two 95th percentiles, of the distances from P's surface to R's and from R's to
                       P's (as MONAI; MedPy takes one percentile of both sets put together)
hausdorff_mm           the largest of these distances
surface_dice           share of the area of both surfaces that lies within tolerance_mm of the other (Nikolov et al.
                       2018, https://arxiv.org/abs/1809.04430, with DeepMind's surface elements, as the Medical
                       Segmentation Decathlon)
volume_error_ml        volume of P minus that of R: negative where too little was found
volume_error_percent   the same in percent of R
=====================  ===========================================================================================

The surface, for hd95_mm and hausdorff_mm, is the voxels of a label with a face outside it (the outside of the volume
counts), so distances are between centers of voxels: at 1 mm spacing there is no 0.5 mm. In a volume of one slice it is
the outline in that slice. Volume errors have a sign, so their means over labels or cases tell bias, not scatter.

Empty labels: where neither has the label, the answer is right: dice, iou and surface_dice 1, distances and errors 0.
Where only one has it, dice, iou and surface_dice are 0 and distances are not defined: None. volume_error_percent is
None where only the prediction has it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError

#: Distances come in float32: what is behind these decimals is noise, and one that equals the tolerance is within it.
_DECIMALS = 5
_ROUNDING_MM = 10.0**-_DECIMALS


def evaluate_labels(
    predicted: np.ndarray,
    reference: np.ndarray,
    *,
    labels: Mapping[int, str],
    affine: Any = None,
    spacing: Sequence[float] | None = None,
    tolerance_mm: float = 1.0,
) -> dict[str, dict]:
    """Score a label map against a reference on the same voxels.

    predicted, reference: (I, J, K) integers. labels: value → name of what is scored; other values count as background.
    affine: 4×4, voxel index to mm, whose axes are taken as perpendicular; or spacing: mm along the three axes.
    tolerance_mm: of the surface Dice.
    Returns ``{"labels": {name: {metric: value}}, "mean": {metric: value}}`` with the metrics of this file's table; the
    mean is over labels, and None where the metric is not defined for one of them, since a mean over the others would
    look better than the result is. Numbers are finite floats, so the dictionary is JSON.
    Raises InputError when the two do not match or a setting makes no sense.
    """
    predicted, reference = np.asarray(predicted), np.asarray(reference)
    for array, what in ((predicted, "The prediction"), (reference, "The reference")):
        if array.ndim != 3 or array.dtype.kind not in "biu":
            raise InputError(f"{what} is {array.dtype} of shape {array.shape}; give a label map (I, J, K) of integers.")
    if predicted.shape != reference.shape:
        raise InputError(
            f"The prediction has {predicted.shape} voxels and the reference {reference.shape}; "
            "bring both to one grid first."
        )
    if not labels or 0 in labels:
        raise InputError(f"The labels to score are {dict(labels)}; name at least one value, and not 0, the background.")
    if not 0 <= tolerance_mm < np.inf:
        raise InputError(f"The tolerance of the surface Dice is {tolerance_mm} mm; give a number from 0.")
    spacing = _spacing(affine, spacing)
    scores = {
        name: _scores(*_cropped(predicted == value, reference == value), spacing, float(tolerance_mm))
        for value, name in labels.items()
    }
    metrics = next(iter(scores.values()))
    mean = {metric: _mean([score[metric] for score in scores.values()]) for metric in metrics}
    return {"labels": scores, "mean": mean}


def _scores(
    predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance_mm: float
) -> dict[str, float | None]:
    """All metrics of one label; masks (I, J, K)."""
    found, true = int(predicted.sum()), int(reference.sum())
    both = int((predicted & reference).sum())
    voxel_ml = float(np.prod(spacing)) / 1000
    scores: dict[str, float | None] = {
        "dice": 2 * both / (found + true) if found + true else 1.0,
        "iou": both / (found + true - both) if found + true else 1.0,
    }
    if found and true:
        scores |= _surface_scores(predicted, reference, spacing, tolerance_mm)
    else:
        defined = None if found or true else 0.0
        scores |= {"hd95_mm": defined, "hausdorff_mm": defined, "surface_dice": 0.0 if found or true else 1.0}
    scores["volume_error_ml"] = (found - true) * voxel_ml
    if true:
        scores["volume_error_percent"] = 100 * (found - true) / true
    else:
        scores["volume_error_percent"] = None if found else 0.0
    return scores


def _surface_scores(
    predicted: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance_mm: float
) -> dict[str, float]:
    if 1 in predicted.shape:
        # A single slice has no surface across it: every voxel would be on it.
        axis = predicted.shape.index(1)
        predicted, reference = predicted.squeeze(axis), reference.squeeze(axis)
        spacing = spacing[:axis] + spacing[axis + 1 :]
    # Imported here, because other metrics need neither and are asked for in seconds.
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    masks = torch.from_numpy(predicted), torch.from_numpy(reference)
    with warnings.catch_warnings():
        # MONAI 1.6 warns of a deprecated argument that it passes itself.
        warnings.simplefilter("ignore", FutureWarning)
        _, distances, _ = get_edge_surface_distance(*masks, spacing=spacing, symmetric=True)
        edges, element_distances, areas = get_edge_surface_distance(
            *masks, spacing=spacing, symmetric=True, use_subvoxels=True
        )
    within = total = 0.0
    for edge, distance, area in zip(edges, element_distances, areas, strict=True):
        element = area[edge].double()
        within += float(element[distance <= tolerance_mm + _ROUNDING_MM].sum())
        total += float(element.sum())
    # torch.quantile refuses large surfaces.
    return {
        "hd95_mm": round(max(float(np.percentile(d.numpy(), 95)) for d in distances), _DECIMALS),
        "hausdorff_mm": round(max(float(d.max()) for d in distances), _DECIMALS),
        "surface_dice": within / total,
    }


def _cropped(predicted: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of one shape, cut to the box that holds both and a voxel around it where there is one."""
    either = predicted | reference
    box = []
    for axis, size in enumerate(either.shape):
        inside = np.flatnonzero(either.any(axis=tuple(a for a in range(either.ndim) if a != axis)))
        if inside.size == 0:
            return predicted[:0], reference[:0]
        box.append(slice(max(0, inside[0] - 1), min(size, inside[-1] + 2)))
    return np.ascontiguousarray(predicted[tuple(box)]), np.ascontiguousarray(reference[tuple(box)])


def _spacing(affine: Any, spacing: Sequence[float] | None) -> tuple[float, float, float]:
    if (affine is None) == (spacing is None):
        raise InputError("Label maps are scored in mm; give either their affine or their spacing.")
    if affine is not None:
        matrix = np.asarray(affine, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise InputError(f"The affine is an array {matrix.shape}; give 4×4, voxel index to mm.")
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    numbers = tuple(float(s) for s in spacing)
    if len(numbers) != 3 or not all(0 < s < np.inf for s in numbers):
        raise InputError(f"The spacing of the label maps is {numbers}; three numbers above zero are needed, in mm.")
    return numbers


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))
