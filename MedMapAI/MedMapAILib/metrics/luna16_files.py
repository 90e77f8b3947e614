"""The four tables that an evaluation as LUNA16's reads, and the candidates of a scan beside what it holds."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .froc import FrocScan

_WHERE = ("coordX", "coordY", "coordZ")
#: Of a finding whose diameter nobody measured, which LUNA16 writes as −1.
UNMEASURED_MM = 10.0


@dataclass(frozen=True)
class _Table:
    """Rows of numbers that belong to scans. ids: (N,) names of scans. numbers: (N, columns)."""

    path: Path
    ids: list[str]
    numbers: np.ndarray


def read_luna16(
    annotations: str | Path, excluded: str | Path, seriesuids: str | Path, submission: str | Path
) -> tuple[list[str], list[FrocScan], list[str]]:
    """(ids of the scans, what is known of each, sentences that the user should read), in the order of ``seriesuids``.

    annotations, excluded: CSV with the columns seriesuid, coordX, coordY, coordZ (mm) and diameter_mm; a negative
    diameter stands for 10 mm. seriesuids: one id a line. submission: seriesuid, coordX, coordY, coordZ, probability.
    Commas, semicolons or tabs between values. Coordinates must be in the same frame in all, LPS mm in LUNA16. As in
    LUNA16's own evaluation, rows of scans that are not in ``seriesuids`` do not count. Ids of digits only also match
    without their leading zeros, which spreadsheets take away.
    Raises InputError, in one sentence, for a file that cannot be read, a column that is missing, decimal commas, values
    that are no finite numbers, a scan that is listed twice, and where no scan has an annotation or a candidate is of a
    scan that is known.
    """
    ids = _read_ids(Path(seriesuids))
    known = _Known(ids)
    truth, ignored = (_read(Path(path), (*_WHERE, "diameter_mm")) for path in (annotations, excluded))
    marks = _read(Path(submission), (*_WHERE, "probability"))
    notes: list[str] = []
    of_truth, of_ignored, of_marks = (_rows_of_scans(table, known, notes) for table in (truth, ignored, marks))
    if not sum(map(len, of_truth)):
        raise InputError(f"No row of {truth.path} is of a scan in {seriesuids}; give the annotations of these scans.")
    if marks.ids and not sum(map(len, of_marks)):
        raise InputError(
            f"None of the scans in {marks.path} (such as {marks.ids[0]}) is in {seriesuids}; give the ids of that list."
        )
    silent = sum(not len(rows) for rows in of_marks)
    if silent:
        notes.append(f"{silent} of {len(ids)} scans {'has' if silent == 1 else 'have'} no candidate.")
    scans = []
    for rows, rows_ignored, rows_marks in zip(of_truth, of_ignored, of_marks, strict=True):
        here, there, said = truth.numbers[rows], ignored.numbers[rows_ignored], marks.numbers[rows_marks]
        scans.append(
            FrocScan(said[:, :3], said[:, 3], here[:, :3], _radii(here[:, 3]), there[:, :3], _radii(there[:, 3]))
        )
    return ids, scans, notes


def _radii(diameters: np.ndarray) -> np.ndarray:
    return np.where(diameters < 0, UNMEASURED_MM, diameters) / 2


class _Known:
    """The number of a scan by its id, also where the id has lost its leading zeros."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.exact = {name: number for number, name in enumerate(ids)}
        bare: dict[str, list[int]] = {}
        for name, number in self.exact.items():
            if _is_number(name):
                bare.setdefault(_bare(name), []).append(number)
        self.bare = {name: numbers[0] for name, numbers in bare.items() if len(numbers) == 1}

    def __len__(self) -> int:
        return len(self.exact)

    def find(self, name: str) -> int | None:
        """Its number, or None."""
        number = self.exact.get(name)
        return self.bare.get(_bare(name)) if number is None and _is_number(name) else number


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _bare(name: str) -> str:
    return name.lstrip("0") or "0"


def _rows_of_scans(table: _Table, known: _Known, notes: list[str]) -> list[np.ndarray]:
    """Indices of the rows of each scan."""
    number_of = {name: known.find(name) for name in dict.fromkeys(table.ids)}
    unknown = [name for name, number in number_of.items() if number is None]
    if unknown:
        names = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        rows = sum(number_of[name] is None for name in table.ids)
        notes.append(
            f"Of {table.path.name} {rows} row{'s do' if rows > 1 else ' does'} not count: the list of scans has none "
            f"of that name ({names})."
        )
    if any(number is not None and name not in known.exact for name, number in number_of.items()):
        notes.append(f"Ids of scans in {table.path.name} have lost their leading zeros; they were matched without.")
    numbers = np.array([-1 if number_of[name] is None else number_of[name] for name in table.ids], dtype=np.int64)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.searchsorted(numbers[order], np.arange(len(known) + 1)))[1:-1]


def _read_ids(path: Path) -> list[str]:
    ids = [row[0].strip() for row in _lines(path, ",") if row and row[0].strip()]
    if ids and ids[0].lower() == "seriesuid":
        ids = ids[1:]
    if not ids:
        raise InputError(f"{path} lists no scan; give a file with one id of a scan a line.")
    if len(set(ids)) < len(ids):
        twice = next(name for number, name in enumerate(ids) if name in ids[:number])
        raise InputError(f"{path} lists the scan {twice} twice; list each scan once.")
    return ids


def _read(path: Path, columns: tuple[str, ...]) -> _Table:
    """Raises InputError as ``read_luna16`` says."""
    header, rows = _rows(path)
    place = {name.strip().lower(): number for number, name in enumerate(header)}
    missing = [name for name in ("seriesuid", *columns) if name.lower() not in place]
    if missing:
        raise InputError(
            f"{path} has no column {' and no '.join(missing)}; its first line must name seriesuid, "
            f"{', '.join(columns)}."
        )
    scan, where = place["seriesuid"], [place[name.lower()] for name in columns]
    ids, numbers = [], []
    for line, row in rows:
        if len(row) != len(header):
            raise InputError(
                f"Line {line} of {path} has {len(row)} values where the first line has {len(header)}; write one value "
                "a column, and decimals with a point."
            )
        ids.append(row[scan].strip())
        numbers.append([_number(row[each], path, line, header[each]) for each in where])
    return _Table(path, ids, np.array(numbers, dtype=np.float64).reshape(-1, len(columns)))


def _number(text: str, path: Path, line: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        why = "has a comma for its decimals; write a point" if "," in text else "is no number; correct it"
        raise InputError(f"{column.strip()} in line {line} of {path}, {text.strip()!r}, {why}.") from None
    if not math.isfinite(value):
        raise InputError(f"{column.strip()} in line {line} of {path} is {text.strip()}; give a finite number.")
    return value


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """(values of the first line, the others with the numbers of their lines); what is between values is found out."""
    text = _text(path)
    first = text.split("\n", 1)[0]
    between = max("\t;,", key=first.count)
    rows = [(number, row) for number, row in enumerate(_lines(path, between), start=1) if any(map(str.strip, row))]
    if not rows:
        raise InputError(f"{path} is empty; give a table whose first line names its columns.")
    return rows[0][1], rows[1:]


def _lines(path: Path, between: str) -> list[list[str]]:
    try:
        return list(csv.reader(_text(path).splitlines(), delimiter=between))
    except csv.Error as error:
        raise InputError(f"{path} is no table of values ({error}); give a CSV file.") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give another file.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text file; give a CSV file.") from None
