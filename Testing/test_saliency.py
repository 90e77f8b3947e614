"""Saliency maps: their formulas, where their maximum lies in the patient, and whether they depend on the weights."""

import numpy as np
import pytest
import torch
from MedMapAILib import networks, saliency
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.networks.classifier import Classifier, Halving
from MedMapAILib.networks.ensemble import Ensemble
from MedMapAILib.plan import plan_from_dict
from MedMapAILib.preprocessing import Grid, to_model_grid
from MedMapAILib.saliency import feature_layer, sanity
from MedMapAILib.saliency.score import log_odds
from orders import every_axis_order, rotation
from torch import nn
from torch.nn import functional as F

SECOND = log_odds("binary", 1, 2)


class Tiny(Classifier):
    """Convolutions of the given strides, global average pooling and a linear layer."""

    def __init__(self, dims, *, channels=(1, 6), strides=(1,), seed=0, outputs=2):
        super().__init__()
        torch.manual_seed(seed)
        kind = (nn.Conv2d, nn.Conv3d)[dims - 2]
        layers = [
            nn.Sequential(kind(a, b, 3, stride, padding=1), nn.ReLU(inplace=True))
            for a, b, stride in zip(channels[:-1], channels[1:], strides, strict=True)
        ]
        self.features = nn.Sequential(*layers)
        self.last = nn.Linear(channels[-1], outputs)
        self.finish(dims, channels[-1], "none", 0.0)

    def output_layer(self):
        return self.last

    def body_stages(self):
        return [(f"stage{number}", layer) for number, layer in enumerate(self.features)]


class BlobFinder(Tiny):
    """Its second class is said to be there as much as a fixed kernel, matched to a bright blob, answers."""

    def __init__(self, dims, strides=(1,)):
        super().__init__(dims, channels=(1, *[1] * len(strides)), strides=strides)
        taps = torch.tensor([0.25, 0.5, 0.25])
        kernel = taps[:, None] * taps[None] if dims == 2 else taps[:, None, None] * taps[None, :, None] * taps
        with torch.no_grad():
            for layer in self.features:
                layer[0].weight.copy_(kernel)
                layer[0].bias.fill_(0)
            self.features[0][0].bias.fill_(-1.0)
            self.last.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.last.bias.zero_()


def blob(shape, affine, center, width=4.0):
    """An image with one bright Gaussian blob around a point in the patient (RAS mm), and noise."""
    points = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    squares = ((points - np.asarray(center)[:, None]) ** 2).sum(axis=0)
    noise = np.random.default_rng(0).normal(size=squares.shape)
    return (1000 * np.exp(-squares / 2 / width**2) + 5 * noise).reshape(1, *shape).astype(np.float32)


def plan(patch, **changes):
    given = {"spacing": [2.0] * 3, "patch": patch, "batch": 1, "normalization": {"kind": "zscore"}}
    return plan_from_dict({**given, "interpolation": "linear", "reasons": {}, **changes}, where="the test")


def peak(result):
    """Where the map is largest, RAS mm."""
    index = np.unravel_index(np.argmax(result.values), result.values.shape)
    return result.affine[:3, :3] @ index + result.affine[:3, 3]


def explained(network, image, patch_plan, method):
    model_image = to_model_grid(image, patch_plan)
    x = model_image.as_tensor()[None]
    if patch_plan.spatial_dims == 2:
        x = x.squeeze(2 + patch_plan.patch.index(1))
    return saliency.explain(
        network,
        x,
        SECOND,
        method,
        model_grid=Grid.of(model_image),
        image_grid=Grid.of(image),
        of_class="blob",
        check=False,
    )


# --------------------------------------------------------------------------------------------------------------------
# Where it lies


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "occlusion"])
def test_the_maximum_lies_on_the_thing_in_3d_however_it_is_stored(method):
    affine = np.diag([1.5, 1.0, 3.0, 1.0])
    affine[:3, 3] = (-20, 11, 40)
    center = (-20 + 1.5 * 17, 11 + 10, 40 + 3 * 9)
    array = blob((24, 30, 14), affine, center)
    network = BlobFinder(3)
    found = []
    for number, (turned, matrix, back) in enumerate(every_axis_order(array, affine)):
        if method == "occlusion" and number % 12:
            continue  # 343 boxes each
        result = explained(network, make_image(turned, matrix), plan([16, 16, 16]), method)
        assert result.values.shape == turned.shape[1:]
        assert result.values.min() >= 0 and 0.5 < result.values.max() <= 1
        # Half a box of an eighth of the field for occlusion, half a voxel else.
        assert np.linalg.norm(peak(result) - center) < (6 if method == "occlusion" else 2.5)
        found.append(back(result.values))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


