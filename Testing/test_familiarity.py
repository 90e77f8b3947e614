"""What is familiar: false alarms at the wished rate, far images found, whatever the shape of the training data."""

import json

import numpy as np
import pytest
from MedMapAILib.errors import InputError
from MedMapAILib.familiarity import _thresholds, fit_familiarity, image_statistics, judge, statistic_names
from MedMapAILib.familiarity.gaussian import distance, fit_gaussian, ledoit_wolf
from MedMapAILib.image import make_image
from orders import every_axis_order, rotation

COLUMNS = len(statistic_names())


def gaussian(count, width, seed, *, mix_seed=0):
    """Correlated normal embeddings: deviations from 1 to 0.05 along axes turned in any way."""
    turned = np.linalg.qr(np.random.default_rng(mix_seed).normal(size=(width, width)))[0]
    mixed = np.geomspace(1, 0.05, width)[:, None] * turned
    return np.random.default_rng(seed).normal(size=(count, width)) @ mixed


def statistics_like(count, seed, columns=COLUMNS):
    """Statistics of images of one size, with a range of about 100."""
    numbers = np.random.default_rng(seed).normal(size=(count, columns)) * 0.1
    numbers[:, :5] = numbers[:, :5] * 100 + [5, 30, 50, 70, 105]
    numbers[:, 5] += np.log(100)
    numbers[:, -6:] = np.log([32, 32, 16, 32, 32, 40])
    return numbers


def alarms(fitted, embeddings, statistics):
    return [not judge(fitted, e, s).familiar for e, s in zip(embeddings, statistics, strict=True)]


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_false_alarms_come_at_the_wished_rate(rate):
    fitted = fit_familiarity(
        gaussian(2000, 40, 1),
        statistics_like(2000, 1),
        held_out=(gaussian(1500, 40, 2), statistics_like(1500, 2)),
        rate=rate,
    )
    share = np.mean(alarms(fitted, gaussian(4000, 40, 3), statistics_like(4000, 3)))
    # Three standard deviations: of the threshold (1500 images) and of the count (4000 images) together.
    assert abs(share - rate) < 3 * np.sqrt(rate * (1 / 1500 + 1 / 4000))


@pytest.mark.parametrize(("count", "rate"), [(100, 0.01), (300, 0.01), (524, 0.01), (524, 0.05)])
def test_three_chances_of_an_alarm_are_no_more_than_one(count, rate):
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        held_out, others = (np.sqrt(rng.chisquare(10, size=(n, 3))) for n in (count, 1000))
        shares.append((others > _thresholds(held_out, rate)).any(axis=1).mean())
    # Fewer images than it takes to see one in a hundred are not asked for one in a hundred.
    assert (0.5 if count > 500 else 0.1) * rate < np.mean(shares) < 1.1 * rate


def test_thresholds_come_from_held_out_images_alone():
    # Embeddings of training images lie closer together than those of images that the network has not seen.
    fitted = fit_familiarity(
        gaussian(1000, 20, 1),
        statistics_like(1000, 1),
        held_out=(1.5 * gaussian(1000, 20, 2), statistics_like(1000, 2)),
    )
    share = np.mean(alarms(fitted, 1.5 * gaussian(3000, 20, 3), statistics_like(3000, 3)))
    assert share < 0.02


@pytest.mark.parametrize(("training", "held_out"), [(30, 20), (30, 60), (300, 150)])
def test_few_images_and_many_dimensions(training, held_out):
    def along(directions, count, seed):
        """In 512 dimensions, mostly along five of them."""
        rng = np.random.default_rng(seed)
        return rng.normal(size=(count, 5)) @ directions + 0.02 * rng.normal(size=(count, 512))

    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(512, 10)))[0].T
    fitted = fit_familiarity(
        along(turned[:5], training, 1),
        statistics_like(training, 1),
        held_out=(along(turned[:5], held_out, 2), statistics_like(held_out, 2)),
    )
    usual = statistics_like(1000, 1).mean(axis=0)
    familiar = [judge(fitted, row, usual).familiar for row in along(turned[:5], 300, 3)]
    assert np.mean(familiar) > 0.95
    # No longer than the others, but along directions that training images do not have.
    far = [judge(fitted, row, usual).familiar for row in along(turned[5:], 100, 4)]
    assert np.mean(far) < 0.05


