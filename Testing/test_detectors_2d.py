"""torchvision's detectors as ours: they learn, rows and columns stay what they are, and their parts are exact."""

from __future__ import annotations

import io
import json

import pytest
import torch
import torchvision
from MedMapAILib import boxes as geometry
from MedMapAILib.errors import InputError
from MedMapAILib.networks.detection import fast_rcnn_2d, faster_rcnn_2d, mask_rcnn_2d, retinanet_2d
from MedMapAILib.networks.detection.torchvision_backbones import feature_pyramid, levels_of
from MedMapAILib.networks.detection.torchvision_parts import (
    FittedAnchors,
    ProposalNetwork,
    RegionPool,
    at_ignored,
    image_list,
    instance_masks,
    level_anchors,
    training_proposals,
    turned,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.roi_heads import project_masks_on_boxes

FAMILIES = {
    "retinanet": retinanet_2d,
    "faster-rcnn": faster_rcnn_2d,
    "mask-rcnn": mask_rcnn_2d,
    "fast-rcnn": fast_rcnn_2d,
}
ANCHORS = [[8, 16], [14, 8]]
EMPTY = {"boxes": torch.zeros((0, 4)), "labels": torch.zeros(0, dtype=torch.int64)}


def small(name: str, **options):
    """A quarter as wide, with the same weights each time."""
    torch.manual_seed(0)
    defaults = {"in_channels": 1, "classes": 1, "anchors": ANCHORS, "width": 0.25}
    return FAMILIES[name].build(**defaults | options)


def ellipses(*places: tuple[float, float, float, float, int], shape=(40, 72)) -> tuple[torch.Tensor, dict]:
    """A slice (1, A, B) with ellipses of (middle row, column, half rows, half columns, class), and its target."""
    image = 0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(len(places)))
    rows, columns = (torch.arange(n) + 0.5 for n in shape)
    instances = torch.zeros(shape, dtype=torch.int64)
    for number, (a, b, half_a, half_b, label) in enumerate(places, start=1):
        inside = ((rows[:, None] - a) / half_a) ** 2 + ((columns[None] - b) / half_b) ** 2 <= 1
        # A second class is dark.
        image[inside] += 1 - 2 * label
        instances[inside] = number
    boxes = torch.from_numpy(geometry.boxes_of_instances(instances.numpy(), len(places))).float()
    labels = torch.tensor([place[4] for place in places], dtype=torch.int64)
    return image[None], {"boxes": boxes, "labels": labels, "instances": instances}


def batch(*slices: tuple[torch.Tensor, dict]) -> tuple[torch.Tensor, list[dict]]:
    images, targets = zip(*slices, strict=True)
    return torch.stack(images), list(targets)