@pytest.mark.parametrize("axes", ["patient", "image"])
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++"])
def test_the_maximum_lies_on_the_thing_in_oblique_images(method, axes):
    affine = np.diag([1.5, 1.0, 3.0, 1.0])
    affine[:3, :3] = rotation((1, 2, -1), 25) @ affine[:3, :3]
    affine[:3, 3] = (-30, 5, 60)
    center = affine[:3, :3] @ (17, 9, 4) + affine[:3, 3]
    image = make_image(blob((24, 30, 14), affine, center), affine)
    result = explained(BlobFinder(3), image, plan([16, 16, 16], axes=axes), method)
    assert np.linalg.norm(peak(result) - center) < 2.5


@pytest.mark.parametrize("flat", [0, 1, 2])
@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "occlusion"])
def test_the_maximum_lies_on_the_thing_in_2d(method, flat):
    shape, patch = [40, 36, 44], [16, 16, 16]
    shape[flat] = patch[flat] = 1
    affine = np.diag([-1.0, -1.5, 2.0, 1.0])
    affine[:3, 3] = (7, -3, 5)
    index = np.array([10.0, 25.0, 30.0])
    index[flat] = 0
    center = affine[:3, :3] @ index + affine[:3, 3]
    image = make_image(blob(shape, affine, center), affine)
    result = explained(BlobFinder(2), image, plan(patch, spacing=[1.0 * (n > 1) for n in patch]), method)
    assert result.values.shape == tuple(shape)
    assert np.linalg.norm(peak(result) - center) < (6 if method == "occlusion" else 2)


