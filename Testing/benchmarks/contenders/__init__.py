"""The contenders: one program a file, one line each in this table.

``ours-*``        MedMapAI's Predictor, in its process: by back end and precision
``monai``         MONAI's sliding_window_inference between MONAI's own transforms, at its best batch of windows
``nnunet``        nnU-Net v2's nnUNetPredictor, with its own preprocessing and export
``end-to-end-*``  volume node to segmentation node through MedMapAI's worker process
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.cases import Case

    from .contender import Contender


def _ours(backend: str, precision: str) -> Callable:
    def build(case: Case, work: Path, threads: int) -> Contender:
        from .ours import Ours

        return Ours(case.bundle(work), threads, backend, precision)

    return build


def _monai(case: Case, work: Path, threads: int) -> Contender:
    from .monai_windows import MonaiWindows

    return MonaiWindows(case.bundle(work), threads)


def _nnunet(case: Case, work: Path, threads: int) -> Contender:
    from .nnunet import NnUNet

    return NnUNet(case.bundle(work), threads)


def _end_to_end(state: str) -> Callable:
    def build(case: Case, work: Path, threads: int) -> Contender:
        from .end_to_end import EndToEnd

        return EndToEnd(state)

    return build


_BUILDERS: dict[str, Callable[[Case, Path, int], Contender]] = {
    "nnunet": _nnunet,
    "monai": _monai,
    "ours-fp32": _ours("auto", "fp32"),
    "ours-auto": _ours("auto", "auto"),
    "ours-torch-fp32": _ours("torch", "fp32"),
    "ours-torch": _ours("torch", "auto"),
    "end-to-end-first": _end_to_end("first"),
    "end-to-end-cold": _end_to_end("cold"),
    "end-to-end-warm": _end_to_end("warm"),
}

NAMES = tuple(_BUILDERS)
#: What they are, for the table.
TITLES = {
    "nnunet": "nnU-Net v2 (step 0.5, no mirroring)",
    "monai": "MONAI sliding window (overlap 0.5, best batch)",
    "ours-fp32": "MedMapAI, float32",
    "ours-auto": "MedMapAI, automatic precision",
    "ours-torch-fp32": "MedMapAI, torch back end, float32",
    "ours-torch": "MedMapAI, torch back end, automatic precision",
    "end-to-end-first": "node to node, new process, nothing compiled yet",
    "end-to-end-cold": "node to node, new process",
    "end-to-end-warm": "node to node, warm worker",
}
#: Which are run where none are named. Node to node needs a model in a folder, which the large one is not.
DEFAULTS = {
    "small": NAMES,
    "large": ("nnunet", "monai", "ours-fp32", "ours-auto", "ours-torch"),
    "one-window": ("nnunet", "monai", "ours-fp32", "ours-auto", "ours-torch"),
}


def make(name: str, case: Case, work: Path, threads: int) -> Contender:
    """Build a contender in this process. threads: that it may compute with. Raises what its library raises."""
    return _BUILDERS[name](case, work, threads)
