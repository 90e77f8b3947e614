"""Classification: what is it?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..augmentation import augmentation
from ..errors import InputError
from ..familiarity import fit_familiarity, image_statistics, judge
from ..framing import frame
from ..losses import CLASSIFICATION as LOSSES
from ..losses import build_classification_loss, probabilities
from ..metrics.calibration import fit_temperature
from ..metrics.classification import calls, classification_metrics, confusion_matrix
from ..metrics.curves import classification_curves
from ..metrics.operating_point import choose_operating_point
from ..networks import CLASSIFICATION as NETWORKS
from ..plan import Plan
from ..preprocessing import Grid
from ..results import Classes, Classification, ClassReference
from ..saliency.score import log_odds

#: Images that go through the network at once when nothing is learned.
_BATCH = 64
#: Training images whose embeddings say what is familiar; more would not change their mean and spread.
_FAMILIAR = 2000


class ClassificationTask:
    """Tell which of several classes an image belongs to.

    plan: how images are brought to the model grid, at once. answers: the classes. options: "temperature", "thresholds",
    "familiarity" as ``conclude`` found them; without them probabilities are the network's own, the highest decides, and
    every image is taken for familiar. "auxiliary": names of numbers (a diameter, a rating) that the network learns to
    tell beside the classes, which teaches it what matters where cases are few; "auxiliary_weight": of their loss.
    """

    name = "classification"
    networks = NETWORKS
    losses = LOSSES
    key_metric = "auc"
    windows = "none"
    calibrates = False

    def __init__(self, plan: Plan, answers: Classes, options: dict):
        self.plan, self.classes = plan, answers
        self._temperature = float(options.get("temperature") or 1.0)
        self._thresholds = tuple(options.get("thresholds") or (None,) * len(answers.names))
        self._familiarity = options.get("familiarity")
        self._auxiliary = tuple(options.get("auxiliary") or ())
        self._auxiliary_weight = float(options.get("auxiliary_weight") or 0.0)
        #: Mean and standard deviation of the auxiliary numbers in the training cases, set with the loss.
        self._scale: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def output_channels(self) -> int:
        """One a class (one a step between classes that have an order), and then one an auxiliary number."""
        return self.classes.outputs + len(self._auxiliary)

    def prepare(self, image: MetaTensor, reference: ClassReference) -> dict[str, np.ndarray]:
        """image: (C, I, J, K). Returns "image" float32 (C, *S) with two or three axes, "target" float32 (K,),
        "auxiliary" (A,), and "statistics" (D,) of the image as acquired."""
        statistics = image_statistics(image)
        return {
            "image": self.network_input(self.inference_transform(image))[0].numpy(),
            "target": reference.vector,
            "auxiliary": np.array(reference.auxiliary, dtype=np.float32),
            "statistics": np.array(list(statistics.values()), dtype=np.float32),
        }

    def inference_transform(self, image: MetaTensor, center: Sequence[float] | None = None) -> MetaTensor:
        """The image as the network sees it, (C, *plan.patch). center: RAS mm, of a crop."""
        return frame(image, self.plan, center)

    def network_input(self, framed: MetaTensor) -> torch.Tensor:
        """A framed image as a batch of one (1, C, *S): volumes as they are, slices as on a screen, (1, C, rows,
        columns) from the top left, which is how networks trained on photographs know the world."""
        tensor = framed.as_tensor()[None]
        if self._flat is not None:
            tensor = tensor.squeeze(2 + self._flat).flip(2, 3).transpose(2, 3)
        return tensor.contiguous()

    def network_grid(self, framed: MetaTensor) -> Grid:
        """Where the voxels of ``network_input`` lie in the patient; slices are (rows, columns, 1)."""
        grid = Grid.of(framed)
        if self._flat is None:
            return grid
        columns, rows = (axis for axis in range(3) if axis != self._flat)
        last = np.zeros(4)
        last[[rows, columns, 3]] = grid.shape[rows] - 1, grid.shape[columns] - 1, 1
        affine = np.eye(4)
        affine[:3, :3] = grid.affine[:3, [rows, columns, self._flat]] * [-1, -1, 1]
        affine[:3, 3] = (grid.affine @ last)[:3]
        return Grid((grid.shape[rows], grid.shape[columns], 1), affine)

    @property
    def _flat(self) -> int | None:
        """The axis across slices."""
        return self.plan.patch.index(1) if 1 in self.plan.patch else None

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """Augment an image; the target stays."""
        # As network_input orders them.
        kept = [axis for axis in range(3) if axis != self._flat][:: 1 if self._flat is None else -1]
        augment = augmentation(
            settings,
            patch=[self.plan.patch[axis] for axis in kept],
            spacing=[self.plan.spacing[axis] or 1.0 for axis in kept],
            label=False,
        )

        def sample(prepared: dict, seed: int) -> dict:
            augment.set_random_state(seed=seed % 2**31)
            changed = augment({"image": torch.from_numpy(np.array(prepared["image"]))})["image"]
            answers = {key: torch.from_numpy(prepared[key]) for key in ("target", "auxiliary")}
            return {"image": torch.as_tensor(changed).contiguous(), **answers}

        return sample

    def training_batch(self, batch: dict, settings: dict, seed: int) -> dict:
        """Mix images, and their targets alike, where mixup or cutmix is on."""
        from ..training.mixing import mix

        if not settings["mixup"] and not settings["cutmix"]:
            return batch
        # Auxiliary numbers are mixed as the classes are.
        together = torch.cat([batch["target"], batch["auxiliary"]], dim=1)
        mixed = mix(
            {"image": batch["image"], "target": together},
            mixup=settings["mixup"],
            cutmix=settings["cutmix"],
            probability=settings["mix_probability"],
            seed=seed,
        )
        target, auxiliary = mixed["target"].split([len(self.classes.names), len(self._auxiliary)], dim=1)
        return {"image": mixed["image"], "target": target, "auxiliary": auxiliary}

    def build_loss(self, settings: dict, cases: Sequence[dict]) -> Callable:
        """The loss of that name and those options; it may weight classes by how many cases they have."""
        counts = np.sum([cases[number]["target"] for number in range(len(cases))], axis=0)
        options = {key: value for key, value in settings.items() if key != "name"}
        if self.classes.kind == "multi-label":
            options["total"] = len(cases)
        if self._auxiliary:
            numbers = np.stack([cases[number]["auxiliary"] for number in range(len(cases))])
            if np.isnan(numbers).all(axis=0).any():
                name = self._auxiliary[int(np.isnan(numbers).all(axis=0).argmax())]
                raise InputError(f"No training case has a number under {name!r}; leave out that auxiliary column.")
            spread = np.maximum(np.nanstd(numbers, axis=0), 1e-6)
            self._scale = torch.from_numpy(np.nanmean(numbers, axis=0)), torch.from_numpy(spread)
        return build_classification_loss(settings["name"], kind=self.classes.kind, counts=counts, **options)

    def training_loss(self, loss: Callable, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """network: gives logits (B, O), or a list of them, one a member of an ensemble: each learns on its own."""
        outputs = network(batch["image"])
        members = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return sum(self._member_loss(loss, member, batch) for member in members) / len(members)

    def _member_loss(self, loss: Callable, logits: torch.Tensor, batch: dict) -> torch.Tensor:
        """The loss of the classes, and that of the auxiliary numbers that are known: the mean of Huber's, of numbers
        with mean 0 and deviation 1."""
        first = loss(logits[:, : self.classes.outputs], batch["target"])
        if not self._auxiliary or not self._auxiliary_weight:
            return first
        mean, spread = (part.to(logits.device) for part in self._scale)
        wanted = (batch["auxiliary"] - mean) / spread
        known = ~torch.isnan(wanted)
        told = logits[:, self.classes.outputs :].float()
        errors = torch.nn.functional.smooth_l1_loss(told, wanted.nan_to_num(), reduction="none") * known
        return first + self._auxiliary_weight * errors.sum() / known.sum().clamp(min=1)

    def validate(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        loss: Callable,
        cases: Sequence[dict],
        device: torch.device,
    ) -> dict[str, float]:
        """Loss, and area under the receiver operating characteristic (mean over classes; 0.5 where undefined)."""
        logits = torch.cat([network(images.to(device)).float().cpu() for images in _batches(cases)])
        logits = logits[:, : self.classes.outputs]
        target = _targets(cases)
        chances = probabilities(logits, self.classes.kind).numpy()
        found = self._metrics(chances, target, None, resamples=1)
        return {"loss": float(loss(logits, torch.from_numpy(target))), "auc": found.get("auc", {"mean": 0.5})["mean"]}

    def picture(self, network: Callable, cases: Sequence[dict], device: torch.device) -> None:
        """None: the curves tell more."""
        return None

    def conclude(
        self, network: torch.nn.Module, training: Sequence[dict], validation: Sequence[dict], settings: dict
    ) -> dict:
        """Temperature and operating point, both from the validation part, and what is familiar.

        network: trained, in evaluation mode. settings: sections [evaluation] and [augmentation]: ``operating_point``
        ("youden", "youden-plateau" or "sensitivity"), ``sensitivity``, ``operating_copies``: so many augmented copies
        of each validation image join when the operating point is chosen.
        """
        evaluation, kind = settings["evaluation"], self.classes.kind
        concluded: dict[str, Any] = {"temperature": 1.0, "thresholds": [None] * len(self.classes.names)}
        if not len(validation):
            return concluded
        logits, embeddings = _run(network, _batches(validation))
        logits = logits[:, : self.classes.outputs]
        target = _targets(validation)
        concluded["temperature"] = round(float(fit_temperature(logits, target, kind)), 6)
        chances = [probabilities(logits / concluded["temperature"], kind).numpy()]
        sample = self.training_transform(settings["augmentation"], 0.0)
        for copy in range(int(evaluation["operating_copies"])):
            images = [sample(validation[n], 7919 * copy + n)["image"] for n in range(len(validation))]
            changed, _ = _run(network, iter(torch.stack(images).split(_BATCH)))
            changed = changed[:, : self.classes.outputs]
            chances.append(probabilities(changed / concluded["temperature"], kind).numpy())
        concluded["thresholds"] = list(
            choose_operating_point(
                np.concatenate(chances),
                np.concatenate([target] * len(chances)),
                kind=kind,
                rule=evaluation["operating_point"],
                sensitivity=evaluation["sensitivity"],
            )
        )
        concluded["operating_point"] = evaluation["operating_point"]
        step = max(1, -(-len(training) // _FAMILIAR))
        shown = [training[number] for number in range(0, len(training), step)]
        _, known = _run(network, _batches(shown))
        concluded["familiarity"] = fit_familiarity(
            known.numpy(),
            np.stack([case["statistics"] for case in shown]),
            held_out=(embeddings.numpy(), np.stack([validation[n]["statistics"] for n in range(len(validation))])),
        )
        return concluded

    def calibrate(self, results: Sequence[Any], references: Sequence[Any], settings: dict) -> dict:
        """Nothing more than ``conclude`` found."""
        return {}

    def predict(
        self,
        network: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        image: MetaTensor,
        center: Sequence[float] | None = None,
    ) -> Classification:
        """network: (1, C, *S) → logits (1, O) and embedding (1, E). image: (C, I, J, K), as acquired."""
        logits, embedding = network(self.network_input(self.inference_transform(image, center)))
        chances = self.chances(logits)
        called = calls(chances, self.classes.kind, self._thresholds)[0]
        familiarity = None
        if self._familiarity:
            statistics = np.array(list(image_statistics(image).values()))
            familiarity = judge(self._familiarity, embedding[0].float().cpu().numpy(), statistics)
        return Classification(
            classes=self.classes.names,
            kind=self.classes.kind,
            probabilities=tuple(float(chance) for chance in chances[0]),
            thresholds=self._thresholds,
            called=tuple(name for name, yes in zip(self.classes.names, called, strict=True) if yes),
            familiarity=familiarity,
        )

    def chances(self, logits: torch.Tensor) -> np.ndarray:
        """Calibrated probabilities (B, K) from logits (B, O)."""
        logits = logits[:, : self.classes.outputs].float().cpu()
        return probabilities(logits / self._temperature, self.classes.kind).numpy()

    def score_of(self, name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        """What a saliency map of a class explains: logits (1, O) → the log odds of the class."""
        score = log_odds(self.classes.kind, self.classes.names.index(name), len(self.classes.names))
        return lambda logits: score(logits[:, : self.classes.outputs])

    def evaluate(self, result: Classification, reference: ClassReference) -> dict[str, Any]:
        """ "correct" (1 or 0: all calls right) and "log_loss" (natural logarithm; of the true class, or the mean over
        the classes of a multi-label target)."""
        chances, vector = np.clip(result.probabilities, 1e-12, 1 - 1e-12), reference.vector
        if result.kind == "multi-label":
            loss = float(-np.mean(vector * np.log(chances) + (1 - vector) * np.log(1 - chances)))
        else:
            loss = -math.log(chances[reference.true[0]])
        return {"correct": int(set(result.called) == set(reference.names)), "log_loss": loss}

    def row(self, result: Classification, reference: ClassReference) -> dict[str, Any]:
        """target, prediction (names; a list for multi-label), probabilities (class → number) and what ``evaluate``
        gives."""
        several = result.kind == "multi-label"
        return {
            "target": list(reference.names) if several else reference.names[0],
            "prediction": list(result.called) if several else (result.called[0] if result.called else None),
            "probabilities": dict(zip(result.classes, result.probabilities, strict=True)),
            **({"familiar": result.familiarity.familiar} if result.familiarity else {}),
            **self.evaluate(result, reference),
        }

    def summarize(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, dict[str, float]]:
        """Metrics over all cases, at the operating point, with 95 % bootstrap intervals over patients."""
        chances, target = self.arrays(rows)
        return self._metrics(chances, target, patients)

    def arrays(self, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, K) and true classes (N, K), 0 or 1, of rows."""
        names = self.classes.names
        chances = np.array([[row["probabilities"][name] for name in names] for row in rows])
        true = [row["target"] if isinstance(row["target"], list) else [row["target"]] for row in rows]
        return chances, np.array([[float(name in some) for name in names] for some in true])

    def details(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, Any]:
        """Kind, classes, thresholds, "confusion" and "curves" (see metrics), which ``figures.draw_curves`` draws."""
        chances, target = self.arrays(rows)
        common = {"kind": self.classes.kind, "classes": self.classes.names, "thresholds": self._thresholds}
        return {
            "kind": self.classes.kind,
            "classes": list(self.classes.names),
            "thresholds": list(self._thresholds),
            "confusion": confusion_matrix(chances, target, groups=patients, **common),
            "curves": classification_curves(chances, target, **common),
        }

    def _metrics(
        self, chances: np.ndarray, target: np.ndarray, patients: list[str] | None, **options: Any
    ) -> dict[str, dict[str, float]]:
        return classification_metrics(
            chances,
            target,
            kind=self.classes.kind,
            classes=self.classes.names,
            thresholds=self._thresholds,
            groups=patients,
            **options,
        )


def outputs_and_embedding(network: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, O) and embeddings (B, E) of images (B, C, *S) by a classifier in evaluation mode."""
    embedding = network.embedding(network.features(images))
    return network.head(embedding), embedding


def _batches(cases: Sequence[dict]) -> Iterator[torch.Tensor]:
    """Images of prepared cases, some at a time, (B, C, *S)."""
    for start in range(0, len(cases), _BATCH):
        chosen = range(start, min(start + _BATCH, len(cases)))
        yield torch.from_numpy(np.stack([cases[number]["image"] for number in chosen]))


def _targets(cases: Sequence[dict]) -> np.ndarray:
    return np.stack([cases[number]["target"] for number in range(len(cases))])


def _run(network: torch.nn.Module, batches: Iterator[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, O) and embeddings (N, E) of batches of images."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        parts = [outputs_and_embedding(network, images.to(device)) for images in batches]
    return tuple(torch.cat([part[which].float().cpu() for part in parts]) for which in (0, 1))
