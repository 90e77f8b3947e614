"""Folders of the subject hierarchy, the tree that the Data module shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def hierarchy() -> Any:
    """The subject hierarchy node of the scene."""
    import slicer

    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def folder_beside(node: Any, name: str) -> int:
    """A new folder item where a node is (the same patient, study or folder); at the top for None. Returns its item."""
    tree = hierarchy()
    parent = tree.GetItemParent(item_of(node)) if node is not None else 0
    return tree.CreateFolderItem(parent or tree.GetSceneItemID(), name)


def item_of(node: Any) -> int:
    """The item of a node; made where there is none, as without the desktop."""
    tree = hierarchy()
    return tree.GetItemByDataNode(node) or tree.CreateItem(tree.GetSceneItemID(), node)


def put_into(folder: int, nodes: Sequence[Any]) -> None:
    """Move nodes into a folder, in this order."""
    tree = hierarchy()
    for node in nodes:
        tree.SetItemParent(item_of(node), folder)


def nodes_in(folder: int, className: str) -> list[Any]:
    """The nodes of a class that lie in a folder itself, in their order."""
    tree = hierarchy()
    nodes = [tree.GetItemDataNode(item) for item in _children(folder, False)]
    # Without the desktop the tree keeps the items of nodes that are gone.
    there = [node for node in nodes if node is not None and node.GetScene() is not None]
    return [node for node in there if node.IsA(className)]


def folder_of(node: Any) -> int:
    """The item that a node lies in; 0 for None, and where it lies in none."""
    tree = hierarchy()
    item = tree.GetItemByDataNode(node) if node is not None else 0
    parent = tree.GetItemParent(item) if item else 0
    return 0 if parent == tree.GetSceneItemID() else parent


def remove_node(node: Any) -> None:
    """Remove a node from the scene and from the tree, which forgets it by itself in the desktop only."""
    import slicer

    forget_item(hierarchy().GetItemByDataNode(node))
    slicer.mrmlScene.RemoveNode(node)


def all_items() -> list[int]:
    """Every item of the tree, parents before what lies in them; none before there is a tree, which is not made."""
    import slicer

    tree = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    return _children(tree.GetSceneItemID(), True) if tree is not None else []


def forget_item(item: int) -> None:
    """Take an item out of the tree, where it is not 0; its node stays."""
    if item:
        hierarchy().RemoveItem(item, False, False)


def _children(item: int, recursive: bool) -> list[int]:
    import vtk

    found = vtk.vtkIdList()
    hierarchy().GetItemChildren(item, found, recursive)
    return [found.GetId(n) for n in range(found.GetNumberOfIds())]
