"""Detectors of volumes: each learns a few bright ellipsoids by heart, on any grid, and draws them if it has masks."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from MedMapAILib import boxes as geometry
from MedMapAILib.errors import InputError
from MedMapAILib.networks import DETECTION, TARGETS, build, definition, options_of, size_divisor
from MedMapAILib.networks.detection.anchors import fit_anchors
from MedMapAILib.networks.detection.mask_targets import mask_targets
from monai.bundle import ConfigParser
from torch.nn.functional import grid_sample
from torch.utils.flop_counter import FlopCounterMode

NAMES = ("retinanet", "fast-rcnn", "faster-rcnn", "mask-rcnn")
#: Centers (voxel edges) and axes of ellipsoids, two volumes of them: on cubic voxels, and on flat ones. The smallest
#: are three voxels wide, and one thick.
CUBIC = (20, 16, 14), [[((6.5, 8, 6.5), (9, 8, 9)), ((15.5, 11, 10), (5, 6, 5))], [((10.5, 8.5, 5.5), (3, 3, 3))]]
FLAT = (20, 16, 7), [[((6.5, 8, 3.5), (9, 8, 4)), ((15.5, 11, 5), (5, 6, 3))], [((10.5, 8.5, 3.5), (3, 3, 1.5))]]
TINY = {"width": 0.5, "anchors": [[3, 3, 3], [8, 8, 8]], "strides": [[2, 2, 2], [4, 4, 4]]}


def scene(size, objects, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """An image (1, *size) of ellipsoids of intensity 1 in noise, and its target."""
    axes = [torch.arange(n) + 0.5 for n in size]
    middles = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    instances = torch.zeros(size, dtype=torch.int64)
    for number, (center, sides) in enumerate(objects, start=1):
        distance = (((middles - torch.tensor(center)) * 2 / torch.tensor(sides)) ** 2).sum(-1)
        instances[distance <= 1] = number
    image = (instances > 0) + 0.05 * torch.randn(size, generator=torch.Generator().manual_seed(seed))
    boxes = torch.from_numpy(geometry.boxes_of_instances(instances.numpy(), len(objects))).float().reshape(-1, 6)
    return image[None], {"boxes": boxes, "labels": torch.zeros(len(boxes), dtype=torch.int64), "instances": instances}


def scenes(grid) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """The volumes of a grid and an empty one."""
    size, volumes = grid
    made = [scene(size, objects, seed) for seed, objects in enumerate([*volumes, []])]
    return torch.stack([image for image, _ in made]), [target for _, target in made]


def detector(name: str, seed: int = 0, **options):
    torch.manual_seed(seed)
    return build(name, spatial_dims=3, in_channels=1, out_channels=options.pop("classes", 1), **TINY | options)


def learn(network, images, targets, steps: int) -> float:
    """Adam with a falling rate; the last loss."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps, pct_start=0.15)
    for _ in range(steps):
        loss = sum(network(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return float(loss.detach())


def pasted(mask: torch.Tensor, box: torch.Tensor, size) -> torch.Tensor:
    """The voxels of an image whose middle a mask in the frame of a box holds for likelier than not."""
    axes = [(torch.arange(n) + 0.5 - box[i]) / (box[i + 3] - box[i]) * 2 - 1 for i, n in enumerate(size)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flip(-1)
    values = grid_sample(mask[None, None], grid[None], padding_mode="border", align_corners=False)[0, 0]
    return (values >= 0.5) & (grid.abs() <= 1).all(dim=-1)


@pytest.mark.parametrize(
    ("name", "grid", "steps"),
    [
        ("retinanet", CUBIC, 130),
        ("retinanet", FLAT, 130),
        ("fast-rcnn", CUBIC, 60),
        ("faster-rcnn", CUBIC, 150),
        ("mask-rcnn", FLAT, 110),
    ],
    ids=["retinanet-cubic", "retinanet-flat", "fast-cubic", "faster-cubic", "mask-flat"],
)
def test_it_learns_a_few_ellipsoids_by_heart(name, grid, steps):
    images, targets = scenes(grid)
    sizes = np.concatenate([geometry.sizes(target["boxes"]).numpy() for target in targets])
    strides = [[2, 2, 2], [4, 4, 4]] if grid is CUBIC else [[2, 2, 1], [4, 4, 2]]
    network = detector(name, anchors=fit_anchors(sizes, 2), strides=strides)
    learn(network, images, targets, steps)
    network.eval()
    with torch.no_grad():
        results = network(images)
    for result, target in zip(results, targets, strict=True):
        sure = result["scores"] > 0.5
        overlap = geometry.iou(result["boxes"][sure], target["boxes"])
        assert len(overlap) == len(target["boxes"])
        if not len(overlap):
            continue
        # An object of 3 voxels whose box is half a voxel off along each axis has 0.41.
        assert (overlap.max(dim=0).values > 0.35).all()
        if name == "mask-rcnn":
            for row, which in enumerate(overlap.argmax(dim=0)):
                drawn = pasted(result["masks"][sure][which], result["boxes"][sure][which], images.shape[2:])
                true = target["instances"] == row + 1
                assert 2 * (drawn & true).sum() / (drawn.sum() + true.sum()) > 0.7


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_objects_gives_finite_losses_and_every_weight_a_gradient(name):
    network = detector(name)
    nothing = {"boxes": torch.zeros(0, 6), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = network(torch.randn(2, 1, 17, 14, 9), [nothing, nothing])
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    images, targets = scenes(CUBIC)
    sum(network(images, targets).values()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_the_first_loss_is_small(name):
    images, targets = scenes(CUBIC)
    assert float(sum(detector(name)(images, targets).values()).detach()) < 5


@pytest.mark.parametrize("name", NAMES)
def test_detections_do_not_depend_on_what_else_is_in_the_batch(name):
    network = detector(name, score_floor=0.0).eval()
    images, _ = scenes(CUBIC)
    with torch.no_grad():
        together, alone = network(images)[1], network(images[1:2])[0]
    assert len(alone["scores"]) > 0
    assert together.keys() == alone.keys()
    for key in alone:
        assert torch.allclose(together[key].float(), alone[key].float(), atol=1e-3), key


@pytest.mark.parametrize("name", NAMES)
def test_results_have_the_promised_form_on_an_image_of_any_size(name):
    network = detector(name, classes=2, score_floor=0.0, detections=7).eval()
    for size in ((3, 5, 1), (21, 17, 10)):
        with torch.no_grad():
            (result,) = network(torch.randn(1, 1, *size))
        count = len(result["scores"])
        assert count <= 7
        assert result["boxes"].shape == (count, 6) and result["boxes"].dtype == torch.float32
        assert result["labels"].dtype == torch.int64 and set(result["labels"].tolist()) <= {0, 1}
        assert (result["scores"].diff() <= 0).all() and ((result["scores"] >= 0) & (result["scores"] <= 1)).all()
        assert (result["boxes"] >= 0).all() and (result["boxes"][:, 3:] <= torch.tensor(size)).all()
        if name == "mask-rcnn":
            assert result["masks"].shape == (count, 14, 14, 14)
            assert ((result["masks"] >= 0) & (result["masks"] <= 1)).all()
    assert size_divisor(name, spatial_dims=3, **TINY) == (1, 1, 1)


def test_two_classes_are_told_apart():
    size = (20, 20, 12)
    large, small = scene(size, [((10.0, 10, 6), (9, 9, 8))]), scene(size, [((10.0, 10, 6), (5, 5, 4))], seed=1)
    small[1]["labels"][:] = 1
    images = torch.stack([large[0], small[0]])
    network = detector("retinanet", classes=2, anchors=[[8, 8, 6]])
    learn(network, images, [large[1], small[1]], 120)
    network.eval()
    with torch.no_grad():
        results = network(images)
    assert [int(result["labels"][0]) for result in results] == [0, 1]
    assert all(float(result["scores"][0]) > 0.5 for result in results)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_ignored_is_not_learned_as_background(name):
    """With an ignored box over all of the image there is no background: whether it holds an object is not taught."""
    images, targets = scenes(CUBIC)
    everything = torch.tensor([[-99.0, -99, -99, 99, 99, 99]])
    network = detector(name)
    nothing = {"boxes": torch.zeros(0, 6), "labels": torch.zeros(0, dtype=torch.int64)}
    unclear = network(images, [nothing | {"ignored": everything}] * 3)
    assert sum(float(loss.detach()) for loss in unclear.values()) == 0
    sum(unclear.values()).backward()
    mixed = network(images, [target | {"ignored": everything} for target in targets])
    assert all(float(loss.detach()) > 0 for loss in mixed.values())


def test_proposals_from_outside_are_what_a_fast_rcnn_chooses_among():
    images, targets = scenes(CUBIC)
    network = detector("fast-rcnn", proposals="given", score_floor=0.0)
    with pytest.raises(InputError, match="dataset.proposals"):
        network(images, targets)
    given = [torch.tensor([[1.0, 2, 3, 9, 9, 9], [-5, -5, -5, -1, -1, -1]]), torch.zeros(0, 6), torch.zeros(0, 6)]
    assert all(torch.isfinite(loss) for loss in network(images, targets, given).values())
    network.eval()
    with torch.no_grad():
        results = network(images, proposals=given)
    # The second lies outside of the image.
    assert [len(result["boxes"]) for result in results] == [1, 0, 0]


def test_a_mask_is_what_the_region_cuts_out_of_the_object():
    _, target = scene((20, 20, 20), [((10.0, 10, 10), (12, 12, 12))])
    box = target["boxes"]
    row = torch.tensor([0])
    drawn = mask_targets(target, box, row, 14)[0]
    # A ball fills π/6 of its box; so does the ellipsoid that stands for an object that nobody drew.
    assert float(drawn.mean()) == pytest.approx(np.pi / 6, abs=0.02)
    guessed = mask_targets({"boxes": box, "labels": row}, box, row, 14)[0]
    assert float(((guessed >= 0.5) != (drawn >= 0.5)).float().mean()) < 0.06
    # The upper half of the box along the first axis holds the upper half of the ball.
    half = box.clone()
    half[0, 0] = 10
    cut = mask_targets(target, half, row, 14)[0]
    assert cut[0].mean() > 0.7 and cut[-1].mean() < 0.2


@pytest.mark.parametrize("backbone", ["resnet18-fpn", "resnet50-fpn"])
@pytest.mark.parametrize("strides", [None, [[4, 4, 2], [8, 8, 4]], [[2, 2, 1], [4, 4, 2], [8, 8, 4]]])
def test_residual_networks_of_monai_as_backbones(backbone, strides):
    options = {"backbone": backbone, "width": 0.125, "strides": strides, "anchors": [[20, 20, 12]]}
    network = detector("retinanet", **options)
    images, targets = scenes(((32, 32, 16), [[((10.0, 10, 8), (9, 9, 6))]]))
    losses = network(images, targets)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_builds_the_same_network_and_its_weights_are_data(name):
    options = TINY | {"nms": 0.3, "dropout": 0.1}
    written = definition(name, spatial_dims=3, in_channels=1, out_channels=2, **options)
    assert written["_target_"] in TARGETS and json.loads(json.dumps(written)) == written
    network = detector(name, classes=2, nms=0.3, dropout=0.1).eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    again = ConfigParser({"network_def": written}).get_parsed_content("network_def")
    again.load_state_dict(torch.load(file, weights_only=True))
    images, _ = scenes(CUBIC)
    with torch.no_grad():
        first, second = network(images), again.eval()(images)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_light_network_stays_light():
    options = {"anchors": [[5, 5, 2.5], [9, 9, 4.5], [18, 18, 9]], "strides": [[4, 4, 2], [8, 8, 4], [16, 16, 8]]}
    network = build("retinanet", spatial_dims=3, in_channels=1, out_channels=1, **options).eval()
    assert sum(p.numel() for p in network.parameters()) < 1.5e6
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.randn(1, 1, 96, 96, 48))
    # 2 TFLOP for lungs of 300 × 230 × 130 voxels.
    assert counter.get_total_flops() / (96 * 96 * 48) < 2e12 / (300 * 230 * 130)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_has_finite_losses_and_float_results(name):
    images, targets = scenes(CUBIC)
    network = detector(name)
    with torch.autocast("cpu", torch.bfloat16):
        losses = network(images, targets)
        assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in losses.values())
        with torch.no_grad():
            results = network.eval()(images)
    assert all(result[key].dtype == torch.float32 for result in results for key in ("boxes", "scores"))


def test_the_table_names_the_detectors_and_their_options():
    assert set(DETECTION) == set(NAMES)
    for name in NAMES:
        assert {"backbone", "anchors", "strides", "width", "nms", "detections"} <= options_of(name).keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "mobilenet"}, "backbone is 'mobilenet'"),
        ({"anchors": [[3, 3]]}, "anchors is"),
        ({"anchors": [[3, 3, -1]]}, "anchors is"),
        ({"strides": [[3, 3, 3]]}, "strides is"),
        ({"strides": [[4, 4, 4], [16, 16, 16]]}, "strides is"),
        ({"backbone": "resnet18-fpn", "strides": [[4, 4, 4], [8, 8, 4]]}, "doubles all strides"),
        ({"width": 0}, "width is 0"),
        ({"nms": 2}, "nms is 2"),
        ({"score_floor": "low"}, "score_floor is"),
        ({"detections": 0}, "detections is 0"),
        ({"dropout": 1}, "dropout is 1"),
    ],
)
def test_an_option_that_makes_no_network_is_named(options, words):
    with pytest.raises(InputError, match=words):
        detector("retinanet", **options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": torch.zeros(1, 4)}, "boxes of a target"),
        ({"boxes": torch.tensor([[3.0, 3, 3, 3, 5, 5]])}, "not longer than 0"),
        ({"boxes": torch.full((1, 6), float("nan"))}, "not all finite"),
        ({"labels": torch.tensor([1])}, "labels of a target"),
        ({"labels": torch.tensor([0, 0])}, "2 labels"),
        ({"instances": torch.zeros(3, 3, 3)}, "instances are"),
    ],
)
def test_what_is_no_target_is_refused(change, words):
    target = {"boxes": torch.tensor([[1.0, 1, 1, 4, 4, 4]]), "labels": torch.tensor([0])}
    network = detector("retinanet")
    with pytest.raises(ValueError, match=words):
        network(torch.zeros(1, 1, 8, 8, 8), [target | change])
    with pytest.raises(ValueError, match="needs targets"):
        network(torch.zeros(1, 1, 8, 8, 8))
    with pytest.raises(ValueError, match="images are"):
        network(torch.zeros(1, 2, 8, 8, 8), [target])
