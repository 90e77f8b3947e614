"""Generators, critics, their losses, and the changes through which a critic sees images."""

import pytest
import torch
from MedMapAILib.errors import InputError
from MedMapAILib.losses.differentiable_augmentation import (
    CHANGES,
    brightness,
    change,
    contrast,
    cutout,
    translation,
)
from MedMapAILib.losses.generation import build_generation_loss
from MedMapAILib.networks import build, definition
from MedMapAILib.networks.generation.image_critic import ImageCritic
from MedMapAILib.networks.generation.random_features import RandomFeatures
from monai.bundle import ConfigParser


def generator(size=(28, 28), classes=2, channels=1, **options):
    return build(
        "image-generator",
        spatial_dims=len(size),
        in_channels=channels,
        out_channels=classes,
        image_size=list(size),
        width=4,
        **options,
    )


@pytest.mark.parametrize("size", [(28, 28), (30, 45), (64, 64), (128, 128), (16, 20, 18)])
def test_images_of_every_size_come_out_from_minus_one_to_one(size):
    network = generator(size, channels=2)
    made = network(network.draw_noise(3), torch.eye(2)[[0, 1, 1]])
    assert made.shape == (3, 2, *size) and made.abs().max() <= 1
    critic = ImageCritic(2, 2, size, 4)
    assert critic(made, torch.eye(2)[[0, 1, 1]]).shape == (3,)


def test_noise_and_class_both_change_the_image():
    torch.manual_seed(0)
    network = generator()
    noise, classes = network.draw_noise(2), torch.eye(2)
    same_noise = network(noise[[0, 0]], classes)
    same_class = network(noise, classes[[0, 0]])
    assert (same_noise[0] - same_noise[1]).abs().max() > 1e-3 and (same_class[0] - same_class[1]).abs().max() > 1e-3
    # Each image is made on its own: what is beside it in the batch does not matter.
    assert torch.allclose(network(noise, classes)[1:], network(noise[1:], classes[1:]), atol=1e-5)


def test_monai_builds_the_same_network_from_the_bundle_s_definition():
    network = generator()
    about = definition("image-generator", spatial_dims=2, in_channels=1, out_channels=2, image_size=[28, 28], width=4)
    twin = ConfigParser({"network": about}).get_parsed_content("network")
    twin.load_state_dict(network.state_dict())
    noise, classes = network.draw_noise(2), torch.eye(2)
    assert torch.equal(twin(noise, classes), network(noise, classes))


@pytest.mark.parametrize(
    "options", [{"image_size": [28]}, {"image_size": [8, 8]}, {"image_size": [28, 256]}, {"width": 0}]
)
def test_what_cannot_be_made_is_refused(options):
    options = {"image_size": [28, 28], **options}
    with pytest.raises(InputError):
        build("image-generator", spatial_dims=2, in_channels=1, out_channels=1, **options)


def test_brightness_and_contrast_do_what_they_are_called():
    torch.manual_seed(0)
    images = torch.rand(64, 1, 8, 8) * 2 - 1
    shift = (brightness(images) - images).flatten(1)
    assert shift.std(dim=1).max() < 1e-6 and -0.5 <= shift.min() < -0.3 and 0.3 < shift.max() <= 0.5
    changed = contrast(images)
    assert torch.allclose(changed.mean(dim=(1, 2, 3)), images.mean(dim=(1, 2, 3)), atol=1e-6)
    factors = changed.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert 0.5 <= factors.min() < 0.7 and 1.3 < factors.max() <= 1.5


@pytest.mark.parametrize("dimensions", [2, 3])
def test_translation_moves_whole_voxels_by_up_to_an_eighth(dimensions):
    torch.manual_seed(1)
    images = torch.full((200, 1, *(16,) * dimensions), -1.0)
    images[(slice(None), 0, *(8,) * dimensions)] = 1
    moved = translation(images)
    assert (moved.flatten(1) > 0).sum(dim=1).eq(1).all() and moved.min() == -1
    places = (moved[:, 0] > 0).nonzero()[:, 1:]
    assert places.min() == 6 and places.max() == 10 and len(torch.unique(places, dim=0)) > 5**dimensions // 2


