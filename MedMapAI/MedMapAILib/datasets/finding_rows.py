"""Rows of a table that each hold a finding: which columns are where it is, and in which frame of coordinates."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..results import STATES, Finding
from .dataset import listed
from .finding_geometry import box_after
from .table import Table

#: Frames of coordinates; "voxel" is the index (i, j, k) in the image.
FRAMES = ("LPS", "RAS", "voxel")
#: mm; what LUNA16's own evaluation takes for a lesion that nobody measured (its diameter is then -1).
UNMEASURED_MM = 10.0

#: mm or voxels, for a side whose two edges are the same.
_NO_THICKNESS = 1e-3
_TURN = {"RAS": np.array([1.0, 1.0, 1.0]), "LPS": np.array([-1.0, -1.0, 1.0])}
_AXES = "xyz"
_IMAGE = ("image", "scan", "file", "filename", "filepath", "imagepath", "path", "imagefile", "imageid", "seriesuid")
_IMAGE += ("seriesinstanceuid", "series", "case")
_CLASS = ("class", "classname", "label", "category")
_SCORE = ("score", "probability", "confidence", "prob")
_CENTER = ("{}", "coord{}", "center{}", "centre{}", "{}center", "c{}", "pos{}")
_SIZE = ("size{}", "{}size", "d{}", "extent{}")
_SIDES = (("width", "height", "depth"), ("w", "h", "d"))
_LOW = ("{}min", "min{}", "low{}", "{}low", "bboxlow{}", "bboxmin{}", "{}0", "{}1")
_HIGH = ("{}max", "max{}", "high{}", "{}high", "bboxhigh{}", "bboxmax{}", "{}2", "{}1")
_DIAMETER, _RADIUS = ("diameter", "diam"), ("radius",)
_FLAGS = ("synthetic", "ignored", "called")
_WRONG = object()
_TRUE, _FALSE = {"1", "1.0", "true", "yes", "y", "x"}, {"", "0", "0.0", "false", "no", "n"}


@dataclass(frozen=True)
class Columns:
    """Which columns of a table (names in lower case) say what; None or empty where none does.

    Of center, size, low and high there are three, or two in a table of pictures. LUNA16's names of columns mean LPS.
    """

    image: str | None
    center: tuple[str, ...]
    size: tuple[str, ...]
    low: tuple[str, ...]
    high: tuple[str, ...]
    diameter: str | None
    radius: str | None
    label: str | None
    score: str | None
    frame: str | None
    luna16: bool

    @property
    def placed(self) -> bool:
        """Whether they say where a finding is and how large."""
        sized = bool(self.size or self.diameter or self.radius)
        return bool(self.low and self.high) or bool(self.center and sized)

    @property
    def used(self) -> set[str]:
        """Those that mean something."""
        one = (self.image, self.diameter, self.radius, self.label, self.score, self.frame)
        return {*self.center, *self.size, *self.low, *self.high, *filter(None, one)}


@dataclass(frozen=True)
class FindingRow:
    """One row. image: as it is written. place: center and size in ``frame``; None in a row of an image without
    findings, or whose finding a reader rejected. Of frame "voxel" these are indices and numbers of voxels, and a size
    that is NaN is that of the diameter.

    diameter_mm: where the table has it. ignored: whether the finding counts neither as a hit nor as a miss. kept: the
    columns that are about the image.
    """

    line: int
    image: str
    frame: str
    place: tuple[tuple[float, ...], tuple[float, ...]] | None
    diameter_mm: float | None
    label: str
    score: float | None
    state: str
    ignored: bool
    synthetic: bool
    about: dict[str, Any] | None
    kept: dict[str, str]

    def finding(self, state: str | None = None, affine: np.ndarray | None = None) -> Finding:
        """In RAS mm. affine: voxel index → RAS mm of its image, for frame "voxel". state: another than the row's."""
        center, size = (np.array(part) for part in self.place)
        if self.frame == "voxel":
            center, sides = box_after(center, np.nan_to_num(size), affine)
            size = np.where(np.isnan(size), self.diameter_mm or UNMEASURED_MM, sides)
        else:
            center = center * _TURN[self.frame]
        return Finding(
            tuple(center),
            tuple(size),
            self.label,
            self.score,
            state or self.state,
            self.diameter_mm,
            synthetic=self.synthetic,
            about=self.about,
        )