@pytest.mark.parametrize("size", [64, 57, 71])
def test_strides_do_not_move_the_map(size):
    # Four strides of 2 look around voxels 0, 16, 32, …; 8 voxels before the middles of equal parts of the image.
    network = BlobFinder(2, strides=(2, 2, 2, 2))
    for place in ((16, 32), (32, 16), (48, 48)):
        image = torch.zeros(1, 1, size, size)
        image[0, 0, place[0] - 3 : place[0] + 4, place[1] - 3 : place[1] + 4] = 10
        values = saliency.saliency_map(network, image, SECOND, "grad-cam")
        assert np.unravel_index(values.argmax(), values.shape) == place


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet18", (64, 64)), ("vgg11", (160, 160)), ("densenet121", (64, 64)), ("resnet18", (48, 32, 16))],
)
def test_features_lie_where_their_receptive_fields_do(name, size):
    torch.manual_seed(0)
    network = networks.build(
        name, spatial_dims=len(size), in_channels=1, out_channels=2, width=0.125, image_size=list(size)
    ).eval()
    # Without signs and nonlinear parts the gradient is symmetric around the middle of the receptive field.
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, Halving):
            module.kind = "average"
    # Several images, because the maximum of a pooling may lie on either side.
    x = torch.rand(8, 1, *size, requires_grad=True)
    features = network.features(x)
    places = feature_layer.places_of(network, x, tuple(features.shape[2:]))
    middle = [n // 2 for n in features.shape[2:]]
    gradient = torch.autograd.grad(features[(slice(None), slice(None), *middle)].sum(), x)[0][:, 0].numpy()
    weights = (gradient**2).sum(axis=0) / (gradient**2).sum()
    measured = [(weights * np.indices(size)[axis]).sum() for axis in range(len(size))]
    tolerance = 0.2 * places.step
    assert (np.abs(places.first + places.step * middle - measured) <= tolerance).all()


def test_on_image_is_exact_for_a_linear_map_and_zero_where_nothing_was_seen():
    affine = np.diag([2.0, 3.0, 1.0, 1.0])
    affine[:3, :3] = rotation((0, 1, 1), 30) @ affine[:3, :3]
    model_grid = Grid((10, 8, 6), affine)
    values = np.indices(model_grid.shape)[0] / 9
    image_affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    image_affine[:3, 3] = affine[:3, :3] @ (4.5, 3.5, 2.5) + (10, -10, -10)
    image_grid = Grid((20, 20, 20), image_affine)
    placed = saliency.on_image(values, model_grid, image_grid)
    points = image_affine[:3, :3] @ np.indices(image_grid.shape).reshape(3, -1) + image_affine[:3, 3:]
    index = (np.linalg.inv(affine) @ np.vstack([points, np.ones(points.shape[1])]))[:3].T
    inside = ((index >= 0) & (index <= np.array(model_grid.shape) - 1)).all(axis=1)
    outside = ((index < -0.501) | (index > np.array(model_grid.shape) - 0.499)).any(axis=1)
    assert inside.sum() > 100 and outside.sum() > 1000
    np.testing.assert_allclose(placed.ravel()[inside], index[inside, 0] / 9, atol=1e-5)
    assert not placed.ravel()[outside].any()


def test_on_image_takes_flat_maps_and_refuses_others():
    grid = Grid((4, 5, 1), np.eye(4))
    flat = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    np.testing.assert_array_equal(saliency.on_image(flat, grid, grid)[..., 0], flat)
    with pytest.raises(InputError, match="does not lie on"):
        saliency.on_image(flat.T, grid, grid)


# --------------------------------------------------------------------------------------------------------------------
# Formulas


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_of_pooling_and_a_linear_layer_is_the_class_activation_map(dims):
    network = Tiny(dims, outputs=3)
    x = torch.randn(1, 1, *(9, 8, 7)[:dims])
    for number in range(3):
        values = saliency.saliency_map(network, x, log_odds("multi-label", number, 3), "grad-cam")
        with torch.no_grad():
            features = network.features(x)[0]
            cam = torch.einsum("k,k...->...", network.last.weight[number], features).relu().numpy()
        np.testing.assert_allclose(values, cam / cam.max(), atol=1e-5)


def test_grad_cam_plus_plus_is_its_formula():
    # Two features of 1 × 3 voxels, seen as they are; y = a₀² + 3 a₁ + a₂ of the first, - b₀ + b₁ of the second.
    class Given(Classifier):
        def __init__(self):
            super().__init__()
            self.stage = nn.Identity()

        def features(self, x):
            return self.stage(x)

        def embedding(self, features):
            a, b = features[:, 0, 0], features[:, 1, 0]
            return torch.stack([a[:, 0] ** 2 + 3 * a[:, 1] + a[:, 2] - b[:, 0] + b[:, 1]], dim=1)

        def head(self, embedding):
            return embedding

    features = np.array([[2.0, 1.0, 0.5], [1.0, 0.0, 3.0]])
    gradients = np.array([[4.0, 3.0, 1.0], [-1.0, 1.0, 0.0]])
    weights = []
    for a, g in zip(features, gradients, strict=True):
        below = 2 * g**2 + a.sum() * g**3
        alpha = np.divide(g**2, below, out=np.zeros(3), where=below != 0)
        weights.append((alpha * np.maximum(g, 0)).sum())
    expected = np.maximum(weights[0] * features[0] + weights[1] * features[1], 0)
    x = torch.tensor(features, dtype=torch.float32)[None, :, None]
    values = saliency.saliency_map(Given(), x, lambda logits: logits[0, 0], "grad-cam++")
    np.testing.assert_allclose(values[0], expected / expected.max(), rtol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [((3, 4), (2, 3)), ((1, 1), (1, 1)), ((8, 7), (5, 5))])
def test_occlusion_is_brute_force(size, stride):
    network = Tiny(2, channels=(2, 5), seed=3).eval()
    x = torch.randn(1, 2, 8, 7)
    with torch.no_grad():
        whole = float(SECOND(network(x)))
        total, count = np.zeros((8, 7)), np.zeros((8, 7))
        starts = [[*range(0, n - s + 1, step)] for n, s, step in zip((8, 7), size, stride, strict=True)]
        for axis, (n, s) in enumerate(zip((8, 7), size, strict=True)):
            if starts[axis][-1] != n - s:
                starts[axis].append(n - s)
        for i in starts[0]:
            for j in starts[1]:
                hidden = x.clone()
                for channel in range(2):
                    hidden[0, channel, i : i + size[0], j : j + size[1]] = x[0, channel].mean()
                total[i : i + size[0], j : j + size[1]] += whole - float(SECOND(network(hidden)))
                count[i : i + size[0], j : j + size[1]] += 1
    expected = np.maximum(total / count, 0)
    values = saliency.saliency_map(network, x, SECOND, "occlusion", size=size, stride=stride)
    np.testing.assert_allclose(values, expected / max(expected.max(), 1e-9), atol=1e-4)


def test_an_ensemble_is_explained_as_one_network():
    members = [Tiny(2, seed=seed) for seed in range(3)]
    x = torch.randn(1, 1, 9, 8)
    values = saliency.saliency_map(Ensemble(members), x, log_odds("multi-label", 1, 2), "grad-cam")
    with torch.no_grad():
        cams = [torch.einsum("k,k...->...", m.last.weight[1], m.features(x)[0]) for m in members]
    expected = torch.stack(cams).mean(dim=0).relu().numpy()
    np.testing.assert_allclose(values, expected / expected.max(), atol=1e-5)
    same = saliency.saliency_map(Ensemble([members[0]] * 2), x, SECOND, "occlusion")
    np.testing.assert_allclose(same, saliency.saliency_map(members[0], x, SECOND, "occlusion"), atol=1e-5)


def test_attention_is_the_networks_own():
    torch.manual_seed(0)
    network = networks.build("resnet18", spatial_dims=2, in_channels=1, out_channels=2, width=0.125, attention="cbam")
    x = torch.randn(1, 1, 64, 96)
    values = saliency.saliency_map(network, x, SECOND, "attention")
    with torch.no_grad():
        own = network.eval().attention_map(x)[0, 0].numpy()
    assert values.shape == (64, 96) and values.min() == 0 and values.max() == pytest.approx(1)
    # Feature voxel j lies at 32 j.
    at_centers = values[::32, ::32]
    np.testing.assert_allclose(at_centers, (own - own.min()) / np.ptp(own), atol=1e-5)
    with pytest.raises(InputError, match="has no attention map"):
        saliency.saliency_map(Tiny(2), x, SECOND, "attention")


@pytest.mark.parametrize("kind", ["binary", "single-label", "multi-label", "ordinal"])
def test_the_score_is_the_log_odds_of_the_class(kind):
    count = 2 if kind == "binary" else 4
    logits = torch.randn(1, 3 if kind == "ordinal" else count, generator=torch.Generator().manual_seed(1)).double()
    if kind == "multi-label":
        expected = torch.sigmoid(logits[0])
    elif kind == "ordinal":
        at_least = torch.cat([torch.ones(1), torch.sigmoid(logits[0]).cumprod(0), torch.zeros(1)])
        expected = at_least[:-1] - at_least[1:]
    else:
        expected = torch.softmax(logits[0], dim=0)
    scores = torch.stack([log_odds(kind, number, count)(logits) for number in range(count)])
    torch.testing.assert_close(torch.sigmoid(scores), expected.double())
    # Sure networks still have a gradient.
    sure = (100 * logits).requires_grad_()
    log_odds(kind, count - 1, count)(sure).backward()
    assert sure.grad.abs().sum() > 0.5


# --------------------------------------------------------------------------------------------------------------------
# Every network, and what else may go wrong


@pytest.mark.parametrize("attention", ["none", "cbam", "transformer"])
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11"])
@pytest.mark.parametrize("size", [(28, 28), (33, 47), (28, 28, 28), (32, 32, 16)])
def test_every_network_has_a_map(name, attention, size):
    torch.manual_seed(0)
    network = networks.build(
        name,
        spatial_dims=len(size),
        in_channels=1,
        out_channels=2,
        width=0.125,
        attention=attention,
        image_size=list(size),
        members=2 if attention == "cbam" else 1,
    )
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(1, 1, *size)
    for method in ("grad-cam", "grad-cam++", "attention"):
        if method == "attention" and attention == "none":
            continue
        with torch.inference_mode():
            values = saliency.saliency_map(network, x, SECOND, method)
        assert values.shape == size and values.dtype == np.float32
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1
        if method == "grad-cam++":
            # All its weights are positive where the score rises at all, so it is not empty by chance.
            assert values.max() == 1 and values.min() < values.max()
    assert network.training and all(module.training for module in network.modules())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_features_without_a_place_are_replaced_by_those_of_an_earlier_stage():
    # Strides down to one voxel; the stage before has 4 × 4.
    network = BlobFinder(2, strides=(2, 2, 2, 2, 2))
    x = torch.zeros(1, 1, 32, 32)
    x[0, 0, 21:28, 5:12] = 10
    with torch.no_grad():
        assert network.features(x).shape[2:] == (1, 1)
    values = saliency.saliency_map(network, x, SECOND, "grad-cam")
    assert np.unravel_index(values.argmax(), values.shape) == (24, 8)


def test_nothing_that_speaks_for_a_class_is_an_empty_map_with_a_warning():
    network = BlobFinder(2)
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 4:8, 4:8] = 10
    first = log_odds("binary", 0, 2)
    assert not saliency.saliency_map(network, x, first, "grad-cam").any()
    assert "is empty" in sanity.warning_of(network, x, first, "grad-cam")


