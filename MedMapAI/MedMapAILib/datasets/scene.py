"""Cases that come from an open scene: written, without names, as a folder that can be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic_folder
from ..image import check_same_geometry, write_image
from ..results import Segment, Segmentation, label_type, write_segmentation


def write_cases(cases: Iterable[tuple[Any, Segmentation]], folder: str | Path) -> dict[str, dict[str, Any]]:
    """Write cases to ``folder/images`` and ``folder/labels`` as case_001.nrrd, case_002.nrrd, …; whole or not at all.

    cases: (image (1, I, J, K), segmentation on the same grid), read one at a time. The same segment is known by its
    name: it gets the same label value in every case, whatever value it has in its own segmentation. An older folder of
    that name is replaced. Returns section [dataset.labels] of a training configuration: value → {"name", "color",
    "terminology"}.
    Raises InputError when image and segmentation do not fit, or there is nothing to learn in a case.
    """
    values: dict[str, int] = {}
    described: dict[str, Segment] = {}
    with atomic_folder(folder) as temporary:
        for part in ("images", "labels"):
            (temporary / part).mkdir()
        for number, (image, segmentation) in enumerate(cases, start=1):
            name = f"case_{number:03d}"
            check_same_geometry(image, segmentation, f"The volume of case {number}", "its segmentation")
            if not segmentation.labels.any():
                raise InputError(f"The segmentation of case {number} is empty; draw in it or leave the case out.")
            for segment in segmentation.segments:
                if segment.name not in values:
                    values[segment.name] = _free_value(segment.value, values.values())
                    described[segment.name] = segment
            write_image(image, temporary / "images" / f"{name}.nrrd")
            write_segmentation(_renumbered(segmentation, values), temporary / "labels" / f"{name}.nrrd")
    return {str(value): _about(described[name]) for name, value in sorted(values.items(), key=lambda item: item[1])}


def _free_value(wanted: int, taken: Iterable[int]) -> int:
    taken = set(taken)
    return wanted if wanted not in taken else next(value for value in range(1, 65536) if value not in taken)


def _renumbered(segmentation: Segmentation, values: dict[str, int]) -> Segmentation:
    segments = tuple(Segment(values[s.name], s.name, s.color, s.terminology) for s in segmentation.segments)
    labels = np.zeros(segmentation.labels.shape, dtype=label_type(values.values()))
    for old, new in zip(segmentation.segments, segments, strict=True):
        labels[segmentation.labels == old.value] = new.value
    return Segmentation(labels, segmentation.affine, segments)


def _about(segment: Segment) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": segment.name,
        "color": "#" + "".join(f"{round(part * 255):02x}" for part in segment.color),
    }
    codes = terminology_codes(segment.terminology)
    return about | ({"terminology": codes} if codes else {})


def terminology_codes(entry: str | None) -> dict[str, list[str]] | None:
    """The codes in Slicer's serialized terminology entry: {"category", "type", "modifier": [scheme, code, meaning]}.

    The inverse of ``results.terminology_entry`` for these three; None where category or type is missing.
    """
    parts = (entry or "").split("~")
    codes = {key: part.split("^") for key, part in zip(("category", "type", "modifier"), parts[1:4], strict=False)}
    codes = {key: code for key, code in codes.items() if len(code) == 3 and all(code)}
    return codes if "category" in codes and "type" in codes else None
