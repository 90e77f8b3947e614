"""Starting from other networks' weights: the same answers as the networks that they come from, and no surprises."""

from __future__ import annotations

import copy
import functools
import hashlib
import http.server
import re
import threading

import pytest
import torch
import torchvision
from MedMapAILib import networks
from MedMapAILib.bundle import load_bundle, write_bundle
from MedMapAILib.errors import InputError
from MedMapAILib.networks.classifier import members_of
from MedMapAILib.plan import Plan
from MedMapAILib.results import Classes
from MedMapAILib.transfer import imagenet, load_pretrained, network_for, parameter_groups, set_frozen
from MedMapAILib.transfer.fitting import adapt_channels, inflate_kernel
from monai.networks import nets
from torch import nn


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """No test sees or fills the user's folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@functools.cache
def _published(name: str) -> nn.Module:
    """torchvision's network with random weights and batch-norm statistics, in evaluation mode."""
    torch.manual_seed(1)
    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None)
    if name.startswith("vgg"):
        # 123 million weights that nothing here looks at.
        network.classifier = nn.Sequential()
    network.to_empty(device="cpu")
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    _learn(network)
    return network.eval()


def _learn(network: nn.Module) -> None:
    """Give batch norms statistics and weights as if they had been trained, so that a mistaken one shows."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)


def _ours(name: str, spatial_dims: int = 2, in_channels: int = 3, **options) -> nn.Module:
    torch.manual_seed(2)
    return networks.build(name, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=2, **options).eval()


def _file(path, state, name="weights.pt"):
    torch.save(state, path / name)
    return path / name


def _assert_same(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """The same but for rounding, which adds up over the layers: to 1e-4 of the largest value."""
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max() > 0


def _embedding(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.embedding(network.features(x))


def _published_embedding(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The features of torchvision's network, their mean over space: (B, E)."""
    if hasattr(network, "fc"):
        body, after = nn.Sequential(*list(network.children())[:-2]), nn.Identity()
    else:
        body, after = network.features, nn.ReLU()
    with torch.no_grad():
        return after(body(x)).mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("vgg11", "vgg11_bn")]
)
def test_torchvision_weights_give_torchvision_answers(ours, theirs, tmp_path):
    network, x = _ours(ours), torch.randn(2, 3, 64, 48)
    head = copy.deepcopy(network.output_layer().state_dict())
    report = load_pretrained(network, _file(tmp_path, _published(theirs).state_dict()), in_channels=3)
    _assert_same(_embedding(network, x), _published_embedding(_published(theirs), x))
    assert not report.adapted
    assert len(report.left) == 2 and all(name.endswith(("weight", "bias")) for name in report.left)
    for name, tensor in network.output_layer().state_dict().items():
        assert torch.equal(tensor, head[name])


def _old_densenet(state: dict) -> dict:
    """The names in torchvision's own files, which are older than its rule that modules' names hold no dots."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", n): t for n, t in state.items()}


def _radimagenet_densenet(state: dict) -> dict:
    return {n.replace("features.", "backbone.0.", 1): t for n, t in state.items() if n.startswith("features.")}


def _monai_densenet(state: dict) -> dict:
    """Names of MONAI's DenseNet121, from MONAI itself."""
    theirs = nets.DenseNet121(2, 3, 1000)
    # Both list their tensors in the order in which they are used.
    assert [t.shape for t in theirs.state_dict().values()] == [t.shape for t in state.values()]
    return dict(zip(theirs.state_dict(), state.values(), strict=True))


@pytest.mark.parametrize("rename", [_old_densenet, _radimagenet_densenet, _monai_densenet])
def test_densenet_under_all_its_names(rename, tmp_path):
    network, x = _ours("densenet121"), torch.randn(1, 3, 64, 64)
    state = rename(_published("densenet121").state_dict())
    assert rename is _radimagenet_densenet or set(state) != set(_published("densenet121").state_dict())
    load_pretrained(network, _file(tmp_path, state), in_channels=3)
    _assert_same(_embedding(network, x), _published_embedding(_published("densenet121"), x))


