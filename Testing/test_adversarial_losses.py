"""Losses of a reconstruction: closed forms, critics, and who learns from what."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
import torchvision
from MedMapAILib.errors import InputError
from MedMapAILib.losses import RECONSTRUCTION, build_reconstruction_loss, reconstruction_options
from MedMapAILib.losses.adversarial import gradient_penalty
from MedMapAILib.losses.perceptual import Perceptual
from MedMapAILib.networks import build
from MedMapAILib.networks.critics import ImageCritic, PatchCritic
from skimage.metrics import structural_similarity
from torch import nn

NAMES = ("mse", "l1", "charbonnier", "ssim", "noise2void", "conditional-gan", "wasserstein-gan")
ADVERSARIAL = ("conditional-gan", "wasserstein-gan")
SHAPE = {"channels": 1, "condition_channels": 1, "spatial_dims": 2, "data_range": 2.0}


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)


def loss_of(name, *, shape=None, **options):
    return build_reconstruction_loss({"name": name, **options}, **SHAPE | (shape or {}))


def images(count=2, side=32, spatial_dims=2):
    return torch.rand(3, count, 1, *[side] * spatial_dims).unbind()


# ---- distances


def test_the_table_names_what_there_is():
    assert tuple(RECONSTRUCTION) == NAMES
    for name, builder in RECONSTRUCTION.items():
        loss = builder(**SHAPE, **reconstruction_options(name))
        assert (loss.opponent is not None) == (name in ADVERSARIAL)
        assert loss.blind_spots == (name == "noise2void")


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("mse", (4 + 0 + 1 + 1) / 4),
        ("l1", (2 + 0 + 1 + 1) / 4),
        # ε is 0.1 of the data range of 2.
        ("charbonnier", (math.sqrt(4.04) + 0.2 + 2 * math.sqrt(1.04)) / 4 - 0.2),
    ],
)
def test_a_distance_has_its_closed_form(name, true):
    output, target = torch.tensor([[2.0, 5.0], [1.0, 0.0]]), torch.tensor([[0.0, 5.0], [0.0, 1.0]])
    loss = loss_of(name, **({"epsilon": 0.1} if name == "charbonnier" else {}))
    found = loss(output[None, None], target[None, None], None)
    assert float(found) == pytest.approx(true)
    assert loss.parts == {"fidelity": pytest.approx(true)}
    assert float(loss(target[None, None], target[None, None])) == pytest.approx(0, abs=1e-6)


def test_the_similarity_is_that_of_scikit_image():
    output, target, _ = images(1, 40)
    # scikit-image leaves out the pixels whose window reaches over the border when it takes the mean.
    true = structural_similarity(
        target[0, 0].double().numpy(),
        output[0, 0].double().numpy(),
        data_range=2.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert float(loss_of("ssim", weight=1.0)(output, target)) == pytest.approx(1 - true, abs=1e-4)
    absolute = float((output - target).abs().mean()) / 2
    mixed = float(loss_of("ssim", weight=0.25)(output, target))
    assert mixed == pytest.approx(0.25 * (1 - true) + 0.75 * absolute, abs=1e-4)
    assert torch.isfinite(loss_of("ssim")(output[..., :6, :6], target[..., :6, :6]))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_single(name):
    output, target, condition = images()
    if name == "noise2void":
        condition = condition > 0.5
    loss = loss_of(name)
    full = loss(output.bfloat16().float(), target, condition)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(output.bfloat16(), target, condition)
    assert half.dtype == torch.float32 and float(half) == pytest.approx(float(full), rel=1e-5)


# ---- critics


def test_a_logit_of_the_patch_critic_sees_seventy_pixels():
    critic = PatchCritic(2, 1, width=4)
    for number, layer in enumerate(critic.body):
        # The mean and deviation are of the whole image; the receptive field is that of the convolutions.
        if isinstance(layer, nn.InstanceNorm2d):
            critic.body[number] = nn.Identity()
    image = torch.randn(1, 1, 256, 256, requires_grad=True)
    logits = critic(image)
    # Isola and others: 30 × 30 patches of an image of 256 × 256.
    assert logits.shape == (1, 1, 30, 30)
    logits[0, 0, 15, 15].backward()
    seen = image.grad[0, 0] != 0
    assert (int(seen.any(dim=0).sum()), int(seen.any(dim=1).sum())) == (70, 70)
    assert critic.receptive_field == 70
    # The other sizes of the paper's appendix.
    assert [PatchCritic(2, 1, 4, layers).receptive_field for layers in (1, 2, 3, 5)] == [16, 34, 70, 286]


def test_the_patch_critic_has_the_published_size():
    # Of pix2pix in PyTorch, with 3 channels of a condition and 3 of an image: 2.769 million.
    assert sum(p.numel() for p in PatchCritic(2, 6).parameters()) == 2_768_705


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_critics_judge_every_image_by_itself(spatial_dims):
    batch = torch.randn(3, 2, *[24] * spatial_dims)
    for critic in (PatchCritic(spatial_dims, 2, 4), ImageCritic(spatial_dims, 2, 4, hidden=8)):
        with torch.no_grad():
            assert torch.allclose(critic(batch)[1:2], critic(batch[1:2]), atol=1e-5)


def test_an_image_too_small_to_be_judged_is_refused():
    with pytest.raises(InputError, match="24 pixels a side or more, and these are 23×30"):
        PatchCritic(2, 1, 4)(torch.zeros(1, 1, 23, 30))


@pytest.mark.parametrize("length", [0.3, 1.0, 4.0])
def test_the_gradient_penalty_of_a_linear_critic(length):
    # Its slope is its weights everywhere: (|w| - 1)², whose derivative is 2 (|w| - 1) w / |w|.
    weights = torch.randn(1, 5, 6)
    weights = (length * weights / weights.norm()).requires_grad_()
    real, made, _ = torch.randn(3, 4, 1, 5, 6).unbind()
    penalty = gradient_penalty(lambda x: (x * weights).sum(dim=(1, 2, 3)), real, made)
    assert float(penalty.detach()) == pytest.approx((length - 1) ** 2, abs=1e-5)
    (slope,) = torch.autograd.grad(penalty, weights)
    assert torch.allclose(slope, 2 * (length - 1) * weights.detach() / length, atol=1e-5)


def test_the_gradient_penalty_looks_between_real_and_made():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.square().sum(dim=(1, 2, 3)) / 2

    real, made = torch.ones(64, 1, 2, 2), torch.full((64, 1, 2, 2), 3.0)
    penalty = gradient_penalty(critic, real, made)
    points = seen[0]
    assert bool((points >= 1).all() and (points <= 3).all())
    assert points.amax() > 2.5 and points.amin() < 1.5
    assert (points - points.mean(dim=(1, 2, 3), keepdim=True)).abs().max() < 1e-6
    # The slope of |x|² / 2 is x.
    assert float(penalty.detach()) == pytest.approx(float((points.flatten(1).norm(dim=1) - 1).square().mean()))


def test_a_linear_critic_finds_the_wasserstein_distance():
    # Two single images: the distance d is that between them, √256 / 16 = 1. Its slope s makes d s - 10 (s - 1)² large:
    # s is 1 + d / 20 where the critic has learned enough, and what it says is d s.
    loss = loss_of("wasserstein-gan", width=4, shape={"data_range": 1.0})
    loss.opponent = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))
    optimizer = torch.optim.Adam(loss.opponent.parameters(), lr=5e-3, betas=(0.5, 0.9))
    real, made = torch.zeros(2, 1, 16, 16), torch.full((2, 1, 16, 16), 1 / 16)
    for _ in range(120):
        optimizer.zero_grad()
        loss.opponent_loss(made, real, None).backward()
        optimizer.step()
    with torch.no_grad():
        distance = float((loss.opponent(real) - loss.opponent(made)).mean())
    assert distance == pytest.approx(1.05, rel=0.01)


# ---- who learns from what


def test_an_undecided_critic_costs_log_two():
    loss = loss_of("conditional-gan", width=4)
    nn.init.zeros_(loss.opponent.body[-1].weight)
    output, target, condition = images()
    absolute = float((output - target).abs().mean()) / 2
    assert float(loss(output, target, condition)) == pytest.approx(math.log(2) + 100 * absolute, rel=1e-5)
    assert loss.parts == {"fidelity": pytest.approx(absolute), "adversarial": pytest.approx(math.log(2))}
    assert float(loss.opponent_loss(output, target, condition).detach()) == pytest.approx(math.log(2))


def test_the_wasserstein_loss_is_what_its_parts_say():
    loss = loss_of("wasserstein-gan", width=4, fidelity="mse", fidelity_weight=2.0, adversarial_weight=0.5)
    output, target, _ = images()
    found = float(loss(output, target, None))
    with torch.no_grad():
        verdict = float(loss.opponent(output / 2).mean())
    true = {"fidelity": float(((output - target) / 2).square().mean()), "adversarial": -verdict}
    assert loss.parts == {name: pytest.approx(value, rel=1e-4) for name, value in true.items()}
    assert found == pytest.approx(2 * true["fidelity"] + 0.5 * true["adversarial"], rel=1e-4)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_network_and_critic_learn_each_from_its_own_loss(name):
    loss = loss_of(name, width=4)
    output, target, condition = images()
    output.requires_grad_()
    loss(output, target, condition).backward()
    assert output.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in loss.opponent.parameters())
    output.grad = None
    loss.opponent_loss(output, target, condition).backward()
    assert output.grad is None
    assert all(p.grad.abs().sum() > 0 for p in loss.opponent.parameters() if p.ndim > 1)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_critic_learns_to_tell_blurred_from_sharp(name, spatial_dims):
    loss = loss_of(name, width=4, shape={"spatial_dims": spatial_dims})
    pool = (nn.functional.avg_pool2d, nn.functional.avg_pool3d)[spatial_dims - 2]
    _, target, condition = images(2, 24, spatial_dims)
    output = pool(target, 3, stride=1, padding=1)
    optimizer = torch.optim.Adam(loss.opponent.parameters(), lr=2e-3, betas=loss.opponent_optimizer["betas"])
    values = []
    for _ in range(12):
        optimizer.zero_grad()
        value = loss.opponent_loss(output, target, condition)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.8 * values[0]


def test_the_critic_alone_makes_the_network_take_noise_away():
    # Images are stripes, and what the network learns is how much noise it leaves on them. No fidelity at all.
    loss = loss_of("wasserstein-gan", width=4, fidelity_weight=0.0, adversarial_weight=1.0, learning_rate=2e-3)
    real = torch.sin(torch.arange(16.0))[None, None, None].expand(4, 1, 16, 16)
    left = torch.ones((), requires_grad=True)
    settings = loss.opponent_optimizer
    critic = torch.optim.Adam(loss.opponent.parameters(), lr=settings["learning_rate"], betas=settings["betas"])
    network = torch.optim.Adam([left], lr=0.1, betas=(0.5, 0.9))
    for step in range(15):
        made = real + left * torch.randn_like(real)
        for _ in range(4 if step else 8):
            critic.zero_grad()
            loss.opponent_loss(made.detach(), real).backward()
            critic.step()
        network.zero_grad()
        loss(made, real).backward()
        network.step()
    assert abs(float(left.detach())) < 0.5


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_unit_of_the_images_does_not_matter(name):
    output, target, condition = images()
    values = []
    for unit in (1.0, 500.0):
        torch.manual_seed(3)
        loss = loss_of(name, width=4, shape={"data_range": 2 * unit})
        arguments = [unit * image for image in (output, target, condition)]
        values.append((float(loss(*arguments).detach()), float(loss.opponent_loss(*arguments).detach())))
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_the_conditional_critic_sees_what_the_image_was_made_of():
    output, target, condition = images()
    for name, options, sees in (
        ("conditional-gan", {}, True),
        ("wasserstein-gan", {"conditional": True}, True),
        ("wasserstein-gan", {}, False),
    ):
        loss = loss_of(name, width=4, **options)
        loss(output, target, condition)
        before = loss.parts["adversarial"]
        loss(output, target, condition.flip(-1))
        assert (loss.parts["adversarial"] != before) == sees
        # Where the network is given a measurement there is no image to show.
        alone = loss_of(name, width=4, shape={"condition_channels": 0}, **options)
        assert torch.isfinite(alone(output, target, None)) and torch.isfinite(alone.opponent_loss(output, target, None))


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_the_critic_goes_on_where_it_was(name):
    output, target, condition = images()
    loss, again = loss_of(name, width=4), loss_of(name, width=4)
    kept = io.BytesIO()
    torch.save(loss.opponent.state_dict(), kept)
    kept.seek(0)
    again.opponent.load_state_dict(torch.load(kept, weights_only=True))
    values = []
    for one in (loss, again):
        torch.manual_seed(7)
        values.append(one.opponent_loss(output, target, condition))
    assert torch.equal(*values)


# ---- perceptual term


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return str(path)


def test_features_are_those_of_torchvision(resnet):
    x, y, _ = images(1, 32)
    theirs = torchvision.models.resnet18(weights=None)
    theirs.load_state_dict(torch.load(resnet, weights_only=True))
    body = nn.Sequential(*list(theirs.eval().children())[:6])
    with torch.no_grad():
        features = [body(((image - 0.449) / 0.226).expand(-1, 3, -1, -1)) for image in (x, y)]
        assert float(Perceptual(resnet, spatial_dims=2)(x, y)) == pytest.approx(
            float((features[0] - features[1]).square().mean()), rel=1e-3
        )


def test_the_perceptual_term_teaches_the_output_alone_and_is_not_kept(resnet):
    loss = loss_of("wasserstein-gan", width=4, perceptual=resnet)
    output, target, _ = images()
    output.requires_grad_()
    target.requires_grad_()
    loss(output, target, None).backward()
    assert set(loss.parts) == {"fidelity", "adversarial", "perceptual"} and loss.parts["perceptual"] > 0
    term = loss.perceptual
    target.grad = None
    term(output, target).backward()
    assert target.grad is None
    assert not term.state_dict() and not list(term.parameters())
    assert all(not p.requires_grad for p in term._features[0].parameters())
    assert not term.train()._features[0].training
    assert float(term(target, target).detach()) == 0


def test_the_perceptual_term_sees_volumes_and_our_own_bundles(resnet):
    volumes = images(1, 16, 3)[:2]
    assert float(Perceptual(resnet, spatial_dims=3)(*volumes)) > 0
    assert float(Perceptual("pneumonia", spatial_dims=2)(*images(1, 28)[:2])) > 0
    with pytest.raises(InputError, match="takes volumes, and the images are slices"):
        Perceptual("nodule-malignancy", spatial_dims=2)


def test_weights_that_are_none_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(build("fbpconvnet", spatial_dims=2, in_channels=1, out_channels=1, width=4).state_dict(), path)
    with pytest.raises(InputError, match="none of the classifiers"):
        loss_of("conditional-gan", perceptual=str(path))
    with pytest.raises(InputError, match="no model 'nothing'"):
        loss_of("conditional-gan", perceptual="nothing")


# ---- mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "l2"}, "no loss 'l2' for reconstruction; choose one of mse, l1"),
        ({"name": "mse", "weight": 1}, "'mse' has no option 'weight'; it has none"),
        ({"name": "ssim", "gamma": 1}, "no option 'gamma'; there are weight, window"),
        ({"name": "ssim", "weight": 1.5}, "weight of loss 'ssim' is 1.5; give a number from 0 to 1"),
        ({"name": "charbonnier", "epsilon": 0}, "epsilon of loss 'charbonnier' is 0"),
        ({"name": "noise2void", "side": 1}, "side of loss 'noise2void' is 1; give a whole number above 1"),
        ({"name": "wasserstein-gan", "steps": 0}, "steps of loss 'wasserstein-gan' is 0"),
        ({"name": "wasserstein-gan", "penalty": -1.0}, "penalty of loss 'wasserstein-gan' is -1.0"),
        ({"name": "wasserstein-gan", "betas": [0.5]}, "betas of loss 'wasserstein-gan'"),
        ({"name": "wasserstein-gan", "conditional": 1}, "conditional of loss 'wasserstein-gan' is 1; give true"),
        ({"name": "conditional-gan", "fidelity": "l2"}, "one of mse, l1, charbonnier, ssim"),
        ({"name": "conditional-gan", "learning_rate": np.nan}, "learning_rate of loss 'conditional-gan' is nan"),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(InputError, match=message):
        build_reconstruction_loss(settings, **SHAPE)


def test_a_data_range_of_nothing_is_refused():
    with pytest.raises(InputError, match="data range of a loss is 0"):
        build_reconstruction_loss({"name": "ssim"}, **SHAPE | {"data_range": 0})