def test_mistakes_get_a_sentence():
    with pytest.raises(InputError, match="grad-cam, grad-cam"):
        saliency.saliency_map(Tiny(2), torch.zeros(1, 1, 8, 8), SECOND, "lime")
    with pytest.raises(InputError, match="one image"):
        saliency.saliency_map(Tiny(2), torch.zeros(2, 1, 8, 8), SECOND, "grad-cam")
    with pytest.raises(InputError, match="no class number 2"):
        log_odds("binary", 2, 2)


# --------------------------------------------------------------------------------------------------------------------
# The check against randomized weights


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam++", "occlusion"])
def test_the_map_of_a_network_with_weights_changes_with_them(method):
    network = Tiny(2, channels=(1, 8, 16), strides=(1, 2), seed=5)
    x = F.interpolate(torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(0)), size=(24, 24))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    changes, similarity = sanity.changes_with_weights(network, x, SECOND, method)
    assert changes and similarity < 0.7
    assert sanity.changes_with_weights(network, x, SECOND, method)[1] == similarity
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_randomized_weights_are_others_of_the_same_size():
    network = Tiny(2, channels=(1, 8, 16, 32), strides=(1, 2, 2))
    other = sanity.randomized(network, 0)
    for (name, stage), (_, changed) in zip(network.stages(), other.stages(), strict=True):
        same = all(torch.equal(a, b) for a, b in zip(stage.parameters(), changed.parameters(), strict=True))
        assert same == (name in ("stage0", "stage1"))
    a, b = network.last.weight.detach(), other.last.weight.detach()
    assert b.square().mean() == pytest.approx(float(a.square().mean()), rel=0.5)


