"""Learned Primal-Dual with filtered answers, and networks that go on from the weights of one of the same kind."""

from __future__ import annotations

import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.networks import build
from MedMapAILib.physics.ct_geometry import FanBeam, ParallelBeam, full_angles
from MedMapAILib.physics.ct_projector import CtProjector
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.transfer import load_pretrained

_SIZE = 48
_GEOMETRIES = {
    "parallel": ParallelBeam(full_angles(60), 75, 2.0, (_SIZE, _SIZE), 2.0),
    "parallel, coarser detector": ParallelBeam(full_angles(60), 51, 3.0, (_SIZE, _SIZE), 2.0),
    "fan": FanBeam(
        full_angles(90, beam="fan"),
        91,
        3.0,
        (_SIZE, _SIZE),
        2.0,
        source_to_center_mm=500,
        source_to_detector_mm=900,
    ),
}


def _disc() -> torch.Tensor:
    place = torch.arange(_SIZE) - (_SIZE - 1) / 2
    return (place[:, None] ** 2 + place**2 < 15**2).float()[None, None]


@pytest.mark.parametrize("name", _GEOMETRIES)
def test_a_filtered_answer_has_the_size_of_the_image(name):
    """With the ramp, what a projection came from comes back: a disc of 1 is 1 inside and 0 outside."""
    projector = CtProjector(_GEOMETRIES[name])
    network = build("learned-primal-dual", spatial_dims=2, in_channels=1, out_channels=1, back="filtered")
    back = network._spread(projector(_disc()), projector, 1.0)
    assert float(back[0, 0, 16:32, 16:32].mean()) == pytest.approx(1.0, abs=0.02)
    assert float(back[0, 0, :4, :4].abs().mean()) < 0.05


def test_untrained_it_is_filtered_backprojection_and_it_can_learn():
    projector = CtProjector(_GEOMETRIES["parallel"])
    network = build(
        "learned-primal-dual", spatial_dims=2, in_channels=1, out_channels=1, iterations=2, width=8, back="filtered"
    )
    data = 0.02 * projector(_disc())
    image = network(data, projector)
    expected = filtered_backprojection(projector, data) / 0.02059
    assert float((image - expected).detach().norm() / expected.norm()) < 0.05
    image.square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_way_back_is_one_of_two():
    with pytest.raises(InputError, match="adjoint, filtered"):
        build("learned-primal-dual", spatial_dims=2, in_channels=1, out_channels=1, back="ramp")


def test_a_network_goes_on_from_the_weights_of_its_kind(tmp_path):
    made = [build("fbpconvnet", spatial_dims=2, in_channels=1, out_channels=1, width=4, levels=2) for _ in range(2)]
    torch.save(made[0].state_dict(), tmp_path / "weights.pt")
    report = load_pretrained(made[1], tmp_path / "weights.pt", in_channels=1)
    assert len(report.taken) == len(made[0].state_dict()) and not report.left
    assert all(torch.equal(a, b) for a, b in zip(made[0].parameters(), made[1].parameters(), strict=True))


def test_weights_of_another_width_are_refused_and_nothing_is_filled(tmp_path):
    small, large = (
        build("fbpconvnet", spatial_dims=2, in_channels=1, out_channels=1, width=w, levels=2) for w in (4, 8)
    )
    torch.save(small.state_dict(), tmp_path / "weights.pt")
    before = {name: value.clone() for name, value in large.state_dict().items()}
    with pytest.raises(InputError, match="only classifiers are filled in part"):
        load_pretrained(large, tmp_path / "weights.pt", in_channels=1)
    assert all(torch.equal(before[name], value) for name, value in large.state_dict().items())
