"""A generator, ready to make images, and to have them compared with real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..bundle import Bundle
from ..datasets import Case, Dataset
from ..datasets.duplicates import content_hash
from ..datasets.loading import load_case
from ..devices import choose_device, choose_precision, describe
from ..errors import Cancelled, InputError
from ..metrics.frechet_distance import frechet_distance
from ..metrics.kernel_distance import kernel_distance_of_subsets
from ..metrics.nearest_image import check_copies, coverage
from ..tasks import task_class
from .image_embedding import embed

#: Real images of each kind that are compared, at most.
_COMPARED = 1000
_BATCH = 64
#: Images in each subset of the kernel distance.
_SUBSET = 100


class GeneratorPredictor:
    """Makes images by a model of the task "generation". Building it loads the network to the device.

    bundle: from ``load_bundle``. device, precision: as ``Predictor``; on a CPU "auto" is float32. backend: "auto" or
    "torch". Raises InputError when there is no such device, or it cannot compute in that precision.
    """

    def __init__(self, bundle: Bundle, device: str = "auto", precision: str = "auto", backend: str = "auto"):
        self.bundle = bundle
        if backend not in ("auto", "torch"):
            raise InputError(f"A generator is computed by torch, not by {backend}; choose auto or torch.")
        self._device = choose_device(device)
        self._dtype = torch.float32 if precision == "auto" else choose_precision(precision, self._device)
        self.task = task_class(bundle.info.task)(bundle.plan, bundle.info.answers, bundle.inference)
        self._network = bundle.build_network().to(self._device)
        #: Seconds that the last images took.
        self.seconds = 0.0

    @property
    def device_description(self) -> str:
        """Where and in which number format it computes."""
        return describe(self._device, self._dtype)

    def close(self) -> None:
        """Give back what the network holds; it can be run no more."""
        self._network = None

    def predict(self, image: MetaTensor, **options: Any) -> Any:
        """Raises InputError: it looks at no image."""
        raise InputError(
            f"The model {self.bundle.info.name} makes images and looks at none; use `medmapai generate "
            f"{self.bundle.info.name} OUT_DIR`."
        )

    def generate(
        self,
        count: int,
        *,
        of_class: str | None = None,
        seed: int = 0,
        progress: Callable[[float, str], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Iterator[MetaTensor]:
        """New images, (C, I, J, K) each, RAS affine, in the unit of the training images.

        of_class: the class that they are to show; needed where the generator knows several. seed: image n of a class
        depends on the seed, the class and n alone, not on how many are asked for. Raises InputError for a class that
        there is not, Cancelled.
        """
        began = time.monotonic()
        label = self._label(of_class)
        target = torch.zeros(self.task.output_channels)
        target[label] = 1
        for start in range(0, count, _BATCH):
            if cancelled is not None and cancelled():
                raise Cancelled
            some = range(start, min(start + _BATCH, count))
            noise = torch.cat([self._network.draw_noise(1, _numbers(seed, label, n)) for n in some])
            flags = target.expand(len(some), -1)
            with torch.inference_mode(), self._autocast():
                made = self._network(noise.to(self._device), flags.to(self._device)).float().cpu()
            if progress is not None:
                progress(some[-1] / count, f"{some[-1] + 1} of {count} images")
            yield from (self.task.acquired_image(image) for image in made)
        self.seconds = time.monotonic() - began

    def evaluate_set(
        self,
        dataset: Dataset,
        cases: Iterable[Case],
        progress: Callable[[float, str], None] | None = None,
    ) -> dict[str, Any]:
        """Compare made images with real ones that it was not trained on, as ``evaluate_cases`` returns it.

        As many are made as there are cases, of the same classes. "summary": "kernel_distance" (KID) and
        "frechet_distance" (FID) by the embedding that the model names, each with the percentiles of random subsets or
        resamples, "coverage", and, where the training images are in the data set, the check against copies by embedding
        and by voxel, and both distances of as many real training images, which is what a perfect generator would have.
        "embedding": the sentence that names the network.
        """
        cases = list(cases)[:_COMPARED]
        if len(cases) < 2:
            return {"cases": [], "summary": {}, "notes": ["Too few images to compare with."]}

        def say(fraction: float, message: str) -> None:
            if progress is not None:
                progress(fraction, message)

        say(0.0, "reading real images")
        real, labels = self._read(dataset, cases)
        say(0.3, "making images")
        made = self._like(labels)
        training = self._training_cases(dataset)
        known, known_labels = self._read(dataset, training) if len(training) > 1 else ([], [])
        say(0.5, "comparing images")
        name = self.bundle.inference.get("embedding") or "random"
        vectors, sentence = embed([*real, *made, *known], name, self.task)
        of_real, of_made, of_known = np.split(vectors, [len(real), len(real) + len(made)])
        count = len(real)
        summary = {
            "kernel_distance": _of_subsets(of_made, of_real),
            "frechet_distance": _plain(frechet_distance(of_made, of_real), count),
            "coverage": _plain(coverage(of_made, of_real), count),
        }
        notes = [sentence]
        if len(known) > 1:
            alike = _alike(labels, known_labels)
            if len(alike) > 1:
                summary["kernel_distance_of_training_images"] = _of_subsets(of_known[alike], of_real)
                summary["frechet_distance_of_training_images"] = _plain(
                    frechet_distance(of_known[alike], of_real), len(alike)
                )
            by_voxel = self.task.network_images([*made, *known, *real]).flatten(1).numpy()
            voxels = np.split(by_voxel, [len(made), len(made) + len(known)])
            for where, (a, b, c) in {"embedding": (of_made, of_known, of_real), "voxels": voxels}.items():
                found = check_copies(a, b, c)
                summary[f"nearer_by_{where}"] = _plain(found.nearer, count)
                summary[f"copying_z_by_{where}"] = _plain(found.copying_z, count)
        else:
            notes.append("The training images are not in this data set, so nothing is said about copies.")
        say(1.0, f"{count} images compared")
        return {"cases": [], "summary": summary, "embedding": sentence, "notes": notes}

    def _like(self, labels: Sequence[int]) -> list[MetaTensor]:
        """One made image for each label."""
        names = self.bundle.info.classes.names
        made: list[Any] = [None] * len(labels)
        for label in sorted(set(labels)):
            places = [place for place, own in enumerate(labels) if own == label]
            images = self.generate(len(places), of_class=names[label])
            for place, image in zip(places, images, strict=True):
                made[place] = image
        return made

    def _read(self, dataset: Dataset, cases: Sequence[Case]) -> tuple[list[MetaTensor], list[int]]:
        """Images of the size and between the ends of intensity that the generator makes, so that neither tells them
        apart, and the class that it would be told for each."""
        images, labels = [], []
        for case in cases:
            made_alike = self.task.network_images([load_case(case, dataset)[0]])[0]
            images.append(self.task.acquired_image(made_alike))
            labels.append(case.classes[0] if self.task.conditional else 0)
        return images, labels

    def _training_cases(self, dataset: Dataset) -> list[Case]:
        """The images that it learned from, told by their voxels, as far as they are in the data set; at most some."""
        names = set(self.bundle.train["split"]["train"])
        known = set(self.bundle.train.get("training_images_sha256", ()))
        there = [case for case in dataset.cases if case.name in names]
        # All of them, or a copy could hide among those that were not looked at; within reason.
        return [case for case in there[: 5 * _COMPARED] if content_hash(case) in known]

    def _label(self, of_class: str | None) -> int:
        names, model = self.bundle.info.classes.names, self.bundle.info.name
        if of_class is None and len(names) == 1:
            return 0
        if of_class not in names:
            asked = "needs to be told a class" if of_class is None else f"knows no class {of_class!r}"
            raise InputError(f"The model {model} {asked}; there are {', '.join(names)}.")
        return names.index(of_class)

    def _autocast(self):
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)


def _numbers(seed: int, label: int, number: int) -> torch.Generator:
    """Random numbers for one image."""
    entropy = np.random.SeedSequence([seed, label, number]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(entropy[0]) << 31 | int(entropy[1]) >> 1)


def _alike(wanted: Sequence[int], labels: Sequence[int]) -> list[int]:
    """Places of as many training images of each class as there are real ones, as far as they go."""
    chosen: list[int] = []
    for label in sorted(set(wanted)):
        places = [place for place, own in enumerate(labels) if own == label]
        chosen += places[: sum(own == label for own in wanted)]
    return chosen


def _of_subsets(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    mean, low, high = kernel_distance_of_subsets(a, b, size=_SUBSET)
    return {"mean": mean, "low": low, "high": high, "cases": len(b)}


def _plain(value: float, count: int) -> dict[str, float]:
    """A number without an interval, as the summary has them: one set of made images has only itself."""
    return {"mean": float(value), "low": float(value), "high": float(value), "cases": count}
