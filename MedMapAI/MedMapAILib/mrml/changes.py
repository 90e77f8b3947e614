"""Changes to the scene that happen whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from .folders import all_items, forget_item


@contextlib.contextmanager
def unchanged_on_failure() -> Iterator[Any]:
    """Gives the scene; where the block fails, every node that was added to it in the block is removed again, and every
    item of the subject hierarchy."""
    import slicer

    scene = slicer.mrmlScene
    before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    items = set(all_items())
    try:
        yield scene
    except BaseException:
        added = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
        for node in reversed([one for one in added if one.GetID() not in before]):
            scene.RemoveNode(node)
        for item in reversed([one for one in all_items() if one not in items]):
            forget_item(item)
        raise


def first_of_name(scene: Any, className: str, name: str) -> Any:
    """The first node of a class that has a name; None where there is none."""
    for index in range(scene.GetNumberOfNodesByClass(className)):
        node = scene.GetNthNodeByClass(index, className)
        if node.GetName() == name:
            return node
    return None
