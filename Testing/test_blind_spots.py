"""Noise2Void: nothing of a hidden pixel is left, every pixel has its turn, and noise goes away without a truth."""

from __future__ import annotations

import pytest
import torch
from MedMapAILib.losses import build_reconstruction_loss
from MedMapAILib.networks import build
from scipy import ndimage


def blind_spots(spatial_dims=2, **options):
    settings = {"name": "noise2void", **options}
    return build_reconstruction_loss(
        settings, channels=1, condition_channels=1, spatial_dims=spatial_dims, data_range=1.0
    )


def drawn(loss, x, seed=0):
    torch.manual_seed(seed)
    return loss.blind(x)


@pytest.mark.parametrize(("spatial_dims", "side", "correlation"), [(2, 7, 0), (2, 2, 0), (2, 6, 1), (3, 4, 0)])
def test_nothing_of_a_hidden_pixel_is_left(spatial_dims, side, correlation):
    loss = blind_spots(spatial_dims, side=side, correlation=correlation)
    x = torch.randn(2, 3, *(21, 18, 9)[:spatial_dims])
    blinded, mask = drawn(loss, x)
    assert blinded.shape == x.shape and mask.shape == (2, 1, *x.shape[2:]) and mask.dtype == torch.bool
    hidden = torch.from_numpy(
        ndimage.maximum_filter(mask.numpy(), size=(1, 1, *[2 * correlation + 1] * spatial_dims), mode="constant")
    )
    assert torch.equal((blinded != x).any(dim=1, keepdim=True), hidden)
    # Whatever was there, the network is shown the same.
    other = torch.where(hidden, 1000 * torch.randn_like(x), x)
    assert torch.equal(drawn(loss, other)[0], blinded)


def test_a_networks_answer_at_a_hidden_pixel_does_not_depend_on_it():
    network = build("fbpconvnet", spatial_dims=2, in_channels=1, out_channels=1, width=4, levels=2)
    torch.nn.init.normal_(network.body.last.weight)
    loss, x = blind_spots(), torch.randn(1, 1, 28, 28)
    blinded, mask = drawn(loss, x)
    changed = torch.where(mask, x + 10, x)
    with torch.no_grad():
        before, after = network(blinded), network(drawn(loss, changed)[0])
        assert torch.equal(before[mask], after[mask])
        # Without hiding it would.
        assert not torch.equal(network(x)[mask], network(changed)[mask])


def test_a_hidden_pixel_gets_the_value_of_one_near_it_in_all_channels():
    places = torch.stack(torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij"))[None]
    for correlation, reach in ((0, 2), (1, 3)):
        blinded, mask = drawn(blind_spots(correlation=correlation), places)
        moved = (blinded - places)[0, :, mask[0, 0]]
        assert moved.abs().amax() == reach and bool((moved.abs().amax(dim=0) > correlation).all())
        assert moved.mean(dim=1).abs().max() < 1


@pytest.mark.parametrize(("spatial_dims", "side"), [(2, 3), (3, 2)])
def test_every_pixel_has_its_turn(spatial_dims, side):
    loss = blind_spots(spatial_dims, side=side)
    x = torch.zeros(400, 1, *[3 * side + 1] * spatial_dims)
    mask = drawn(loss, x)[1]
    # One pixel of each box, boxes without gaps; the last rows belong to a box for half of the draws.
    assert bool((mask.flatten(1).sum(dim=1) == 3**spatial_dims).all())
    share = mask.float().mean(dim=0)[0]
    inside = share[(slice(1, -1),) * spatial_dims]
    assert float(share.min()) > 0
    assert inside.mean() == pytest.approx(side**-spatial_dims, rel=0.1)
    assert float((inside - inside.mean()).abs().max()) < 5 * float((inside.mean() / 400).sqrt())


def test_draws_come_from_torchs_generator():
    loss, x = blind_spots(), torch.randn(1, 1, 20, 20)
    assert torch.equal(drawn(loss, x, 4)[0], drawn(loss, x, 4)[0])
    assert not torch.equal(drawn(loss, x, 4)[1], drawn(loss, x, 5)[1])


def test_an_image_smaller_than_a_box_still_has_a_hidden_pixel():
    blinded, mask = drawn(blind_spots(side=9, correlation=2), torch.arange(6.0).reshape(1, 1, 2, 3))
    assert int(mask.sum()) == 1
    # All are within reach of the hidden one: there is nothing to put in its place.
    assert torch.isfinite(blinded).all()


def test_the_loss_counts_hidden_pixels_alone():
    loss = blind_spots()
    output, x = torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 7.0)
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    mask[..., 1, 1] = mask[..., 0, 2] = True
    x[0, 0, 1, 1], x[0, 1, 1, 1], x[0, 0, 0, 2], x[0, 1, 0, 2] = 1.0, 2.0, 3.0, 4.0
    assert float(loss(output, x, mask)) == (1 + 4 + 9 + 16) / 4
    assert loss.parts == {"fidelity": 7.5}


def test_noise_goes_away_without_a_clean_image():
    torch.manual_seed(2)
    y, x = torch.meshgrid(torch.linspace(0, 6, 48), torch.linspace(0, 6, 48), indexing="ij")
    truth = (torch.sin(y) * torch.cos(x))[None, None].repeat(2, 1, 1, 1)
    noisy = truth + 0.5 * torch.randn_like(truth)
    network = build("fbpconvnet", spatial_dims=2, in_channels=1, out_channels=1, width=8, levels=2)
    loss = blind_spots(side=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(80):
        blinded, mask = loss.blind(noisy)
        optimizer.zero_grad()
        loss(network(blinded), noisy, mask).backward()
        optimizer.step()
    with torch.no_grad():
        error = float((network(noisy) - truth).square().mean())
    # 6 dB less noise; the noise has a variance of 0.25.
    assert error < 0.25 * float((noisy - truth).square().mean())