@pytest.mark.parametrize("wrap", ["data-parallel", "checkpoint", "radimagenet"])
def test_resnet_as_others_wrap_it(wrap, tmp_path):
    published = _published("resnet18")
    if wrap == "data-parallel":
        state = nn.DataParallel(published).state_dict()
        assert all(name.startswith("module.") for name in state)
    elif wrap == "checkpoint":
        state = {"epoch": 3, "state_dict": {f"model.backbone.{n}": t for n, t in published.state_dict().items()}}
    else:
        # The published example: Backbone.backbone = nn.Sequential of the first nine children of torchvision's module.
        holder = nn.Module()
        holder.backbone = nn.Sequential(*list(published.children())[:9])
        state = holder.state_dict()
        assert "backbone.4.0.conv1.weight" in state
    network, x = _ours("resnet18"), torch.randn(1, 3, 40, 40)
    load_pretrained(network, _file(tmp_path, state), in_channels=3)
    _assert_same(_embedding(network, x), _published_embedding(published, x))


def test_medicalnet_shortcuts_without_weights(tmp_path):
    """MedicalNet's ResNet-18: DataParallel, a head for segmentation, shortcuts of type A. MONAI has such a network."""
    torch.manual_seed(3)
    theirs = nets.resnet18(spatial_dims=3, n_input_channels=1, conv1_t_stride=2, shortcut_type="A", feed_forward=False)
    _learn(theirs)
    state = {f"module.{n}": t for n, t in theirs.state_dict().items()}
    state |= {"module.conv_seg.0.weight": torch.randn(512, 32, 2, 2, 2), "module.conv_seg.0.bias": torch.zeros(32)}
    network, x = _ours("resnet18", 3, 1), torch.randn(1, 1, 33, 32, 40)
    report = load_pretrained(network, _file(tmp_path, {"state_dict": state}), in_channels=1)
    with torch.no_grad():
        _assert_same(_embedding(network, x), theirs.eval()(x))
    assert "MedicalNet" in report.sentence
    assert all(".downsample." in line for line in report.adapted) and len(report.adapted) == 15
    assert set(report.unused) == {"conv_seg.0.weight", "conv_seg.0.bias"}


def test_monai_biases_before_normalization(tmp_path):
    """MONAI's shortcuts have biases that torchvision's do not; the normalization after them takes them over."""
    torch.manual_seed(4)
    theirs = nets.resnet18(spatial_dims=3, n_input_channels=1, conv1_t_stride=2, feed_forward=False)
    _learn(theirs)
    assert theirs.state_dict()["layer2.0.downsample.0.bias"].abs().min() > 0
    network, x = _ours("resnet18", 3, 1), torch.randn(1, 1, 32, 24, 32)
    report = load_pretrained(network, _file(tmp_path, theirs.state_dict()), in_channels=1)
    with torch.no_grad():
        _assert_same(_embedding(network, x), theirs.eval()(x))
    assert len(report.adapted) == 3 and not report.unused


@pytest.mark.parametrize(("name", "theirs"), [("resnet18", "resnet18"), ("densenet121", "densenet121")])
def test_summed_filters_answer_gray_as_three_do(name, theirs, tmp_path):
    path = _file(tmp_path, _published(theirs).state_dict())
    color, gray = _ours(name), _ours(name, in_channels=1)
    load_pretrained(color, path, in_channels=3)
    report = load_pretrained(gray, path, in_channels=1)
    x = torch.randn(2, 1, 64, 64)
    _assert_same(_embedding(gray, x), _embedding(color, x.expand(-1, 3, -1, -1)))
    assert len(report.adapted) == 1 and "3 input channels to 1" in report.adapted[0]


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 2), (3, 4)])
def test_any_number_of_channels_keeps_the_answer_on_gray(old, new):
    weight, gray = torch.randn(5, old, 3, 3), torch.randn(1, 1, 9, 9)
    before = nn.functional.conv2d(gray.expand(-1, old, -1, -1), weight)
    after = nn.functional.conv2d(gray.expand(-1, new, -1, -1), adapt_channels(weight, new))
    _assert_same(after, before)


def test_centered_filters_answer_a_constant_volume_everywhere(tmp_path):
    path = _file(tmp_path, _published("resnet18").state_dict())
    flat, deep = _ours("resnet18"), _ours("resnet18", 3)
    load_pretrained(flat, path, in_channels=3)
    report = load_pretrained(deep, path, in_channels=3, inflate="center")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted, got = flat.features(x), deep.features(x[..., None].expand(-1, -1, -1, -1, 48))
    _assert_same(got, wanted[..., None].expand_as(got))
    assert len(report.adapted) == 20 and all("inflated" in line for line in report.adapted)


