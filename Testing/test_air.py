"""What is taken for air around the patient."""

import numpy as np
import torch
from MedMapAILib.inference.air import BLOCK, find_air
from MedMapAILib.inference.sliding_window import SlidingWindow


def body(shape=(64, 64, 48), noise=0.02):
    """Air at -2, a body of intensity 1 in the middle, and a closed cavity of air in the body."""
    volume = torch.full((1, *shape), -2.0) + noise * torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    volume[0, 20:44, 16:40, 12:36] = 1.0
    volume[0, 26:38, 22:34, 18:30] = -2.0
    return volume


def test_the_body_is_boxed_to_whole_blocks():
    air = find_air(body())
    box = air.body()
    for part, (first, last) in zip(box, ((20, 44), (16, 40), (12, 36)), strict=True):
        assert first - 2 * BLOCK < part.start <= first and last <= part.stop < last + 2 * BLOCK
    assert abs(air.level[0] + 2) < 0.1


def test_a_cavity_inside_is_no_air_around_the_patient():
    air = find_air(body())
    assert not air.only((26, 22, 18), (12, 12, 12))
    assert air.only((0, 0, 0), (12, 12, 12))
    assert not air.only((12, 12, 0), (12, 12, 16))


def test_a_volume_full_of_body_or_with_nothing_else_has_no_air():
    random = torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    assert find_air(random) is None
    assert find_air(torch.zeros(1, 16, 16, 16)) is None


def test_noise_beyond_the_tolerance_is_not_left_out():
    assert find_air(body(noise=2.0)) is None


def test_windows_of_air_get_the_networks_own_answer_to_air():
    """A network of which air is class 1: nothing is assumed about what class air has."""
    volume = body(noise=0.0)
    calls = []

    def network(windows):
        calls.append(tuple(windows.shape))
        x = windows[:, :1]
        return torch.cat([x, -x, torch.zeros_like(x)], dim=1)

    sliding = SlidingWindow(network, patch=(16, 16, 16), divisor=(4, 4, 4), overlap=0.25)
    plain = sliding(volume[None])
    everywhere = len(calls)
    calls.clear()
    layout = sliding.lay(volume.shape[1:], find_air(volume))
    answer = sliding.answer(volume[None], layout)
    found = torch.empty_like(plain[0])
    found[:] = answer.outside.reshape(-1, 1, 1, 1)
    found[(slice(None), *answer.box)] = answer.whole()[0]
    assert layout.count == len(calls) < everywhere / 2
    torch.testing.assert_close(found, plain[0])
    np.testing.assert_array_equal(answer.outside.argmax(), 1)
