"""Losses of classifiers: values worked out by hand, and torch's, torchvision's and MONAI's answers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.losses import (
    CLASSIFICATION,
    build_classification_loss,
    class_weights,
    classification_options,
    probabilities,
)
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

SOFTMAX = ("binary", "single-label")
KINDS = (*SOFTMAX, "multi-label", "ordinal")


def build(name: str = "cross-entropy", kind: str = "single-label", **options):
    return build_classification_loss(name, kind=kind, **options)


def logits_and_target(kind: str, seed: int = 0, cases: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Random outputs, and targets that hold every class."""
    random = torch.Generator().manual_seed(seed)
    classes = 2 if kind == "binary" else 4
    logits = 2 * torch.randn(cases, classes - (kind == "ordinal"), generator=random)
    if kind == "multi-label":
        return logits, (torch.rand(cases, classes, generator=random) < 0.4).float()
    return logits, one_hot(torch.arange(cases) % classes, classes).float()


def soft(target: torch.Tensor, share: float = 0.7) -> torch.Tensor:
    return share * target + (1 - share) * target.roll(1, dims=0)


def questions(target: torch.Tensor, kind: str) -> float:
    """What the mean of each kind is taken over, worked out with loops."""
    if kind == "ordinal":
        return sum(float(row[k:].sum()) for row in target for k in range(target.shape[1] - 1))
    return target.numel() if kind == "multi-label" else len(target)


def test_the_table_names_what_there_is():
    assert tuple(CLASSIFICATION) == ("cross-entropy", "focal")
    assert classification_options("focal")["gamma"] == 2.0
    logits, target = logits_and_target("binary")
    assert CLASSIFICATION["focal"](kind="binary", counts=(5, 4))(logits, target).ndim == 0


@pytest.mark.parametrize("kind", SOFTMAX)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_cross_entropy_over_a_softmax_is_torchs(kind, smoothing, mixed):
    logits, target = logits_and_target(kind)
    target = soft(target) if mixed else target
    weight = [0.5, 2.0, 1.0, 3.0][: target.shape[1]]
    for weights in (None, weight):
        wanted = cross_entropy(
            logits, target, label_smoothing=smoothing, weight=None if weights is None else torch.tensor(weights)
        )
        found = build(kind=kind, label_smoothing=smoothing, weight=weights)(logits, target)
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
def test_cross_entropy_over_sigmoids_is_torchs(mixed):
    logits, target = logits_and_target("multi-label")
    target = soft(target) if mixed else target
    plain = build(kind="multi-label")(logits, target)
    assert plain.item() == pytest.approx(binary_cross_entropy_with_logits(logits, target).item(), rel=1e-6)
    weight = [1.0, 2.0, 0.5, 7.0]
    wanted = binary_cross_entropy_with_logits(logits, target, pos_weight=torch.tensor(weight))
    assert build(kind="multi-label", weight=weight)(logits, target).item() == pytest.approx(wanted.item(), rel=1e-6)
    wanted = binary_cross_entropy_with_logits(logits, target * 0.9 + 0.05)
    smoothed = build(kind="multi-label", label_smoothing=0.1)(logits, target)
    assert smoothed.item() == pytest.approx(wanted.item(), rel=1e-6)


def test_ordinal_cross_entropy_is_corn_worked_out_by_hand():
    # Three classes, two questions. The case of class 0 is asked only the first one: σ(f1) = 1/2 → ln 2. Class 1: yes
    # to the first with p = 3/4, no to the second with 1 - p = 1/2. Class 2: yes to both, 3/4 and 1/4.
    odds = math.log(3)
    logits = torch.tensor([[0.0, 9.0], [odds, 0.0], [odds, -odds]])
    target = torch.eye(3)
    total = math.log(2) - math.log(3 / 4) - math.log(1 / 2) - math.log(3 / 4) - math.log(1 / 4)
    # Three cases are asked the first question, two the second: five in all.
    assert build(kind="ordinal")(logits, target).item() == pytest.approx(total / 5, rel=1e-6)
    weighted = build(kind="ordinal", weight=[1.0, 2.0, 0.5])(logits, target)
    by_case = [math.log(2), -math.log(3 / 4) - math.log(1 / 2), -math.log(3 / 4) - math.log(1 / 4)]
    assert weighted.item() == pytest.approx((by_case[0] + 2 * by_case[1] + 0.5 * by_case[2]) / 5, rel=1e-6)