@pytest.mark.parametrize("width", [3, 512, 4096, 10240])
def test_it_fits_in_a_file_and_is_the_same_after(width):
    rng = np.random.default_rng(0)
    training, held_out = rng.normal(size=(100, width)), rng.normal(size=(50, width))
    fitted = fit_familiarity(training, statistics_like(100, 1), held_out=(held_out, statistics_like(50, 2)))
    text = json.dumps(fitted, allow_nan=False)
    assert len(text) < 200_000
    assert not any(alarms(json.loads(text), held_out, statistics_like(50, 2)))
    assert judge(json.loads(text), training[0] + 10, statistics_like(1, 3)[0]).scores["embedding"] > 1


def test_columns_that_never_vary():
    training, held_out = gaussian(200, 10, 1), gaussian(200, 10, 2)
    training[:, 4] = held_out[:, 4] = 2.5
    training[:, 5] = held_out[:, 5] = 0
    fitted = fit_familiarity(training, statistics_like(200, 1), held_out=(held_out, statistics_like(200, 2)))
    usual, numbers = training.mean(axis=0), statistics_like(200, 1).mean(axis=0)
    assert judge(fitted, usual, numbers).familiar
    usual[5] = np.abs(training).mean()
    assert judge(fitted, usual, numbers).scores["embedding"] > 1
    numbers[-1] += np.log(2)
    assert judge(fitted, usual, numbers).scores["size"] > 1


def test_the_distance_is_mahalanobis():
    scipy_distance = pytest.importorskip("scipy.spatial.distance").mahalanobis
    rows = gaussian(5000, 6, 1)
    noise = np.full(6, 1e-6)
    fitted = fit_gaussian(rows[:4000], noise, standardize=False)
    inverse = np.linalg.inv(np.cov(rows[:4000].T, bias=True))
    expected = [scipy_distance(row, rows[:4000].mean(axis=0), inverse) / np.sqrt(6) for row in rows[4000:4020]]
    # Half precision of the components and a shrinkage near 0.
    np.testing.assert_allclose(distance(fitted, rows[4000:4020]), expected, rtol=0.05)
    units = np.array([1, 1e3, 1e-3, 1, 1, 1e6])
    other = fit_gaussian(rows[:4000] * units, noise * units, standardize=True)
    np.testing.assert_allclose(distance(other, rows[4000:4020] * units), expected, rtol=0.05)


@pytest.mark.parametrize(("count", "width"), [(200, 10), (20, 100), (2, 5)])
def test_shrinkage_is_that_of_scikit_learn(count, width):
    covariance = pytest.importorskip("sklearn.covariance")
    rows = gaussian(count, width, 1)
    centered = rows - rows.mean(axis=0)
    expected = covariance.ledoit_wolf_shrinkage(centered, assume_centered=True)
    assert ledoit_wolf(centered) == pytest.approx(expected, abs=1e-9)


def test_principal_components_by_rows_and_by_columns_agree(monkeypatch):
    rows, other = gaussian(40, 60, 1), gaussian(10, 60, 2)
    noise = np.full(60, 1e-3)
    expected = distance(fit_gaussian(rows, noise, standardize=False), other)
    monkeypatch.setattr("MedMapAILib.familiarity.gaussian._WIDTH", 0)
    np.testing.assert_allclose(distance(fit_gaussian(rows, noise, standardize=False), other), expected, rtol=0.01)


# --------------------------------------------------------------------------------------------------------------------
# Statistics of images


def test_statistics_of_a_ramp():
    ramp = np.broadcast_to(np.arange(101.0)[:, None, None], (101, 4, 2))[None]
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    numbers = list(image_statistics(make_image(ramp, affine)).values())
    # A difference of 1 along one axis of three, over the range of 98.
    expected = [1, 25, 50, 75, 99, np.log(98), 0.5, 1 / 101, 1 / 101, 1 / 3 / 98]
    np.testing.assert_allclose(numbers[:10], expected)
    np.testing.assert_allclose(np.exp(numbers[10:]), [101, 4, 2, 202, 4, 6])


