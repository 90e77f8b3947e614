"""Anchors: fitted to the objects, at home on the right level, in the right place, and every object gets some."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from MedMapAILib import boxes as geometry
from MedMapAILib.errors import InputError
from MedMapAILib.networks.detection.anchor_grid import AnchorGrid
from MedMapAILib.networks.detection.anchors import (
    cell_centers,
    default_anchors,
    default_strides,
    fit_anchors,
    grid_anchors,
    level_of,
    share_out,
)
from MedMapAILib.networks.detection.matching import BACKGROUND, IGNORED, match
from MedMapAILib.networks.detection.sampling import balanced_sample

FLAT = [[4, 4, 2], [8, 8, 4], [16, 16, 8]]


def test_anchors_are_the_middles_of_well_parted_groups():
    rng = np.random.default_rng(0)
    true = np.array([[4.0, 4, 2], [10, 9, 5], [24, 20, 12]])
    sizes = np.concatenate([mean * rng.uniform(0.95, 1.05, (50, 3)) for mean in true])
    rng.shuffle(sizes)
    anchors = fit_anchors(sizes, 3)
    assert np.allclose(anchors, true, rtol=0.03)
    assert fit_anchors(sizes[::-1], 3) == anchors


def test_more_anchors_fit_better():
    sizes = np.exp(np.random.default_rng(1).normal(2, 0.5, (300, 3)))

    def fit(count: int) -> float:
        halves = [torch.from_numpy(s) / 2 for s in (sizes, np.array(fit_anchors(sizes, count)))]
        objects, anchors = (torch.cat([-half, half], dim=1) for half in halves)
        return float(geometry.iou(objects, anchors).max(dim=1).values.mean())

    assert fit(1) < fit(3) < fit(6)


def test_few_sizes_give_few_anchors_and_none_give_an_error():
    assert fit_anchors([[3, 3, 2]] * 4, 3) == [[3, 3, 2]]
    for sizes in ([], [[0.0, 2, 2]], [[float("nan"), 2, 2]]):
        with pytest.raises(InputError, match="Anchors cannot be fitted"):
            fit_anchors(np.array(sizes).reshape(-1, 3), 2)


def test_strides_follow_the_anchors():
    # Objects of 10 mm on voxels of 1 × 1 × 2 mm: two cells and more along each axis.
    assert default_strides([[10, 10, 5]], 3) == FLAT
    assert default_strides([[3, 3, 1]], 3)[0] == [1, 1, 1]
    assert default_strides([[300, 300, 300]], 3)[0] == [4, 4, 4]
    assert default_strides(None, 2) == [[4, 4], [8, 8], [16, 16]]
    assert default_anchors(FLAT)[2] == [16, 16, 8]


def test_an_anchor_lives_on_the_level_where_it_is_four_cells_wide():
    assert level_of(
        torch.tensor([[16.0, 16, 8], [32, 32, 16], [64, 64, 32], [500, 500, 500], [2, 2, 1]]), FLAT
    ).tolist() == [
        0,
        1,
        2,
        2,
        0,
    ]
    assert share_out([[40, 40, 20], [5, 5, 2.5], [9, 9, 4.5]], FLAT) == [[[5, 5, 2.5], [9, 9, 4.5]], [[40, 40, 20]], []]


def test_anchors_lie_round_the_middles_of_cells():
    centers = cell_centers((2, 3), (4, 2))
    assert centers.tolist() == [[2, 1], [2, 3], [2, 5], [6, 1], [6, 3], [6, 5]]
    anchors = grid_anchors(centers, torch.tensor([[2.0, 2.0], [6.0, 4.0]]))
    assert anchors[0].tolist() == [1, 0, 3, 2]
    assert anchors[-1].tolist() == [3, 3, 9, 7]


def test_rows_of_the_heads_are_those_of_the_anchors():
    grid = AnchorGrid([[5, 5, 2.5], [9, 9, 4.5], [40, 40, 20]], FLAT)
    assert grid.levels == [0, 1] and grid.most == 2
    maps = [torch.zeros(1, 1, 4, 3, 2), torch.zeros(1, 1, 2, 2, 1)]
    centers, anchors = grid.lay(maps)
    outputs = [torch.zeros(1, 2 * 6, 4, 3, 2), torch.zeros(1, 2 * 6, 2, 2, 1)]
    outputs[0][0, 6:12, 1, 2, 1] = torch.arange(6.0)  # the second anchor of a cell of the first level
    outputs[1][0, 0:6, 1, 0, 0] = torch.arange(6.0) + 10  # the only one of a cell of the second
    rows = grid.rows(outputs, 6)[0]
    every = torch.cat(anchors)
    assert len(rows) == len(every) == 4 * 3 * 2 * 2 + 4
    (first,) = (rows == torch.arange(6.0)).all(dim=1).nonzero()[:, 0]
    assert geometry.centers(every[first : first + 1])[0].tolist() == [6, 10, 3]
    assert geometry.sizes(every[first : first + 1])[0].tolist() == [9, 9, 4.5]
    (last,) = (rows == torch.arange(6.0) + 10).all(dim=1).nonzero()[:, 0]
    assert geometry.centers(every[last : last + 1])[0].tolist() == [12, 4, 2]


def laid(strides=FLAT, size=(48, 48, 24)):
    grid = AnchorGrid([[5, 5, 2.5], [9, 9, 4.5], [30, 30, 15]], strides)
    maps = [torch.zeros(1, 1, *(n // s for n, s in zip(size, strides[level], strict=True))) for level in grid.levels]
    return grid.lay(maps)


@pytest.mark.parametrize("side", [0.7, 1.0, 3.0, 8.0, 30.0])
def test_an_object_of_any_size_anywhere_has_anchors_and_they_are_near(side):
    centers, anchors = laid()
    every = torch.cat(anchors)
    places = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([48.0, 48, 24])
    for place in places:
        box = torch.cat([place - side / 2, place + side / 2])[None]
        matched = match(box, box[:0], centers, anchors)
        learning = matched == 0
        assert 1 <= int(learning.sum()) < 60
        overlap = geometry.iou(box, every)[0]
        assert overlap[learning].max() == overlap.max()
        distance = (geometry.centers(every[learning]) - place).abs() / torch.tensor([8.0, 8, 4])
        assert distance.max() <= 2


def test_neighbors_in_one_cell_each_have_an_anchor():
    centers, anchors = laid()
    boxes = torch.tensor([[9.0, 9, 5, 11, 11, 6], [9.5, 9, 5, 11.5, 11, 6], [9.0, 9.5, 5, 11, 11.5, 6]])
    matched = match(boxes, boxes[:0], centers, anchors)
    assert set(matched.unique().tolist()) == {BACKGROUND, 0, 1, 2}


def test_what_is_ignored_is_neither_object_nor_background():
    centers, anchors = laid()
    every = torch.cat(anchors)
    ignored = torch.tensor([[20.0, 20, 10, 23, 23, 12]])
    assert (match(ignored[:0], ignored[:0], centers, anchors) == BACKGROUND).all()
    matched = match(ignored[:0], ignored, centers, anchors)
    assert (matched[geometry.iou(every, ignored)[:, 0] > 0.2] == IGNORED).all()
    assert 0 < int((matched == IGNORED).sum()) < 100
    # An object at the same place is learned all the same.
    assert int((match(ignored, ignored, centers, anchors) == 0).sum()) > 0


def test_samples_are_balanced_and_hard():
    positive = torch.zeros(1000, dtype=torch.bool)
    positive[:200] = True
    negative = ~positive
    negative[-100:] = False
    scores = torch.linspace(1, 0, 1000)
    torch.manual_seed(0)
    chosen = balanced_sample(positive, negative, scores, count=40, most_positive=0.25, pool=2)
    assert len(chosen) == len(chosen.unique()) == 40
    assert int(positive[chosen].sum()) == 10
    # The 60 hardest negatives are 200 to 259.
    assert int(chosen[~positive[chosen]].max()) < 260
    # Without an object half of the count, and without anything nothing.
    none = positive & False
    assert len(balanced_sample(none, negative, scores, count=40, most_positive=0.5, pool=2)) == 20
    assert len(balanced_sample(none, none, scores, count=40, most_positive=0.5, pool=2)) == 0