def test_repeated_filters_answer_a_constant_volume_in_the_middle(tmp_path):
    """Padding along depth reaches 217 voxels in (half of ResNet-18's field of view of 435), so the volume is deeper."""
    path = _file(tmp_path, _published("resnet18").state_dict())
    flat, deep = _ours("resnet18", in_channels=1), _ours("resnet18", 3, 1)
    load_pretrained(flat, path, in_channels=1)
    load_pretrained(deep, path, in_channels=1)
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        wanted, got = flat.features(x), deep.features(x[..., None].expand(-1, -1, -1, -1, 481))
    _assert_same(got[..., got.shape[-1] // 2], wanted)
    assert not torch.allclose(got[..., 0], wanted, rtol=1e-2), "no padding at the ends: the volume proves nothing"


def test_repeated_filters_weigh_each_slice_alike():
    weight = torch.randn(4, 2, 3, 3)
    inflated = inflate_kernel(weight, 5, "mean")
    _assert_same(inflated.sum(-1), weight)
    assert torch.equal(inflated[..., 0], inflated[..., 4])


@pytest.mark.parametrize(
    ("name", "options", "theirs", "message"),
    [
        (
            "resnet18",
            {"stem": "small"},
            "resnet18",
            r"at conv1\.weight: 64×3×7×7 there and 64×3×3×3 here.*network\.stem",
        ),
        ("resnet18", {"width": 0.5}, "resnet18", r"at conv1\.weight: 64×3×7×7 there and 32×3×7×7 here.*network\.width"),
        ("resnet34", {}, "resnet18", "are of resnet18, and this network is resnet34"),
        ("resnet18", {}, "vgg11_bn", "are of vgg11_bn, and this network is resnet18"),
        ("unet-encoder", {}, "resnet18", "are of resnet18, and this network is none"),
    ],
)
def test_other_networks_weights_are_refused_whole(name, options, theirs, message, tmp_path):
    network = _ours(name, **options)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=message):
        load_pretrained(network, _file(tmp_path, _published(theirs).state_dict()), in_channels=3)
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())


def test_a_layer_missing_or_misshapen_deep_inside_is_named(tmp_path):
    state = dict(_published("resnet18").state_dict())
    missing = {n: t for n, t in state.items() if n != "layer3.1.bn2.running_var"}
    network = _ours("resnet18")
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=r"no layer3\.1\.bn2\.running_var"):
        load_pretrained(network, _file(tmp_path, missing), in_channels=3)
    wrong = state | {"layer4.0.conv2.weight": torch.zeros(512, 256, 3, 3)}
    with pytest.raises(InputError, match=r"layer4\.0\.conv2\.weight: 512×256×3×3 there and 512×512×3×3 here"):
        load_pretrained(network, _file(tmp_path, wrong), in_channels=3)
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())


def test_volumes_filters_do_not_fit_slices(tmp_path):
    path = _file(tmp_path, _ours("resnet18", 3, 1).state_dict())
    with pytest.raises(InputError, match="3D filters cannot become 2D"):
        load_pretrained(_ours("resnet18", 2, 1), path, in_channels=1)


@pytest.mark.parametrize("attention", ["se", "cbam", "transformer"])
def test_attention_stays_new_and_is_said_to(attention, tmp_path):
    network = _ours("resnet18", attention=attention)
    report = load_pretrained(network, _file(tmp_path, _published("resnet18").state_dict()), in_channels=3)
    part = "transformer." if attention == "transformer" else ".attention."
    assert (
        {name for name in report.left if not name.startswith("fc.")}
        == {name for name in network.state_dict() if part in name}
        != set()
    )


def test_every_member_of_an_ensemble_starts_from_them(tmp_path):
    network = _ours("resnet18", members=2)
    load_pretrained(network, _file(tmp_path, _published("resnet18").state_dict()), in_channels=3)
    one, two = members_of(network)
    assert torch.equal(one.layer4[1].conv2.weight, two.layer4[1].conv2.weight)
    assert not torch.equal(one.fc.weight, two.fc.weight)


def test_weights_that_are_code_are_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = _file(tmp_path, {"conv1.weight": Evil()})
    with pytest.raises(InputError, match="something other than weights"):
        load_pretrained(_ours("resnet18"), path, in_channels=3)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("weights", "message"),
    [("missing.pth", "no weights at"), ("no-such-model", "There is no model"), ("notes.txt", "other than weights")],
)
def test_weights_that_are_none(weights, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=message):
        load_pretrained(_ours("resnet18"), weights, in_channels=3)


