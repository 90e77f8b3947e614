"""Deciding on labels only where classes meet gives what deciding everywhere gives."""

import numpy as np
import pytest
import torch
from MedMapAILib.decoding import Answer, Slab, decode_labels
from MedMapAILib.preprocessing import Grid
from orders import rotation
from scipy import ndimage

VALUES = np.array([0, 7, 300, 2])


def scores(shape, seed=0, classes=4):
    """Smooth logits of several classes."""
    random = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(random.normal(size=shape), 2.5, mode="nearest") for _ in range(classes)]
    return torch.from_numpy(20 * np.stack(fields).astype(np.float32))


def grid(shape, spacing, center=(3.0, -5.0, 8.0), turn=None):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * np.asarray(spacing)
    affine[:3, 3] = np.asarray(center) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def everywhere(logits, model, source):
    """The plain way: every class interpolated at every voxel (scipy), then the best."""
    mapping = np.linalg.inv(model.affine) @ source.affine
    places = np.einsum("ab,bijk->aijk", mapping[:3, :3], np.indices(source.shape)) + mapping[:3, 3].reshape(3, 1, 1, 1)
    shares = [ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in logits.softmax(0).numpy()]
    return VALUES[np.argmax(shares, axis=0)], np.sort(shares, axis=0)


def slabs(logits, axis, planes):
    for start in range(0, logits.shape[1 + axis], planes):
        yield Slab(axis, start, logits.narrow(1 + axis, start, min(planes, logits.shape[1 + axis] - start)))


SOURCES = {
    "finer": grid((50, 61, 43), (0.7, 0.8, 0.9)),
    "coarser": grid((20, 12, 11), (2.5, 3.1, 2.0)),
    "larger than the model's": grid((40, 40, 40), (1.5, 1.5, 1.5)),
    "oblique": grid((44, 40, 38), (0.8, 1.1, 0.9), turn=rotation((1, -2, 3), 25)),
    "flipped and permuted": Grid(
        (43, 50, 61),
        grid((50, 61, 43), (0.7, 0.8, 0.9)).affine
        @ np.array([[0, -1, 0, 49], [0, 0, 1, 0], [-1, 0, 0, 42], [0, 0, 0, 1.0]]),
    ),
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("axis", "planes"), [(0, 100), (0, 7), (1, 1), (2, 5)])
def test_labels_are_those_of_interpolating_everywhere(name, axis, planes):
    logits = scores((33, 37, 31))
    model, source = grid((33, 37, 31), (1.2, 1.2, 1.2)), SOURCES[name]
    answer = Answer(tuple(slice(0, n) for n in model.shape), None, slabs(logits, axis, planes))
    found = decode_labels(answer, model, source, VALUES)
    expected, ordered = everywhere(logits, model, source)
    clear = ordered[-1] - ordered[-2] > 1e-5  # a tie may fall either way by rounding
    assert clear.mean() > 0.99 and len(np.unique(expected)) == 4
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_the_same_grid_needs_no_interpolation():
    logits = scores((20, 21, 22))
    model = grid((20, 21, 22), (1.0, 1.0, 1.0))
    answer = Answer(tuple(slice(0, n) for n in model.shape), None, slabs(logits, 2, 4))
    np.testing.assert_array_equal(decode_labels(answer, model, model, VALUES), VALUES[logits.argmax(0).numpy()])


@pytest.mark.parametrize("name", ["finer", "oblique"])
def test_outside_the_box_the_answer_to_air_counts(name):
    logits = scores((33, 37, 31))
    logits[:] = torch.tensor([9.0, 0, 0, 0]).reshape(-1, 1, 1, 1)
    model, source = grid((33, 37, 31), (1.2, 1.2, 1.2)), SOURCES[name]
    box = (slice(4, 20), slice(0, 37), slice(8, 31))
    outside = torch.tensor([0.0, 0, 0, 5.0])
    answer = Answer(box, outside, slabs(logits[(slice(None), *box)], 0, 6))
    found = decode_labels(answer, model, source, VALUES)
    mapping = np.linalg.inv(model.affine) @ source.affine
    places = np.einsum("ab,bijk->aijk", mapping[:3, :3], np.indices(source.shape)) + mapping[:3, 3].reshape(3, 1, 1, 1)
    inside = (places[0] > 3.5) & (places[0] < 19.5) & (places[2] > 7.5)
    # On the very border either is right.
    clear = np.min([abs(places[0] - 3.5), abs(places[0] - 19.5), abs(places[2] - 7.5)], axis=0) > 1e-6
    np.testing.assert_array_equal(found[clear], np.where(inside, 0, 2)[clear])


def test_full_resolution_scores_of_all_classes_never_exist():
    """The most that is asked of memory at once stays far below classes × voxels of the user's grid."""
    import tracemalloc

    model, source = grid((48, 48, 48), (2.0, 2.0, 2.0)), grid((192, 192, 192), (0.5, 0.5, 0.5))
    logits = scores((48, 48, 48), classes=4)
    tracemalloc.start()
    decode_labels(Answer.of(logits[None]), model, source, VALUES)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 192**3 * 4
