"""Every random change works on slices and on volumes, keeps size and type, and is repeatable from its seed."""

import copy

import numpy as np
import pytest
import torch
from MedMapAILib.augmentation import augmentation
from MedMapAILib.training.config import DEFAULTS

SIZES = [(20, 24), (16, 12, 20)]
CHANGES = [
    "affine",
    "elastic",
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma",
    "bias_field",
    "erase",
]
OFF = dict.fromkeys(CHANGES, 0.0) | {"flip": 0.0}


def sample(size):
    random = np.random.default_rng(0)
    image = torch.from_numpy(random.normal(size=(1, *size)).astype(np.float32))
    return {"image": image, "label": (image > 0.5).float()}


def changed(settings, size, seed, **options):
    settings = copy.deepcopy(DEFAULTS["augmentation"]) | OFF | settings
    transform = augmentation(settings, patch=list(size), spacing=[1.0] * len(size), **options)
    transform.set_random_state(seed=seed)
    given = sample(size)
    return transform(given if options.get("label", True) else {"image": given["image"]})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_alone(name, size):
    one = changed({name: 1.0}, size, 5)
    again, other = changed({name: 1.0}, size, 5), changed({name: 1.0}, size, 8)
    assert one["image"].shape == (1, *size) and one["image"].dtype == torch.float32
    assert torch.isfinite(torch.as_tensor(one["image"])).all()
    assert torch.equal(torch.as_tensor(one["image"]), torch.as_tensor(again["image"]))
    assert not torch.equal(torch.as_tensor(one["image"]), torch.as_tensor(other["image"]))
    assert not torch.equal(torch.as_tensor(one["image"]), sample(size)["image"])
    assert set(np.unique(one["label"])) <= {0.0, 1.0}
    moves = name in ("affine", "elastic")
    assert torch.equal(torch.as_tensor(one["label"]), sample(size)["label"]) != moves
    alone = changed({name: 1.0}, size, 5, label=False)
    assert set(alone) == {"image"} and alone["image"].shape == (1, *size)


@pytest.mark.parametrize("size", SIZES)
def test_flips_mirror_the_axes_that_are_named(size):
    one = changed({"flip": 1.0, "flip_axes": [0]}, size, 0)
    assert torch.equal(torch.as_tensor(one["image"]), sample(size)["image"].flip(1))
    assert torch.equal(torch.as_tensor(one["label"]), sample(size)["label"].flip(1))


@pytest.mark.parametrize("size", SIZES)
def test_nothing_changes_where_everything_is_off(size):
    assert torch.equal(torch.as_tensor(changed({}, size, 0)["image"]), sample(size)["image"])


def test_a_shift_is_a_share_of_the_size():
    settings = {"affine": 1.0, "rotate_degrees": [0.0] * 3, "scale": 0.0, "translate": 0.25}
    size = (40, 40)
    random = [changed(settings, size, seed)["image"][0].numpy() for seed in range(40)]
    given = sample(size)["image"][0].numpy()
    shifts = []
    for moved in random:
        spectrum = np.fft.fft2(moved) * np.conj(np.fft.fft2(given))
        peak = np.unravel_index(np.abs(np.fft.ifft2(spectrum / np.abs(spectrum))).argmax(), size)
        shifts.extend(min(p, 40 - p) for p in peak)
    assert 7 <= max(shifts) <= 10  # at most a quarter of 40 voxels, and not much less
