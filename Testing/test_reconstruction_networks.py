"""Networks that reconstruct: what they give before and after learning, and what their answer may not depend on."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from ct_phantoms import disc_image
from MedMapAILib.errors import InputError
from MedMapAILib.networks import (
    NETWORKS,
    RECONSTRUCTION,
    TARGETS,
    build,
    definition,
    domain_of,
    options_of,
    size_divisor,
)
from MedMapAILib.networks.reconstruction.learned_primal_dual import norm_of
from MedMapAILib.physics.attenuation import WATER_PER_MM
from MedMapAILib.physics.ct_geometry import FanBeam, ParallelBeam, full_angles
from MedMapAILib.physics.ct_projector import CtProjector
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.physics.fourier import image_of_k_space
from MedMapAILib.physics.mr_operator import MrOperator
from MedMapAILib.physics.mr_sampling import random_lines
from monai.bundle import ConfigParser

IMAGE, MEASUREMENT = ("fbpconvnet", "red-cnn"), ("learned-primal-dual", "varnet")
SMALL = {
    "fbpconvnet": {"width": 8, "levels": 3},
    "red-cnn": {"width": 6, "kernel": 3},
    "learned-primal-dual": {"iterations": 2, "width": 8},
    "varnet": {"iterations": 2, "width": 4, "levels": 2},
}
SHAPE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 1}


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


def small(name, **changes):
    return build(name, **SHAPE | changes, **SMALL[name])


def relative(found, true):
    return float((found - true).norm() / true.norm())


def parallel(views=24, size=40, pixel_mm=1.0, **changes):
    spacing = 1.2 * pixel_mm
    return ParallelBeam(full_angles(views), round(1.3 * size), spacing, size, pixel_mm, **changes)


def body(size, pixel_mm=1.0, count=1):
    """Discs of water with denser and emptier ones in them, water units, (count, 1, size, size)."""
    rng = np.random.default_rng(3)
    images = []
    for _ in range(count):
        reach = 0.4 * size * pixel_mm
        discs = [(0.0, 0.0, reach, 1.0)]
        for _ in range(4):
            x, y = rng.uniform(-0.5, 0.5, 2) * reach
            discs.append((x, y, rng.uniform(0.1, 0.3) * reach, rng.uniform(-0.5, 0.5)))
        images.append(disc_image((size, size), pixel_mm, discs))
    return torch.cat(images).float()


def ct_pairs(geometry, count=3, noise=0.02):
    projector, truth = CtProjector(geometry), body(geometry.image_size[0], geometry.pixel_mm, count)
    sinogram = projector(truth * WATER_PER_MM)
    return projector, sinogram + noise * sinogram.max() * torch.randn_like(sinogram), truth


def mr_operator(height=24, width=30, coils=3, acceleration=2.5):
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    turns = [2 * math.pi * c / coils for c in range(coils)]
    raw = torch.stack([torch.exp(-((x - math.cos(a)) ** 2) - (y - math.sin(a)) ** 2 + 1j * a * x) for a in turns])
    raw = raw / raw.abs().square().sum(dim=0).sqrt()
    mask = torch.ones(height, width) if acceleration == 1 else random_lines((height, width), acceleration, seed=1)
    return MrOperator(mask, raw)


def mr_image(height=24, width=30, count=1):
    image = body(max(height, width), count=count)[..., :height, :width]
    return image * torch.exp(0.3j * image)


def examples(name):
    """(network's arguments, truth, the untrained answer) of a small problem, the same each time."""
    torch.manual_seed(1)
    if name in IMAGE:
        truth = body(32, count=3)
        noisy = truth + 0.2 * torch.randn_like(truth)
        return (noisy,), truth, noisy
    if name == "learned-primal-dual":
        projector, sinogram, truth = ct_pairs(parallel())
        return (sinogram, projector), truth, filtered_backprojection(projector, sinogram) / WATER_PER_MM
    truth, operator = mr_image(count=2), mr_operator()
    k_space = operator(truth)
    return (k_space, operator), truth, operator.adjoint(k_space)


def train(name, steps=40, rate=3e-3):
    arguments, truth, _ = examples(name)
    network = small(name)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = (network(*arguments) - truth).abs().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return network, losses


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return {name: train(name) for name in RECONSTRUCTION}


# ---- the table


def test_the_table_names_what_there_is():
    assert tuple(RECONSTRUCTION) == IMAGE + MEASUREMENT
    assert set(RECONSTRUCTION) < set(NETWORKS)
    assert {name: domain_of(name) for name in RECONSTRUCTION} == {
        **dict.fromkeys(IMAGE, "image"),
        **dict.fromkeys(MEASUREMENT, "measurement"),
    }
    with pytest.raises(InputError, match="fbpconvnet, red-cnn, learned-primal-dual, varnet"):
        domain_of("unet")


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_a_definition_is_json_that_takes_the_weights(name, trained):
    network = trained[name][0]
    written = definition(name, **SHAPE, **SMALL[name])
    assert written["_target_"] in TARGETS and json.loads(json.dumps(written)) == written
    kept = io.BytesIO()
    torch.save(network.state_dict(), kept)
    kept.seek(0)
    again = ConfigParser({"network_def": written}).get_parsed_content("network_def")
    again.load_state_dict(torch.load(kept, weights_only=True), strict=True)
    arguments = examples(name)[0]
    with torch.no_grad():
        assert torch.equal(again(*arguments), network(*arguments))


def test_the_default_networks_fit_into_a_bundle_of_five_megabytes():
    sizes = {name: sum(p.numel() for p in build(name, **SHAPE).parameters()) for name in RECONSTRUCTION}
    assert sizes["fbpconvnet"] <= 1_200_000
    assert all(2 * size < 5e6 for size in sizes.values())


def test_the_published_sizes():
    # Adler and Öktem: 2.4e5 weights of ten iterations with parametric rectifiers; Chen: 96 channels, 5-wide kernels.
    published = build("learned-primal-dual", **SHAPE, iterations=10)
    assert sum(p.numel() for p in published.parameters()) == pytest.approx(2.4e5, rel=0.06)
    red_cnn = build("red-cnn", **SHAPE, width=96)
    assert sum(p.numel() for p in red_cnn.parameters()) == 2 * 96 * 25 + 8 * 96 * 96 * 25 + 9 * 96 + 1


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_half_precision_of_the_weights_changes_little(name, trained):
    network = trained[name][0]
    (arguments, truth, _), options = examples(name), SMALL[name]
    rounded = build(name, **SHAPE, **options)
    rounded.load_state_dict({key: value.half().float() for key, value in network.state_dict().items()})
    with torch.no_grad():
        before, after = network(*arguments), rounded(*arguments)
    assert relative(after, before) < 2e-3
    assert relative(after, before) < 0.02 * relative(before, truth)


@pytest.mark.parametrize("name", RECONSTRUCTION)
def test_it_learns(name, trained):
    network, losses = trained[name]
    arguments, truth, untrained = examples(name)
    assert losses[0] == pytest.approx(float((untrained - truth).abs().square().mean()), rel=0.02)
    assert losses[-1] < 0.7 * losses[0]
    network = small(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    (network(*arguments) - truth).abs().square().sum().backward()
    assert not [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


# ---- image to image


@pytest.mark.parametrize("options", [{}, {"norm": "instance"}, {"norm": "batch"}, {"norm": "group"}, {"dropout": 0.5}])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", IMAGE)
def test_an_untrained_network_gives_its_input(name, spatial_dims, options):
    if "norm" in options and name == "red-cnn":
        assert "norm" not in options_of(name)
        return
    network = build(name, spatial_dims=spatial_dims, in_channels=3, out_channels=1, **SMALL[name], **options)
    divisor = size_divisor(name, spatial_dims=spatial_dims, **SMALL[name])
    x = torch.randn(2, 3, *(2 * d for d in divisor))
    assert torch.equal(network(x), x[:, :1])
    assert torch.equal(network.eval()(x[..., : divisor[-1]]), x[:, :1, ..., : divisor[-1]])


def test_without_normalization_what_is_far_away_changes_nothing():
    image, other = torch.zeros(2, 1, 1, 96, 96).unbind()
    other[..., 60:, 60:] = 1000
    for norm, far in (("none", True), ("instance", False)):
        network = build("fbpconvnet", **SHAPE, **SMALL["fbpconvnet"], norm=norm)
        torch.nn.init.normal_(network.body.last.weight)
        with torch.no_grad():
            difference = (network(image) - network(other))[..., :32, :32].abs().max()
        assert (float(difference) == 0) == far


@pytest.mark.parametrize(
    ("name", "options", "shape", "message"),
    [
        ("fbpconvnet", {"norm": "layer"}, {}, "norm is 'layer'; choose one of none, instance, batch, group"),
        ("fbpconvnet", {"norm": "group", "width": 12}, {}, "groups of 8"),
        ("fbpconvnet", {"levels": 0}, {}, "levels is 0"),
        ("fbpconvnet", {"dropout": 1}, {}, "dropout is 1"),
        ("fbpconvnet", {}, {"out_channels": 2}, "cannot make 2 channels of 1"),
        ("red-cnn", {"kernel": 4}, {}, "kernel is 4; give an odd number"),
        ("red-cnn", {"levels": 3}, {}, "no option 'levels'; there are width, kernel, dropout"),
        ("learned-primal-dual", {}, {"spatial_dims": 3}, "set spatial_dims to 2"),
        ("learned-primal-dual", {"first": "sirt"}, {}, "first is 'sirt'; choose one of fbp, zero"),
        ("learned-primal-dual", {"filter": "hamming"}, {}, "filter is 'hamming'; choose one of ramp"),
        ("varnet", {"iterations": True}, {}, "iterations is True"),
        ("varnet", {}, {"in_channels": 8}, "8 input and 1 output"),
    ],
)
def test_a_mistake_is_named(name, options, shape, message):
    for function in (build, definition):
        with pytest.raises(InputError, match=message):
            function(name, **SHAPE | shape, **options)


# ---- learned primal-dual


@pytest.mark.parametrize("name", ["ramp", "hann"])
def test_an_untrained_primal_dual_gives_filtered_backprojection(name):
    projector, sinogram, _ = ct_pairs(parallel(views=60, size=48))
    network = build("learned-primal-dual", **SHAPE, filter=name)
    with torch.no_grad():
        found = network(sinogram, projector)
    assert relative(found, filtered_backprojection(projector, sinogram, filter_name=name) / WATER_PER_MM) < 0.01


def test_an_untrained_primal_dual_from_zero_gives_next_to_nothing():
    projector, sinogram, truth = ct_pairs(parallel())
    with torch.no_grad():
        found = build("learned-primal-dual", **SHAPE, first="zero", memory=1)(sinogram, projector)
    assert found.norm() < 0.02 * truth.norm()


def test_the_norm_is_that_of_the_matrix():
    geometry = parallel(views=7, size=8)
    projector = CtProjector(geometry)
    matrix = projector(torch.eye(64).reshape(64, 1, 8, 8)).reshape(64, -1)
    assert norm_of(projector) == pytest.approx(float(torch.linalg.matrix_norm(matrix, ord=2)), rel=0.01)


def test_the_same_scan_in_other_millimeters_gives_the_same_image(trained):
    network = trained["learned-primal-dual"][0]
    projector, sinogram, _ = ct_pairs(parallel(pixel_mm=0.8))
    tenfold = CtProjector(parallel(pixel_mm=8.0))
    with torch.no_grad():
        found = network(sinogram, projector)
        assert relative(network(10 * sinogram, tenfold), found) < 1e-4
        assert relative(network(3 * sinogram, projector, water_per_mm=3 * WATER_PER_MM), found) < 1e-5


@pytest.mark.parametrize(
    "geometry",
    [
        parallel(views=40, size=56, pixel_mm=1.7),
        parallel(views=18, size=40),
        FanBeam(full_angles(48, beam="fan"), 80, 1.5, 48, 1.3, source_to_center_mm=150.0, source_to_detector_mm=240.0),
    ],
    ids=["more views of a larger image", "fewer views", "fan"],
)
def test_it_works_at_another_geometry_than_it_was_trained_with(geometry, trained):
    network = trained["learned-primal-dual"][0]
    projector, sinogram, truth = ct_pairs(geometry)
    with torch.no_grad():
        found = network(sinogram, projector)
    assert relative(found, truth) < 0.95 * relative(filtered_backprojection(projector, sinogram) / WATER_PER_MM, truth)


def test_a_sinogram_that_does_not_fit_is_refused():
    network, projector = small("learned-primal-dual"), CtProjector(parallel(views=24))
    with pytest.raises(InputError, match="25 views and the geometry 24 angles"):
        network(torch.zeros(1, 1, 25, 52), projector)
    beside = CtProjector(parallel(detector_offset_mm=500.0))
    with pytest.raises(InputError, match="No ray of this scan meets the image"):
        network(torch.zeros(1, 1, 24, 52), beside)


# ---- VarNet


def test_an_untrained_varnet_gives_the_zero_filled_image_and_of_all_samples_the_image():
    truth = mr_image()
    for acceleration in (1, 2.5):
        operator = mr_operator(acceleration=acceleration)
        k_space = operator(truth)
        with torch.no_grad():
            found = small("varnet")(k_space, operator)
        assert relative(found, operator.adjoint(k_space)) < 1e-5
        if acceleration == 1:
            assert relative(found, truth) < 1e-5


def test_data_consistency_takes_back_what_a_network_did_to_measured_samples():
    operator, truth = mr_operator(acceleration=1), mr_image()
    network = small("varnet")
    torch.nn.init.normal_(network.regularizers[0].last.weight)
    with torch.no_grad():
        # What the first cascade adds is gone after a second one that adds nothing, all samples being known.
        assert relative(network(operator(truth), operator), truth) < 1e-5
        network.steps[1] = 0.5
        assert relative(network(operator(truth), operator), truth) > 1e-2


def test_varnet_keeps_the_unit_and_does_not_care_for_the_number_of_coils(trained):
    network = trained["varnet"][0]
    truth = mr_image()
    with torch.no_grad():
        for coils in (1, 5):
            operator = mr_operator(coils=coils)
            found = network(operator(truth), operator)
            assert found.shape == truth.shape and found.is_complex()
            assert relative(network(1e-6 * operator(truth), operator), 1e-6 * found) < 1e-4


def test_varnet_takes_odd_sizes_and_a_mask_for_each_image(trained):
    network = trained["varnet"][0]
    truth = mr_image(23, 29, count=2)
    full = mr_operator(23, 29)
    masks = torch.stack([random_lines((23, 29), 2.0, seed=seed)[None] for seed in (1, 2)])
    both = MrOperator(masks, full.sensitivities)
    with torch.no_grad():
        found = network(both(truth), both)
        alone = MrOperator(masks[1, 0], full.sensitivities)
        assert relative(network(alone(truth[1:]), alone), found[1:]) < 1e-4


def test_varnet_refuses_what_is_no_k_space():
    operator = mr_operator()
    with pytest.raises(InputError, match="complex"):
        small("varnet")(torch.zeros(1, 3, 24, 30), operator)
    with pytest.raises(InputError, match="2 coils and the sensitivities 3"):
        small("varnet")(operator(mr_image())[:, :2], operator)


def test_varnet_of_a_point_is_its_spectrum():
    # One sample of k-space is a plane wave; without coils and training the answer is its closed form.
    k_space = torch.zeros(1, 1, 8, 8, dtype=torch.complex64)
    k_space[..., 4, 5] = 8
    operator = MrOperator(torch.ones(8, 8))
    with torch.no_grad():
        found = small("varnet")(k_space, operator)
    assert torch.allclose(found, image_of_k_space(k_space), atol=1e-6)
    assert torch.allclose(found.abs(), torch.ones(8, 8), atol=1e-5)