def find_columns(table: Table, image_column: str | None = None) -> Columns:
    """Which columns say what, by their names in capital or small letters and with or without ``_mm``.

    Known are: a center (x, coordX, center_x, x_center, cx …) with a diameter or a radius or sizes (size_x, dx, width,
    height, depth …), low and high edges (x_min, x1, bboxLowX, low_x …), class, score, frame, and of which image.
    """
    by_name: dict[str, str] = {}
    for column in table.columns:
        by_name.setdefault(re.sub(r"[^a-z0-9]", "", re.sub(r"[\s_(\[]*mm[)\]]*$", "", column)), column)

    def first(names: Collection[str]) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    def three(patterns: Collection[str]) -> tuple[str, ...]:
        for pattern in patterns:
            found = [by_name.get(pattern.format(axis)) for axis in _AXES]
            if all(found[:2]):
                return tuple(found if found[2] else found[:2])
        return ()

    def sides() -> tuple[str, ...]:
        for names in _SIDES:
            found = [by_name.get(name) for name in names]
            if all(found[:2]):
                return tuple(found if found[2] else found[:2])
        return ()

    low = three(_LOW)
    # x0, x1 and x1, x2 are both low and high: a column is only one of them.
    high = three([pattern for pattern in _HIGH if by_name.get(pattern.format("x")) not in low])
    return Columns(
        image_column or first(_IMAGE),
        three(_CENTER),
        three(_SIZE) or sides(),
        low if high else (),
        high if low else (),
        first(_DIAMETER),
        first(_RADIUS),
        first(_CLASS),
        first(_SCORE),
        first(("frame", "coordinatesystem", "space")),
        "coordx" in by_name,
    )


def is_finding_table(table: Table) -> bool:
    """Whether a table names images and says where in them something is."""
    columns = find_columns(table)
    return columns.image is not None and columns.placed


