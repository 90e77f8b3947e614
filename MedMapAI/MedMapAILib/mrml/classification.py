"""Classifications to table nodes."""

from __future__ import annotations

from typing import Any

from ..results import Classification
from .changes import unchanged_on_failure
from .tables import column, fill


def node_from_classification(result: Classification, *, name: str, node: Any = None) -> Any:
    """A table node with a row for each class: Class, Probability, Threshold, Called; ``node`` is filled anew if given.

    Threshold is the operating point, empty where the highest probability decides. The node's description has the
    sentences that belong to the result. Where it fails the scene is as before.
    """
    columns = [
        column("text", "Class", result.classes),
        column("number", "Probability", map(float, result.probabilities)),
        column("text", "Threshold", ["" if t is None else f"{t:.6g}" for t in result.thresholds]),
        column("text", "Called", ["yes" if each in result.called else "no" for each in result.classes]),
    ]
    unfamiliar = result.familiarity is not None and not result.familiarity.familiar
    said = ["Research use only.", *([result.familiarity.sentence] if unfamiliar else []), *result.notes]
    with unchanged_on_failure() as scene:
        if node is None:
            node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetName(name)
        node.SetDescription(" ".join(said))
        fill(node, columns)
    return node
