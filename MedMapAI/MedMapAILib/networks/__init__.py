"""The networks there are; one family a file, one line each in this table. Importing it imports no torch.

A network for segmentation maps (B, C, *S) to logits (B, K, *S), for two or three spatial axes whose sizes are multiples
of ``size_divisor``. While it trains with deep supervision it gives a list of logits, from fine to coarse, each at its
own resolution. A network for classification maps (B, C, *S) to logits (B, O), for any size; it is a
``classifier.Classifier``. An ensemble of them gives a list of logits, one a member, while it trains. A network for
detection maps (B, C, *S), any size, to losses while it trains and to boxes when it runs; it is a
``detection.detector.Detector``, and its output channels are the classes that it finds. A network for reconstruction
maps an image (B, C, *S), sizes multiples of ``size_divisor``, to a better one of as many or fewer channels; or, where
``domain_of`` its name is "measurement", a measurement and the operator that it came by to an image.

A family's file has three functions: ``definition`` (the network for inference as a MONAI bundle writes it down),
``build`` (the same network, made to be trained) and ``size_divisor``; the keyword arguments of ``build`` that have
defaults are the options.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from torch import nn

#: Name → the family's file, and what makes the name one of several in it.
_SEGMENTATION: dict[str, tuple[str, dict[str, Any]]] = {
    "fcn": ("fcn", {}),
    "unet": ("unet", {}),
    "attention-unet": ("attention_unet", {}),
    "residual-unet": ("residual_unet", {}),
    "segresnet": ("segresnet", {}),
}
_CLASSIFICATION: dict[str, tuple[str, dict[str, Any]]] = {
    "vgg11": ("vgg", {"depth": 11}),
    "vgg13": ("vgg", {"depth": 13}),
    "vgg16": ("vgg", {"depth": 16}),
    "vgg19": ("vgg", {"depth": 19}),
    "resnet18": ("resnet", {"depth": 18}),
    "resnet34": ("resnet", {"depth": 34}),
    "resnet50": ("resnet", {"depth": 50}),
    "densenet121": ("densenet", {"depth": 121}),
    "densenet169": ("densenet", {"depth": 169}),
    "unet-encoder": ("encoder_classifier", {}),
}
_DETECTION: dict[str, tuple[str, dict[str, Any]]] = {
    "retinanet": ("detection.detectors", {"family": "retinanet"}),
    "fast-rcnn": ("detection.fast_rcnn", {}),
    "faster-rcnn": ("detection.detectors", {"family": "faster_rcnn"}),
    "mask-rcnn": ("detection.detectors", {"family": "mask_rcnn"}),
}
_RECONSTRUCTION: dict[str, tuple[str, dict[str, Any]]] = {
    "fbpconvnet": ("reconstruction.fbpconvnet", {}),
    "red-cnn": ("reconstruction.red_cnn", {}),
    "learned-primal-dual": ("reconstruction.learned_primal_dual", {}),
    "varnet": ("reconstruction.varnet", {}),
}
_GENERATION: dict[str, tuple[str, dict[str, Any]]] = {
    "image-generator": ("generation.image_generator", {}),
}
_FILES = _SEGMENTATION | _CLASSIFICATION | _DETECTION | _RECONSTRUCTION | _GENERATION
#: Those that are given a measurement and its operator; the others for reconstruction are given an image.
_OF_MEASUREMENTS = ("learned-primal-dual", "varnet")

#: What a bundle's ``network_def`` may name as ``_target_``.
TARGETS = frozenset(
    {
        "MedMapAILib.networks.densenet.DenseNet",
        "MedMapAILib.networks.detection.fast_rcnn_2d.FastRCNN2D",
        "MedMapAILib.networks.detection.fast_rcnn_3d.FastRCNN3D",
        "MedMapAILib.networks.detection.faster_rcnn_2d.FasterRCNN2D",
        "MedMapAILib.networks.detection.faster_rcnn_3d.FasterRCNN3D",
        "MedMapAILib.networks.detection.mask_rcnn_2d.MaskRCNN2D",
        "MedMapAILib.networks.detection.mask_rcnn_3d.MaskRCNN3D",
        "MedMapAILib.networks.detection.retinanet_2d.RetinaNet2D",
        "MedMapAILib.networks.detection.retinanet_3d.RetinaNet3D",
        "MedMapAILib.networks.encoder_classifier.EncoderClassifier",
        "MedMapAILib.networks.ensemble.Ensemble",
        "MedMapAILib.networks.fcn.FCN",
        "MedMapAILib.networks.generation.image_generator.ImageGenerator",
        "MedMapAILib.networks.reconstruction.fbpconvnet.FBPConvNet",
        "MedMapAILib.networks.reconstruction.learned_primal_dual.LearnedPrimalDual",
        "MedMapAILib.networks.reconstruction.red_cnn.REDCNN",
        "MedMapAILib.networks.reconstruction.varnet.VarNet",
        "MedMapAILib.networks.resnet.ResNet",
        "MedMapAILib.networks.vgg.VGG",
        "monai.networks.nets.AttentionUnet",
        "monai.networks.nets.DenseNet",
        "monai.networks.nets.DynUNet",
        "monai.networks.nets.ResNet",
        "monai.networks.nets.SegResNetDS",
    }
)


def build(name: str, *, spatial_dims: int, in_channels: int, out_channels: int, **options: Any) -> nn.Module:
    """A new network with random weights (from torch's global generator), float32, on the CPU, in training mode.

    spatial_dims: 2 or 3. in_channels: of the image. out_channels: background and one a segment; of a
    classifier as many logits as its kind of target needs; of a detector the classes of findings.
    options: see the ``build`` function of the family's file; lists as read from JSON or TOML are fine.
    Raises InputError for an unknown name or option, listing what there is, and for a value that makes no network.
    """
    family = _checked(name, spatial_dims, options)
    if in_channels < 1 or out_channels < 1:
        raise InputError(
            f"Network {name!r} cannot have {in_channels} input and {out_channels} output channels; "
            "give at least one of each."
        )
    return family.build(
        **_FILES[name][1], spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **options
    )


def definition(name: str, *, spatial_dims: int, in_channels: int, out_channels: int, **options: Any) -> dict[str, Any]:
    """The network for inference as a MONAI bundle's ``network_def``: ``{"_target_": class, keyword: JSON value, …}``.

    The class loads the weights of ``build`` with the same arguments, but for the heads that only deep supervision uses.
    Raises InputError as ``build``.
    """
    family = _checked(name, spatial_dims, options)
    return family.definition(
        **_FILES[name][1], spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels, **options
    )


def size_divisor(name: str, *, spatial_dims: int, **options: Any) -> tuple[int, ...]:
    """What the size of the input must be a multiple of, voxels, one number for each spatial axis.

    Every such size works, down to the divisor itself. Raises InputError as ``build``.
    """
    return _checked(name, spatial_dims, options).size_divisor(spatial_dims=spatial_dims, **options)


def options_of(name: str) -> dict[str, Any]:
    """The options of a network and their defaults. Raises InputError for an unknown name."""
    parameters = inspect.signature(_family(name).build).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def domain_of(name: str) -> str:
    """What a network for reconstruction is given: one of ``results.reconstruction.DOMAINS``.

    Raises InputError for the name of another network, listing those that there are.
    """
    if name not in _RECONSTRUCTION:
        raise InputError(
            f"There is no network {name!r} for reconstruction; choose one of {', '.join(_RECONSTRUCTION)}."
        )
    return "measurement" if name in _OF_MEASUREMENTS else "image"


#: Name → builder, for each task and for all.
SEGMENTATION: dict[str, Callable[..., nn.Module]] = {name: functools.partial(build, name) for name in _SEGMENTATION}
CLASSIFICATION: dict[str, Callable[..., nn.Module]] = {name: functools.partial(build, name) for name in _CLASSIFICATION}
DETECTION: dict[str, Callable[..., nn.Module]] = {name: functools.partial(build, name) for name in _DETECTION}
RECONSTRUCTION: dict[str, Callable[..., nn.Module]] = {name: functools.partial(build, name) for name in _RECONSTRUCTION}
GENERATION: dict[str, Callable[..., nn.Module]] = {name: functools.partial(build, name) for name in _GENERATION}
NETWORKS: dict[str, Callable[..., nn.Module]] = SEGMENTATION | CLASSIFICATION | DETECTION | RECONSTRUCTION | GENERATION


def _family(name: str) -> ModuleType:
    if name not in _FILES:
        raise InputError(f"There is no network {name!r}; choose one of {', '.join(_FILES)}.")
    return importlib.import_module(f".{_FILES[name][0]}", __package__)


def _checked(name: str, spatial_dims: int, options: dict[str, Any]) -> ModuleType:
    family, known = _family(name), options_of(name)
    if spatial_dims not in (2, 3):
        raise InputError(f"Network {name!r} cannot have {spatial_dims} spatial dimensions; choose 2 or 3.")
    unknown = [option for option in options if option not in known]
    if unknown:
        raise InputError(f"Network {name!r} has no option {unknown[0]!r}; there are {', '.join(known)}.")
    return family


__all__ = [
    "CLASSIFICATION",
    "DETECTION",
    "GENERATION",
    "NETWORKS",
    "RECONSTRUCTION",
    "SEGMENTATION",
    "TARGETS",
    "build",
    "definition",
    "domain_of",
    "options_of",
    "size_divisor",
]
