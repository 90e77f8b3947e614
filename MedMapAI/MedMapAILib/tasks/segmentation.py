"""Segmentation: which voxels are it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from ..augmentation import augmentation
from ..decoding import Answer, decode_labels
from ..image import check_same_geometry
from ..losses import SEGMENTATION as LOSSES
from ..losses import build_loss, deep_supervision
from ..metrics import evaluate_labels, summarize_rows
from ..networks import SEGMENTATION as NETWORKS
from ..patches import cut
from ..plan import Plan
from ..preprocessing import Grid, labels_to_model_grid, to_model_grid
from ..results import Segment, Segmentation

#: A network whose logits come plane by plane, and only where there is something to see.
StreamingNetwork = Callable[[torch.Tensor], Answer]
#: Share of the patch added on each side before rotating, so that a turned patch is still filled with image.
_MARGIN = 0.15


class SegmentationTask:
    """Give every voxel one of the segments, or none.

    plan: how volumes are brought to the model grid, and the patch. segments: what there is to find; class 0 is
    background, class n the n-th segment, whatever the segments' label values.
    options: "keep_largest" (each segment only in its largest connected part), "surface_tolerance_mm".
    """

    name = "segmentation"
    networks = NETWORKS
    losses = LOSSES
    key_metric = "dice"
    windows = "blended"
    skips_air = True
    calibrates = False

    def __init__(self, plan: Plan, segments: tuple[Segment, ...], options: dict):
        self.plan = plan
        self.segments = tuple(segments)
        self._keep_largest = bool(options.get("keep_largest", False))
        self._tolerance_mm = float(options.get("surface_tolerance_mm", 1.0))
        self._values = np.array([0, *(segment.value for segment in self.segments)])

    @property
    def output_channels(self) -> int:
        """Background and one channel a segment."""
        return len(self._values)

    @property
    def _slice_axis(self) -> int | None:
        """The axis across which a two-dimensional network goes slice by slice; None for three dimensions."""
        return self.plan.patch.index(1) if 1 in self.plan.patch else None

    def prepare(self, image: MetaTensor, reference: Segmentation) -> dict[str, np.ndarray]:
        """image: (C, I, J, K). reference: on the same grid. Returns "image" float32 (C, *S), "label" uint8/16 (*S) of
        class indices, and "foreground" (n, 3): up to 2000 voxels of segments, for sampling."""
        labels = labels_to_model_grid(np.asarray(reference.labels), reference.affine, self.plan)
        classes = np.zeros(labels.shape, dtype=np.uint8 if self.output_channels < 256 else np.uint16)
        for number, value in enumerate(self._values[1:], start=1):
            classes[labels == value] = number
        return {
            "image": np.ascontiguousarray(self.inference_transform(image).numpy(), dtype=np.float32),
            "label": classes,
            "foreground": _foreground_sample(classes, self.output_channels),
        }

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """Cut a random patch (one in ``foreground_fraction`` centered on a segment's voxel) and augment it."""
        slice_axis = self._slice_axis
        kept = [axis for axis in range(3) if axis != slice_axis]
        patch = np.asarray(self.plan.patch)
        augment = augmentation(
            settings, patch=patch[kept].tolist(), spacing=np.asarray(self.plan.spacing)[kept].tolist()
        )
        margin = np.where(patch > 1, np.ceil(patch * _MARGIN), 0).astype(int)

        def sample(prepared: dict, seed: int) -> dict:
            random = np.random.default_rng(seed)
            start = _patch_start(prepared, patch, foreground_fraction, random)
            image = cut(prepared["image"], start - margin, patch + 2 * margin)
            label = cut(prepared["label"][None], start - margin, patch + 2 * margin).astype(np.float32)
            if slice_axis is not None:
                image, label = image.squeeze(slice_axis + 1), label.squeeze(slice_axis + 1)
            augment.set_random_state(seed=int(random.integers(2**31)))
            changed = augment({"image": torch.from_numpy(image), "label": torch.from_numpy(label)})
            middle = tuple(
                slice((n - p) // 2, (n - p) // 2 + p)
                for n, p in zip(changed["image"].shape[1:], patch[kept], strict=True)
            )
            return {
                key: torch.as_tensor(changed[key])[(slice(None), *middle)].contiguous() for key in ("image", "label")
            }

        return sample

    def training_batch(self, batch: dict, settings: dict, seed: int) -> dict:
        """The batch as it is."""
        return batch

    def build_loss(self, settings: dict, cases: Sequence[dict]) -> Callable:
        """The loss of that name and those options; see losses."""
        return build_loss(**settings)

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The image on the model grid."""
        return to_model_grid(image, self.plan)

    def training_loss(self, loss: Callable, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """network: gives logits (B, K, *S), or a list of them from fine to coarse. batch["label"]: (B, 1, *S)."""
        outputs = network(batch["image"])
        if isinstance(outputs, (list, tuple)):
            return deep_supervision(loss, outputs, batch["label"])
        return loss(outputs, batch["label"])

    def validate(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        loss: Callable,
        cases: Sequence[dict],
        device: torch.device,
    ) -> dict[str, float]:
        """Means over cases of the loss, and of the mean Dice over the segments that are in the reference or the answer,
        on the model grid."""
        scores = [self._validate(network, loss, cases[number], device) for number in range(len(cases))]
        return {key: sum(score[key] for score in scores) / len(scores) for key in ("loss", "dice")}

    def _validate(self, network: Callable, loss: Callable, prepared: dict, device: torch.device) -> dict[str, float]:
        image = torch.from_numpy(prepared["image"])[None].to(device)
        label = torch.from_numpy(prepared["label"].astype(np.int64))[None, None].to(device)
        logits = network(image)
        answer = logits.argmax(dim=1, keepdim=True)
        scores = []
        for number in range(1, self.output_channels):
            found, true = answer == number, label == number
            size = found.sum() + true.sum()
            if size > 0:
                scores.append(float(2 * (found & true).sum() / size))
        return {"loss": float(loss(logits, label)), "dice": float(np.mean(scores)) if scores else 1.0}

    def picture(self, network: Callable, cases: Sequence[dict], device: torch.device) -> None:
        """None: the curves tell more."""
        return None

    def conclude(self, network: Any, training: Sequence[dict], validation: Sequence[dict], settings: dict) -> dict:
        """Nothing: the weights say it all."""
        return {}

    def calibrate(self, results: Sequence[Any], references: Sequence[Any], settings: dict) -> dict:
        """Nothing."""
        return {}

    def predict(self, network: StreamingNetwork, image: MetaTensor) -> Segmentation:
        """network: the answer for a volume (1, C, *S). image: (C, I, J, K). The labels lie on the image's grid."""
        prepared = self.inference_transform(image)
        source = Grid.of(image)
        labels = decode_labels(network(prepared.as_tensor()[None]), Grid.of(prepared), source, self._values)
        if self._keep_largest:
            labels = keep_largest_parts(labels)
        return Segmentation(labels=labels, affine=source.affine, segments=self.segments)

    def uncropped(self, result: Segmentation, image: MetaTensor, slices: tuple[slice, slice, slice]) -> Segmentation:
        """The labels of a part of an image, on the whole image's grid: nothing outside."""
        whole = Grid.of(image)
        labels = np.zeros(whole.shape, dtype=result.labels.dtype)
        labels[slices] = result.labels
        return replace(result, labels=labels, affine=whole.affine)

    def evaluate(self, result: Segmentation, reference: Segmentation) -> dict[str, Any]:
        """Dice, IoU, HD95, Hausdorff, surface Dice and volume error per segment, and their means; see metrics."""
        check_same_geometry(
            Grid(tuple(result.labels.shape), result.affine),
            Grid(tuple(reference.labels.shape), reference.affine),
            "the result",
            "the reference",
        )
        names = {segment.value: segment.name for segment in self.segments}
        return evaluate_labels(
            result.labels, reference.labels, affine=result.affine, labels=names, tolerance_mm=self._tolerance_mm
        )

    def row(self, result: Segmentation, reference: Segmentation) -> dict[str, Any]:
        """A metric of a segment is named "segment: metric"; without a segment it is the mean over segments."""
        metrics = self.evaluate(result, reference)
        flat = dict(metrics["mean"])
        for segment, values in metrics["labels"].items():
            flat |= {f"{segment}: {metric}": value for metric, value in values.items()}
        return flat

    def summarize(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, dict[str, float]]:
        """Mean and 95 % bootstrap interval over cases of every number in the rows; what is not defined is left out."""
        return summarize_rows(rows)

    def details(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, Any]:
        """Nothing: the rows say it all."""
        return {}


def keep_largest_parts(labels: np.ndarray) -> np.ndarray:
    """Keep of each label (I, J, K) only its largest part, connected through faces, edges and corners."""
    kept = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        parts, count = ndimage.label(labels == value, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        kept[parts == 1 + int(np.argmax(sizes))] = value
    return kept


def _foreground_sample(classes: np.ndarray, channels: int, most: int = 2000) -> np.ndarray:
    """Voxels (n, 3) spread evenly through each class, so that rare segments are met as often as large ones."""
    per_class = max(1, most // max(1, channels - 1))
    chosen = []
    for number in range(1, channels):
        voxels = np.argwhere(classes == number)
        chosen.append(voxels[:: max(1, len(voxels) // per_class)][:per_class])
    return np.concatenate(chosen).astype(np.int32) if chosen else np.empty((0, 3), dtype=np.int32)


def _patch_start(
    prepared: dict, patch: np.ndarray, foreground_fraction: float, random: np.random.Generator
) -> np.ndarray:
    """First voxel of a random patch: inside the volume where it is large enough, else around its center."""
    room = np.asarray(prepared["label"].shape) - patch
    foreground = prepared["foreground"]
    if len(foreground) and random.random() < foreground_fraction:
        start = foreground[random.integers(len(foreground))] - random.integers(0, patch)
        return np.where(room > 0, np.clip(start, 0, np.maximum(room, 0)), room // 2)
    return np.where(room > 0, random.integers(0, np.maximum(room, 0) + 1), room // 2)
