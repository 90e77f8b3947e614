"""Tables of text, as spreadsheets write them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError


@dataclass(frozen=True)
class Table:
    """columns: names in lower case → as they are written. rows: line number, and column in lower case → text.

    delimiter: between cells. comments: lines above the header that begin with #, without it. too_long: numbers of the
    lines that have more cells than the header.
    """

    columns: dict[str, str]
    rows: list[tuple[int, dict[str, str]]]
    delimiter: str = ","
    comments: tuple[str, ...] = ()
    too_long: list[int] = field(default_factory=list)

    def first_of(self, names: Iterable[str]) -> str | None:
        """The first of some column names that there is."""
        return next((name for name in names if name in self.columns), None)


def read_table(path: Path, *, comments: bool = False) -> Table:
    """A table with a header row, separated by commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252; empty lines
    are left out. comments: whether lines above the header that begin with # are comments. Raises InputError where it is
    none, or has a column twice.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a .csv file.") from None
    text = _decoded(data, path)
    lines = text.splitlines(keepends=True)
    above: list[str] = []
    while comments and lines and (not lines[0].strip() or lines[0].lstrip().startswith("#")):
        above.append(lines.pop(0))
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO("".join(lines), newline=""), delimiter=delimiter)
    titles: list[str] = []
    rows = []
    too_long = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not titles:
                titles = cells
                columns = [cell.lower() for cell in cells]
                twice = [name for name, count in Counter(filter(None, columns)).items() if count > 1]
                if twice:
                    raise InputError(f"{path} has two columns called {twice[0]!r}; rename one.")
            else:
                line = reader.line_num + len(above)
                if any(cells[len(columns) :]):
                    too_long.append(line)
                cells += [""] * (len(columns) - len(cells))
                rows.append((line, dict(zip(columns, cells, strict=False))))
    except csv.Error as error:
        line = reader.line_num + len(above)
        raise InputError(f"{path} is not a table that can be read (line {line}: {error}).") from None
    said = tuple(line.strip().lstrip("#").strip() for line in above if line.strip())
    return Table({title.lower(): title for title in titles}, rows, delimiter, said, too_long)


def _decoded(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel calls Unicode text
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path} is not a text file; save the table as CSV in UTF-8.")