def learn(network, images, targets, steps: int, proposals=None, rate: float = 4e-3) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for _ in range(steps):
        loss = sum(network(images, targets, proposals).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns_a_few_slices_by_heart(name):
    # Wide ellipses in one and tall ones in the other, in an image that is wider than tall and no multiple of a stride:
    # with rows and columns mixed up, no box would be right.
    images, targets = batch(ellipses((12, 50, 4, 9, 0)), ellipses((26, 14, 8, 4, 0), (10, 33, 7, 4, 0)))
    network = small(name)
    # Proposals have to be learned before their judges can learn.
    learn(network, images, targets, steps=80 if hasattr(network, "rpn") else 50)
    with torch.inference_mode():
        results = network(images)
    for result, target in zip(results, targets, strict=True):
        certain = result["scores"] > 0.5
        overlaps = geometry.iou(target["boxes"], result["boxes"][certain])
        assert int(certain.sum()) == len(target["boxes"])
        assert (overlaps.amax(dim=1) > 0.5).all()
        assert (result["scores"].diff() <= 0).all()
        if name == "mask-rcnn":
            for row, best in enumerate(overlaps.argmax(dim=1)):
                assert mask_iou(result, int(best), target["instances"] == row + 1) > 0.6


def mask_iou(result: dict, row: int, truth: torch.Tensor) -> float:
    """Of the mask of a detection, drawn at the middles of the voxels of its box, with the truth (A, B)."""
    box, mask = result["boxes"][row], result["masks"][row]
    drawn = torch.zeros_like(truth)
    for a in range(truth.shape[0]):
        for b in range(truth.shape[1]):
            place = [(p + 0.5 - low) / (high - low) for p, low, high in zip((a, b), box[:2], box[2:], strict=True)]
            if all(0 <= p < 1 for p in place):
                drawn[a, b] = mask[int(place[0] * mask.shape[0]), int(place[1] * mask.shape[1])] > 0.5
    return float((drawn & truth).sum() / (drawn | truth).sum())


@pytest.mark.parametrize("name", ["retinanet", "fast-rcnn"])
def test_it_tells_two_classes_apart(name):
    images, targets = batch(ellipses((12, 50, 5, 9, 0), (26, 14, 8, 5, 1)), ellipses((10, 33, 7, 4, 1)))
    # Dark spots are no blobs, so all places are given.
    given = [target["boxes"].clone() for target in targets]
    network = small(name, classes=2)
    learn(network, images, targets, steps=80, proposals=given)
    with torch.inference_mode():
        results = network(images, proposals=given)
    for result, target in zip(results, targets, strict=True):
        found = result["scores"] > 0.5
        best = geometry.iou(target["boxes"], result["boxes"][found]).argmax(dim=1)
        assert torch.equal(result["labels"][found][best], target["labels"])


@pytest.mark.parametrize("name", FAMILIES)
def test_images_without_objects_have_finite_losses(name):
    images = torch.zeros((2, 1, 40, 72))
    one = ellipses((12, 50, 4, 9, 0))[1]
    for targets in ([EMPTY, EMPTY], [EMPTY, one], [{**EMPTY, "ignored": torch.tensor([[0.0, 0, 40, 72]])}] * 2):
        network = small(name).train()
        losses = network(images, targets)
        assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values()), losses
        sum(losses.values()).backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(16, 16), (33, 50), (1, 70)])
def test_every_size_of_image_works(name, shape):
    network = small(name, score_floor=0.0, in_channels=5).eval()
    with torch.inference_mode():
        results = network(torch.randn((2, 5, *shape), generator=torch.Generator().manual_seed(0)))
    assert len(results) == 2
    for result in results:
        low, high = geometry.corners(result["boxes"])
        assert (low >= 0).all() and (high <= torch.tensor(shape)).all()
        assert result["boxes"].dtype == result["scores"].dtype == torch.float32
        assert result["labels"].dtype == torch.int64
        assert ((result["scores"] >= 0) & (result["scores"] <= 1)).all()
        assert len(result["boxes"]) == len(result["scores"]) == len(result["labels"]) <= 100
        if name == "mask-rcnn":
            assert result["masks"].shape == (len(result["boxes"]), 28, 28)