class _Server:
    """Serves a folder on this machine."""

    def __init__(self, folder):
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


def test_imagenet_is_fetched_once_verified_and_said_to_be_missing(tmp_path, monkeypatch):
    published = _file(tmp_path, _published("resnet18").state_dict())
    checksum = hashlib.sha256(published.read_bytes()).hexdigest()
    name = f"resnet18-{checksum[:8]}.pth"
    (tmp_path / "site").mkdir()
    published.rename(tmp_path / "site" / name)
    kept = imagenet.weights_folder() / name
    server, fractions = _Server(tmp_path / "site"), []
    try:
        monkeypatch.setattr(imagenet, "imagenet_url", lambda architecture: f"{server.address}/{name}")
        network = _ours("resnet18")
        load_pretrained(network, "imagenet", in_channels=3, on_progress=lambda done, _: fractions.append(done))
    finally:
        server.stop()
    assert fractions == sorted(fractions) and fractions[-1] == 1 and len(fractions) > 10
    assert [path.name for path in kept.parent.iterdir()] == [name]
    assert torch.equal(network.layer1[0].conv1.weight, _published("resnet18").layer1[0].conv1.weight)

    # The server is gone: the copy serves, and without it one sentence says where to get it and where to put it.
    load_pretrained(_ours("resnet18"), "imagenet", in_channels=3)
    data = kept.read_bytes()
    kept.unlink()
    with pytest.raises(InputError) as error:
        load_pretrained(_ours("resnet18"), "imagenet", in_channels=3)
    assert f"{server.address}/{name}" in str(error.value) and str(kept) in str(error.value)
    kept.write_bytes(data[:-1])
    with pytest.raises(InputError, match="its checksum differs"):
        load_pretrained(_ours("resnet18"), "imagenet", in_channels=3)


def test_a_download_that_is_another_file_is_not_kept(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "resnet18-00000000.pth").write_bytes(b"something else")
    server = _Server(tmp_path / "site")
    try:
        with pytest.raises(InputError, match="another file than was published"):
            imagenet.download(f"{server.address}/resnet18-00000000.pth", tmp_path / "kept" / "resnet18-00000000.pth")
    finally:
        server.stop()
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("resnet50", "resnet50"), ("densenet169", "densenet169"), ("vgg19", "vgg19_bn"), ("resnet34", "resnet34")],
)
def test_whose_imagenet_weights_are_meant(ours, theirs):
    network = _ours(ours)
    names = [network.published_name(key) for key in network.state_dict()]
    assert imagenet.architecture_of(names) == theirs
    assert re.search(rf"/{theirs}-[0-9a-f]{{8}}\.pth$", imagenet.imagenet_url(theirs))


def test_there_is_no_imagenet_for_a_unet():
    with pytest.raises(InputError, match="no ImageNet weights"):
        load_pretrained(_ours("unet-encoder"), "imagenet", in_channels=3)


#: Network for segmentation → its options, and the module whose output is deepest.
ENCODERS = {
    "fcn": ({"width": 4}, lambda network: network.to_classifier),
    "unet": ({"filters": [4, 6, 8], "strides": [1, [2, 1], 2]}, lambda network: network.bottleneck),
    "attention-unet": (
        {"filters": [4, 6, 8, 10]},
        lambda network: network.model[1].submodule[1].submodule[1].submodule,
    ),
    "residual-unet": ({"filters": [4, 6, 8], "norm": "batch"}, lambda network: network.bottleneck),
    "segresnet": (
        {"filters": 4, "blocks": [1, 2, 1], "spacing": [1.0, 2.5]},
        lambda network: network.encoder.layers[-1]["blocks"],
    ),
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_classifier_sees_what_the_encoder_of_a_segmentation_network_sees(encoder, tmp_path):
    options, deepest = ENCODERS[encoder]
    torch.manual_seed(5)
    segmenting = networks.build(encoder, spatial_dims=2, in_channels=2, out_channels=3, **options)
    _learn(segmenting)
    seen = []
    deepest(segmenting.eval()).register_forward_hook(lambda _module, _input, output: seen.append(output))
    x = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        segmenting(x)
    network = _ours("unet-encoder", 2, 2, encoder=encoder, encoder_options=options)
    report = load_pretrained(network, _file(tmp_path, segmenting.state_dict()), in_channels=2)
    with torch.no_grad():
        _assert_same(network.features(x), seen[0].relu())
    assert set(report.left) == {"output.weight", "output.bias"}


def test_any_family_has_an_encoder():
    assert set(ENCODERS) == set(networks.SEGMENTATION)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [(28, 28, 28), (3, 1, 2), (32, 32, 16)])
