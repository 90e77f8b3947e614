"""Classifiers: they are the published networks, every option reaches them, and every size of image works."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
import torchvision
from MedMapAILib.errors import InputError
from MedMapAILib.networks import (
    CLASSIFICATION,
    DETECTION,
    NETWORKS,
    SEGMENTATION,
    TARGETS,
    build,
    definition,
    options_of,
)
from MedMapAILib.networks import size_divisor as divisor_of
from MedMapAILib.networks.attention_blocks import CBAM, TransformerHead, gate, positions
from MedMapAILib.networks.classifier import Classifier, Halving, members_of
from MedMapAILib.networks.ensemble import Ensemble
from monai.bundle import ConfigParser
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.ops import StochasticDepth

NAMES = ("vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "densenet121", "densenet169")
FAMILIES = ("vgg11", "resnet18", "densenet121")
ATTENTION = ("none", "se", "cbam", "transformer")
SHAPE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}

#: Parameters with 1000 classes, in millions of the papers and to the last one in torchvision's documentation.
PUBLISHED = {
    "vgg11": 132_868_840,
    "vgg13": 133_053_736,
    "vgg16": 138_365_992,
    "vgg19": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
}


def small(name: str, **options) -> Classifier:
    """An eighth as wide as published, with the same weights each time."""
    torch.manual_seed(0)
    return build(name, **SHAPE | {"width": 0.125} | options)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def published_options(name: str) -> dict:
    return {"fully_connected": True} if name.startswith("vgg") else {}


def torchvisions(name: str) -> nn.Module:
    return getattr(torchvision.models, f"{name}_bn" if name.startswith("vgg") else name)(weights=None)


def saved_and_loaded(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    file = io.BytesIO()
    torch.save(weights, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_table_names_what_there_is():
    assert set(NAMES) <= set(CLASSIFICATION)
    assert not set(CLASSIFICATION) & set(SEGMENTATION)
    assert set(SEGMENTATION | CLASSIFICATION | DETECTION) <= set(NETWORKS)
    for name in NAMES:
        assert divisor_of(name, spatial_dims=3, **options_of(name)) == (1, 1, 1)
        written = definition(name, **SHAPE)
        assert written == definition(name, **SHAPE, **options_of(name))
        assert written["_target_"] in TARGETS
        assert {"width", "attention", "dropout", "members", "stem", "image_size"} <= set(options_of(name))
        assert "depth" not in options_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_parameters_of_the_published_network(name):
    with torch.device("meta"):
        network = build(name, spatial_dims=2, in_channels=3, out_channels=1000, **published_options(name))
    assert parameters(network) == PUBLISHED[name]


@pytest.mark.parametrize("name", NAMES)
def test_each_weight_has_a_name_and_a_shape_in_torchvision(name):
    with torch.device("meta"):
        ours = build(name, spatial_dims=2, in_channels=3, out_channels=1000, **published_options(name))
        theirs = torchvisions(name).state_dict()
    assert {ours.published_name(key): v.shape for key, v in ours.state_dict().items()} == {
        key: v.shape for key, v in theirs.items()
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_names_in_torchvision_do_not_depend_on_what_is_added(name):
    with torch.device("meta"):
        plain, network = small(name), small(name, attention="cbam", spatial_dims=3, members=2)
    added = {key for key in network.state_dict() if network.published_name(key) is None}
    assert added and all("attention" in key for key in added)
    theirs = [plain.published_name(key) for key in plain.state_dict()]
    ours = [network.published_name(key) for key in network.state_dict() if key not in added]
    assert sorted(ours) == sorted(2 * theirs)


@pytest.mark.parametrize(("name", "size"), [("resnet18", 75), ("resnet50", 64), ("densenet121", 75), ("vgg11", 75)])
def test_it_computes_what_torchvision_computes(name, size):
    torch.manual_seed(0)
    with torch.device("meta"):
        theirs = torchvisions(name)
        ours = build(name, spatial_dims=2, in_channels=3, out_channels=1000, **published_options(name))
    theirs.to_empty(device="cpu")
    for key, value in theirs.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.zero_()
        elif key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.ndim == 1:
            value.uniform_(-0.2, 0.2).add_(1.0 if key.endswith("weight") else 0.0)
        else:
            value.uniform_(-1, 1).mul_((2 / value[0].numel()) ** 0.5)
    weights = theirs.state_dict()
    ours.load_state_dict({key: weights[ours.published_name(key)] for key in ours.state_dict()}, assign=True)
    x = torch.randn(2, 3, size, size + 13)
    with torch.no_grad():
        wanted = theirs.eval()(x)
        assert wanted.std(dim=0).mean() > 1e-4 * wanted.abs().mean()
        torch.testing.assert_close(ours.eval()(x), wanted)


@pytest.mark.parametrize("stem", ["standard", "small"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
def test_monai_alone_runs_what_has_no_attention(name, spatial_dims, stem):
    if name == "densenet121" and stem == "small":
        pytest.skip("MONAI's DenseNet has no small stem")
    size = (40, 33, 36)[:spatial_dims]
    options = {"width": 0.125, "stem": stem, "dropout": 0.3, "image_size": list(size)}
    shape = {"spatial_dims": spatial_dims, "in_channels": 2, "out_channels": 3}
    written = json.loads(json.dumps(definition(name, **shape, **options)))
    assert written["_target_"].startswith("monai.")
    theirs = ConfigParser({"network_def": written}).get_parsed_content("network_def")
    ours = build(name, **shape, **options)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 2, *size)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(x), ours.eval()(x))


@pytest.mark.parametrize("options", [{"attention": a} for a in ATTENTION] + [{"members": 2, "attention": "se"}])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_network_answers_the_same_to_the_bit(name, options):
    options = {"width": 0.125, "image_size": [20, 28], "dropout": 0.2, **options}
    network = small(name, **options)
    x = torch.randn(2, 1, 20, 28)
    network(x)  # so that the norms' means are not those of a new network
    written = definition(name, **SHAPE, **options)
    assert json.loads(json.dumps(written)) == written
    again = ConfigParser({"network_def": written}).get_parsed_content("network_def")
    again.load_state_dict(saved_and_loaded(network.state_dict()))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), network.eval()(x))
        assert network(x).std(dim=0).max() > 0


@pytest.mark.parametrize(
    ("size", "in_channels", "attention"),
    [((28, 28), 1, "none"), ((45, 70), 3, "none"), *(((13, 32, 9), 1, a) for a in ATTENTION)],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_size_works_and_every_weight_learns(name, size, in_channels, attention):
    network = small(name, spatial_dims=len(size), in_channels=in_channels, attention=attention, image_size=list(size))
    x = torch.randn(4, in_channels, *size)
    logits = network(x)
    assert logits.shape == (4, 3) and logits.isfinite().all()
    cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    # A bias before a normalization over the same voxels cancels out.
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not [n for n in still if not n.endswith("bias")]

    features = network.features(x)
    assert features.ndim == x.ndim and features.min() >= 0
    embedding = network.eval().embedding(network.features(x))
    assert embedding.ndim == 2
    with torch.no_grad():
        torch.testing.assert_close(network.head(embedding), network(x))


@pytest.mark.parametrize("size", [(28, 28, 28), (32, 32, 16), (1, 2)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_smallest_images_work(name, size):
    network = small(name, spatial_dims=len(size), image_size=list(size)).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, *size)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"attention": attention}) for name in FAMILIES for attention in ATTENTION),
        *((name, {"attention": "cbam", "members": 2, "spatial_dims": 3}) for name in FAMILIES),
        ("resnet50", {}),
        ("vgg11", {"fully_connected": True}),
    ],
)
def test_each_parameter_is_in_exactly_one_stage(name, options):
    with torch.device("meta"):
        network = small(name, **options)
    stages = network.stages()
    staged = [id(p) for _, module in stages for p in module.parameters()]
    assert len(staged) == len(set(staged))
    assert set(staged) == {id(p) for p in network.parameters()}
    names = [name for name, _ in stages]
    assert names[-1] == "head" and len(set(names)) == len(names) >= 6
    assert ("transformer" in names) is (options.get("attention") == "transformer")
    heads = [member.output_layer() for member in members_of(network)]
    assert {id(p) for p in stages[-1][1].parameters()} == {id(p) for head in heads for p in head.parameters()}


@pytest.mark.parametrize("name", FAMILIES)
def test_stages_go_from_input_to_output(name):
    network = small(name, attention="transformer", image_size=[28, 28]).eval()
    order = []
    for stage, module in network.stages():
        for layer in module.modules():
            if not list(layer.children()) and list(layer.parameters()):
                layer.register_forward_hook(lambda *_, stage=stage: order.append(stage))
    with torch.no_grad():
        network(torch.randn(1, 1, 28, 28))
    assert list(dict.fromkeys(order)) == [stage for stage, _ in network.stages()]
    changes = sum(a != b for a, b in zip(order, order[1:], strict=False))
    assert changes == len(network.stages()) - 1


@pytest.mark.parametrize(
    ("name", "stem", "wanted"),
    [
        # 64 voxels, halved five times, and three times after a small stem; VGG leaves one pooling of five out.
        ("resnet18", "standard", 2),
        ("resnet18", "small", 8),
        ("densenet121", "standard", 2),
        ("densenet121", "small", 8),
        ("vgg11", "standard", 2),
        ("vgg11", "small", 4),
    ],
)
def test_the_stem_sets_how_coarse_features_are(name, stem, wanted):
    with torch.no_grad():
        features = small(name, stem=stem).eval().features(torch.randn(1, 1, 64, 64))
    assert features.shape[2:] == (wanted, wanted)


@pytest.mark.parametrize(
    ("image_size", "stem"),
    [([63, 63], "small"), ([64, 20], "standard"), ([20, 28], "small"), (None, "standard"), ((512, 512), "standard")],
)
def test_a_stem_left_open_suits_the_size_of_the_images(image_size, stem):
    for name in FAMILIES:
        assert definition(name, **SHAPE, image_size=image_size) == definition(
            name, **SHAPE, image_size=image_size, stem=stem
        )
        assert definition(name, **SHAPE, stem="small") != definition(name, **SHAPE, stem="standard")


@pytest.mark.parametrize("name", FAMILIES)
def test_width_scales_the_channels(name):
    def first_and_last(width):
        with torch.device("meta"):
            network = build(name, **SHAPE, width=width)
        first = next(p for p in network.parameters())
        return first.shape[0], network.output_layer().in_features

    (first, last), (first_half, last_half) = first_and_last(1.0), first_and_last(0.5)
    assert (first, first_half) == (64, 32)
    assert (last, last_half) == ((1024, 512) if name == "densenet121" else (512, 256))


def test_halving_is_torchs_where_torch_can():
    x = torch.randn(2, 3, 7, 8, 5)
    assert torch.equal(Halving("max")(x), nn.MaxPool3d(2)(x))
    assert torch.equal(Halving("average")(x), nn.AvgPool3d(2)(x))
    flat = torch.randn(2, 3, 6, 1)
    assert torch.equal(Halving("max")(flat), nn.MaxPool2d((2, 1))(flat))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_cbam_is_the_formula_of_the_paper(spatial_dims):
    """Woo et al. 2018, equations 1 to 3, with loops over voxels."""
    torch.manual_seed(0)
    block = CBAM(spatial_dims, 3).double()
    nn.init.normal_(block.channel.mlp[0].bias)
    x = torch.randn(1, 3, *(2, 4, 3)[:spatial_dims], dtype=torch.float64)
    with torch.no_grad():
        found = block(x)[0].numpy()
        map_found = block.spatial(x * block.channel(x))[0, 0].numpy()

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    first, _, second = block.channel.mlp
    w0, b0, w1, b1 = (p.detach().numpy() for p in (first.weight, first.bias, second.weight, second.bias))

    def mlp(v):
        return w1 @ np.maximum(w0 @ v + b0, 0) + b1

    f = x[0].numpy()
    flat = f.reshape(3, -1)
    f = f * sigmoid(mlp(flat.mean(1)) + mlp(flat.max(1))).reshape(3, *[1] * spatial_dims)
    kernel = block.spatial.convolution.weight.detach().numpy()[0]
    bias = block.spatial.convolution.bias.item()
    seen = np.pad(np.stack([f.mean(0), f.max(0)]), [(0, 0)] + [(3, 3)] * spatial_dims)
    weights = np.empty(f.shape[1:])
    for voxel in np.ndindex(weights.shape):
        window = seen[(slice(None), *(slice(v, v + 7) for v in voxel))]
        weights[voxel] = sigmoid((window * kernel).sum() + bias)
    np.testing.assert_allclose(map_found, weights, rtol=1e-12)
    np.testing.assert_allclose(found, f * weights, rtol=1e-12)


def test_squeeze_and_excitation_is_the_formula_of_the_paper():
    """Hu et al. 2018, equations 2 to 4: x̃ = σ(W₂ δ(W₁ mean(x))) x."""
    torch.manual_seed(0)
    block = gate("se", 2, 32)
    x = torch.randn(2, 32, 3, 5)
    first, _, second, _ = block.fc
    with torch.no_grad():
        hidden = torch.relu(x.mean(dim=(2, 3)) @ first.weight.T + first.bias)
        wanted = x * torch.sigmoid(hidden @ second.weight.T + second.bias)[:, :, None, None]
        torch.testing.assert_close(block(x), wanted)
    assert first.weight.shape == (8, 32)
    assert gate("se", 2, 512).fc[0].weight.shape == (32, 512)


@pytest.mark.parametrize(
    ("name", "gates"),
    # One in each residual block; one for each dense block or stage.
    [("resnet18", 8), ("resnet50", 16), ("densenet121", 4), ("vgg11", 5)],
)
def test_gates_are_where_the_papers_have_them(name, gates):
    with torch.device("meta"):
        network = build(name, **SHAPE, attention="cbam")
    assert sum(isinstance(module, CBAM) for module in network.modules()) == gates


def test_pretrained_features_pass_gates_almost_unchanged():
    x = torch.rand(4, 64, 8, 8)
    for attention, least in (("se", 0.8), ("cbam", 0.5)):
        torch.manual_seed(0)
        with torch.no_grad():
            ratio = gate(attention, 2, 64)(x) / x
        assert least < ratio.min() and ratio.max() < 1


def test_the_transformers_map_is_its_class_tokens_attention():
    torch.manual_seed(0)
    head = TransformerHead(2, 20).eval()
    features = torch.rand(2, 20, 3, 5)
    tokens = head.enter(features.flatten(2).mT) + positions(features.shape[2:], head.size)
    tokens = torch.cat([head.class_token.expand(2, -1, -1), tokens], dim=1)
    tokens = head.layers[0](tokens)
    last = head.layers[1].attention
    queries, keys, _ = last.qkv(head.layers[1].attention_norm(tokens)).chunk(3, dim=-1)
    queries, keys = (t.unflatten(-1, (head.HEADS, -1)).transpose(1, 2) for t in (queries, keys))
    weights = (queries @ keys.mT / queries.shape[-1] ** 0.5).softmax(dim=-1)
    wanted = weights[:, :, 0, 1:].mean(dim=1).reshape(2, 1, 3, 5)
    with torch.no_grad():
        torch.testing.assert_close(head.attention_map(features), wanted)
    assert (wanted.sum(dim=(2, 3)) < 1).all()
    # Asked for, a map leaves nothing behind.
    assert not last.save_attn and last.att_mat.numel() == 0


def test_the_transformer_sees_where_a_feature_is():
    torch.manual_seed(0)
    head = TransformerHead(2, 16).eval()
    here, there = torch.zeros(2, 1, 16, 4, 6)
    here[..., 0, 1], there[..., 3, 1] = 1, 1
    with torch.no_grad():
        assert (head(here) - head(there)).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6)])
def test_each_position_has_its_own_numbers(shape):
    table = positions(torch.Size(shape), 32)
    assert table.shape == (np.prod(shape), 32)
    distances = torch.cdist(table, table) + 100 * torch.eye(len(table))
    assert distances.min() > 0.5
    # Sine and cosine of the index along the first axis begin the row.
    row = table.reshape(*shape, 32)[(2, *[0] * (len(shape) - 1))]
    assert row[0] == pytest.approx(np.sin(2)) and row[32 // (2 * len(shape))] == pytest.approx(np.cos(2))


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_attention_maps(name, members):
    x = torch.rand(2, 1, 40, 24)
    options = {"members": members, "image_size": [40, 24]}
    for attention in ATTENTION:
        network = small(name, attention=attention, **options).eval()
        with torch.no_grad():
            found = network.attention_map(x)
            if attention in ("none", "se"):
                assert found is None
                continue
            assert found.shape[:2] == (2, 1) and 0 <= found.min() and found.max() <= 1
            if attention == "transformer" or name != "vgg11":
                assert found.shape[2:] == network.features(x).shape[2:]
            if members == 2:
                torch.testing.assert_close(found, sum(m.attention_map(x) for m in network.members) / 2)
            # Hooks are gone and the answer is what it was.
            assert torch.equal(network(x), network(x))
            assert not any(module._forward_hooks for module in network.modules())


def test_stochastic_depth_grows_with_depth_and_acts_in_training_alone():
    network = small("resnet34", stochastic_depth=0.4, image_size=[28, 28])
    probabilities = [m.p for m in network.modules() if isinstance(m, StochasticDepth)]
    assert probabilities == pytest.approx([0.4 * n / 16 for n in range(1, 17)])
    x = torch.randn(8, 1, 28, 28)
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))
        plain = small("resnet34", image_size=[28, 28])
        plain.load_state_dict(network.state_dict())
        assert torch.equal(network.eval()(x), plain.eval()(x))
        # Left out, a block is its bypass.
        block = network.layer4[2]
        block.stochastic_depth = StochasticDepth(1.0, "row").train()
        inputs = torch.rand(2, 64, 4, 4)
        assert torch.equal(block(inputs), inputs)


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout_acts_in_training_alone(name):
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        network = small(name, image_size=[28, 28], dropout=0.5)
        assert not torch.equal(network(x), network(x))
        plain = small(name, image_size=[28, 28])
        assert torch.equal(plain(x), plain(x))
        plain.load_state_dict(network.state_dict())
        assert torch.equal(plain.eval()(x), network.eval()(x))


def test_the_dropout_of_dense_layers_reaches_them():
    network = small("densenet121", layer_dropout=0.2)
    assert [m.p for m in network.features.modules() if isinstance(m, nn.Dropout2d | nn.Dropout)] == [0.2] * 58
    assert set(network.state_dict()) == set(small("densenet121").state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_an_ensemble_trains_each_member_and_answers_with_their_mean(name):
    network = small(name, members=3, image_size=[28, 28])
    assert isinstance(network, Ensemble) and isinstance(network, Classifier)
    members = members_of(network)
    assert len(members) == 3 and all(type(m) is type(small(name)) for m in members)
    x = torch.randn(4, 1, 28, 28)
    answers = network(x)
    assert [a.shape for a in answers] == [(4, 3)] * 3
    assert not torch.allclose(answers[0], answers[1])
    sum(cross_entropy(a, torch.tensor([0, 1, 2, 0])) for a in answers).backward()
    assert all(m.output_layer().weight.grad.abs().sum() > 0 for m in members)

    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), sum(m(x) for m in members) / 3)
        embedding = network.embedding(network.features(x))
        torch.testing.assert_close(embedding, torch.cat([m.embedding(m.features(x)) for m in members], dim=1))
        torch.testing.assert_close(network.head(embedding), network(x))
    key = next(key for key in network.state_dict() if key.startswith("members.2."))
    assert network.published_name(key) == members[2].published_name(key.removeprefix("members.2."))


def test_members_of_one_network_is_the_network():
    network = small("resnet18")
    assert members_of(network) == [network]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_weights(name):
    first, second = (small(name, attention="cbam").state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "attention"), [("vgg11", "none"), ("resnet18", "none"), ("resnet18", "cbam"), ("resnet18", "transformer")]
)
def test_it_learns_to_tell_discs_from_rings(name, attention):
    torch.manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij"))
    centers = 10 + 8 * torch.rand(24, 2)
    distance = (grid - centers[:, :, None, None]).norm(dim=1)
    target = torch.arange(24) % 2
    image = torch.where(target[:, None, None] == 1, (distance - 6).abs() < 1.5, distance < 4)[:, None].float()
    image = image + 0.2 * torch.randn_like(image)
    network = small(name, width=0.0625, attention=attention, out_channels=2, image_size=[28, 28])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(12):
        optimizer.zero_grad()
        cross_entropy(network(image), target).backward()
        optimizer.step()
    # With the norms of the batch: those of the whole training come later than so few steps.
    with torch.no_grad():
        assert (network(image).argmax(dim=1) == target).float().mean() >= 0.9


def test_one_image_too_small_to_be_normalized_is_refused_with_a_sentence():
    network = small("resnet18", stem="standard")
    with pytest.raises(InputError, match="batch size of 2 or more") as caught:
        network(torch.randn(1, 1, 28, 28))
    assert "28 × 28" in str(caught.value)
    assert network(torch.randn(2, 1, 28, 28)).shape == (2, 3)
    assert network.eval()(torch.randn(1, 1, 28, 28)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet101", {}, "choose one of fcn, unet, attention-unet, residual-unet, segresnet, vgg11"),
        (
            "resnet18",
            {"filters": 8},
            "there are width, attention, dropout, stochastic_depth, members, stem, image_size",
        ),
        ("resnet18", {"depth": 34}, "no option 'depth'"),
        ("resnet18", {"attention": "CBAM"}, "choose one of none, se, cbam, transformer"),
        ("resnet18", {"width": 0}, "1/16 or more"),
        ("resnet18", {"width": "wide"}, "1/16 or more"),
        ("resnet18", {"dropout": 1}, "probability from 0 to below 1"),
        ("resnet18", {"stochastic_depth": -0.1}, "stochastic_depth is -0.1"),
        ("densenet121", {"layer_dropout": 1.5}, "layer_dropout is 1.5"),
        ("densenet121", {"stochastic_depth": 0.1}, "no option 'stochastic_depth'"),
        ("vgg16", {"members": 0}, "members is 0"),
        ("vgg16", {"members": 100}, "at most 16"),
        ("vgg16", {"stem": "tiny"}, "choose one of auto, standard, strided, small"),
        ("vgg16", {"image_size": [28, 28, 28]}, "2 whole numbers above zero"),
        ("vgg16", {"image_size": [28, 0]}, "2 whole numbers above zero"),
        ("vgg16", {"fully_connected": 1}, "give true or false"),
        ("vgg16", {"fully_connected": True, "attention": "transformer"}, "choose one of them"),
    ],
)
def test_a_wrong_option_is_refused_with_a_sentence(name, options, says):
    for make in (build, definition):
        with pytest.raises(InputError) as caught:
            make(name, **SHAPE, **options)
        assert says in str(caught.value)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
@pytest.mark.parametrize(("stem", "coarse"), [("small", 1), ("strided", 2), ("standard", 4)])
def test_a_stem_makes_the_image_as_coarse_as_its_name_says(name, stem, coarse):
    network = build(name, spatial_dims=3, in_channels=1, out_channels=2, width=0.125, stem=stem).eval()
    with torch.inference_mode():
        size = network.features(torch.zeros(1, 1, 32, 32, 32)).shape[2:]
    assert tuple(size) == (max(1, 32 // coarse // 8),) * 3  # three stages halve after the stem
