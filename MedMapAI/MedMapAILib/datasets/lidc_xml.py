"""The readings of LIDC-IDRI: an XML file a scan, with what each of (mostly) four radiologists marked.

Armato et al., The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI), Medical Physics
2011. A radiologist outlined each nodule of 3 mm or more in every slice and rated it, and put a point into each smaller
nodule and into each other lesion of 3 mm or more (a "non-nodule").
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError

#: What a radiologist rated, from 1 to 5 (calcification to 6, internal structure to 4), in the order of the files.
RATINGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
SMALL, OTHER = "nodule < 3 mm", "non-nodule"
_ROOT = "LidcReadMessage"


@dataclass(frozen=True)
class Contour:
    """A closed line in one slice.

    z: the third number of the slice's position in its DICOM header, mm. instance: its SOPInstanceUID. points: (N, 2)
    integers, column and row of pixels, from 0. included: whether what it goes round belongs to the nodule, or is a hole
    in it. The pixels of the line are the first ones outside of what it goes round.
    """

    z: float
    instance: str
    points: np.ndarray
    included: bool = True


@dataclass(frozen=True)
class Outline:
    """A nodule of 3 mm or more as one reader drew and rated it. reader: from 0, in the order of the file."""

    reader: int
    name: str
    contours: tuple[Contour, ...]
    ratings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Mark:
    """A point in a lesion that no reader had to outline. kind: SMALL or OTHER. point: column and row, from 0."""

    reader: int
    kind: str
    z: float
    instance: str
    point: tuple[int, int]


@dataclass(frozen=True)
class Reading:
    """All that was marked in one scan. series: its SeriesInstanceUID. readers: how many radiologists looked at it."""

    file: Path
    series: str
    readers: int
    outlines: tuple[Outline, ...]
    marks: tuple[Mark, ...]


def is_reading(path: Path) -> bool:
    """Whether a file begins as the reading of a CT scan does (those of chest X-rays begin otherwise)."""
    try:
        with path.open("rb") as stream:
            return f"<{_ROOT}".encode() in stream.read(1000)
    except OSError:
        return False


def read_reading(path: Path) -> Reading:
    """Read one XML file. Raises InputError where it is no whole XML, or lacks what a reading needs."""
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not a whole XML file ({error}); get it again.") from None
    for element in root.iter():  # the names, without that of their schema, which differs between releases
        element.tag = element.tag.rpartition("}")[2]
    series = root.findtext("ResponseHeader/SeriesInstanceUid", "").strip()
    sessions = root.findall("readingSession")
    if root.tag != _ROOT or not series or not sessions:
        raise InputError(f"{path} is no reading of LIDC-IDRI: it names no series or holds no reading session.")
    outlines: list[Outline] = []
    marks: list[Mark] = []
    try:
        for reader, session in enumerate(sessions):
            for nodule in session.findall("unblindedReadNodule"):
                _add_nodule(nodule, reader, outlines, marks)
            for lesion in session.findall("nonNodule"):
                marks.append(_mark(lesion, reader, OTHER, lesion.find("locus")))
    except (AttributeError, TypeError, ValueError):
        raise InputError(
            f"{path} has a mark of reader {reader + 1} without whole coordinates; get the file again."
        ) from None
    return Reading(path, series, len(sessions), tuple(outlines), tuple(marks))


def _add_nodule(nodule: ElementTree.Element, reader: int, outlines: list[Outline], marks: list[Mark]) -> None:
    ratings = {name: int(text) for name in RATINGS if (text := nodule.findtext(f"characteristics/{name}", "").strip())}
    contours = tuple(
        Contour(
            float(roi.findtext("imageZposition")),
            roi.findtext("imageSOP_UID", "").strip(),
            np.array([_point(edge) for edge in roi.findall("edgeMap")], dtype=np.int64).reshape(-1, 2),
            roi.findtext("inclusion", "TRUE").strip().upper() != "FALSE",
        )
        for roi in nodule.findall("roi")
    )
    contours = tuple(contour for contour in contours if len(contour.points))
    if ratings or any(len(contour.points) > 1 for contour in contours):
        outlines.append(Outline(reader, nodule.findtext("noduleID", "").strip(), contours, ratings))
        return
    for roi in nodule.findall("roi"):
        marks.append(_mark(roi, reader, SMALL, roi.find("edgeMap")))


def _mark(element: ElementTree.Element, reader: int, kind: str, place: ElementTree.Element | None) -> Mark:
    return Mark(
        reader,
        kind,
        float(element.findtext("imageZposition")),
        element.findtext("imageSOP_UID", "").strip(),
        _point(place),
    )


def _point(element: ElementTree.Element | None) -> tuple[int, int]:
    return int(element.findtext("xCoord")), int(element.findtext("yCoord"))