def test_cutout_takes_a_box_of_at_most_half_the_size():
    torch.manual_seed(2)
    gone = cutout(torch.ones(100, 1, 16, 16)) == 0
    assert gone.flatten(1).sum(dim=1).max() == 64 and gone.flatten(1).sum(dim=1).min() >= 16


def test_gradients_pass_through_all_changes():
    images = torch.zeros(4, 1, 16, 16, requires_grad=True)
    torch.manual_seed(3)
    change(images + 0.1, list(CHANGES)).sum().backward()
    # What is not moved out or cut out.
    assert (images.grad != 0).float().mean() > 0.5
    assert torch.equal(change(images, []), images)


def small_loss(name="hinge", **options):
    torch.manual_seed(0)
    return build_generation_loss(
        name, image_channels=1, classes=2, image_size=(16, 16), critic_width=4, augmentation=[], **options
    )


def test_losses_are_those_of_their_papers():
    made, real, classes = torch.rand(4, 1, 16, 16), torch.rand(4, 1, 16, 16), torch.eye(2)[[0, 1, 0, 1]]
    for name in ("hinge", "logistic"):
        loss = small_loss(name, gradient_penalty=0.0)
        loss.opponent.eval()
        of_real, of_made = loss.opponent(real, classes), loss.opponent(made, classes)
        if name == "hinge":
            expected = (1 - of_real).clamp(min=0).mean() + (1 + of_made).clamp(min=0).mean(), -of_made.mean()
        else:
            entropy = torch.nn.functional.binary_cross_entropy_with_logits
            ones = torch.ones(4)
            expected = entropy(of_real, ones) + entropy(of_made, 0 * ones), entropy(of_made, ones)
        assert loss.opponent_loss(made, real, classes).item() == pytest.approx(expected[0].item(), rel=1e-5)
        assert loss(made, classes).item() == pytest.approx(expected[1].item(), rel=1e-5)


def test_gradient_penalty_is_the_squared_slope_of_real_images():
    loss, plain = small_loss(gradient_penalty=10.0), small_loss(gradient_penalty=0.0)
    made, real, classes = torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8), torch.eye(2)[[0, 1, 0, 1]]
    loss.opponent.eval(), plain.opponent.eval()
    # The spread among images of a batch is part of the critic: all images move at once, and the slope is of the sum.
    step, slopes = 1e-3, torch.zeros(4, 64)
    base = real.double()
    critic = plain.opponent.double()
    for voxel in range(64):
        for number in range(4):
            moved = base.clone().view(4, -1)
            moved[number, voxel] += step
            up = critic(moved.view_as(base), classes).sum()
            moved[number, voxel] -= 2 * step
            slopes[number, voxel] = (up - critic(moved.view_as(base), classes).sum()) / (2 * step)
    penalty = 5 * slopes.square().sum(dim=1).mean()
    without = small_loss(gradient_penalty=0.0)
    without.opponent.eval()
    extra = loss.opponent_loss(made, real, classes) - without.opponent_loss(made, real, classes)
    assert extra.item() == pytest.approx(penalty.item(), rel=2e-2)


def test_balanced_classes_count_the_same():
    # Three of the first class in four: weights 2/3 and 2.
    loss = small_loss(weight="balanced", counts=[30, 10])
    values, classes = torch.tensor([3.0, 3.0, 3.0, 1.0]), torch.eye(2)[[0, 0, 0, 1]]
    assert loss._mean(values, classes).item() == pytest.approx((3 + 1) / 2)


@pytest.mark.parametrize(
    "options",
    [{"augmentation": ["twirl"]}, {"weight": "heavy"}, {"critic_steps": 0}, {"colour": 1}, {"gradient_penalty": -1}],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(InputError):
        build_generation_loss("hinge", **{"image_channels": 1, "classes": 1, "image_size": (16, 16), **options})


def test_random_features_are_the_same_everywhere_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = RandomFeatures(1, 2), RandomFeatures(1, 2)
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.linspace(-1, 1, 784).view(1, 1, 28, 28)
    assert torch.equal(one(images), other(images)) and one(images).shape == (1, 576)
    assert RandomFeatures(2, 3)(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 1728)