def test_encoders_take_images_of_any_size(encoder, size):
    options = {"width": 4} if encoder == "fcn" else {"filters": 4} if encoder == "segresnet" else {"filters": [4, 6, 8]}
    network = _ours("unet-encoder", 3, 1, encoder=encoder, encoder_options=options).train()
    logits = network(torch.randn(2, 1, *size))
    assert logits.shape == (2, 2) and torch.isfinite(logits).all()


@pytest.mark.parametrize("attention", ["se", "cbam", "transformer"])
def test_encoders_have_the_options_of_classifiers(attention):
    network = _ours("unet-encoder", 2, 1, attention=attention, members=2, dropout=0.1)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 2)
    whole = sorted(id(p) for p in network.parameters())
    assert sorted(id(p) for _, stage in network.stages() for p in stage.parameters()) == whole
    assert [name for name, _ in network.stages()][-1] == "head"
    definition = networks.definition(
        "unet-encoder", spatial_dims=2, in_channels=1, out_channels=2, attention=attention, members=2
    )
    assert definition["members"][0]["_target_"] in networks.TARGETS


def test_the_shipped_segmentation_model_starts_a_classifier():
    section = network_for("hippocampus")
    network = _ours(section.pop("name"), 3, 1, **section)
    report = load_pretrained(network, "hippocampus", in_channels=1)
    assert len(report.taken) == 24 and set(report.left) == {"output.weight", "output.bias"}
    segmenting, seen = load_bundle("hippocampus").build_network(), []
    segmenting.bottleneck.register_forward_hook(lambda _module, _input, output: seen.append(output))
    x = torch.randn(1, 1, 32, 48, 32)
    with torch.no_grad():
        segmenting(x)
        _assert_same(network.features(x), seen[0].relu())


@pytest.mark.parametrize("name", ["resnet18", "unet-encoder"])
def test_a_segmentation_model_says_which_classifier_it_fits(name):
    wanted = 'name = "unet-encoder", encoder = "unet", encoder_options = { filters = [16, 48, 96, 136] }'
    with pytest.raises(InputError, match=re.escape(f"set [network] to {wanted}.")) as error:
        load_pretrained(_ours(name, 3, 1), "hippocampus", in_channels=1)
    assert name == "resnet18" or "at levels.1.0.conv1.conv.weight: 48×16×3×3×3 there and 32×16×3×3×3 here" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("name", "options", "members"),
    [
        ("resnet18", {"width": 0.25, "attention": "se", "stem": "small", "image_size": [28, 28]}, 1),
        ("resnet18", {"width": 0.25, "attention": "se", "stem": "small", "image_size": [28, 28]}, 2),
        ("unet-encoder", {"encoder": "segresnet", "encoder_options": {"filters": 4, "blocks": [1, 2, 1]}}, 1),
    ],
)
def test_our_own_classifiers_fill_their_like(name, options, members, tmp_path):
    trained = _ours(name, in_channels=1, members=members, **options)
    _learn(trained)
    write_bundle(
        tmp_path / "mine",
        network=trained,
        network_settings={
            "name": name,
            "options": options | {"members": members},
            "in_channels": 1,
            "out_channels": 2,
        },
        plan=Plan(
            spacing=(1.0, 1.0, 0.0), patch=(28, 28, 1), batch=4, normalization={"kind": "zscore"}, framing="resize"
        ),
        task="classification",
        answers=Classes(("no", "yes"), "binary"),
        model={
            **{key: "" for key in ("title", "description", "authors", "anatomy", "modality", "license")},
            **{key: "" for key in ("data_license", "intended_use", "limits")},
            "name": "mine",
            "version": "1.0.0",
            "half_precision": False,
        },
        inference={"overlap": 0.5},
        train={},
        metrics={},
        card="",
        versions={"monai": "", "torch": "", "numpy": ""},
    )
    section = network_for(tmp_path / "mine")
    fresh = _ours(section.pop("name"), in_channels=1, members=3, **section)
    report = load_pretrained(fresh, tmp_path / "mine", in_channels=1)
    assert len(report.left) == 2 and not report.adapted
    x = torch.randn(2, 1, 28, 28)
    for number, member in enumerate(members_of(fresh)):
        like = members_of(trained)[number % members]
        _assert_same(_embedding(member, x), _embedding(like, x))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11", "unet-encoder"])
