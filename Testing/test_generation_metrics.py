"""Distances between sets of images, against closed forms, scipy and torchmetrics; the check against copies."""

import numpy as np
import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.metrics.frechet_distance import frechet_distance, frechet_distance_of
from MedMapAILib.metrics.kernel_distance import kernel_distance, kernel_distance_of_subsets
from MedMapAILib.metrics.nearest_image import check_copies, coverage, nearest
from scipy import linalg
from scipy.stats import mannwhitneyu


def random_sets(n=60, m=80, numbers=12, seed=0):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(numbers, numbers))
    return random.normal(size=(n, numbers)), random.normal(size=(m, numbers)) @ mixing + 0.5


def test_frechet_distance_of_gaussians_in_closed_form():
    # One dimension: (3 - 1)² + (2 - 5)². Diagonal covariances: the sum over the axes.
    assert frechet_distance_of([3.0], [[4.0]], [1.0], [[25.0]]) == pytest.approx(4 + 9)
    assert frechet_distance_of([0, 0], np.diag([1.0, 9]), [3, 4], np.diag([4.0, 1])) == pytest.approx(25 + 1 + 4)


@pytest.mark.parametrize("n, m", [(60, 80), (10, 80)])
def test_frechet_distance_is_scipys_square_root_in_the_published_formula(n, m):
    a, b = random_sets(n, m)
    first, second = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(first @ second)
    mean = a.mean(axis=0) - b.mean(axis=0)
    expected = mean @ mean + np.trace(first + second - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_distance_of_fewer_images_than_numbers_is_defined():
    # Σ of ten images in 50 dimensions has no inverse; a shift by s in one dimension costs s² whatever Σ is.
    a = np.random.default_rng(1).normal(size=(10, 50))
    b = a.copy()
    b[:, 0] += 3
    assert frechet_distance(a, b) == pytest.approx(9, abs=1e-6)


def test_kernel_distance_is_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    a, b = random_sets(70, 70)
    assert kernel_distance(a, b) == pytest.approx(float(poly_mmd(torch.tensor(a), torch.tensor(b))), rel=1e-9)


def test_kernel_distance_is_the_sum_over_pairs_it_is_defined_by():
    a, b = random_sets(5, 7, 3)

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    within = [np.mean([k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]) for s in (a, b)]
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * np.mean([k(x, y) for x in a for y in b]))


def test_kernel_distance_has_no_bias():
    """Of two sets of the same kind it is 0 on average, however few images; the Fréchet distance is not."""
    random = np.random.default_rng(2)
    values = [kernel_distance(random.normal(size=(10, 4)), random.normal(size=(10, 4))) for _ in range(1000)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(1000)
    pairs = [frechet_distance(random.normal(size=(n, 4)), random.normal(size=(n, 4))) for n in (10, 1000)]
    assert pairs[0] > 10 * pairs[1]


def test_kernel_distance_of_subsets_is_near_that_of_all_and_repeatable():
    a, b = random_sets(300, 300, 6)
    mean, low, high = kernel_distance_of_subsets(a, b, size=100)
    assert low < kernel_distance(a, b) < high and mean == pytest.approx(kernel_distance(a, b), rel=0.1)
    assert kernel_distance_of_subsets(a, b, size=100) == (mean, low, high)
    # All of them in every subset: nothing is left to chance.
    whole = kernel_distance_of_subsets(a, b, size=1000, subsets=2)
    assert whole == pytest.approx((kernel_distance(a, b),) * 3)


def test_copies_are_found_and_new_images_are_not():
    random = np.random.default_rng(3)
    training, new, held_out = (random.normal(size=(200, 10)) for _ in range(3))
    fine = check_copies(new, training, held_out)
    assert fine.nearer <= 0.03 and abs(fine.copying_z) < 3
    copies = training[:150] + 0.01 * random.normal(size=(150, 10))
    found = check_copies(copies, training, held_out)
    assert found.nearer == 1 and found.copying_z < -10
    assert found.generated_median == pytest.approx(0.01 * np.sqrt(10), rel=0.1)
    which = found.closest
    assert which[0] == which[1]
    # A single copy among new images is seen by its distance.
    one = np.concatenate([new[:99], training[7:8]])
    assert check_copies(one, training, held_out).closest == (99, 7)


def test_copying_z_is_scipys_test():
    random = np.random.default_rng(4)
    found = check_copies(*(random.normal(size=(n, 3)) for n in (40, 50, 60)))
    expected = mannwhitneyu(
        found.distances, found.held_out_distances, method="asymptotic", use_continuity=False, alternative="less"
    )
    from scipy.stats import norm

    assert norm.cdf(found.copying_z) == pytest.approx(expected.pvalue, rel=1e-6)


def test_nearest_and_coverage_on_a_line():
    distances, which = nearest([[0.0], [10.0]], [[9.0], [1.0], [5.0]])
    assert distances.tolist() == [1, 1] and which.tolist() == [1, 0]
    real = np.arange(10.0)[:, None]
    assert coverage(real, real) == 1
    # With one neighbor each reaches 1 mm: two made images at 0 and 5.2 reach 0, 1 and 5, 6.
    assert coverage([[0.0], [5.2]], real, neighbors=1) == 0.4
    assert coverage([[99.0], [98.0]], real) == 0


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="2 images or more"):
        frechet_distance([[1.0, 2.0]], [[1.0, 2.0], [2.0, 3.0]])
    with pytest.raises(InputError, match="of 3 and of 2 numbers"):
        kernel_distance(np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(InputError, match="not finite"):
        coverage([[np.nan], [0.0]], [[0.0], [1.0]])