class FindingTable:
    """Reads the rows of a table, and tells of everything that is wrong with them at once."""

    def __init__(
        self,
        table: Table,
        path: str | Path,
        *,
        frame: str | None = None,
        columns: Columns | None = None,
        label: str | None = None,
        unmeasured: bool = False,
        sized: bool = True,
        keep: Collection[str] = (),
    ) -> None:
        """frame: of all rows; else the table has to say it. label: class of rows that name none; "nodule" for LUNA16's
        columns and "finding" for others. unmeasured: whether a negative diameter stands for a lesion that nobody
        measured, which then counts as one of 10 mm. sized: whether the table has to say how large findings are; else
        all are of 10 mm. keep: columns that are about the image, not the finding.

        Raises InputError where the table says not where findings are, or not in which frame.
        """
        self._table, self._path, self._unmeasured = table, path, unmeasured
        self.columns = columns or find_columns(table)
        titles = ", ".join(table.columns.values()) or "none"
        if not self.columns.placed and (sized or not self.columns.center):
            raise InputError(
                f"{path} says not where findings are; give it columns for the center (x, y, z) and the diameter_mm or "
                f"the size (size_x, size_y, size_z), or for the edges (x_min … z_max): it has {titles}."
            )
        if table.too_long:
            raise InputError(
                f"{path} has rows with more cells than its header (line {listed(table.too_long)}); where its numbers "
                "have commas for decimals, save it with semicolons between the cells, or with decimal points."
            )
        self._label = label or ("nodule" if self.columns.luna16 else "finding")
        self._sized = self.columns.placed
        self._keep = set(keep)
        flat = any(len(part) == 2 for part in (self.columns.center, self.columns.low))
        self.frame = frame or self._declared_frame() or ("LPS" if self.columns.luna16 else "voxel" if flat else None)
        self._wrong: dict[str, list[str]] = {}

    def _declared_frame(self) -> str | None:
        for comment in self._table.comments:
            match = re.search(r"frame\s*[:=]\s*(\w+)", comment, re.IGNORECASE)
            if match:
                return frame_of(match.group(1), f"a comment of {self._path}")
        return None

    def rows(self) -> Iterator[FindingRow]:
        """All rows, in their order; those that a reader rejected or that were not called have no place.

        Raises InputError at the end, which lists the lines of all rows that are wrong.
        """
        for line, row in self._table.rows:
            found = self._row(line, row)
            if found is not None:
                yield found
        if self._wrong:
            parts = [f"{len(lines)} row(s) {what} (line {listed(lines)})" for what, lines in self._wrong.items()]
            raise InputError(f"{self._path} has {'; '.join(parts)}: correct them.")

    def _bad(self, what: str, line: int) -> None:
        self._wrong.setdefault(what, []).append(str(line))

    def _row(self, line: int, row: dict[str, str]) -> FindingRow | None:
        columns, titles = self.columns, self._table.columns
        image = row[columns.image] if columns.image else ""
        if columns.image and not image:
            return self._bad(f"with nothing under {titles[columns.image]}", line)
        flags = {}
        for name in _FLAGS:
            text = row.get(name, "").casefold()
            if text not in _TRUE | _FALSE:
                return self._bad(f"with something else than 0 and 1 under {name}", line)
            flags[name] = text in _TRUE
        state = row.get("state", "").casefold() or "reference"
        if state not in STATES:
            return self._bad(f"with a state that is none of {', '.join(STATES)}", line)
        try:
            frame = frame_of(row[columns.frame], "") if columns.frame and row[columns.frame] else self.frame
        except InputError:
            return self._bad(f"with a frame that is none of {', '.join(FRAMES)}", line)
        score = self._number(row[columns.score]) if columns.score and row[columns.score] else -1.0
        if score is None or score > 1 or (score < 0 and row.get(columns.score or "")):
            return self._bad("with a score that is not between 0 and 1", line)
        place, diameter = self._place(line, row, frame)
        if place is _WRONG:
            return None
        if state == "rejected" or (row.get("called") and not flags["called"] and not flags["ignored"]):
            place = None
        if place is not None and frame is None:
            raise InputError(
                f"{self._path} says not in which frame its coordinates are; set dataset.frame, or give it a column "
                "frame or a first line such as '# frame: RAS' (RAS as in Slicer and NIfTI, LPS as in DICOM, ITK and "
                "LUNA16, voxel for indices)."
            )
        known = columns.used | self._keep | {*_FLAGS, "state", "rank", "volume_ml", ""}
        about = {titles[key]: self._plain(text) for key, text in row.items() if text and key not in known}
        label = (row[columns.label] if columns.label else "") or self._label
        return FindingRow(
            line,
            image,
            frame or "RAS",
            place,
            diameter,
            label,
            None if score < 0 else score,
            state,
            flags["ignored"],
            flags["synthetic"],
            about or None,
            {column: row[column] for column in self._keep},
        )

    def _place(self, line: int, row: dict[str, str], frame: str | None) -> tuple[Any, float | None]:
        """(center, size) and the diameter that the table has; None where all is empty, _WRONG where it is wrong."""
        columns = self.columns
        groups = (columns.center, columns.size, columns.low, columns.high)
        texts = [[row[column] for column in group] for group in groups]
        alone = [row[column] if column else "" for column in (columns.diameter, columns.radius)]
        if not any(map(any, texts)) and not any(alone):
            return None, None
        numbers = [[self._number(text) if text else math.nan for text in group] for group in texts]
        diameter, radius = (self._number(text) if text else math.nan for text in alone)
        if None in (diameter, radius) or any(None in group for group in numbers):
            comma = any("," in text for text in (*sum(texts, []), *alone))
            what = "a decimal comma, not a point, in" if comma else "something else than a number for"
            self._bad(f"with {what} a place or a size", line)
            return _WRONG, None
        center, size, low, high = ([*group, *[math.nan] * (3 - len(group))] for group in numbers)
        diameter = 2 * radius if math.isnan(diameter) else diameter
        if diameter < 0 and self._unmeasured:
            diameter = UNMEASURED_MM
        if len(columns.low or columns.center) == 2:  # a picture is one voxel thick
            center[2], size[2], low[2], high[2] = 0.0, 1.0, 0.0, 1.0
        if not any(map(math.isnan, low + high)):
            # The edges of a voxel lie half a voxel before and behind its center, which is what an index counts.
            center = [(a + b) / 2 - (0.5 if frame == "voxel" else 0.0) for a, b in zip(low, high, strict=True)]
            # What was drawn in one slice alone has no thickness in some tables; it gets that of a voxel later.
            size = [b - a if b != a else _NO_THICKNESS for a, b in zip(low, high, strict=True)]
        measured = None if math.isnan(diameter) else diameter
        sphere = UNMEASURED_MM if not self._sized else diameter
        if any(map(math.isnan, center)) or (any(map(math.isnan, size)) and math.isnan(sphere)):
            self._bad("without a whole place and size", line)
            return _WRONG, None
        if any(side <= 0 for side in size) or sphere <= 0:
            self._bad("with a size or diameter that is zero or negative", line)
            return _WRONG, None
        if frame != "voxel":
            size = [sphere if math.isnan(side) else side for side in size]
        return (tuple(center), tuple(size)), measured

    def _number(self, text: str) -> float | None:
        if self._table.delimiter != "," and re.fullmatch(r"[+-]?\d+,\d+([eE][+-]?\d+)?", text):
            text = text.replace(",", ".")
        try:
            value = float(text)
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    def _plain(self, text: str) -> str | float:
        # 007 is a name.
        number = None if re.match(r"[+-]?0\d", text) else self._number(text)
        return text if number is None else number


def frame_of(text: str, where: str) -> str:
    """One of FRAMES, in capital or small letters, with or without "mm". Raises InputError."""
    wanted = re.sub(r"[\s_]*mm$", "", str(text).strip().casefold())
    for frame in FRAMES:
        if wanted == frame.casefold() or (frame == "voxel" and wanted in ("voxels", "ijk", "index", "pixel", "pixels")):
            return frame
    raise InputError(f"{text!r} is no frame of coordinates; {where} can say {', '.join(FRAMES)}.")


def option_frame(options: Mapping[str, Any]) -> str | None:
    """The frame that section [dataset] names, or None. Raises InputError."""
    return frame_of(options["frame"], "dataset.frame") if options.get("frame") else None