def test_ordinal_cross_entropy_follows_the_published_definition():
    # Equation 9 of the paper, subset by subset.
    logits, target = logits_and_target("ordinal", cases=30)
    ranks = target.argmax(dim=1)
    total, asked = 0.0, 0
    for k in range(3):
        subset = ranks > k - 1
        probability = torch.sigmoid(logits[subset, k])
        above = (ranks[subset] > k).float()
        total -= float((above * probability.log() + (1 - above) * (1 - probability).log()).sum())
        asked += int(subset.sum())
    assert build(kind="ordinal")(logits, target).item() == pytest.approx(total / asked, rel=1e-5)


def test_two_ordered_classes_are_one_question():
    logits, target = torch.randn(8, 1), one_hot(torch.arange(8) % 2).float()
    wanted = binary_cross_entropy_with_logits(logits[:, 0], target[:, 1])
    assert build(kind="ordinal")(logits, target).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_the_loss_of_a_mixed_target_is_the_mix_of_the_losses(kind, name):
    logits, one = logits_and_target(kind)
    other = one.roll(1, dims=0)
    loss = build(name, kind, weight=[1.0, 2.0, 0.5, 4.0][: one.shape[1]], label_smoothing=0.0)
    # The sums are linear; the mean over questions has a denominator that is linear, too.
    sums = [float(loss(logits, t)) * questions(t, kind) for t in (one, other, 0.3 * one + 0.7 * other)]
    assert sums[2] == pytest.approx(0.3 * sums[0] + 0.7 * sums[1], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_focal_loss_without_focus_is_cross_entropy(kind):
    logits, target = logits_and_target(kind)
    options = {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5, 4.0][: target.shape[1]]}
    focal = build("focal", kind, gamma=0.0, **options)(logits, soft(target))
    assert focal.item() == pytest.approx(build(kind=kind, **options)(logits, soft(target)).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_over_a_softmax_is_monais(gamma):
    from monai.losses import FocalLoss

    logits, target = logits_and_target("single-label")
    # MONAI takes the mean over classes as well.
    wanted = 4 * FocalLoss(gamma=gamma, use_softmax=True)(logits, target)
    assert build("focal", gamma=gamma)(logits, target).item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_over_sigmoids_is_torchvisions(gamma):
    ops = pytest.importorskip("torchvision.ops")
    logits, target = logits_and_target("multi-label")
    wanted = ops.sigmoid_focal_loss(logits, target, alpha=-1, gamma=gamma, reduction="mean")
    assert build("focal", "multi-label", gamma=gamma)(logits, target).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_balanced_weights_are_scikit_learns():
    utils = pytest.importorskip("sklearn.utils.class_weight")
    labels = [0] * 70 + [1] * 25 + [2] * 5
    wanted = utils.compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert class_weights("balanced", (70, 25, 5), kind="single-label").tolist() == pytest.approx(list(wanted))


def test_balanced_weights_make_each_class_count_the_same():
    counts = (70, 25, 5)
    weights = class_weights("balanced", counts, kind="ordinal")
    assert (weights * torch.tensor(counts)).tolist() == pytest.approx([100 / 3] * 3)
    # Having the class and not having it count the same, for each of several classes.
    weights = class_weights("balanced", (10, 50), total=100, kind="multi-label")
    assert (weights * torch.tensor([[90, 10], [50, 50]])).flatten().tolist() == pytest.approx([50] * 4)


def test_effective_numbers_are_cui_et_als():
    counts, beta = (5000, 500, 50), 0.999
    weights = class_weights("effective", counts, kind="single-label", beta=beta)
    published = [(1 - beta) / (1 - beta**n) for n in counts]
    assert (weights / weights[0]).tolist() == pytest.approx([w / published[0] for w in published], rel=1e-5)
    # The mean over the training cases is 1.
    assert sum(float(w) * n for w, n in zip(weights, counts, strict=True)) == pytest.approx(sum(counts), rel=1e-5)
    assert class_weights("effective", counts, kind="single-label", beta=0.0).tolist() == pytest.approx([1, 1, 1])
    nearly = class_weights("effective", counts, kind="single-label", beta=1 - 1e-9)
    balanced = class_weights("balanced", counts, kind="single-label")
    assert nearly.tolist() == pytest.approx(balanced.tolist(), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_by_name_are_the_weights_by_number(kind):
    logits, target = logits_and_target(kind)
    counts = target.sum(dim=0).int().tolist()
    found = build(kind=kind, weight="balanced", counts=counts, total=len(target))(logits, target)
    weights = class_weights("balanced", counts, total=len(target), kind=kind)
    if kind == "multi-label":
        each = binary_cross_entropy_with_logits(logits, target, reduction="none")
        wanted = (each * torch.where(target > 0, weights[:, 1], weights[:, 0])).mean()
    else:
        wanted = build(kind=kind, weight=weights.tolist())(logits, target)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("kind", ["binary", "single-label", "ordinal"])
def test_probabilities_sum_to_one(kind):
    logits, _ = logits_and_target(kind, cases=200)
    found = probabilities(10 * logits, kind)
    assert (found >= 0).all()
    assert found.sum(dim=1).tolist() == pytest.approx([1.0] * 200, abs=1e-5)


def test_ordinal_probabilities_by_hand():
    # P(above 0) = 3/4, P(above 1 | above 0) = 1/2, P(above 2 | above 1) = 1/4.
    found = probabilities(torch.tensor([[math.log(3), 0.0, -math.log(3)]]), "ordinal")
    assert found[0].tolist() == pytest.approx([1 / 4, 3 / 8, 9 / 32, 3 / 32])


def test_ordinal_probabilities_are_monotone():
    # Whatever the outputs, it is never likelier to be above a higher class.
    found = probabilities(8 * torch.randn(500, 5, generator=torch.Generator().manual_seed(1)), "ordinal")
    above = 1 - found.cumsum(dim=1)
    assert all((b <= a + 1e-6).all() for a, b in pairwise(above.unbind(1)))
    # And a higher output moves all classes above it up.
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
    raised = logits.clone()
    raised[:, 2] += 1
    above, higher = (1 - probabilities(values, "ordinal").cumsum(dim=1) for values in (logits, raised))
    assert (higher[:, 2:5] > above[:, 2:5]).all()
    assert torch.allclose(higher[:, :2], above[:, :2], atol=1e-6)


def test_sigmoids_are_probabilities_of_their_own():
    logits, _ = logits_and_target("multi-label")
    assert torch.allclose(probabilities(logits, "multi-label"), torch.sigmoid(logits))


@pytest.mark.parametrize("kind", KINDS)
def test_cross_entropy_is_minus_the_logarithm_of_the_probability(kind):
    logits, target = logits_and_target(kind)
    found = probabilities(logits, kind)
    wanted = -(target * found.log()).sum()
    if kind == "multi-label":
        wanted = wanted - ((1 - target) * (1 - found).log()).sum()
    loss = build(kind=kind)(logits, target)
    assert float(loss) * questions(target, kind) == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_certain_answers_give_finite_losses_and_gradients(kind, name):
    logits, target = logits_and_target(kind)
    logits = (1e4 * logits).half().requires_grad_()
    options = {"gamma": 0.5} if name == "focal" else {}
    loss = build(name, kind, **options)(logits, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_following_the_gradient_finds_the_frequencies(kind):
    # Cross-entropy is proper: of outputs that are the same for all cases, the best ones are the classes' shares.
    _, target = logits_and_target(kind, cases=20)
    outputs = torch.zeros(1, target.shape[1] - (kind == "ordinal"), requires_grad=True)
    loss = build(kind=kind)
    optimizer = torch.optim.LBFGS([outputs], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss(outputs.expand(20, -1), target)
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.allclose(probabilities(outputs.detach(), kind)[0], target.mean(dim=0), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "hinge"}, "There is no loss 'hinge' for classification; choose one of cross-entropy, focal."),
        ({"kind": "regression"}, "There is no kind of target 'regression'"),
        ({"gamma": 1.0}, "has no option 'gamma'"),
        ({"label_smoothing": 1.0}, "Option label_smoothing of loss 'cross-entropy' is 1.0"),
        ({"name": "focal", "gamma": -1.0}, "Option gamma of loss 'focal' is -1.0"),
        ({"weight": "heavy"}, "Loss weight 'heavy' is unknown"),
        ({"weight": [1.0, -1.0]}, r"Option weight of loss 'cross-entropy' is \[1.0, -1.0\]"),
        ({"weight": "balanced", "counts": (5, 0, 2)}, "class 2 of 3 lacks them"),
        ({"weight": "balanced", "counts": (5, 2), "total": 5, "kind": "multi-label"}, "class 1 of 2 lacks them"),
    ],
)
def test_mistakes_are_said(change, words):
    with pytest.raises(InputError, match=words):
        build(**{"name": "cross-entropy", **change})


def test_as_many_weights_as_classes():
    logits, target = logits_and_target("single-label")
    with pytest.raises(InputError, match="weight has 2 numbers for 4 classes"):
        build(weight=[1.0, 2.0])(logits, target)


def test_outputs_of_another_kind_are_refused():
    logits, target = logits_and_target("single-label")
    with pytest.raises(ValueError, match=r"ordinal logits .* must be \(9, 3\)"):
        build(kind="ordinal")(logits, target)
