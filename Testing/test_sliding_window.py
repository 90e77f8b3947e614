"""Windows over a volume: MONAI's answer where both lay the same windows, and properties everywhere."""

import itertools

import pytest
import torch
from MedMapAILib.inference.sliding_window import SlidingWindow
from monai.inferers import sliding_window_inference


def local_mean(x):
    """A network whose answer at a voxel depends on its neighbors alone: windows may not be seen in the result."""
    return torch.nn.functional.avg_pool3d(x, 3, stride=1, padding=1, count_include_pad=False)


def convolutions(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv3d(2, 6, 5, padding=2), torch.nn.InstanceNorm3d(6), torch.nn.ReLU(), torch.nn.Conv3d(6, 3, 1)
    ).eval()


@pytest.mark.parametrize("weighting", ["gaussian", "constant"])
@pytest.mark.parametrize("batch", [1, 3])
def test_where_windows_coincide_the_answer_is_monais(weighting, batch):
    """Sizes at which MONAI's last window needs no pushing back."""
    network, volume = convolutions(), torch.randn(1, 2, 32, 24, 40, generator=torch.Generator().manual_seed(1))
    ours = SlidingWindow(network, patch=(16, 16, 16), divisor=(4, 4, 4), overlap=0.5, batch=batch, weighting=weighting)(
        volume
    )
    with torch.inference_mode():
        theirs = sliding_window_inference(volume, (16, 16, 16), batch, network, overlap=0.5, mode=weighting)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_planes_come_in_order_and_no_more_are_held_than_windows_need():
    network, volume = convolutions(), torch.randn(1, 2, 20, 24, 90, generator=torch.Generator().manual_seed(2))
    sliding = SlidingWindow(network, patch=(16, 16, 16), divisor=(4, 4, 4), overlap=0.25)
    done = []
    answer = sliding.answer(volume, sliding.lay(volume.shape[2:]), lambda fraction, message: done.append(fraction))
    seen, at = 0, []
    for slab in answer.slabs:
        assert slab.axis == 2 and slab.start == seen
        seen += slab.logits.shape[3]
        at.append((seen, done[-1]))
    assert seen == 90
    # The first planes are there long before the last window.
    assert at[0][1] < 0.5


def test_windows_leave_no_seam():
    volume = torch.randn(1, 1, 37, 29, 41, generator=torch.Generator().manual_seed(0))
    windowed = SlidingWindow(local_mean, patch=(16, 16, 16), divisor=(4, 4, 4), overlap=0.5)(volume)
    assert (windowed - local_mean(volume))[..., 3:-3, 3:-3, 3:-3].abs().mean() < 0.02


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("shape", [(5, 7, 3), (16, 16, 16), (17, 33, 20), (40, 9, 61)])
def test_a_network_that_copies_gives_the_volume_back(shape, overlap):
    volume = torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(3))
    out = SlidingWindow(lambda x: x.clone(), patch=(16, 16, 16), divisor=(8, 8, 8), overlap=overlap)(volume)
    torch.testing.assert_close(out, volume)


def test_mirroring_averages_the_flips():
    ramp = torch.linspace(0, 1, 8).reshape(1, 1, 8, 1, 1).expand(1, 1, 8, 8, 8)
    weight = torch.arange(8.0).reshape(1, 1, 8, 1, 1)
    plain = SlidingWindow(lambda x: x * weight, patch=(8, 8, 8), divisor=(1, 1, 1))
    mirrored = SlidingWindow(lambda x: x * weight, patch=(8, 8, 8), divisor=(1, 1, 1), mirror_axes=(0,))
    torch.testing.assert_close(mirrored(ramp), (plain(ramp) + ramp * weight.flip(2)) / 2)
    assert (plain.passes, mirrored.passes) == (1, 2)


def test_a_network_that_writes_every_answer_to_the_same_place_is_not_trusted_to_keep_it():
    volume = torch.randn(1, 1, 20, 20, 20, generator=torch.Generator().manual_seed(5))
    memory = torch.empty(1, 1, 8, 8, 8)

    def network(windows):
        return memory.copy_(windows * torch.arange(8.0))

    options = {"patch": (8, 8, 8), "divisor": (1, 1, 1), "mirror_axes": (0, 2)}
    expected = SlidingWindow(lambda x: x * torch.arange(8.0), **options)(volume)
    torch.testing.assert_close(SlidingWindow(network, **options)(volume), expected)


def test_two_dimensional_networks_go_slice_by_slice():
    seen = []

    def network(x):
        seen.append(tuple(x.shape))
        return x

    for axis in range(3):
        shape = [16, 16]
        shape.insert(axis, 5)
        patch = [16, 16]
        patch.insert(axis, 1)
        volume = torch.randn(1, 1, *shape)
        out = SlidingWindow(network, patch=patch, divisor=(4, 4), batch=2)(volume)
        torch.testing.assert_close(out, volume)
    assert {s[2:] for s in seen} == {(16, 16)}


def test_every_window_is_counted():
    messages = []
    sliding = SlidingWindow(local_mean, patch=(16, 16, 16), divisor=(4, 4, 4), overlap=0.5, mirror_axes=(0, 1))
    sliding(torch.randn(1, 1, 24, 24, 24), lambda fraction, message: messages.append((fraction, message)))
    total = 4 * 2**3
    assert [m for _, m in messages] == [f"window {n} of {total}" for n in range(1, total + 1)]
    assert messages[-1][0] == 1.0
    assert all(a[0] < b[0] for a, b in itertools.pairwise(messages))
