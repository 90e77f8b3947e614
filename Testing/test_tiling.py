"""The fewest windows that cover a volume with the overlap asked for."""

import itertools

import pytest
from MedMapAILib.inference.tiling import axis_starts, fitted_window, smaller_window, window_starts


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7])
@pytest.mark.parametrize("window", [1, 16, 96])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 31, 100, 257])
def test_windows_cover_the_axis_overlap_enough_and_are_fewest(size, window, overlap):
    starts = axis_starts(size, window, overlap)
    assert starts[0] == 0 and (starts[-1] == size - window or starts == [0])
    stride = max(1, int(window * (1 - 0.9 * overlap) + 1e-9))
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(0 < gap <= stride for gap in gaps)
    # One window less would have to leave a larger gap somewhere.
    if len(starts) > 1:
        assert (len(starts) - 2) * stride < size - window


def test_a_voxel_too_many_costs_no_further_window():
    """A chest of 193×193×198 voxels in windows of 128³, half overlapping: 8 windows, where the strict rule has 27."""
    assert len(window_starts((193, 193, 198), (128,) * 3, 0.5)) == 8
    assert len(window_starts((199, 193, 198), (128,) * 3, 0.5)) == 12


def test_published_counts():
    """Of a volume of 256×256×128 voxels, 96³ at overlap 0.5 works on 5.3 times as many, 128³ at 0.25 on 2.25."""
    volume = 256 * 256 * 128
    assert len(window_starts((256, 256, 128), (96,) * 3, 0.5)) * 96**3 / volume == pytest.approx(5.3, abs=0.05)
    assert len(window_starts((256, 256, 128), (128,) * 3, 0.25)) * 128**3 / volume == pytest.approx(2.25, abs=0.01)


def test_a_window_is_no_larger_than_a_short_volume_needs():
    assert fitted_window((200, 30, 50), (128, 128, 128), (32, 32, 32)) == (128, 32, 64)
    assert fitted_window((5, 5, 5), (32, 32, 32), (8, 8, 8)) == (8, 8, 8)


def test_smaller_windows_end_at_the_divisor():
    window, seen = (128, 96, 64), []
    while window is not None:
        seen.append(window)
        window = smaller_window(window, (32, 32, 32))
    assert seen[1] == (64, 96, 64) and seen[-1] == (32, 32, 32)
