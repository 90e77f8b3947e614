"""Networks that turn images into numbers by which sets of images are compared, each with a sentence that names it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ..errors import InputError
from ..networks.generation.random_features import RandomFeatures

#: Embeddings that need no model of one's own.
BUILT_IN = ("random", "pixels", "inception")
_BATCH = 64


def embed(images: Sequence[MetaTensor], name: str, task: Any) -> tuple[np.ndarray, str]:
    """Embeddings (N, E) of images as acquired, (C, I, J, K) each, and a sentence that says by what.

    name: "random" (a fixed network with random weights), "pixels" (the voxels themselves), "inception" (torchvision's
    Inception v3, downloaded), or a MedMapAI classifier by name or path, which sees the images as it was trained to.
    task: of the generator, which brings images to one size. Raises InputError for another model and for images that it
    cannot take.
    """
    if name == "pixels":
        return task.network_images(images).flatten(1).numpy(), "The voxels of the images themselves."
    if name == "random":
        first = task.network_images(images[:1])
        features = RandomFeatures(first.shape[1], first.ndim - 2)
        sentence = "A fixed network of three convolutions with random weights (Naeem et al. 2020), not Inception."
        return _in_batches(images, lambda some: features(task.network_images(some))), sentence
    if name == "inception":
        return _inception(images, task)
    return _classifier(images, name)


def check_embedding(name: str) -> None:
    """Find out, before any work is done, whether there is such an embedding. Raises InputError as ``embed``."""
    from ..bundle import read_info

    if name in BUILT_IN:
        return
    try:
        info = read_info(name)
    except InputError as error:
        raise InputError(f"evaluation.embedding is none of {', '.join(BUILT_IN)} and no model: {error}") from None
    if info.task != "classification":
        raise InputError(
            f"evaluation.embedding names {info.name}, a model for {info.task}; name a classifier, or one of "
            f"{', '.join(BUILT_IN)}."
        )


def _classifier(images: Sequence[MetaTensor], name: str) -> tuple[np.ndarray, str]:
    from ..bundle import load_bundle
    from ..pictures import with_channels
    from ..tasks import task_class
    from ..tasks.classification import outputs_and_embedding

    check_embedding(name)
    bundle = load_bundle(name)
    task = task_class("classification")(bundle.plan, bundle.info.answers, bundle.inference)
    network, channels = bundle.build_network(), bundle.network["in_channels"]

    def run(some: Sequence[MetaTensor]) -> torch.Tensor:
        framed = [task.inference_transform(with_channels(image, channels, "An image")) for image in some]
        return outputs_and_embedding(network, torch.cat([task.network_input(each) for each in framed]))[1]

    return _in_batches(images, run), f"The embedding of the MedMapAI classifier {bundle.info.name}, not Inception."


def _inception(images: Sequence[MetaTensor], task: Any) -> tuple[np.ndarray, str]:
    """The 2,048 features before the last layer of torchvision's network, of images of 299×299 pixels as it wants them.

    The weights are torchvision's own training, not those of the published FID, whose values are others.
    """
    from torchvision.models import inception_v3

    from ..transfer.imagenet import imagenet_file

    if task.plan.spatial_dims != 2:
        raise InputError("evaluation.embedding is 'inception', which sees slices, and these are volumes; use random.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = inception_v3(weights=None, init_weights=False, aux_logits=True)
    network.load_state_dict(torch.load(imagenet_file("inception_v3"), map_location="cpu", weights_only=True))
    network.fc = torch.nn.Identity()
    network.eval()
    mean, spread = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def run(some: Sequence[MetaTensor]) -> torch.Tensor:
        shown = (task.network_images(some).clamp(-1, 1) + 1) / 2
        shown = shown[:, :1].expand(-1, 3, -1, -1) if shown.shape[1] != 3 else shown
        shown = torch.nn.functional.interpolate(shown, (299, 299), mode="bilinear", antialias=True)
        return network((shown - mean) / spread)

    return _in_batches(
        images, run
    ), "Inception v3 with torchvision's ImageNet weights (not those of the published FID)."


def _in_batches(images: Sequence[MetaTensor], run: Any) -> np.ndarray:
    with torch.inference_mode():
        parts = [run(images[start : start + _BATCH]).float().numpy() for start in range(0, len(images), _BATCH)]
    return np.concatenate(parts)