def test_statistics_do_not_depend_on_how_voxels_are_stored():
    array = np.random.default_rng(0).gamma(2, size=(2, 9, 7, 5)).astype(np.float32)
    affine = np.diag([1.5, 0.8, 2.0, 1.0])
    affine[:3, :3] = rotation((1, 2, 3), 12) @ affine[:3, :3]
    expected = image_statistics(make_image(array, affine))
    assert tuple(expected) == statistic_names(2)
    for turned, matrix, _ in every_axis_order(array, affine):
        found = image_statistics(make_image(turned, matrix))
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)


def test_statistics_of_odd_images():
    constant = image_statistics(make_image(np.full((1, 5, 5, 1), 7.0), np.eye(4)))
    assert np.isfinite(list(constant.values())).all() and constant["median"] == 7
    assert np.isfinite(list(image_statistics(make_image(np.ones((1, 1, 1, 1)), np.eye(4))).values())).all()
    with pytest.raises(InputError, match="NaN"):
        image_statistics(make_image(np.full((1, 2, 2, 2), np.nan), np.eye(4)))


def test_a_large_image_is_measured_in_parts(monkeypatch):
    array = np.random.default_rng(0).normal(100, 10, size=(1, 60, 61, 62)).astype(np.float32)
    whole = np.array(list(image_statistics(make_image(array, np.eye(4))).values()))
    monkeypatch.setattr("MedMapAILib.familiarity.statistics._VOXELS", 30_000)
    some = np.array(list(image_statistics(make_image(array, np.eye(4))).values()))
    np.testing.assert_allclose(some, whole, rtol=0.02, atol=0.01)


def pictures(count, seed, *, scale=1.0, size=28, spacing=1.0):
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, size)
    blob = np.exp(-(x[:, None] ** 2 + x[None] ** 2))
    for _ in range(count):
        voxels = scale * (100 * rng.uniform(0.8, 1.2) * blob + 20 + rng.normal(size=(size, size)) * 3)
        yield image_statistics(make_image(voxels[None, :, :, None], np.diag([-spacing, -spacing, 1, 1])))


@pytest.mark.parametrize(
    ("changes", "part", "words"),
    [
        ({"scale": 20}, "intensity", "its intensities differ"),
        ({"size": 71}, "size", "its size differs"),
        ({"spacing": 4.0}, "size", "length in mm toward"),
    ],
)
def test_the_sentence_says_what_is_strange(changes, part, words):
    fitted = fit_familiarity(
        gaussian(300, 8, 1), [*pictures(300, 1)], held_out=(gaussian(300, 8, 2), [*pictures(300, 2)])
    )
    usual = judge(fitted, np.zeros(8), next(pictures(1, 3)))
    assert usual.familiar and usual.sentence == ""
    found = judge(fitted, np.zeros(8), next(pictures(1, 3, **changes)))
    assert not found.familiar and found.scores[part] > 1 and words in found.sentence
    assert found.sentence.startswith("This is not the kind of image this model was trained on: ")
    assert "embedding" in found.scores and found.scores["embedding"] < 1
    strange = judge(fitted, np.full(8, 1e3), next(pictures(1, 3)))
    assert "network sees in it" in strange.sentence


def test_mistakes_get_a_sentence():
    good = (gaussian(10, 4, 1), statistics_like(10, 1))
    with pytest.raises(InputError, match="at least two"):
        fit_familiarity(*(part[:1] for part in good), held_out=good)
    with pytest.raises(InputError, match="same network"):
        fit_familiarity(*good, held_out=(good[0][:, :3], good[1]))
    with pytest.raises(InputError, match="not finite"):
        fit_familiarity(good[0] * np.nan, good[1], held_out=good)
    with pytest.raises(InputError, match="between 0 and 1"):
        fit_familiarity(*good, held_out=good, rate=0)
    fitted = fit_familiarity(*good, held_out=good)
    with pytest.raises(InputError, match="has 3 numbers"):
        judge(fitted, good[0][0, :3], good[1][0])
    color = image_statistics(make_image(np.random.default_rng(0).random((3, 8, 8, 1)), np.eye(4)))
    with pytest.raises(InputError, match="channels"):
        judge(fitted, good[0][0], color)
    assert not judge(fitted, np.full(4, np.inf), good[1][0]).familiar