@pytest.mark.parametrize("name", FAMILIES)
def test_options_reach_the_detections(name):
    images = torch.rand((1, 1, 48, 64), generator=torch.Generator().manual_seed(0))

    def scores(**options):
        with torch.inference_mode():
            return small(name, **options).eval()(images)[0]["scores"]

    everything = scores(score_floor=0.0, nms=0.9)
    assert len(everything) > 5
    assert len(scores(score_floor=0.0, nms=0.9, detections=3)) == 3
    middle = float(everything[len(everything) // 2])
    assert (scores(score_floor=middle, nms=0.9) >= middle).all()
    assert len(scores(score_floor=0.0, nms=0.1)) < len(everything)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bundle_builds_the_same_network(name):
    network = small(name, dropout=0.1).eval()
    written = json.loads(
        json.dumps(FAMILIES[name].definition(in_channels=1, classes=1, anchors=ANCHORS, width=0.25, dropout=0.1))
    )
    module, _, kind = written.pop("_target_").rpartition(".")
    assert (type(network).__module__, type(network).__name__) == (module, kind)
    other = type(network)(**written).eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    images = torch.rand((1, 1, 40, 72))
    with torch.inference_mode():
        for key, values in network(images)[0].items():
            assert torch.equal(values, other(images)[0][key])


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_keeps_boxes_exact(name):
    images, targets = batch(ellipses((120, 500, 4, 9, 0), shape=(160, 544)))
    network = small(name, score_floor=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        losses = network(images, targets)
        assert all(torch.isfinite(value) for value in losses.values())
        result = network.eval()(images)[0]
    assert result["boxes"].dtype == torch.float32
    # bfloat16 has eight bits: beyond 256 its numbers are 2 apart.
    far = result["boxes"][result["boxes"] > 256]
    assert len(far) and not torch.equal(far, far.bfloat16().float())


@pytest.mark.parametrize("backbone", ["resnet18-fpn", "resnet50-fpn", "mobilenet"])
def test_published_backbones_keep_torchvisions_names(backbone):
    ours = small("faster-rcnn", backbone=backbone, width=1, in_channels=3, anchors=ANCHORS)
    common = {"weights": None, "weights_backbone": None, "num_classes": 2}
    if backbone == "mobilenet":
        theirs = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_fpn(**common)
        body = {n: p.shape for n, p in theirs.backbone.body.state_dict().items()}
    else:
        theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn(**common)
        net = getattr(torchvision.models, backbone.removesuffix("-fpn"))(weights=None)
        body = {n: p.shape for n, p in net.state_dict().items() if not n.startswith("fc.")}
    mine = {n: p.shape for n, p in ours.backbone.body.state_dict().items()}
    assert mine == body
    assert set(ours.rpn.state_dict()) == set(theirs.rpn.state_dict())
    if backbone == "resnet50-fpn":
        expected = {n: p.shape for n, p in theirs.backbone.fpn.state_dict().items()}
        assert {n: p.shape for n, p in ours.backbone.fpn.state_dict().items()} == expected
        expected = {n: p.shape for n, p in theirs.roi_heads.state_dict().items()}
        assert {n: p.shape for n, p in ours.roi_heads.state_dict().items()} == expected


@pytest.mark.parametrize("backbone", ["light", "resnet18-fpn", "resnet50-fpn", "mobilenet"])
@pytest.mark.parametrize("in_channels", [1, 5])
def test_pyramids_have_the_levels_that_they_say(backbone, in_channels):
    levels = levels_of(backbone, [[4, 4], [8, 8]])
    pyramid = feature_pyramid(backbone, in_channels, levels, 1).eval()
    with torch.inference_mode():
        maps = pyramid(torch.zeros((1, in_channels, 64, 128)))
    assert [tuple(m.shape) for m in maps.values()] == [
        (1, pyramid.out_channels, 64 // level, 128 // level) for level in levels
    ]
    assert list(maps) == ["0", "1"]


def test_small_anchors_get_finer_levels():
    assert faster_rcnn_2d.arguments(in_channels=1, classes=1)["strides"] == [[4, 4], [8, 8], [16, 16]]
    small_ones = faster_rcnn_2d.arguments(in_channels=1, classes=1, anchors=[[5, 5], [8, 8]])
    assert small_ones["strides"] == [[2, 2], [4, 4], [8, 8]]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"backbone": "vgg"}, "backbone"),
        ({"strides": [[4, 2], [8, 4]]}, "the same along both axes"),
        ({"strides": [4, 16]}, "twice the last"),
        ({"strides": [2, 4], "backbone": "resnet18-fpn"}, "4, 8, 16, 32"),
        ({"strides": 4}, "strides"),
        ({"backbone": "resnet18-fpn", "width": 0.5}, "width"),
        ({"anchors": [[4, 4, 4]]}, "anchors"),
        ({"nms": 2}, "nms"),
        ({"dropout": 1}, "dropout"),
        ({"proposals": "none"}, "proposals"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small("fast-rcnn", **options)


def test_anchors_are_exact_and_in_the_middle_of_what_a_feature_sees():
    images = image_list(torch.zeros((2, 1, 64, 96)), (64, 96))
    features = [torch.zeros((2, 8, 64 // s, 96 // s)) for s in (4, 8)]
    anchors = FittedAnchors([[[5, 9]], [[10, 18]]], (4, 8))(images, features)
    assert len(anchors) == 2 and torch.equal(anchors[0], anchors[1])
    # The first cell's: rows 5, columns 9, around the middle of the first voxel; then one cell to the right.
    assert turned(anchors[0])[:2].tolist() == [[-2, -4, 3, 5], [-2, 0, 3, 9]]
    # torchvision's, of even sizes that it does not round, half a voxel on.
    theirs = AnchorGenerator(((16,), (32,)), ((1.0,), (1.0,)))(images, features)[0] + 0.5
    assert torch.equal(FittedAnchors([[[16, 16]], [[32, 32]]], (4, 8))(images, features)[0], theirs)


def test_levels_share_the_fitted_anchors_by_size():
    assert level_anchors([[8, 8], [12, 12]], (4, 8, 16)) == [
        [[8, 8], [12, 12]],
        [[16, 16], [24, 24]],
        [[32, 32], [48, 48]],
    ]
    # A median of 64 voxels is four cells of the coarsest level.
    assert level_anchors([[64, 64]], (4, 8, 16)) == [[[16, 16]], [[32, 32]], [[64, 64]]]


def test_regions_are_looked_up_where_they_are():
    # Each feature says which voxel it is centered on; the mean of such a plane over a region is the region's middle.
    levels, features = (4, 8), {}
    for name, level in zip(("0", "1"), levels, strict=True):
        rows = torch.arange(64 // level) * float(level) + 0.5
        columns = torch.arange(96 // level) * float(level) + 0.5
        features[name] = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    # From smaller than a cell to one that the second level has, well inside of the image.
    ours = torch.tensor([[10.0, 20, 12, 25], [30.25, 40, 37, 41.5], [8, 40, 40, 72], [5, 15, 54, 84]])
    pooled = RegionPool(levels, 7)(features, [turned(ours)], [(64, 96)])
    assert pooled.shape == (4, 2, 7, 7)
    torch.testing.assert_close(pooled.mean(dim=(2, 3)), geometry.centers(ours))


def test_masks_are_where_they_were_drawn():
    # A square of voxels 10 to 15 along rows and 20 to 29 along columns, looked at through a box twice as large.
    instances = torch.zeros((32, 48), dtype=torch.int64)
    instances[10:16, 20:30] = 1
    target = {"boxes": torch.tensor([[10.0, 20, 16, 30]]), "instances": instances}
    masks = instance_masks(target, (32, 48))
    around = torch.tensor([[7.0, 15, 19, 35]])
    seen = project_masks_on_boxes(masks, turned(around), torch.zeros(1), 28)[0]
    # In the middle, symmetric, and half as wide as the box in each direction.
    torch.testing.assert_close(seen, seen.flip(0))
    torch.testing.assert_close(seen, seen.flip(1))
    assert seen[:, 14].sum() == pytest.approx(14, abs=0.1)
    assert seen[14].sum() == pytest.approx(14, abs=0.1)


def test_an_object_without_a_mask_gets_the_ellipse_in_its_box():
    target = {"boxes": torch.tensor([[4.0, 6, 20, 30], [22, 30, 30, 44]]), "instances": torch.zeros((32, 48)).long()}
    target["instances"][24:28, 32:40] = 2
    masks = instance_masks(target, (32, 48))
    assert masks.shape == (2, 33, 49)
    assert float(masks[0].sum()) == pytest.approx(3.14159 / 4 * 16 * 24, rel=0.03)
    assert float(masks[1].sum()) == 32
    without = {"boxes": target["boxes"]}
    assert torch.equal(instance_masks(without, (32, 48))[0], masks[0])


def test_ignored_places_teach_nothing():
    ignored = torch.tensor([[10.0, 10, 20, 20]])
    # Inside; the same; half inside; a large one around; elsewhere.
    boxes = torch.tensor([[12.0, 12, 16, 16], [10, 10, 20, 20], [5, 10, 15, 20], [0, 0, 60, 60], [40, 40, 50, 50]])
    assert at_ignored(boxes, ignored).tolist() == [True, True, True, False, False]
    target = {"boxes": torch.tensor([[5.0, 10, 14, 20]]), "ignored": ignored}
    # The third is an object's as well.
    assert training_proposals([boxes], [target], (64, 64))[0].tolist() == boxes[2:].tolist()
    # Where nothing is left, the image as a whole is background.
    nothing = {"boxes": torch.zeros((0, 4)), "ignored": torch.tensor([[0.0, 0, 96, 64]])}
    assert training_proposals([boxes[:2]], [nothing], (64, 96))[0].tolist() == [[0, 0, 96, 64]]


def test_anchors_at_ignored_places_have_no_label():
    anchors = FittedAnchors([[[8, 8]]], (4,))
    network = ProposalNetwork(anchors, 8)
    boxes = anchors(image_list(torch.zeros((1, 1, 32, 64)), (32, 64)), [torch.zeros((1, 8, 8, 16))])
    ignored = torch.tensor([[40.0, 8, 56, 24]])
    plain, _ = network.assign_targets_to_anchors(boxes, [{"boxes": boxes[0][:1], "ignored": ignored[:0]}])
    labels, _ = network.assign_targets_to_anchors(boxes, [{"boxes": boxes[0][:1], "ignored": ignored}])
    there = at_ignored(boxes[0], ignored)
    assert 0 < int(there.sum()) < 40
    assert (labels[0][there] == -1).all()
    assert torch.equal(labels[0][~there], plain[0][~there])


def test_a_retinanet_learns_nothing_from_an_ignored_image():
    network = small("retinanet")
    everywhere = {**EMPTY, "ignored": torch.tensor([[-50.0, -50, 100, 130]])}
    images = ellipses((12, 50, 4, 9, 0))[0][None]
    assert float(network(images, [everywhere])["classification"].detach()) == 0
    assert float(network(images, [EMPTY])["classification"].detach()) > 0


def test_an_object_smaller_than_a_cell_has_an_anchor():
    network = small("retinanet", strides=[4, 8])
    tiny = {"boxes": torch.tensor([[11.2, 33.1, 11.9, 34.0]]), "labels": torch.zeros(1, dtype=torch.int64)}
    assert float(network(torch.zeros((1, 1, 40, 72)), [tiny])["bbox_regression"].detach()) > 0


def test_given_proposals_are_all_that_a_fast_rcnn_looks_at():
    network = small("fast-rcnn", proposals="given", score_floor=0.0, nms=1.0).eval()
    images = torch.rand((2, 1, 40, 72))
    with pytest.raises(InputError, match="proposals"):
        network(images)
    places = torch.tensor([[4.0, 50, 12, 66], [20, 8, 36, 16]])
    with torch.inference_mode():
        first, second = network(images, proposals=[places, places[:0]])
    assert len(second["boxes"]) == 0 and second["boxes"].shape == (0, 4)
    # Untrained, its corrections are small.
    overlaps = geometry.iou(places, first["boxes"])
    assert len(first["boxes"]) == 2 and (overlaps.amax(dim=1) > 0.8).all()
    with torch.inference_mode():
        assert [len(one["boxes"]) for one in network(images, proposals=[places[:0]] * 2)] == [0, 0]


def test_a_fast_rcnn_finds_its_own_bright_spots():
    network = small("fast-rcnn", score_floor=0.0, nms=1.0).eval()
    images, targets = batch(ellipses((12, 50, 6, 6, 0)))
    with torch.inference_mode():
        boxes = network(images)[0]["boxes"]
    assert float(geometry.iou(targets[0]["boxes"], boxes).max()) > 0.6