def test_layer_decay_scales_each_stage(name):
    network = _ours(name, members=2, **({} if name == "unet-encoder" else {"width": 0.25}))
    groups = parameter_groups(network, layer_decay=0.5)
    stages = [stage for stage, _ in members_of(network)[0].stages()]
    assert [group["stage"] for group in groups] == stages and groups[-1]["stage"] == "head"
    assert [group["scale"] for group in groups] == [0.5 ** (len(stages) - 1 - n) for n in range(len(stages))]
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in network.parameters())
    assert {group["scale"] for group in parameter_groups(network)} == {1.0}


def _train(network: nn.Module, steps: int, frozen, **thawing) -> None:
    torch.manual_seed(6)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        network.train()
        set_frozen(network, frozen=frozen, **thawing)
        outputs = network(torch.randn(4, 1, 32, 32))
        loss = sum(o.square().mean() for o in outputs) if isinstance(outputs, list) else outputs.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _moved(network: nn.Module, before: dict) -> set[str]:
    """Stages of the first member of which any tensor, batch-norm statistics and counters too, is another."""
    moved = set()
    for (name, stage), (_, old) in zip(members_of(network)[0].stages(), before, strict=True):
        if any(not torch.equal(new, old[key]) for key, new in stage.state_dict().items()):
            moved.add(name)
    return moved


def _kept(network: nn.Module) -> list:
    return [(name, copy.deepcopy(stage.state_dict())) for name, stage in members_of(network)[0].stages()]


@pytest.mark.parametrize(
    ("name", "frozen", "still"),
    [
        ("resnet18", 3, {"stem", "layer1", "layer2"}),
        ("resnet18", ["stem", "layer4"], {"stem", "layer4"}),
        ("densenet121", 5, {"stem", "block1", "block2", "block3", "block4"}),
        ("vgg11", 2, {"stage1", "stage2"}),
        ("unet-encoder", 4, {"level1", "level2", "level3", "level4"}),
        ("resnet18", 0, set()),
    ],
)
@pytest.mark.parametrize("members", [1, 2])
def test_frozen_stages_stay_bit_for_bit(name, frozen, still, members):
    options = {"encoder_options": {"norm": "batch"}} if name == "unet-encoder" else {"width": 0.125}
    network = _ours(name, in_channels=1, members=members, **options)
    before = _kept(network)
    _train(network, 3, frozen)
    assert _moved(network, before) == {stage for stage, _ in before} - still


@pytest.mark.parametrize(
    ("epoch", "moving"),
    [
        (0.0, {"head"}),
        (1.99, {"head"}),
        (2.0, {"head", "layer4"}),
        (5.5, {"head", "layer4", "layer3"}),
        (100.0, {"head", "layer4", "layer3", "layer2", "layer1", "stem"}),
    ],
)
def test_stages_thaw_from_the_head_on(epoch, moving):
    network = _ours("resnet18", in_channels=1, width=0.125)
    before = _kept(network)
    _train(network, 2, 5, unfreeze_every=2.0, epoch=epoch)
    assert _moved(network, before) == moving


@pytest.mark.parametrize("frozen", [6, -1, True, "layer1", ["layer9"], ["head"], 1.5])
def test_stages_that_there_are_none_of(frozen):
    with pytest.raises(InputError, match="from 0 to 5, or a list of stages among stem, layer1"):
        set_frozen(_ours("resnet18", width=0.125), frozen=frozen)


def test_settings_out_of_range():
    network = _ours("resnet18", width=0.125)
    with pytest.raises(InputError, match=r"transfer\.layer_decay is 0"):
        parameter_groups(network, layer_decay=0)
    with pytest.raises(InputError, match=r"transfer\.unfreeze_every is -1"):
        set_frozen(network, frozen=1, unfreeze_every=-1)
    with pytest.raises(InputError, match=r"transfer\.inflate is 'sum'"):
        load_pretrained(network, "imagenet", in_channels=3, inflate="sum")
