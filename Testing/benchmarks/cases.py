"""What the benchmarks run on: real scans, a model, and the truth where there is one.

``small``       hippocampus crops (MR, 1 mm) that the shipped model was not trained on, with their truth
``large``       a whole chest CT and the network of the size that TotalSegmentator uses, with random weights
``one-window``  the middle of that CT, which that network sees in a single window: for trying things out

The large model has never been trained. Its weights are random numbers from a fixed seed, but for two things without
which its label maps would be noise: its kernels are bells in space, so that neighbors get similar values, and its last
layer, fitted by least squares to the CT itself, makes its 25 classes bands of blurred intensity (air and lung, soft
tissue, and 23 of bone). They mean nothing. They serve to compare speed, and to see whether two programs that are given
the same network and image say the same. What they say of a voxel still depends on what else is in its window, more than
with a trained network (the normalization in the network is over the window, and nothing was trained to bear with it),
so programs that lay windows differently agree less. How far MONAI and nnU-Net agree with each other is the measure.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
#: Read-only development data; see its README.
DATA = Path(os.environ.get("MEDMAPAI_BENCH_DATA", ROOT.parent / "shared" / "data"))
SPEED_ONLY = "speed and label agreement only: random weights, see Testing/benchmarks/cases.py"

_CHEST_CT = "chest_ct/CPTAC-LSCC-C3N-00247"
#: As nnU-Net plans it for 1.5 mm CT and as TotalSegmentator's models have it; intensities as of such data sets.
_CT_PLAN: dict[str, Any] = {
    "spacing": (1.5, 1.5, 1.5),
    "patch": (128, 128, 128),
    "batch": 2,
    "normalization": {"kind": "ct", "clip": [-1004.0, 1588.0], "mean": -50.0, "sd": 503.0},
    "interpolation": "cubic",
}
_CT_FEATURES = (32, 64, 128, 256, 320, 320)
_CT_CLASSES = 25
#: Normalized intensities in the middle of air and lung, and of soft tissue; those of bone are spread between two.
_BANDS, _BONE = (-1.6, 0.0), (0.7, 2.2)
_SEED = 20250101


@dataclass(frozen=True)
class Scan:
    """image: (I, J, K) in the scanner's number type. affine: voxel index → RAS mm. truth: (I, J, K) labels or None."""

    image: np.ndarray
    affine: np.ndarray
    truth: np.ndarray | None


@dataclass(frozen=True)
class Case:
    """A model and scans to run it on.

    scans: their names. warm_up: the one for the first run, which is not counted. prepare(work): makes the files that
    contenders share, once. load(work, name): a scan. bundle(work): the model, without mirroring and without clean-up of
    its answer, so that every contender does the same. quick: how many scans a quick run takes. caution: what must be
    said beside its figures.
    """

    name: str
    title: str
    scans: tuple[str, ...]
    warm_up: str
    prepare: Callable[[Path], None]
    load: Callable[[Path, str], Scan]
    bundle: Callable[[Path], Any]
    quick: int = 1
    caution: str = ""


def find_case(name: str) -> Case:
    """The case of that name. Raises SystemExit with a sentence where there is none or its data are not here."""
    if name not in CASES:
        raise SystemExit(f"There is no case {name!r}; choose from {', '.join(CASES)}.")
    try:
        return CASES[name]()
    except FileNotFoundError as error:
        raise SystemExit(f"Case {name!r} needs {error.filename}, which is not on this machine.") from None


# --------------------------------------------------------------------------------------------------------------------
# Small: the hippocampus


@lru_cache
def _hippocampus() -> Case:
    from MedMapAILib.bundle import SHIPPED_MODELS

    split = json.loads((SHIPPED_MODELS / "hippocampus" / "configs" / "train.json").read_text(encoding="utf-8"))["split"]
    names = tuple(sorted(split["validation"]))
    return Case(
        name="small",
        title=f"hippocampus MR, the shipped model, {len(names)} held-out scans of about 36×50×36 voxels",
        scans=names,
        warm_up=names[0],
        prepare=lambda work: None,
        load=_load_hippocampus,
        bundle=lambda work: hippocampus_bundle(),
        quick=2,
    )


