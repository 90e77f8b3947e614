"""A detector over a whole scan finds each thing once, wherever the windows lie."""

import numpy as np
import pytest
import torch
from MedMapAILib.errors import Cancelled
from MedMapAILib.inference.box_windows import find_boxes
from scipy import ndimage


def bright_parts(windows):
    """A detector that needs no training: the connected bright parts; surer of what is not cut by the border."""
    results = []
    for window in windows.numpy():
        boxes, scores = [], []
        for place in ndimage.find_objects(ndimage.label(window[0] > 0.5)[0]):
            low, high = [axis.start for axis in place], [axis.stop for axis in place]
            cut = any(a == 0 for a in low) or any(b == n for b, n in zip(high, window.shape[1:], strict=True))
            boxes.append([*low, *high])
            scores.append(0.5 if cut else 0.9)
        results.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 2 * (window.ndim - 1)),
                "scores": torch.tensor(scores),
                "labels": torch.zeros(len(boxes), dtype=torch.int64),
            }
        )
    return results


def blocks(seed, shape=(70, 50, 33), size=5):
    random = np.random.default_rng(seed)
    volume = torch.zeros(1, 1, *shape)
    boxes = []
    for _ in range(200):
        low = [int(random.integers(0, n - size + 1)) for n in shape]
        high = [a + size for a in low]
        around = tuple(slice(max(0, a - 2), b + 2) for a, b in zip(low, high, strict=True))
        if not volume[0, 0][around].any():
            volume[0, 0][tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
            boxes.append([*low, *high])
    return volume, np.array(boxes)


def ordered(boxes):
    return np.array(sorted(np.asarray(boxes).tolist()))


@pytest.mark.parametrize("window", [(32, 32, 16), (70, 50, 33), (24, 64, 20), (200, 200, 200)])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_block_is_found_once_and_whole(window, batch):
    volume, boxes = blocks(0)
    assert len(boxes) > 50
    found = find_boxes(bright_parts, volume, window=window, overlap=0.5, nms_iou=0.2, batch=batch, most=1000)
    np.testing.assert_array_equal(ordered(found.boxes), ordered(boxes))
    np.testing.assert_array_equal(found.scores, np.sort(found.scores)[::-1])


def test_slices_are_linked_across_their_axis():
    volume, boxes = blocks(1, shape=(40, 12, 36))
    for axis in range(3):
        turned = volume.transpose(2, 2 + axis)
        expected = boxes.copy()
        expected[:, [0, 3]], expected[:, [axis, axis + 3]] = boxes[:, [axis, axis + 3]], boxes[:, [0, 3]]
        window = [64, 64, 64]
        window[axis] = 1
        found = find_boxes(bright_parts, turned, window=window, overlap=0.5, nms_iou=0.2, batch=4, most=1000)
        np.testing.assert_array_equal(ordered(found.boxes), ordered(expected))


def test_it_says_where_it_is_and_can_be_stopped():
    volume, _ = blocks(2)
    said = []
    find_boxes(
        bright_parts,
        volume,
        window=(32, 32, 16),
        overlap=0.25,
        nms_iou=0.2,
        progress=lambda fraction, message: said.append((fraction, message)),
    )
    fractions = [fraction for fraction, _ in said]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
    assert said[0][1].startswith("window 1 of ")
    with pytest.raises(Cancelled):
        find_boxes(bright_parts, volume, window=(32, 32, 16), overlap=0.25, nms_iou=0.2, cancelled=lambda: True)


def test_only_so_many_are_kept():
    volume, _ = blocks(3)
    found = find_boxes(bright_parts, volume, window=(32, 32, 16), overlap=0.5, nms_iou=0.2, most=7)
    assert len(found.boxes) == len(found.scores) == len(found.labels) == 7
