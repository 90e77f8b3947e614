"""False-positive reduction: what a classifier sees of a finding, and how answers join."""

import numpy as np
import pytest
from MedMapAILib.framing import frame
from MedMapAILib.image import make_image
from MedMapAILib.inference.second_look import fit_weights, joint, parts_of, places
from MedMapAILib.plan import Plan
from MedMapAILib.results import Detections, Finding, finding_of_sphere
from orders import every_axis_order, rotation
from sklearn.linear_model import LogisticRegression

VOLUME = Plan(spacing=(1.0, 1.0, 2.0), patch=(16, 16, 8), batch=1, normalization={"kind": "none"}, framing="crop")
SLICE = Plan(spacing=(1.0, 1.0, 0.0), patch=(16, 16, 1), batch=1, normalization={"kind": "none"}, framing="crop")


def ball(affine, shape, center=(11.0, -7.0, 31.0)):
    """A soft ball sampled on a grid: values depend on the place in the patient alone."""
    points = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    distance = np.linalg.norm(points - np.array(center)[:, None], axis=0).reshape(shape)
    return make_image(np.exp(-((distance / 6) ** 2))[None], affine)


def grid(shape=(60, 50, 40), spacing=(1.0, 1.0, 1.0), middle=(10.0, -5.0, 30.0), turn=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * spacing
    affine[:3, 3] = np.array(middle) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine, shape


FINDING = finding_of_sphere((11.0, -7.0, 31.0), 10.0, "ball", score=0.7)


def framed(image, plan):
    return [frame(part, plan, center) for part, center in parts_of(image, FINDING, plan)]


@pytest.mark.parametrize("plan", [VOLUME, SLICE], ids=["3D", "2D"])
def test_a_part_is_framed_as_the_whole_image_would_be(plan):
    image = ball(*grid())
    for seen in framed(image, plan):
        points = np.asarray(seen.affine)[:3, :3] @ np.indices(seen.shape[1:]).reshape(3, -1)
        points = points + np.asarray(seen.affine)[:3, 3:]
        expected = np.exp(-((np.linalg.norm(points - np.array(FINDING.center)[:, None], axis=0) / 6) ** 2))
        np.testing.assert_allclose(seen.numpy().ravel(), expected, atol=0.02)
    middle = points.mean(axis=1)
    np.testing.assert_allclose(middle[:2], FINDING.center[:2], atol=1e-6)


@pytest.mark.parametrize("plan", [VOLUME, SLICE], ids=["3D", "2D"])
def test_the_order_of_axes_makes_no_difference(plan):
    image = ball(*grid())
    expected = [seen.numpy() for seen in framed(image, plan)]
    for array, turned, _ in every_axis_order(image.numpy(), np.asarray(image.affine)):
        for seen, wanted in zip(framed(make_image(array, turned), plan), expected, strict=True):
            np.testing.assert_allclose(seen.numpy(), wanted, atol=1e-5)


def test_an_oblique_scan_shows_the_same_upright():
    turn = rotation((1, 1, 0), 30)[:3, :3]
    (seen,) = framed(ball(*grid(turn=turn)), VOLUME)
    (expected,) = framed(ball(*grid()), VOLUME)
    np.testing.assert_allclose(seen.numpy(), expected.numpy(), atol=0.03)


def test_slices_are_looked_at_off_the_middle_where_there_are_some():
    thin, thick = ball(*grid()), ball(*grid(spacing=(1.0, 1.0, 5.0)))
    assert [float(p[2]) for p in places(thin, FINDING, SLICE)] == [28.5, 31.0, 33.5]
    assert len(places(thick, FINDING, SLICE)) == 1
    assert len(places(thin, FINDING, VOLUME)) == 1


def test_a_finding_at_the_border_is_seen_with_the_border_repeated():
    image = ball(*grid())
    edge = Finding((39.0, 19.0, 49.0), (6, 6, 6), "ball", score=0.5)
    for plan in (VOLUME, SLICE):
        for part, center in parts_of(image, edge, plan):
            assert np.isfinite(frame(part, plan, center).numpy()).all()


def test_weights_are_those_of_logistic_regression():
    random = np.random.default_rng(0)
    true = random.random(400) < 0.3
    odds = np.stack([true * 2 + random.normal(0, 1, 400), true + random.normal(0, 2, 400)], axis=1)
    found = fit_weights(odds, true.astype(float))
    # The same shrinkage: sklearn's objective is C times the sum, ours the mean; classes weigh the same in both.
    other = LogisticRegression(C=1 / (2 * 1e-3) / 400, class_weight="balanced", tol=1e-10).fit(odds, true)
    np.testing.assert_allclose(found["weights"], other.coef_[0], rtol=1e-3)
    assert found["intercept"] == pytest.approx(other.intercept_[0], abs=1e-3)


def test_an_answer_that_speaks_against_itself_is_left_out():
    random = np.random.default_rng(1)
    true = random.random(300) < 0.5
    odds = np.stack([true * 2 + random.normal(0, 1, 300), -1.0 * true + random.normal(0, 1, 300)], axis=1)
    assert fit_weights(odds, true)["weights"][1] == 0


def test_few_candidates_decide_nothing():
    assert fit_weights(np.zeros((12, 3)), np.array([1] * 9 + [0] * 3)) == {"weights": [1.0, 1.0, 1.0], "intercept": 0.0}


def test_joint_scores():
    """1 · ln(0.7/0.3) + 2 · ln(0.6/0.4) − 1 are log odds of 0.6583."""
    result = Detections(("ball",), (FINDING,), 0.5)
    odds = np.log([[0.7 / 0.3, 0.6 / 0.4]])
    found = joint(result, odds, {"weights": [1.0, 2.0], "intercept": -1.0})
    assert found.findings[0].score == pytest.approx(1 / (1 + np.exp(1) * (0.3 / 0.7) * (0.4 / 0.6) ** 2))
    assert found.findings[0].center == FINDING.center