class Unteachable(Classifier):
    """Says how bright the image is, in a way that no weight can change, and attends to what is bright."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(1, 1)

    def features(self, x):
        return F.avg_pool2d(x, 2)

    def embedding(self, features):
        return features.mean(dim=(2, 3))

    def head(self, embedding):
        return torch.cat([-embedding, embedding], dim=1)

    def stages(self):
        return [("head", self.last)]

    def attention_map(self, x):
        return F.avg_pool2d(x, 2)


@pytest.mark.parametrize("method", list(saliency.METHODS))
def test_a_map_that_cannot_change_has_a_warning(method):
    x = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    changes, similarity = sanity.changes_with_weights(Unteachable(), x, SECOND, method)
    assert not changes and similarity == pytest.approx(1)
    grid = Grid((24, 24, 1), np.eye(4))
    result = saliency.explain(Unteachable(), x, SECOND, method, model_grid=grid, image_grid=grid, of_class="bright")
    assert "hardly changes (rank correlation 1.00)" in result.warning
    assert (result.method, result.of_class, result.values.shape) == (method, "bright", (24, 24, 1))


def test_rank_correlation_is_spearmans():
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0, 1.0], [4.0, 3.0]])
    # 1 - 6 Σd² / (n (n² - 1)) with Σd² = 4, n = 4.
    assert sanity.rank_correlation(a, b) == pytest.approx(0.6)
    assert sanity.rank_correlation(a, a * 0) == 0 and sanity.rank_correlation(a * 0, a * 0) == 1
