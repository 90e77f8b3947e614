"""A study of volumes that are in the scene: they are written into its folder, under names that say nothing."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

_IMAGES = "images"


def volumes_of_scene() -> list[Any]:
    """Volume nodes that a user sees, but label maps."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    seen = [node for node in nodes if not node.GetHideFromEditors() and node.GetImageData() is not None]
    return [node for node in seen if not node.IsA("vtkMRMLLabelMapVolumeNode")]


def split_name(name: str) -> tuple[str, str]:
    """A guess at (case, method) from the name of a volume: "Chest FBP" is method FBP of case Chest."""
    case, _space, method = name.strip().rpartition(" ")
    return (case, method) if case else (_("case 1"), method)


def study_from_volumes(folder: str | Path, nodes: Mapping[str, Mapping[str, Any]], **options: Any) -> Any:
    """Make a study of volume nodes, as they are in the world. nodes: case → method → node.

    options: as for ``reading.images.make_study``. Nothing is left where it fails. Raises InputError, RunError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.errors import InputError
    from MedMapAILib.image import write_array
    from MedMapAILib.reading.images import make_study
    from MedMapAILib.reading.study import check_complete, check_free

    folder = Path(folder)
    check_complete(nodes)
    check_free(folder, options.get("key"))
    new = not folder.exists()
    written: list[Path] = []
    try:
        try:
            (folder / _IMAGES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be made ({error.strerror}); choose another.") from None
        images: dict[str, dict[str, str]] = {}
        for case, of in nodes.items():
            for method, node in of.items():
                voxels, affine, _notes = mrml.voxels_from_node(node)
                if len(voxels) != 1:
                    raise InputError(f"{node.GetName()!r} is in color; a study takes volumes of one channel.")
                place = f"{_IMAGES}/{secrets.token_hex(4)}.nrrd"
                write_array(voxels[0], affine, folder / place)
                written.append(folder / place)
                images.setdefault(case, {})[method] = place
        return make_study(folder, images, **options)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        for path in (folder / _IMAGES, *([folder] if new else [])):
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