def _load_hippocampus(work: Path, name: str) -> Scan:
    from MedMapAILib.image import read_volume
    from MedMapAILib.results import read_segmentation

    folder = DATA / "hippocampus"
    volume = read_volume(folder / "images" / f"{name}.nii.gz")
    return Scan(volume.array, volume.affine, read_segmentation(folder / "labels" / f"{name}.nii.gz").labels)


def hippocampus_bundle() -> Any:
    """The shipped model, told to do no more than the others do."""
    from MedMapAILib.bundle import load_bundle

    bundle = load_bundle("hippocampus")
    return replace(bundle, inference={**bundle.inference, "mirror_axes": [], "keep_largest": False})


# --------------------------------------------------------------------------------------------------------------------
# Large: a whole chest CT


@lru_cache
def _chest_ct() -> Case:
    return Case(
        name="large",
        title="a chest CT of 512×512×99 voxels, 0.56×0.56×3 mm, PlainConvUNet of TotalSegmentator's size, 25 classes",
        scans=("chest",),
        warm_up="middle",
        prepare=lambda work: _prepare_chest(work),
        load=_load_chest,
        bundle=chest_bundle,
        caution=SPEED_ONLY,
    )


@lru_cache
def _one_window() -> Case:
    return replace(_chest_ct(), name="one-window", title="the middle of the chest CT: one window", scans=("middle",))


def _prepare_chest(work: Path) -> None:
    path = work / "chest.npz"
    if not path.exists():
        from MedMapAILib.image import read_volume

        volume = read_volume(DATA / _CHEST_CT)
        image = volume.array
        if np.array_equal(image, np.rint(image)):
            image = image.astype(np.int16)
        _save_whole(path, lambda part: np.savez(part, image=image, affine=volume.affine))
    weights = work / "chest_weights.pt"
    if not weights.exists():
        import torch

        network = random_plain_conv_unet(_on_model_grid(_load_chest(work, "chest")))
        _save_whole(weights, lambda part: torch.save(network.state_dict(), part))


def _save_whole(path: Path, save: Callable[[Path], None]) -> None:
    """Write a file such that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        save(part)
        os.replace(part, path)


def _load_chest(work: Path, name: str) -> Scan:
    """The CT ("chest"), or what lies around its center ("middle"): at most 128 voxels of 1.5 mm along each axis."""
    with np.load(work / "chest.npz") as data:
        image, affine = data["image"], data["affine"]
    if name == "middle":
        size = np.array([300, 300, 60])
        start = (np.array(image.shape) - size) // 2
        image = np.ascontiguousarray(image[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))])
        affine[:3, 3] += affine[:3, :3] @ start
    return Scan(image, affine, None)


def _on_model_grid(scan: Scan) -> np.ndarray:
    """A scan as the network sees it, (I, J, K)."""
    from MedMapAILib.image import make_image
    from MedMapAILib.preprocessing import to_model_grid

    return to_model_grid(make_image(scan.image[None], scan.affine), _ct_plan()).numpy()[0]


def plain_conv_unet() -> Any:
    """nnU-Net's PlainConvUNet as TotalSegmentator's 1.5 mm models have it, weights as PyTorch makes them."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    stages = len(_CT_FEATURES)
    return PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=_CT_FEATURES,
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=[1] + [2] * (stages - 1),
        n_conv_per_stage=2,
        num_classes=_CT_CLASSES,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    ).eval()


def random_plain_conv_unet(volume: np.ndarray) -> Any:
    """The network with weights as this file's first lines say. volume: (I, J, K), what the last layer is fitted to."""
    import torch
    from dynamic_network_architectures.initialization.weight_init import InitWeights_He

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(_SEED)
        network = plain_conv_unet()
        network.apply(InitWeights_He(1e-2))
        _smooth(network)
        # A band goes to the nearest of these values: of -(value - center)², what all have in common is left out.
        centers = torch.tensor([*_BANDS, *np.linspace(*_BONE, _CT_CLASSES - len(_BANDS))])
        *direction, offset = _fitted(network, volume)
        last = network.decoder.seg_layers[-1]
        last.weight.copy_((2 * centers[:, None] * torch.tensor(direction))[..., None, None, None])
        last.bias.copy_(2 * centers * offset - centers**2)
    return network


