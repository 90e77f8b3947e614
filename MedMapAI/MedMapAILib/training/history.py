"""What happened in each epoch, as a CSV file and as TensorBoard events."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ..files import write_atomically


class History:
    """Rows of numbers, one an epoch, kept in ``history.csv`` and, where TensorBoard is installed, in ``events/``.

    columns: their names; the first is "epoch", and what else comes with a row follows. rows: those of an
    interrupted run that is being resumed; what its files hold beyond them is dropped.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...], rows: list[dict] | None = None):
        self._columns = columns
        self._path = Path(folder) / "history.csv"
        self.rows: list[dict] = list(rows or [])
        self._add_columns()
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._events = None
        else:
            self._events = SummaryWriter(str(Path(folder) / "events"), purge_step=len(self.rows) + 1)
        self._write()

    @property
    def has_events(self) -> bool:
        """Whether TensorBoard events are written (the package is installed)."""
        return self._events is not None

    def add(self, row: dict) -> None:
        """Add one epoch's row; a missing value stays empty."""
        self.rows.append(row)
        self._add_columns()
        self._write()
        if self._events is not None:
            for name in self._columns[1:]:
                if row.get(name) is not None:
                    self._events.add_scalar(name, row[name], row["epoch"])
            self._events.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self._events is not None:
            self._events.close()

    def _add_columns(self) -> None:
        """What a loss is made of is known with its first row."""
        self._columns = tuple(dict.fromkeys([*self._columns, *(key for row in self.rows for key in row)]))

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self._path, text.getvalue().encode())


def read_history(output: str | Path) -> list[dict[str, Any]]:
    """The epochs in the history.csv of a training's folder, as its "epoch" events had them; empty without one."""
    try:
        text = (Path(output) / "history.csv").read_text(encoding="utf-8")
    except OSError:
        return []
    rows = []
    for cells in csv.DictReader(text.splitlines()):
        row: dict[str, Any] = {key: float(value) if value else None for key, value in cells.items() if key}
        if row.get("epoch"):
            rows.append({**row, "epoch": int(row["epoch"])})
    return rows
