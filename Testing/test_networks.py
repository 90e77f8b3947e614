"""Networks: every option reaches them, every allowed size works, and MONAI alone can run what we trained."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.networks import SEGMENTATION, TARGETS, build, definition, options_of, size_divisor
from MedMapAILib.networks.fcn import FCN, _enlarging
from monai.bundle import ConfigParser
from monai.networks.nets import DynUNet
from torch import nn
from torch.nn.functional import cross_entropy, interpolate

NAMES = ("fcn", "unet", "attention-unet", "residual-unet", "segresnet")
SUPERVISED = ("unet", "residual-unet", "segresnet")

#: Small and uneven, so that each combination is quick and an axis mixed up is seen: network → options in 2D and in 3D.
SMALL = {
    "fcn": tuple(
        {"width": 4, "convolutions": [1, 1, 1, 1, 1], "classifier": 8, "strides": [2, 2, 2, *last]}
        for last in ([[1, 2], [2, 1]], [[1, 2, 2], [2, 1, 1]])
    ),
    "unet": (
        {"filters": [4, 6, 8], "strides": [1, [2, 1], 2], "kernels": [[1, 3], 3, 3]},
        {"filters": [4, 6, 8], "strides": [1, [2, 1, 3], 2], "kernels": [[1, 3, 3], 3, 3]},
    ),
    "attention-unet": (
        {"filters": [4, 6, 8], "strides": [1, [2, 1], 2], "kernels": [3, 5]},
        {"filters": [4, 6, 8], "strides": [1, [2, 1, 3], 2], "kernels": [3, 3, 5]},
    ),
    "residual-unet": (
        {"filters": [4, 6, 8], "strides": [1, [2, 1], 2], "kernels": [[1, 3], 3, 3]},
        {"filters": [4, 6, 8], "strides": [1, [2, 1, 2], 2], "kernels": [[1, 3, 3], 3, 3]},
    ),
    "segresnet": (
        {"filters": 4, "blocks": [1, 1, 1], "spacing": [1.0, 2.5]},
        {"filters": 4, "blocks": [1, 1, 1], "spacing": [1.0, 2.5, 1.0]},
    ),
}


def small(name: str, spatial_dims: int) -> dict:
    return SMALL[name][spatial_dims - 2]


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_the_table_names_what_there_is():
    assert tuple(SEGMENTATION) == NAMES
    for name, builder in SEGMENTATION.items():
        assert definition(name, spatial_dims=3, in_channels=1, out_channels=2)["_target_"] in TARGETS
        assert isinstance(builder(spatial_dims=2, in_channels=1, out_channels=2), nn.Module)


def test_looking_at_the_table_imports_no_torch():
    library = Path(__file__).resolve().parent.parent / "MedMapAI"
    code = (
        f"import sys; sys.path.insert(0, {str(library)!r}); import MedMapAILib.networks; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("in_channels", [1, 4])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image_and_every_weight_learns(name, spatial_dims, in_channels):
    options = small(name, spatial_dims)
    network = build(name, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=3, **options)
    divisor = size_divisor(name, spatial_dims=spatial_dims, **options)
    size = tuple(d * n for d, n in zip(divisor, (3, 2, 1), strict=False))
    x = torch.randn(2, in_channels, *size)
    logits = network(x)
    assert logits.shape == (2, 3, *size)
    if name == "fcn":
        # The scores of the skips begin at zero, so what lies before them learns from the second step on.
        for score in (network.score_pool3, network.score_pool4):
            nn.init.normal_(score.weight)
        logits = network(x)
    (logits * torch.randn_like(logits)).sum().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias before a normalization over the same voxels cancels out.
    assert not [n for n in still if not n.endswith("bias")]
    assert network.eval()(x).shape == logits.shape


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_size_works(name, spatial_dims, training):
    """One image whose deepest level is a single voxel, over which torch refuses to normalize."""
    options = small(name, spatial_dims)
    network = build(name, spatial_dims=spatial_dims, in_channels=1, out_channels=2, **options).train(training)
    divisor = size_divisor(name, spatial_dims=spatial_dims, **options)
    logits = network(torch.randn(1, 1, *divisor))
    assert logits.shape == (1, 2, *divisor)
    assert logits.isfinite().all()


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_monai_runs_the_definition_with_our_weights(name, spatial_dims):
    options = small(name, spatial_dims) | ({"deep_supervision": 1} if name in SUPERVISED else {}) | {"dropout": 0.3}
    shape = {"spatial_dims": spatial_dims, "in_channels": 2, "out_channels": 3}
    ours = build(name, **shape, **options)
    written = json.loads(json.dumps(definition(name, **shape, **options)))
    assert written == definition(name, **shape, **options)
    theirs = ConfigParser({"network_def": written}).get_parsed_content("network_def")
    weights = ours.state_dict()
    theirs.load_state_dict({key: weights[key] for key in theirs.state_dict()}, strict=True)
    left = set(weights) - set(theirs.state_dict())
    assert all("head" in key for key in left)
    assert bool(left) == (name in SUPERVISED)
    size = [2 * d for d in size_divisor(name, spatial_dims=spatial_dims, **options)]
    x = torch.randn(2, 2, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_gives_each_level_at_its_own_size(name):
    levels = {"filters": [4, 8, 8, 8, 8]} if name != "segresnet" else {"filters": 4, "blocks": [1, 1, 1, 1, 1]}
    network = build(name, spatial_dims=3, in_channels=1, out_channels=2, deep_supervision=3, **levels)
    x = torch.randn(1, 1, 32, 16, 48)
    outputs = network(x)
    assert [o.shape[2:] for o in outputs] == [(32, 16, 48), (16, 8, 24), (8, 4, 12), (4, 2, 6)]
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), outputs[0])
    counts = [1 + n for n in (2, 1)]
    for count, wanted in zip(counts, (True, 1), strict=True):
        trained = build(name, spatial_dims=3, in_channels=1, out_channels=2, deep_supervision=wanted, **levels)
        assert len(trained(x)) == count
    # One weight and one bias for each class and channel is all that a head is.
    plain = build(name, spatial_dims=3, in_channels=1, out_channels=2, **levels)
    filters = [8, 8, 8] if name != "segresnet" else [8, 16, 32]
    assert parameters(network) - parameters(plain) == sum(2 * f + 2 for f in filters)


def test_deep_supervision_is_monais_without_the_enlarging():
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "filters": [4, 8, 8, 8]}
    ours = build("unet", deep_supervision=2, **arguments)
    theirs = DynUNet(
        **arguments,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        deep_supervision=True,
        deep_supr_num=2,
        norm_name=("INSTANCE", {"affine": True}),
    )
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 1, 16, 24)
    for mine, stacked in zip(ours(x), theirs(x).unbind(1), strict=True):
        torch.testing.assert_close(interpolate(mine, (16, 24)), stacked)


def test_a_network_that_has_run_can_be_copied_and_keeps_no_graph():
    network = build("unet", spatial_dims=2, in_channels=1, out_channels=2, filters=[4, 8, 8], deep_supervision=True)
    x = torch.randn(1, 1, 8, 8)
    network(x)
    twin = copy.deepcopy(network)
    for mine, other in zip(network(x), twin(x), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_alone(name):
    shape = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        for dropout, differs in ((0.5, True), (0.0, False)):
            network = build(name, **shape, dropout=dropout)
            assert torch.equal(network(x), network(x)) is not differs
            network.eval()
            assert torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    ("norm", "layer"), [("instance", nn.InstanceNorm2d), ("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)]
)
@pytest.mark.parametrize("name", ["fcn", "unet", "residual-unet", "segresnet"])
def test_norm_is_the_one_asked_for(name, norm, layer):
    network = build(name, spatial_dims=2, in_channels=1, out_channels=2, norm=norm)
    kinds = {type(m) for m in network.modules() if isinstance(m, (nn.InstanceNorm2d, nn.BatchNorm2d, nn.GroupNorm))}
    assert kinds == {layer}
    assert all(m.affine for m in network.modules() if isinstance(m, layer))


@pytest.mark.parametrize(
    ("name", "options", "more"),
    [
        ("fcn", {"width": 8}, {"width": 9}),
        ("fcn", {"width": 8}, {"width": 8, "convolutions": [2, 2, 3, 3, 4]}),
        ("fcn", {"width": 8}, {"width": 8, "classifier": 129}),
        ("fcn", {"width": 8}, {"width": 8, "classifier_kernel": 5}),
        ("unet", {"filters": [4, 8, 8]}, {"filters": [4, 8, 9]}),
        ("unet", {"filters": [4, 8, 8]}, {"filters": [4, 8, 8], "kernels": [3, 3, [3, 5]]}),
        ("residual-unet", {"filters": [4, 8, 8]}, {"filters": [4, 8, 9]}),
        ("residual-unet", {"filters": [4, 8, 8], "kernels": 1}, {"filters": [4, 8, 8], "kernels": 3}),
        ("attention-unet", {"filters": [4, 8, 8]}, {"filters": [4, 8, 9]}),
        ("attention-unet", {"filters": [4, 8, 8]}, {"filters": [4, 8, 8], "kernels": [3, 5]}),
        ("segresnet", {"filters": 8}, {"filters": 9}),
        ("segresnet", {"filters": 8}, {"filters": 8, "blocks": [1, 2, 2, 5]}),
        ("segresnet", {"filters": 8, "spacing": [1, 5]}, {"filters": 8, "spacing": [1, 1]}),
    ],
)
def test_sizes_reach_the_network(name, options, more):
    shape = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    assert parameters(build(name, **shape, **options)) < parameters(build(name, **shape, **more))


@pytest.mark.parametrize(
    ("name", "spatial_dims", "options", "divisor"),
    [
        ("fcn", 3, {}, (32, 32, 32)),
        ("fcn", 2, {"strides": [2, 2, [2, 1], [2, 1], 1]}, (16, 4)),
        ("unet", 3, {}, (8, 8, 8)),
        ("unet", 3, {"filters": [8] * 4, "strides": [1, [2, 2, 1], 2, [1, 1, 3]]}, (4, 4, 6)),
        ("residual-unet", 2, {"filters": [8] * 6}, (32, 32)),
        ("attention-unet", 2, {"filters": [8] * 3, "strides": [1, [2, 1], 2]}, (4, 2)),
        ("segresnet", 3, {}, (8, 8, 8)),
        # Halved along the fine axes until voxels are about cubes, as MONAI's shape_factor says.
        ("segresnet", 3, {"spacing": [1, 1, 5]}, (8, 8, 2)),
    ],
)
def test_size_divisor_is_the_product_of_the_strides(name, spatial_dims, options, divisor):
    assert size_divisor(name, spatial_dims=spatial_dims, **options) == divisor
    network = build(name, spatial_dims=spatial_dims, in_channels=1, out_channels=2, **options)
    if name == "segresnet":
        assert tuple(network.shape_factor()) == divisor


def test_residual_unet_is_dynunet_with_residual_blocks():
    shape = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    assert definition("residual-unet", **shape) == definition("unet", **shape) | {"res_block": True}


@pytest.mark.parametrize("factors", [(2, 2), (8, 8), (2, 3, 8), (1, 2, 4)])
def test_enlarging_begins_as_linear_interpolation(factors):
    x = torch.randn(2, 3, *[6] * len(factors))
    with torch.no_grad():
        enlarged = _enlarging(3, factors)(x)
    mode = "bilinear" if len(factors) == 2 else "trilinear"
    wanted = interpolate(x, scale_factor=tuple(float(f) for f in factors), mode=mode, align_corners=False)
    # Beyond the border one side knows zeros, the other the last voxel.
    inner = (..., *(slice(f, -f) for f in factors))
    torch.testing.assert_close(enlarged[inner], wanted[inner])
    assert enlarged.shape == wanted.shape


def test_fcn_has_the_layers_of_vgg16():
    """VGG-16 has 138,357,544 parameters (Simonyan, Zisserman 2014), 4,097,000 of them in its last layer."""
    with torch.device("meta"):
        network = build(
            "fcn",
            spatial_dims=2,
            in_channels=3,
            out_channels=21,
            width=64,
            classifier=4096,
            classifier_kernel=7,
            norm="none",
        )
    scoring = (network.score_pool3, network.score_pool4, network.score_classifier)
    enlarging = (network.enlarge_pool3, network.enlarge_pool4, network.enlarge_classifier)
    assert parameters(network) - sum(map(parameters, (*scoring, *enlarging))) == 138_357_544 - 4_097_000
    assert [s.weight.shape for s in scoring] == [(21, 256, 1, 1), (21, 512, 1, 1), (21, 4096, 1, 1)]


def test_fcn_fuses_scores_at_an_eighth_a_sixteenth_and_a_thirty_second():
    network = build("fcn", spatial_dims=2, in_channels=1, out_channels=2, width=4).eval()
    seen = {}
    for name in ("score_pool3", "score_pool4", "score_classifier"):
        getattr(network, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    x = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        before = network(x)
        assert {n: tuple(o.shape[2:]) for n, o in seen.items()} == {
            "score_pool3": (8, 12),
            "score_pool4": (4, 6),
            "score_classifier": (2, 3),
        }
        # The skips begin at zero and the enlarging as interpolation: the first answer is the coarse one, enlarged.
        wanted = network.enlarge_pool3(network.enlarge_pool4(network.enlarge_classifier(seen["score_classifier"])))
        torch.testing.assert_close(before, wanted)
        # Each skip adds to it.
        for score in (network.score_pool3, network.score_pool4):
            nn.init.normal_(score.weight)
            assert not torch.allclose(network(x), before)
            nn.init.zeros_(score.weight)


def test_fcn_is_what_the_definition_names():
    made = definition("fcn", spatial_dims=2, in_channels=1, out_channels=2)
    assert made.pop("_target_") == f"{FCN.__module__}.{FCN.__qualname__}"
    assert isinstance(FCN(**made), FCN)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_find_a_bright_disc(name):
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij"))
    centers = torch.tensor([[20.0, 24.0], [40.0, 36.0], [30.0, 44.0], [44.0, 20.0]])
    label = ((grid - centers[:, :, None, None]).norm(dim=1) < 14).long()
    image = label[:, None] + 0.3 * torch.randn(4, 1, 64, 64)
    network = build(name, spatial_dims=2, in_channels=1, out_channels=2, dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(network(image), label).backward()
        optimizer.step()
    with torch.no_grad():
        found = network(image).argmax(dim=1)
    assert 2 * (found * label).sum() / (found.sum() + label.sum()) > 0.9


def test_the_same_seed_gives_the_same_weights():
    def weights():
        torch.manual_seed(3)
        return build("unet", spatial_dims=2, in_channels=1, out_channels=2).state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("u-net", {}, "choose one of fcn, unet, attention-unet, residual-unet, segresnet"),
        ("unet", {"filter": [8, 8]}, "there are filters, strides, kernels, dropout, norm, deep_supervision"),
        ("unet", {"filters": [8, 16]}, "filters is [8, 16]"),
        ("unet", {"filters": [8, 16, 0]}, "filters is [8, 16, 0]"),
        ("unet", {"filters": 8}, "filters is 8"),
        ("unet", {"filters": [8, 16, 16], "strides": [1, 2]}, "one entry for each of the 3 levels"),
        ("unet", {"filters": [8, 16, 16], "strides": [2, 2, 2]}, "begin with 1"),
        ("unet", {"filters": [8, 16, 16], "strides": [1, [2, 2], 2]}, "3 of them"),
        ("unet", {"kernels": 4}, "odd number"),
        ("unet", {"kernels": 1, "filters": [8, 8, 8], "strides": [1, 4, 2]}, "odd number of at least 3"),
        ("unet", {"dropout": 1.0}, "probability from 0 to below 1"),
        ("unet", {"norm": "layer"}, "choose one of instance, batch, group"),
        ("unet", {"norm": "group", "filters": [4, 8, 8]}, "multiples of 8"),
        ("unet", {"deep_supervision": 3}, "1 to 2"),
        ("unet", {"deep_supervision": "yes"}, "give true, false"),
        ("residual-unet", {"residual": False}, "no option 'residual'"),
        ("residual-unet", {"filters": [8, 8, 8], "strides": [1, [2, 3, 2], 2]}, "halve at most"),
        ("attention-unet", {"deep_supervision": True}, "no option 'deep_supervision'"),
        ("attention-unet", {"kernels": [3, 3]}, "3 of them"),
        ("attention-unet", {"filters": [1, 8]}, "begin with 2"),
        ("segresnet", {"filters": [8, 16]}, "one whole number"),
        ("segresnet", {"spacing": [1, 1]}, "3 numbers above zero"),
        ("segresnet", {"blocks": [1, 2]}, "3 or more levels"),
        ("fcn", {"convolutions": [1, 1, 1, 1, 1, 1]}, "five"),
        ("fcn", {"classifier_kernel": 4}, "odd number"),
        ("fcn", {"norm": "no"}, "instance, batch, group, none"),
    ],
)
def test_a_wrong_option_is_refused_with_a_sentence(name, options, says):
    with pytest.raises(InputError) as caught:
        build(name, spatial_dims=3, in_channels=1, out_channels=2, **options)
    assert says in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_channels_and_dimensions_are_checked(name):
    with pytest.raises(InputError, match="choose 2 or 3"):
        build(name, spatial_dims=1, in_channels=1, out_channels=2)
    with pytest.raises(InputError, match="at least one of each"):
        build(name, spatial_dims=2, in_channels=0, out_channels=2)


@pytest.mark.parametrize("name", NAMES)
def test_the_options_listed_are_the_options_taken(name):
    shape = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    defaults = options_of(name)
    assert definition(name, **shape, **defaults) == definition(name, **shape)
    assert size_divisor(name, spatial_dims=2, **defaults) == size_divisor(name, spatial_dims=2)