def _smooth(network: Any) -> None:
    """Give every 3×3×3 kernel the random weight of its middle, in the form of a bell, and every kernel that enlarges
    that of its corner; let what comes from below count less than what comes from the same level."""
    import torch
    from torch import nn

    line = torch.exp(-(torch.arange(-1, 2) ** 2) / (2 * 0.8**2))
    bell = torch.einsum("i,j,k->ijk", line, line, line)
    # He's rule is for 27 independent weights.
    bell *= 27**0.5 / bell.sum()
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3):
            module.weight.copy_(module.weight[:, :, 1:2, 1:2, 1:2] * bell)
        elif isinstance(module, nn.ConvTranspose3d):
            module.weight.copy_(module.weight[:, :, :1, :1, :1].expand_as(module.weight))
    for stage in network.decoder.stages:
        weight = stage.convs[0].conv.weight
        weight[:, : weight.shape[1] // 2] *= 0.3


def _fitted(network: Any, volume: np.ndarray) -> list[float]:
    """Factors of the 32 features before the last layer, and an offset, that come nearest to the blurred intensity in
    three parts of the volume (I, J, K)."""
    import torch
    from scipy.ndimage import gaussian_filter

    features: list[Any] = []
    hook = network.decoder.seg_layers[-1].register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    blurred = gaussian_filter(volume, 1.0)
    count = _CT_FEATURES[0] + 1
    left, right = np.zeros((count, count)), np.zeros(count)
    for start in ((0, 48, 48), (48, 0, 48), (48, 48, 0)):
        box = tuple(slice(a, a + 96) for a in start)
        network(torch.from_numpy(np.ascontiguousarray(volume[box]))[None, None])
        found = features.pop()[0].flatten(1).double().numpy()
        found = np.concatenate([found, np.ones((1, found.shape[1]))])
        left += found @ found.T
        right += found @ blurred[box].ravel()
    hook.remove()
    return np.linalg.solve(left + 1e-6 * np.trace(left) / count * np.eye(count), right).tolist()


def _ct_plan() -> Any:
    from MedMapAILib.plan import Plan

    return Plan(**_CT_PLAN)


def chest_bundle(work: Path) -> Any:
    """A model in memory only, with a network that is in nnU-Net's library and not in ours."""
    import torch
    from MedMapAILib.bundle import Bundle, BundleInfo
    from MedMapAILib.results import Segment, color_of

    class PlainConvUNetBundle(Bundle):
        def build_network(self) -> torch.nn.Module:
            network = plain_conv_unet()
            network.load_state_dict(self.weights)
            return network

        def size_divisor(self) -> tuple[int, ...]:
            return (32, 32, 32)

    info = BundleInfo(
        name="bench-plain-conv-unet",
        title="PlainConvUNet, random weights",
        task="segmentation",
        modality="CT",
        path=work / "chest_weights.pt",
        size_bytes=(work / "chest_weights.pt").stat().st_size,
        metrics={},
        card="",
        segments=tuple(Segment(n, f"class {n}", color_of(n)) for n in range(1, _CT_CLASSES)),
        metadata={},
    )
    return PlainConvUNetBundle(
        info,
        _ct_plan(),
        # Not what is built; only the numbers of channels are read.
        {"name": "unet", "options": {"filters": list(_CT_FEATURES)}, "in_channels": 1, "out_channels": _CT_CLASSES},
        {"overlap": 0.5, "mirror_axes": [], "keep_largest": False, "window": None},
        {},
        torch.load(work / "chest_weights.pt", weights_only=True),
        hashlib.sha256((work / "chest_weights.pt").read_bytes()).hexdigest(),
    )


CASES: dict[str, Callable[[], Case]] = {"small": _hippocampus, "large": _chest_ct, "one-window": _one_window}
