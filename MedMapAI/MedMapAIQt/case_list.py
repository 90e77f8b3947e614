"""Training cases that are nodes of the scene: kept in a parameter node, and so saved with the scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer


@dataclass(frozen=True)
class CaseKind:
    """One kind of list. count: attribute that has the number of cases. nodes: roles of the nodes of a case. text:
    attribute with the text of a case, or None."""

    count: str
    nodes: tuple[str, ...]
    text: str | None = None

    @property
    def empty(self) -> tuple:
        """A case of which nothing is chosen yet."""
        return (*[None] * len(self.nodes), *([""] if self.text else []))


#: (volume, segmentation)
PAIRS = CaseKind("cases", ("caseVolume", "caseSegmentation"))
#: (volume, ROI, name of the class)
SAMPLES = CaseKind("samples", ("sampleVolume", "sampleRoi"), "sampleClass")
#: (volume, volume that it should become)
IMAGES = CaseKind("images", ("imageVolume", "imageTarget"))


def cases_of(parameterNode: Any, kind: CaseKind) -> list[tuple]:
    """The cases in a (MRML) parameter node: nodes, None where none is chosen, and the text of those that have one."""
    return [
        (
            *[parameterNode.GetNodeReference(f"{role}{n}") for role in kind.nodes],
            *([parameterNode.GetAttribute(f"{kind.text}{n}") or ""] if kind.text else []),
        )
        for n in range(int(parameterNode.GetAttribute(kind.count) or 0))
    ]


def set_cases(parameterNode: Any, kind: CaseKind, cases: list[tuple]) -> None:
    """Keep cases in a (MRML) parameter node."""
    before = int(parameterNode.GetAttribute(kind.count) or 0)
    with slicer.util.NodeModify(parameterNode):
        for n in range(max(len(cases), before)):
            case = cases[n] if n < len(cases) else kind.empty
            for role, node in zip(kind.nodes, case, strict=False):
                parameterNode.SetNodeReferenceID(f"{role}{n}", node.GetID() if node is not None else None)
            if kind.text:
                parameterNode.SetAttribute(f"{kind.text}{n}", case[-1] or None)
        parameterNode.SetAttribute(kind.count, str(len(cases)))
