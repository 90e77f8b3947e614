"""Detection: where is it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..augmentation import augmentation
from ..box_samples import IGNORED, NO_BOX, random_move, sample_at
from ..errors import InputError
from ..metrics.detection import detection_report, score_case
from ..metrics.froc import FrocScan, froc
from ..metrics.matching import FALSE, match_findings
from ..networks import DETECTION as NETWORKS
from ..plan import Plan
from ..preprocessing import Grid, labels_to_model_grid, to_model_grid
from ..region import crop_to_region
from ..results import Detections, Finding, FindingClasses, FindingMask, FindingReference
from ..results.detection import diameter_in_slice
from .found_boxes import FoundBoxes
from .operating_threshold import choose_threshold

#: Detectors bring their own losses; what can be chosen is how much each counts.
LOSSES: dict[str, Callable] = {"detector": lambda **options: options}
#: Share of patches, of those that show no finding on purpose, that show what was mistaken for one, where that is known.
_NEGATIVES = 0.5


class DetectionTask:
    """Find things of several classes: a box and a score for each.

    plan: how scans are brought to the model grid; a patch with a 1 makes the network see slices. answers: the classes.
    options: "threshold" (the operating point, found by ``calibrate``), "masks" (whether the network learns the voxels
    of findings), "chooses" (whether it chooses among proposals).
    """

    name = "detection"
    networks = NETWORKS
    losses = LOSSES
    key_metric = "froc"
    windows = "joined"
    calibrates = True

    def __init__(self, plan: Plan, answers: FindingClasses, options: dict):
        self.plan, self.classes = plan, answers
        self.threshold = float(options.get("threshold") or 0.5)
        self._masks, self._chooses = bool(options.get("masks", False)), bool(options.get("chooses", False))

    @property
    def output_channels(self) -> int:
        """One a class; background is what no box is of."""
        return len(self.classes.names)

    def prepare(self, image: MetaTensor, reference: FindingReference) -> dict[str, np.ndarray]:
        """A scan on the model grid, boxes in voxel edges.

        "image" (C, I, J, K) float16; "boxes" (N, 6), "labels" (N,) and "ignored" (M, 6); "radii" (N,) and
        "ignored_radii" (M,), mm; "negatives" (K, 3), middles of proposals that are no finding; "affine" (4, 4); for a
        network that chooses among them "proposals" (P, 6), and for one that learns masks "instances" (I, J, K).
        Raises InputError where masks are to be learned and there are none.
        """
        part = crop_to_region(image, self.plan.region)
        prepared = to_model_grid(part, self.plan)
        grid = Grid.of(prepared)
        arrays = {
            # Half the memory; the steps of float16 are finer than the noise of a scan.
            "image": np.ascontiguousarray(prepared.numpy(), dtype=np.float16),
            "boxes": boxes_on_grid(reference.findings, grid),
            "ignored": boxes_on_grid(reference.ignored, grid),
            "labels": np.array([self.classes.names.index(f.label) for f in reference.findings], dtype=np.int64),
            "radii": np.array([f.diameter_mm / 2 for f in reference.findings]),
            "ignored_radii": np.array([f.diameter_mm / 2 for f in reference.ignored]),
            "negatives": _mistakes(reference, grid),
            "affine": grid.affine,
        }
        if self._chooses and reference.proposals is not None:
            arrays["proposals"] = boxes_on_grid(reference.proposals, grid)
        if self._masks:
            if reference.instances is None:
                raise InputError(
                    "A network with masks learns the voxels of findings, and this data set has boxes alone; give label "
                    "maps of the findings, or choose another network, such as faster-rcnn."
                )
            first = np.linalg.inv(Grid.of(image).affine) @ Grid.of(part).affine[:, 3]
            inside = tuple(slice(round(a), round(a) + n) for a, n in zip(first[:3], part.shape[1:], strict=True))
            instances = labels_to_model_grid(reference.instances[inside], Grid.of(part).affine, self.plan)
            arrays["instances"] = instances.astype(np.int16)
        return arrays

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The region of the plan on the model grid. Raises InputError where there is no such region."""
        return to_model_grid(crop_to_region(image, self.plan.region), self.plan)

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """Cut a random patch (one in ``foreground_fraction`` shows a finding), moved and augmented."""
        patch = np.asarray(self.plan.patch)
        kept = [axis for axis in range(3) if patch[axis] > 1]
        spacing = np.asarray(self.plan.spacing, dtype=float)
        # Where slices keep their own spacing a pixel is as long as it is wide, which is all that turning needs.
        spacing = np.where(spacing > 0, spacing, 1.0)
        # Moved here, boxes and all; the rest changes intensities alone.
        intensities = settings | {"affine": 0.0, "elastic": 0.0, "flip_axes": []}
        augment = augmentation(intensities, patch=patch[kept].tolist(), spacing=spacing[kept].tolist(), label=False)
        fractions = (foreground_fraction, (1 - foreground_fraction) * _NEGATIVES)

        def sample(prepared: dict, seed: int) -> dict:
            random = np.random.default_rng(seed)
            move = random_move(prepared, patch, spacing, settings, fractions, random)
            changed = sample_at(prepared, move)
            augment.set_random_state(seed=int(random.integers(2**31)))
            changed["image"] = torch.as_tensor(augment({"image": changed["image"]})["image"]).contiguous()
            return changed

        return sample

    def training_batch(self, batch: dict, settings: dict, seed: int) -> dict:
        """The batch as it is."""
        return batch

    def build_loss(self, settings: dict, cases: Sequence[dict]) -> Callable:
        """(losses by name) → their sum; settings: "weights", name → how much a loss counts, 1 where nothing is said."""
        weights = dict(settings.get("weights") or {})

        def total(losses: dict[str, torch.Tensor]) -> torch.Tensor:
            unknown = sorted(set(weights) - set(losses))
            if unknown:
                raise InputError(f"loss.weights names {unknown[0]!r}; this network's losses are {', '.join(losses)}.")
            return sum(float(weights.get(name, 1.0)) * value for name, value in losses.items())

        return total

    def training_loss(self, loss: Callable, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """network: a Detector, which has its losses in itself."""
        return loss(network(batch["image"], targets_of(batch), proposals_of(batch)))

    def validate(
        self, network: Callable, loss: Callable, cases: Sequence[dict], device: torch.device
    ) -> dict[str, float]:
        """The FROC score on the model grid: the mean sensitivity at 1/8 to 8 false positives a scan, and of several
        classes the mean over those that occur; 0 where nothing is to be found."""
        scans: list[list[FrocScan]] = [[] for _ in self.classes.names]
        for number in range(len(cases)):
            prepared = cases[number]
            image = torch.from_numpy(np.array(prepared["image"], dtype=np.float32))[None].to(device)
            found = network(image, prepared["proposals"]) if "proposals" in prepared else network(image)
            grid = Grid(tuple(prepared["image"].shape[1:]), np.asarray(prepared["affine"]))
            centers, _ = from_grid(found.boxes, grid)
            truth, _ = from_grid(np.asarray(prepared["boxes"]), grid)
            ignored, _ = from_grid(np.asarray(prepared["ignored"]), grid)
            for label, of_class in enumerate(scans):
                mine, there = found.labels == label, np.asarray(prepared["labels"]) == label
                marks, things = (centers[mine], found.scores[mine]), (truth[there], prepared["radii"][there])
                of_class.append(FrocScan(*marks, *things, ignored, prepared["ignored_radii"]))
        scores = [froc(each, resamples=1)["score"] for each in scans if any(len(scan.truth) for scan in each)]
        return {"froc": float(np.mean(scores)) if scores else 0.0}

    def picture(self, network: Callable, cases: Sequence[dict], device: torch.device) -> None:
        """None: the curves tell more."""
        return None

    def conclude(self, network: Any, training: Sequence[dict], validation: Sequence[dict], settings: dict) -> dict:
        """Nothing from patches; see ``calibrate``."""
        return {}

    def calibrate(
        self, results: Sequence[Detections], references: Sequence[FindingReference], settings: dict
    ) -> dict[str, Any]:
        """The operating point: {"threshold": score}. settings: section [evaluation]."""
        rule, wished = settings["operating_point"], settings["false_positives_per_scan"]
        return {"threshold": choose_threshold(results, references, rule=rule, false_positives_per_scan=wished)}

    def predict(
        self, network: Callable[..., FoundBoxes], image: MetaTensor, proposals: Sequence[Finding] | None = None
    ) -> Detections:
        """network: what it finds in a volume (1, C, I, J, K), among proposals (P, 6) in voxel edges where there are
        some. image: (C, I, J, K), as acquired. All candidates, at the operating point of the model."""
        prepared = self.inference_transform(image)
        given = () if proposals is None else (boxes_on_grid(proposals, Grid.of(prepared)),)
        found = network(prepared.as_tensor()[None], *given)
        return Detections(self.classes.names, self.findings(found, Grid.of(prepared)), self.threshold)

    def findings(self, found: FoundBoxes, grid: Grid) -> tuple[Finding, ...]:
        """Boxes on the model grid as findings, RAS mm."""
        centers, sizes = from_grid(found.boxes, grid)
        sizes = np.maximum(sizes, 1e-3)
        findings = []
        for number, score in enumerate(found.scores):
            mask = _mask(found.masks[number], found.boxes[number], grid) if found.masks else None
            findings.append(
                Finding(
                    tuple(centers[number]),
                    tuple(sizes[number]),
                    self.classes.names[int(found.labels[number])],
                    score=float(min(max(score, 0.0), 1.0)),
                    measured_diameter_mm=diameter_in_slice(sizes[number], grid.shape, grid.affine),
                    mask=mask,
                )
            )
        return tuple(findings)

    def evaluate(self, result: Detections, reference: FindingReference) -> dict[str, Any]:
        """Findings, hits, misses and false alarms of one scan; see ``metrics.detection.score_case``."""
        return score_case(result, reference)

    def row(self, result: Detections, reference: FindingReference) -> dict[str, Any]:
        """What ``evaluate`` gives, and all that was found and is there, for curves over many scans."""
        return {
            **self.evaluate(result, reference),
            "threshold": result.threshold,
            "all_found": [_as_dict(finding) for finding in result.findings],
            "all_there": [_as_dict(finding) for finding in reference.findings],
            "all_ignored": [_as_dict(finding) for finding in reference.ignored],
        }

    def summarize(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, dict[str, float]]:
        """FROC, average precision, and precision, recall and F1 at the operating point, with 95 % bootstrap intervals
        over patients."""
        return self._report(rows, patients)["summary"]

    def details(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, Any]:
        """The classes, the operating point and "curves", which ``figures.draw_curves`` draws."""
        # The intervals are summarize's; they take most of the time.
        report = self._report(rows, patients, resamples=1)
        return {"kind": "detection", **{key: value for key, value in report.items() if key not in ("summary", "cases")}}

    def _report(self, rows: list[dict[str, Any]], patients: list[str], **ways: Any) -> dict[str, Any]:
        names = self.classes.names
        results = [result_of_row(row, names) for row in rows]
        references = [
            FindingReference(
                names, _findings(row["all_there"], "reference"), _findings(row["all_ignored"], "reference")
            )
            for row in rows
        ]
        return detection_report(results, references, patients, **ways)


def result_of_row(row: dict[str, Any], classes: tuple[str, ...]) -> Detections:
    """What was found in the scan of a row that ``DetectionTask.row`` made."""
    return Detections(tuple(classes), _findings(row["all_found"], "found"), row["threshold"])


def results_of_rows(rows: Sequence[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Detections]:
    """Case → what was found in it, from rows of an evaluation."""
    return {row["case"]: result_of_row(row, classes) for row in rows}


def boxes_on_grid(findings: Sequence[Finding], grid: Grid) -> np.ndarray:
    """Boxes (N, 6) in voxel edges of a grid, whose axes may be oblique: those of the ellipsoids in the findings'
    boxes."""
    if not findings:
        return np.zeros((0, 6))
    inverse = np.linalg.inv(grid.affine)
    centers = np.array([f.center for f in findings]) @ inverse[:3, :3].T + inverse[:3, 3] + 0.5
    halves = np.array([f.size for f in findings]) / 2
    half = np.sqrt((halves**2) @ (inverse[:3, :3] ** 2).T)
    return np.concatenate([centers - half, centers + half], axis=1)


def from_grid(boxes: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Centers (N, 3), RAS mm, and sizes (N, 3), mm along the patient's axes, of boxes (N, 6) in voxel edges."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
    centers = ((boxes[:, :3] + boxes[:, 3:]) / 2 - 0.5) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    halves = (boxes[:, 3:] - boxes[:, :3]) / 2
    return centers, 2 * np.sqrt((halves**2) @ (grid.affine[:3, :3] ** 2).T)


def _mistakes(reference: FindingReference, grid: Grid) -> np.ndarray:
    """Middles (K, 3), voxel edges, of the proposals that hit nothing: they look like findings and are worth showing."""
    proposals = reference.proposals or ()
    kinds = match_findings(Detections(reference.classes, proposals, 0.5), reference)
    ordered = Detections(reference.classes, proposals, 0.5).findings
    boxes = boxes_on_grid([each for each, kind in zip(ordered, kinds, strict=True) if kind == FALSE], grid)
    return (boxes[:, :3] + boxes[:, 3:]) / 2


def targets_of(batch: dict) -> list[dict[str, torch.Tensor]]:
    """What a Detector learns from each sample of a batch: rows of boxes sorted into findings and places to ignore."""
    targets = []
    for number, labels in enumerate(batch["labels"]):
        boxes, real = batch["boxes"][number], labels > NO_BOX
        target = {"boxes": boxes[real], "labels": labels[real], "ignored": boxes[labels == IGNORED]}
        if "instances" in batch:
            # Value n + 1 is row n of all boxes; of those that are left it may be another.
            table = torch.zeros(len(labels) + 1, dtype=torch.int64, device=labels.device)
            table[1:][real] = torch.arange(1, int(real.sum()) + 1, device=labels.device)
            target["instances"] = table[batch["instances"][number].long()]
        targets.append(target)
    return targets


def proposals_of(batch: dict) -> list[torch.Tensor] | None:
    """The proposals (P, 2D) of each sample of a batch, or None where there are none."""
    if "proposals" not in batch:
        return None
    return [rows[~rows.isnan().any(dim=1)] for rows in batch["proposals"]]


def _mask(probabilities: np.ndarray, box: np.ndarray, grid: Grid) -> FindingMask | None:
    """The voxels of the model grid that have their middle in a box, at least one along each axis, where a mask
    (m, m, m), stretched to the box, is at least one half; None where there are none."""
    from scipy import ndimage

    first, last = np.ceil(box[:3] - 0.5).astype(int), np.floor(box[3:] + 0.5).astype(int)
    thin = last <= first
    first[thin] = np.floor((box[:3] + box[3:])[thin] / 2)
    last[thin] = first[thin] + 1
    size = np.array(probabilities.shape)
    # Middles of voxels, in cells of the mask.
    places = [
        (np.arange(a, b) + 0.5 - low) / max(high - low, 1e-6) * n - 0.5
        for a, b, low, high, n in zip(first, last, box[:3], box[3:], size, strict=True)
    ]
    values = ndimage.map_coordinates(probabilities, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest") >= 0.5
    if not values.any():
        return None
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ first
    return FindingMask(values, affine)


def _as_dict(finding: Finding) -> dict[str, Any]:
    about = {"center": list(finding.center), "size": list(finding.size), "label": finding.label}
    if finding.score is not None:
        about["score"] = finding.score
    if finding.measured_diameter_mm is not None:
        about["diameter_mm"] = finding.measured_diameter_mm
    return about


def _findings(rows: Sequence[dict[str, Any]], state: str) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            tuple(row["center"]),
            tuple(row["size"]),
            row["label"],
            score=row.get("score"),
            measured_diameter_mm=row.get("diameter_mm"),
            state=state,
        )
        for row in rows
    )
