"""Temperatures that are known, and calibration errors that are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.metrics import classification_metrics, fit_temperature
from MedMapAILib.metrics.calibration import bins_of
from torch.nn import functional as F


def probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """As the kinds are defined; ordinal: P(above k) is the product of the conditional ones up to k."""
    scores = torch.tensor(logits)
    if kind == "multi-label":
        return torch.sigmoid(scores).numpy()
    if kind != "ordinal":
        return torch.softmax(scores, dim=1).numpy()
    above = torch.cumprod(torch.sigmoid(scores), dim=1)
    ones, zeros = torch.ones(len(logits), 1), torch.zeros(len(logits), 1)
    return -torch.diff(torch.cat([ones, above, zeros], dim=1), dim=1).numpy()


def draw(kind: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and targets drawn from just the probabilities that they stand for."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=1.5, size=(n, 2 if kind == "binary" else 4))
    p = probabilities(logits, kind)
    if kind == "multi-label":
        return logits, (random.random(p.shape) < p).astype(int)
    true = (random.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=p.shape[1] - 1)
    return logits, np.eye(p.shape[1], dtype=int)[true]


def likelihood_loss(logits: np.ndarray, target: np.ndarray, kind: str) -> float:
    p = torch.tensor(probabilities(logits, kind))
    if kind == "multi-label":
        return float(F.binary_cross_entropy(p, torch.tensor(target, dtype=p.dtype)))
    return float(-(torch.log(p) * torch.tensor(target)).sum())


KINDS = ("binary", "single-label", "multi-label", "ordinal")


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_is_the_factor_by_which_true_logits_were_scaled(kind, factor):
    logits, target = draw(kind, 20_000)
    temperature = fit_temperature(factor * logits, target, kind)
    assert temperature == pytest.approx(factor, rel=0.05)
    # And exactly in proportion, whatever chance made of the targets.
    assert temperature == pytest.approx(factor * fit_temperature(logits, target, kind), rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_other_temperature_makes_the_truth_likelier(kind):
    logits, target = draw(kind, 200, seed=1)
    found = fit_temperature(2 * logits, target, kind)
    losses = [likelihood_loss(2 * logits / (found * factor), target, kind) for factor in (0.9, 0.99, 1, 1.01, 1.1)]
    assert np.argmin(losses) == 2


def test_in_closed_form():
    # 80 cases right and 20 wrong at a margin of 6: the likeliest probability is 0.8, where the margin is ln 4.
    logits, target = np.tile([0.0, 6.0], (100, 1)), np.eye(2)[[1] * 80 + [0] * 20]
    assert fit_temperature(logits, target, "binary") == pytest.approx(6 / np.log(4), rel=1e-5)
    assert fit_temperature(logits[:, 1:], target[:, 1:], "multi-label") == pytest.approx(6 / np.log(4), rel=1e-5)
    assert fit_temperature(logits[:, 1:], target, "ordinal") == pytest.approx(6 / np.log(4), rel=1e-5)
    # Targets that say so by themselves, as after label smoothing.
    assert fit_temperature([[0, 6]], [[0.2, 0.8]], "single-label") == pytest.approx(6 / np.log(4), rel=1e-5)


@pytest.mark.parametrize("kind", ["single-label", "multi-label", "ordinal"])
def test_it_lowers_the_calibration_error_of_an_overconfident_network(kind):
    logits, target = draw(kind, 4000, seed=2)
    errors = [
        classification_metrics(
            probabilities(scores, kind), target, kind=kind, classes=list("abcde")[: target.shape[1]], resamples=20
        )["ece"]["mean"]
        for scores in (4 * logits, 4 * logits / fit_temperature(4 * logits, target, kind))
    ]
    assert errors[0] > 0.1 and errors[1] < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_one_where_the_cases_set_no_limit(kind):
    logits, target = draw(kind, 30)
    assert fit_temperature(0 * logits, target, kind) == 1
    if kind == "multi-label":
        right = logits > 0
    elif kind == "ordinal":
        above = np.concatenate([np.ones((30, 1)), (logits > 0).cumprod(axis=1)], axis=1).sum(axis=1).astype(int) - 1
        right = np.eye(5)[above]
    else:
        right = np.eye(logits.shape[1])[logits.argmax(axis=1)]
    assert fit_temperature(logits, right, kind) == 1


def test_logits_that_say_the_opposite_become_as_good_as_silent():
    logits, target = draw("binary", 500)
    assert fit_temperature(-logits, target, "binary") > 50


def test_huge_logits_do_not_overflow():
    logits, target = draw("single-label", 500)
    with np.errstate(over="raise", invalid="raise"):
        assert fit_temperature(90 * logits, target, "single-label") == pytest.approx(90, rel=0.3)


@pytest.mark.parametrize(
    ("logits", "target", "kind", "words"),
    [
        (np.zeros((3, 2)), np.eye(3), "single-label", "do not belong"),
        (np.zeros((3, 3)), np.eye(3), "ordinal", "do not belong"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "binary", "one case or more"),
        (np.full((3, 3), np.nan), np.eye(3), "single-label", "finite"),
        (np.zeros((3, 3)), np.eye(3), "none", "no kind"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(logits, target, kind, words):
    with pytest.raises(InputError, match=words):
        fit_temperature(logits, target, kind)


def test_the_calibration_error_of_a_known_construction():
    # Claims of 0.9 of which 60 % come true, and of 0.3 of which 30 % do, one to three: 0.25 · 0.3 + 0.75 · 0.
    claimed = np.repeat([0.9, 0.3], [100, 300])
    came_true = np.concatenate([np.arange(100) < 60, np.arange(300) < 90])
    found = classification_metrics(
        np.stack([1 - claimed, claimed], axis=1),
        np.eye(2)[came_true.astype(int)],
        kind="binary",
        classes=["no", "yes"],
        resamples=10,
    )
    assert found["ece"]["mean"] == pytest.approx(0.25 * 0.3)
    # Of three classes only the highest probability counts, whichever class has it.
    top = np.tile(np.eye(3), (40, 1)) * 0.7 + 0.1
    right = np.eye(3)[(np.tile(np.arange(3), 40) + np.repeat([0, 1], 60)) % 3]
    found = classification_metrics(top, right, kind="single-label", classes=list("abc"), resamples=10)
    assert found["ece"]["mean"] == pytest.approx(0.8 - 0.5)


def test_bins_hold_their_lower_edge_and_the_last_one_too():
    assert bins_of(np.array([0, 0.0999, 0.1, 0.5, 0.95, 1.0]), 10).tolist() == [0, 0, 1, 5, 9, 9]
