"""Losses: values worked out by hand, and nothing that is not a number."""

from __future__ import annotations

import math

import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.losses import LOSSES, build_loss, deep_supervision, options_of

NAMES = ("cross-entropy", "dice", "dice-ce", "focal", "tversky", "generalized-dice")


def uniform(classes: int, *size: int) -> torch.Tensor:
    """Logits that give every class the same probability."""
    return torch.zeros(1, classes, *size)


def target_of(foreground: int, *size: int, label: int = 1) -> torch.Tensor:
    """The first ``foreground`` voxels have the label."""
    target = torch.zeros(1, 1, *size, dtype=torch.long)
    target.view(-1)[:foreground] = label
    return target


def certain(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits of somebody who knows."""
    return 50.0 * torch.nn.functional.one_hot(target[:, 0], classes).movedim(-1, 1).float()


def test_the_table_names_what_there_is():
    assert tuple(LOSSES) == NAMES
    assert LOSSES["dice"]()(uniform(2, 4, 4), target_of(3, 4, 4)).ndim == 0


@pytest.mark.parametrize("classes", [2, 5])
def test_cross_entropy_of_a_uniform_guess_is_the_logarithm_of_the_classes(classes):
    loss = build_loss("cross-entropy")(uniform(classes, 4, 4, 4), target_of(7, 4, 4, 4))
    assert loss.item() == pytest.approx(math.log(classes), rel=1e-6)


def test_weights_of_cross_entropy_weigh_voxels():
    # Two voxels of class 1 with p = e/(1+e), 14 of class 0 with p = 1/2; the weighted mean by hand.
    logits = uniform(2, 4, 4)
    logits.view(2, -1)[1, :2] = 1.0
    loss = build_loss("cross-entropy", weight=[1.0, 3.0])(logits, target_of(2, 4, 4))
    wanted = (14 * math.log(2) + 2 * 3.0 * math.log(1 + math.exp(-1))) / (14 + 2 * 3.0)
    assert loss.item() == pytest.approx(wanted, rel=1e-6)


def test_dice_of_a_uniform_guess():
    # p = 1/2 in 64 voxels, 16 of them the label: 1 - 2·8 / (32 + 16).
    loss = build_loss("dice")(uniform(2, 4, 4, 4), target_of(16, 4, 4, 4))
    assert loss.item() == pytest.approx(1 - 16 / 48, rel=1e-5)
    # Squared: 1 - 2·8 / (64/4 + 16). Jaccard: 1 - 8 / (32 + 16 - 8).
    squared = build_loss("dice", squared_pred=True)(uniform(2, 4, 4, 4), target_of(16, 4, 4, 4))
    assert squared.item() == pytest.approx(1 - 16 / 32, rel=1e-5)
    jaccard = build_loss("dice", jaccard=True)(uniform(2, 4, 4, 4), target_of(16, 4, 4, 4))
    assert jaccard.item() == pytest.approx(1 - 8 / 40, rel=1e-5)


def test_dice_leaves_background_out_unless_asked():
    logits, target = uniform(3, 4, 4, 4), target_of(16, 4, 4, 4)
    # p = 1/3: class 1 has 1 - 2·(16/3) / (64/3 + 16), class 2 is absent: 1, class 0 has 48 voxels.
    one, zero = 1 - (32 / 3) / (64 / 3 + 16), 1 - 32 / (64 / 3 + 48)
    assert build_loss("dice")(logits, target).item() == pytest.approx((one + 1) / 2, rel=1e-5)
    everything = build_loss("dice", include_background=True)(logits, target)
    assert everything.item() == pytest.approx((zero + one + 1) / 3, rel=1e-5)
    # One weight for each class, background first, whether background counts or not.
    weighted = build_loss("dice", weight=[9.0, 2.0, 1.0])(logits, target)
    assert weighted.item() == pytest.approx((2 * one + 1) / 2, rel=1e-5)


def test_dice_per_case_or_per_batch():
    logits = uniform(2, 4, 4).expand(2, -1, -1, -1)
    target = torch.cat([target_of(16, 4, 4), target_of(0, 4, 4)])
    per_case, together = build_loss("dice"), build_loss("dice", batch=True)
    assert per_case(logits, target).item() == pytest.approx((1 - 16 / 24 + 1) / 2, rel=1e-5)
    assert together(logits, target).item() == pytest.approx(1 - 16 / (16 + 16), rel=1e-5)


def test_dice_ce_is_the_sum_of_both():
    logits, target = torch.randn(2, 4, 6, 5, 4), torch.randint(0, 4, (2, 1, 6, 5, 4))
    parts = [build_loss(name)(logits, target).item() for name in ("dice", "cross-entropy")]
    assert build_loss("dice-ce")(logits, target).item() == pytest.approx(sum(parts), rel=1e-6)
    weighted = build_loss("dice-ce", lambda_dice=0.25, lambda_ce=2.0)(logits, target)
    assert weighted.item() == pytest.approx(0.25 * parts[0] + 2 * parts[1], rel=1e-6)
    weights = [0.5, 1.0, 2.0, 3.0]
    parts = [build_loss(name, weight=weights)(logits, target).item() for name in ("dice", "cross-entropy")]
    assert build_loss("dice-ce", weight=weights)(logits, target).item() == pytest.approx(sum(parts), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_of_a_uniform_guess(gamma):
    # (1 - 1/3)^γ ln 3 at the true class of each voxel, 0 at the two others.
    loss = build_loss("focal", gamma=gamma)(uniform(3, 4, 4, 4), target_of(9, 4, 4, 4))
    assert loss.item() == pytest.approx((2 / 3) ** gamma * math.log(3) / 3, rel=1e-5)


def test_tversky_weighs_what_is_missed_more():
    # Of 16 voxels with p = 1/2, 4 are the label: tp 2, fp 6, fn 2.
    logits, target = uniform(2, 4, 4), target_of(4, 4, 4)
    assert build_loss("tversky")(logits, target).item() == pytest.approx(1 - 2 / (2 + 0.3 * 6 + 0.7 * 2), rel=1e-5)
    same = build_loss("tversky", alpha=0.5, beta=0.5)(logits, target).item()
    assert same == pytest.approx(build_loss("dice")(logits, target).item(), rel=1e-5)
    assert build_loss("tversky", alpha=1.0, beta=0.0)(logits, target).item() == pytest.approx(1 - 2 / 8, rel=1e-5)


@pytest.mark.parametrize("side", [4, 64])
def test_generalized_dice_of_a_uniform_guess(side):
    # Weights 1/n² of both classes, in a small patch, and in one so large that smoothing would outweigh them.
    voxels = side**3
    label = voxels // 4
    loss = build_loss("generalized-dice")(uniform(2, side, side, side), target_of(label, side, side, side))
    weights = {voxels - label: 1 / (voxels - label) ** 2, label: 1 / label**2}
    top = sum(2 * w * n / 2 for n, w in weights.items())
    bottom = sum(w * (voxels / 2 + n) for n, w in weights.items())
    assert loss.item() == pytest.approx(1 - top / bottom, rel=1e-4)


@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_costs_nothing(name, size):
    target = torch.randint(0, 3, (2, 1, *size))
    assert build_loss(name)(certain(target, 3), target).item() == pytest.approx(0, abs=1e-5)
    assert build_loss(name)(-certain(target, 3), target).item() > 0.1


@pytest.mark.parametrize("labels", [[0], [1], [0, 2]])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_numbers_whatever_is_absent(name, dtype, scale, labels):
    torch.manual_seed(0)
    logits = (scale * torch.randn(2, 3, 8, 8, 8)).to(dtype).requires_grad_()
    target = torch.tensor(labels)[torch.randint(0, len(labels), (2, 1, 8, 8, 8))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = build_loss(name)(logits, target)
    assert loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    assert logits.grad.isfinite().all()
    # Computed in float32, whatever surrounds it.
    assert loss.item() == build_loss(name)(logits.detach().float(), target).item()


@pytest.mark.parametrize("name", NAMES)
def test_a_large_volume_does_not_overflow_half_precision(name):
    # Sums over 48³ = 110592 voxels are beyond float16's 65504.
    target = target_of(50_000, 48, 48, 48)
    loss = build_loss(name)(uniform(2, 48, 48, 48).half(), target)
    assert loss.item() == pytest.approx(build_loss(name)(uniform(2, 48, 48, 48), target).item())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float32])
def test_class_indices_of_any_kind(name, dtype):
    logits, target = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 1, 6, 6))
    assert build_loss(name)(logits, target.to(dtype)).item() == build_loss(name)(logits, target).item()


def test_deep_supervision_halves_the_weight_with_each_level():
    target = torch.randint(0, 2, (1, 1, 8, 8))
    sizes = []

    def loss(output, wanted):
        assert wanted.shape[1:] == (1, *output.shape[2:])
        sizes.append(tuple(wanted.shape[2:]))
        return output.mean()

    outputs = [torch.full((1, 2, n, n), value) for n, value in ((8, 1.0), (4, 10.0), (2, 100.0))]
    assert deep_supervision(loss, outputs, target).item() == pytest.approx((1 + 10 / 2 + 100 / 4) / 1.75)
    assert sizes == [(8, 8), (4, 4), (2, 2)]


def test_deep_supervision_brings_the_target_to_each_level():
    # Blocks of 2×3 voxels with one label each: coarser, they are what they were.
    coarse = torch.randint(0, 5, (2, 1, 4, 5))
    target = coarse.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    outputs = [certain(target, 5), certain(coarse, 5)]
    assert deep_supervision(build_loss("dice-ce"), outputs, target).item() == pytest.approx(0, abs=1e-5)
    single = [torch.randn(2, 5, 8, 15)]
    wanted = build_loss("dice-ce")(single[0], target)
    assert torch.equal(deep_supervision(build_loss("dice-ce"), single, target), wanted)


@pytest.mark.parametrize("name", NAMES)
def test_the_options_listed_are_the_options_taken(name):
    logits, target = torch.randn(1, 3, 6, 6), torch.randint(0, 3, (1, 1, 6, 6))
    assert torch.equal(build_loss(name, **options_of(name))(logits, target), build_loss(name)(logits, target))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("dise", {}, "choose one of cross-entropy, dice, dice-ce, focal, tversky, generalized-dice"),
        ("dice", {"gamma": 1}, "there are include_background, squared_pred"),
        ("tversky", {"sigmoid": True}, "no option 'sigmoid'"),
        ("cross-entropy", {"weight": "many"}, "a list of numbers"),
        ("cross-entropy", {"weight": [1, -1]}, "a list of numbers"),
        ("dice-ce", {"lambda_ce": -1}, "lambda_ce"),
        ("generalized-dice", {"w_type": "cubic"}, "w_type"),
    ],
)
def test_a_wrong_option_is_refused_with_a_sentence(name, options, says):
    with pytest.raises(InputError) as caught:
        build_loss(name, **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_must_be_one_for_each_class():
    with pytest.raises(InputError, match="2 numbers for 3 classes"):
        build_loss("dice-ce", weight=[1, 2])(uniform(3, 4, 4), target_of(3, 4, 4))


def test_one_channel_is_refused():
    with pytest.raises(ValueError, match="two output channels or more"):
        build_loss("dice")(uniform(1, 4, 4), target_of(3, 4, 4))
