"""Generation: what could another image of this class look like?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError
from ..framing import frame
from ..generation_plan import intensity_ends
from ..image import make_image
from ..losses.generation import GENERATION as LOSSES
from ..losses.generation import GenerationLoss, build_generation_loss
from ..metrics.nearest_image import coverage
from ..networks import GENERATION as NETWORKS
from ..networks.generation.random_features import RandomFeatures
from ..plan import Plan
from ..results import Classes, ClassReference

#: Images that go through the network at once when nothing is learned.
_BATCH = 64
#: Images that are made to follow a training, and real ones that they are compared with; at most.
_WATCHED = 500
#: Columns of the picture of a training.
_COLUMNS = 8
#: The class of a data set without classes.
UNNAMED = Classes(("image",), "multi-label")


class GenerationTask:
    """Make images of a class, from noise.

    plan: size of the images, which are seen whole, and their intensities, "fixed" ends. answers: the classes; of kind
    "multi-label" where the generator is told none. options: not used. Section [augmentation] of a configuration plays
    no part: a generator would learn to make changed images; see ``losses.differentiable_augmentation``.
    """

    name = "generation"
    networks = NETWORKS
    losses = LOSSES
    key_metric = "coverage"
    windows = "made"
    skips_air = False
    calibrates = False

    def __init__(self, plan: Plan, answers: Classes, options: dict):
        self.plan, self.classes = plan, answers
        self._ends = intensity_ends(plan)
        #: How many random numbers make an image, told by the network as it learns.
        self._noise_numbers = 0
        if plan.framing == "windows":
            raise InputError("plan.framing is 'windows', which is for segmentation; choose resize or crop.")

    @property
    def conditional(self) -> bool:
        """Whether it is told which class to show."""
        return self.classes.kind != "multi-label"

    @property
    def output_channels(self) -> int:
        """The classes that the network can be told; 1 where it is told none."""
        return len(self.classes.names) if self.conditional else 1

    def prepare(self, image: MetaTensor, reference: Any) -> dict[str, np.ndarray]:
        """image: (C, I, J, K). Returns "image" float32 (C, *S) from -1 to 1, slices from the top left as on a screen,
        and "target" float32 (classes,). Raises InputError for an image without a class where there are some."""
        target = np.ones(1, dtype=np.float32)
        if self.conditional:
            if not isinstance(reference, ClassReference):
                raise InputError("the image has no class; give every image one, or leave it out of the data set")
            target = reference.vector
        return {"image": self.network_images([image])[0].numpy(), "target": target}

    def inference_transform(self, image: MetaTensor) -> MetaTensor:
        """The image on the model grid, (C, *plan.patch)."""
        return frame(image, self.plan)

    def network_images(self, images: Sequence[MetaTensor]) -> torch.Tensor:
        """Images as acquired, (C, I, J, K) each, as the network makes them: float32 (N, C, *S) from -1 to 1."""
        low, high = self._ends
        mean, sd = (float(self.plan.normalization[key]) for key in ("mean", "sd"))
        prepared = []
        for image in images:
            tensor = self.inference_transform(image).as_tensor()
            if self._flat is not None:
                # Rows and columns from the top left, as ClassificationTask.network_input has them.
                tensor = tensor.squeeze(1 + self._flat).flip(1, 2).transpose(1, 2)
            prepared.append((tensor * sd + mean - low) * (2 / (high - low)) - 1)
        return torch.stack(prepared).float().contiguous()

    def acquired_image(self, made: torch.Tensor) -> MetaTensor:
        """One image (C, *S) that a network made, as an acquired one: (C, I, J, K), RAS affine, in the unit of the
        training images. Where voxels have no size it is 1 mm, as for pictures."""
        low, high = self._ends
        values = (made.detach().float().cpu().clamp(-1, 1) + 1) / 2 * (high - low) + low
        if self._flat is not None:
            values = values.transpose(1, 2).flip(1, 2).unsqueeze(1 + self._flat)
        spacing = [mm if mm > 0 else 1.0 for mm in self.plan.spacing]
        return make_image(values.numpy(), np.diag([*spacing, 1.0]))

    @property
    def _flat(self) -> int | None:
        """The axis across slices."""
        return self.plan.patch.index(1) if 1 in self.plan.patch else None

    def training_transform(self, settings: dict, foreground_fraction: float) -> Callable[[dict, int], dict]:
        """The image as it is."""

        def sample(prepared: dict, seed: int) -> dict:
            return {key: torch.from_numpy(np.array(prepared[key])) for key in ("image", "target")}

        return sample

    def training_batch(self, batch: dict, settings: dict, seed: int) -> dict:
        """The batch as it is."""
        return batch

    def build_loss(self, settings: dict, cases: Sequence[dict]) -> GenerationLoss:
        """The loss of that name and those options, with a new critic."""
        options = {key: value for key, value in settings.items() if key != "name"}
        channels, *size = cases[0]["image"].shape
        return build_generation_loss(
            settings["name"],
            image_channels=channels,
            classes=self.output_channels,
            image_size=size,
            counts=np.sum([cases[number]["target"] for number in range(len(cases))], axis=0),
            **options,
        )

    def training_loss(self, loss: GenerationLoss, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """Of new images of the classes of the batch, in float32: a critic lives on small differences."""
        with torch.autocast(batch["image"].device.type, enabled=False):
            return loss(self._made(network, batch), batch["target"])

    def opponent_losses(self, loss: GenerationLoss, network: torch.nn.Module, batch: dict) -> Iterator[torch.Tensor]:
        """What the critic makes small, of the real images of a batch and as many made ones of the same classes; others
        for each of its updates."""
        for _ in range(loss.opponent_steps):
            with torch.autocast(batch["image"].device.type, enabled=False):
                with torch.no_grad():
                    made = self._made(network, batch)
                yield loss.opponent_loss(made, batch["image"], batch["target"])

    def _made(self, network: torch.nn.Module, batch: dict) -> torch.Tensor:
        """Images of the classes of a batch. The noise comes from torch's global generator, on the CPU: the loop seeds
        it in each iteration, so that a training that was interrupted goes on with the same."""
        target, self._noise_numbers = batch["target"], network.noise_numbers
        return network(network.draw_noise(len(target)).to(target.device), target)

    def validate(
        self, network: Callable[..., torch.Tensor], loss: Callable, cases: Sequence[dict], device: torch.device
    ) -> dict[str, float]:
        """Coverage of the validation images by as many made ones, by random features; see ``nearest_image``."""
        count = min(len(cases), _WATCHED)
        real = torch.from_numpy(np.stack([cases[number]["image"] for number in range(count)]))
        target = torch.from_numpy(np.stack([cases[number]["target"] for number in range(count)]))
        if count < 2:
            return {"coverage": 0.0}
        made = self._watched(network, target, device)
        features = RandomFeatures(real.shape[1], real.ndim - 2)
        return {"coverage": coverage(features(made).numpy(), features(real).numpy())}

    def picture(
        self, network: Callable[..., torch.Tensor], cases: Sequence[dict], device: torch.device
    ) -> np.ndarray | None:
        """Training images above, made ones of the same classes below, the same noise each time: uint8 (H, W), or
        (H, W, 3) in color; of volumes the slice in the middle."""
        if not len(cases):
            return None
        by_class: dict[int, list[int]] = {}
        for number in range(len(cases)):
            by_class.setdefault(int(cases[number]["target"].argmax()), []).append(number)
        rows = []
        for label in sorted(by_class):
            chosen = by_class[label][:_COLUMNS]
            target = np.stack([cases[chosen[0]]["target"]] * _COLUMNS)
            real = [cases[number]["image"] for number in chosen]
            real += [np.full_like(real[0], -1)] * (_COLUMNS - len(real))
            rows += [np.stack(real), self._watched(network, torch.from_numpy(target), device).numpy()]
        return _mosaic(rows)

    def _watched(
        self, network: Callable[..., torch.Tensor], target: torch.Tensor, device: torch.device
    ) -> torch.Tensor:
        """Made images of these classes (N, classes), always from the same noise, on the CPU."""
        generator = torch.Generator().manual_seed(0)
        parts = []
        with torch.inference_mode():
            for some in target.split(_BATCH):
                noise = torch.randn(len(some), self._noise_numbers, generator=generator)
                parts.append(network(noise.to(device), some.to(device)).float().cpu())
        return torch.cat(parts)

    def conclude(self, network: Any, training: Sequence[dict], validation: Sequence[dict], settings: dict) -> dict:
        """Nothing: a generator is its weights."""
        return {}

    def calibrate(self, results: Sequence[Any], references: Sequence[Any], settings: dict) -> dict:
        """Nothing."""
        return {}

    def predict(self, network: Any, image: MetaTensor) -> Any:
        """Raises InputError: it looks at no image."""
        raise InputError("A generator makes images and looks at none; use `medmapai generate MODEL OUT_DIR`.")

    def evaluate(self, result: Any, reference: Any) -> dict[str, Any]:
        """Raises InputError: one generated image has no reference; see ``inference.generator``."""
        raise InputError("A generated image has nothing to be scored against; a set of them has.")

    def row(self, result: Any, reference: Any) -> dict[str, Any]:
        """As ``evaluate``."""
        return self.evaluate(result, reference)

    def summarize(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, dict[str, float]]:
        """Nothing: see ``inference.generator``."""
        return {}

    def details(self, rows: list[dict[str, Any]], patients: list[str]) -> dict[str, Any]:
        """Nothing: see ``inference.generator``."""
        return {}


def _mosaic(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of images (N, C, *S) from -1 to 1 as one picture, a pixel of gray between them."""
    lines = []
    for images in rows:
        if images.ndim == 5:
            images = images[..., images.shape[-1] // 2]
        gray = images.shape[1] not in (1, 3)
        framed = np.pad(images[:, :1] if gray else images, ((0, 0), (0, 0), (0, 1), (0, 1)))
        lines.append(np.concatenate(list(framed), axis=2))
    picture = np.concatenate(lines, axis=1)
    picture = ((np.clip(picture, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    return picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
