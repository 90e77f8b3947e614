"""Mixup and cutmix: the target says what the image holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from MedMapAILib.training.mixing import mix
from torch.nn.functional import one_hot

SIZES = [(32, 24), (16, 12, 10)]
ON = {"mixup": {"mixup": 0.4, "cutmix": 0.0}, "cutmix": {"mixup": 0.0, "cutmix": 1.0}}


def batch_of(size: tuple[int, ...], cases: int = 5) -> dict[str, torch.Tensor]:
    """Image n is n everywhere, and of class n."""
    image = torch.arange(cases).float().reshape(-1, 1, *[1] * len(size)).expand(cases, 2, *size).clone()
    return {"image": image, "target": one_hot(torch.arange(cases)).float(), "number": torch.arange(cases)}


def noise_of(size: tuple[int, ...], cases: int = 5) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    return {"image": torch.randn(cases, 2, *size, generator=random), "target": batch_of(size, cases)["target"]}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ON)
def test_the_target_says_what_share_of_each_image_there_is(size, how):
    mixed_at_all = 0
    for seed in range(30):
        batch = mix(batch_of(size), **ON[how], probability=1.0, seed=seed)
        # Images are constant, so the mean of the mixture is the mean of the class numbers by the target.
        wanted = batch["target"] @ torch.arange(5.0)
        assert torch.allclose(batch["image"].mean(dim=tuple(range(1, 2 + len(size)))), wanted, atol=1e-4)
        assert torch.allclose(batch["target"].sum(dim=1), torch.ones(5))
        assert torch.equal(batch["number"], torch.arange(5))
        mixed_at_all += not torch.equal(batch["target"], torch.eye(5))
    assert mixed_at_all > 15


@pytest.mark.parametrize("size", SIZES)
def test_the_box_of_cutmix_is_as_large_as_the_target_says(size):
    for seed in range(30):
        batch = mix(batch_of(size), mixup=0.0, cutmix=1.0, probability=1.0, seed=seed)
        for number in range(5):
            inside = (batch["image"][number, 0] != number).numpy()
            assert (batch["image"][number, 0] == batch["image"][number, 1]).all()
            own = float(batch["target"][number, number])
            if inside.any():
                corners = np.argwhere(inside)
                sides = corners.max(axis=0) - corners.min(axis=0) + 1
                assert inside.sum() == np.prod(sides), "the box has holes"
                assert own == pytest.approx(1 - inside.mean(), abs=1e-6)


def test_cutmix_takes_pixels_from_the_same_place():
    before = noise_of((20, 20))
    after = mix(before, mixup=0.0, cutmix=1.0, probability=1.0, seed=4)
    foreign_share = after["target"] * (1 - torch.eye(5))
    other = [int(row.argmax()) if row.any() else number for number, row in enumerate(foreign_share)]
    for number in range(5):
        own, foreign = before["image"][number], before["image"][other[number]]
        assert ((after["image"][number] == own) | (after["image"][number] == foreign)).all()


def test_mixup_is_the_published_formula():
    before = noise_of((8, 6, 4))
    after = mix(before, mixup=1.0, cutmix=0.0, probability=1.0, seed=1)
    wanted = torch.einsum("bk,kcxyz->bcxyz", after["target"], before["image"])
    assert torch.allclose(after["image"], wanted, atol=1e-5)


def test_flags_of_several_classes_are_mixed_too():
    before = noise_of((8, 8)) | {"target": torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1.0]])}
    after = mix(before, mixup=1.0, cutmix=0.0, probability=1.0, seed=1)
    assert after["target"].min() >= 0
    assert after["target"].max() <= 1
    assert torch.allclose(after["target"].sum(dim=0), before["target"].sum(dim=0))


@pytest.mark.parametrize("how", [*ON, "both"])
def test_the_seed_alone_decides(how):
    settings = {"mixup": 0.4, "cutmix": 1.0} if how == "both" else ON[how]
    torch.manual_seed(1)
    first = mix(noise_of((12, 12)), **settings, probability=0.8, seed=9)
    np.random.seed(5)
    torch.manual_seed(2)
    second = mix(noise_of((12, 12)), **settings, probability=0.8, seed=9)
    assert all(torch.equal(first[key], second[key]) for key in first)
    others = [mix(noise_of((12, 12)), **settings, probability=0.8, seed=seed) for seed in range(10, 16)]
    assert any(not torch.equal(first["image"], other["image"]) for other in others)


def test_the_given_batch_is_left_alone():
    before = noise_of((12, 12))
    for seed in range(5):
        mix(before, mixup=0.4, cutmix=1.0, probability=1.0, seed=seed)
    assert torch.equal(before["image"], noise_of((12, 12))["image"])
    assert torch.equal(before["target"], torch.eye(5))


def test_as_many_batches_are_mixed_as_asked():
    batch = noise_of((4, 4))
    changed = [
        not torch.equal(mix(batch, mixup=0.4, cutmix=0.0, probability=0.25, seed=seed)["image"], batch["image"])
        for seed in range(800)
    ]
    # 200 of 800 less the few whose permutation moves nothing; four standard deviations are 49.
    assert 150 < sum(changed) < 250
    assert mix(batch, mixup=0.0, cutmix=0.0, probability=1.0, seed=0) is batch
    assert mix(batch, mixup=0.4, cutmix=1.0, probability=0.0, seed=0) is batch


def test_shares_are_drawn_from_the_beta_distribution():
    # Beta(α, α) has mean 1/2 and variance 1 / (4 (2α + 1)).
    shares = []
    for seed in range(3000):
        target = mix(noise_of((1, 1), 2), mixup=0.4, cutmix=0.0, probability=1.0, seed=seed)["target"]
        if target[0, 0] < 1:  # the permutation swapped the two
            shares.append(float(target[0, 0]))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), abs=0.01)


def test_both_get_their_turn():
    kinds = set()
    for seed in range(20):
        image = mix(batch_of((16, 16)), mixup=0.4, cutmix=1.0, probability=1.0, seed=seed)["image"]
        whole = torch.equal(image, image.round())
        constant = torch.equal(image, image.mean(dim=(2, 3), keepdim=True).expand_as(image))
        kinds |= {"cutmix"} if whole and not constant else {"mixup"} if not whole else set()
    assert kinds == {"mixup", "cutmix"}


def test_one_image_has_nobody_to_mix_with():
    batch = {"image": torch.randn(1, 1, 8, 8), "target": torch.tensor([[0.0, 1.0]])}
    for how in ON.values():
        after = mix(batch, **how, probability=1.0, seed=0)
        assert torch.allclose(after["image"], batch["image"])
        assert torch.allclose(after["target"], batch["target"])
