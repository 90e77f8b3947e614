"""The names under which published weights keep their layers, brought to torchvision's, which ours can be mapped to.

Known are torchvision's own, old and new; MONAI's ResNet and DenseNet; MedicalNet's 3D ResNets (Chen, Ma, Zheng,
"Med3D", 2019, https://arxiv.org/abs/1904.00625, https://github.com/Tencent/MedicalNet); RadImageNet's ResNet-50 and
DenseNet-121 (Mei et al., Radiology: Artificial Intelligence 4(5), 2022, https://github.com/BMEII-AI/RadImageNet), whose
layers are numbered as the children of torchvision's module; and any of them wrapped by DataParallel and the like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What training code wraps around a network, and so puts before the names of its layers.
_WRAPPERS = ("module.", "backbone.", "model.", "network.", "net.")
#: The children of torchvision's ResNet that have weights, by number.
_RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4", "9": "fc"}
#: Tensors that count and do not weigh.
COUNTERS = "num_batches_tracked"


def torchvision_names(names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Which layout a file's names follow, and name → torchvision's name for each of them.

    Returns ("torchvision", "MONAI", "MedicalNet" or "RadImageNet", mapping). Names that no rule knows are kept.
    """
    mapping = {name: name for name in names}
    while wrapper := _wrapper(mapping.values()):
        mapping = {name: there.removeprefix(wrapper) for name, there in mapping.items()}
    there, layout = set(mapping.values()), "torchvision"
    if "4.0.conv1.weight" in there:
        layout = "RadImageNet"
        mapping = {n: re.sub(r"^\d+", lambda m: _RESNET_CHILDREN.get(m[0], m[0]), t) for n, t in mapping.items()}
    elif "0.conv0.weight" in there:
        layout = "RadImageNet"
        mapping = {n: re.sub(r"^0\.", "features.", t) for n, t in mapping.items()}
    elif any(t.startswith("conv_seg.") for t in there):
        layout = "MedicalNet"
    elif any(".layers." in t and "denselayer" in t for t in there) or "class_layers.out.weight" in there:
        layout = "MONAI"
    mapping = {name: _densenet(t) for name, t in mapping.items()}
    return layout, mapping


def _densenet(name: str) -> str:
    """MONAI's names, and those of torchvision's files from before names could not hold dots (norm.1)."""
    name = re.sub(r"(denselayer\d+)\.layers\.", r"\1.", name)
    name = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
    return re.sub(r"^class_layers\.out\.", "classifier.", name)


def _wrapper(names: Iterable[str]) -> str | None:
    """The wrapper's prefix that most names have, if there is one."""
    names = list(names)
    for prefix in _WRAPPERS:
        if 2 * sum(name.startswith(prefix) for name in names) > len(names):
            return prefix
    return None
