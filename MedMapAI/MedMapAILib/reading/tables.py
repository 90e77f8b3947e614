"""A report as tables of rows: for table nodes, and to be printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReportTable:
    """columns: (title, "text", "whole" or "number") each. rows: a value a column; None where there is none."""

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]


def report_tables(report: dict[str, Any]) -> tuple[ReportTable, ...]:
    """What ``reading_report`` says: means of the methods, agreement of the readers, tests between methods, scores."""
    ends = (("low", "number"), ("high", "number"))
    given = ("reader", "case", "method", *report["criteria"])
    return (
        ReportTable(
            "means",
            (("criterion", "text"), ("method", "text"), ("mean", "number"), *ends, ("cases", "whole"))
            + (("readers", "whole"), ("note", "text")),
            tuple(_means(report)),
        ),
        ReportTable(
            "agreement",
            (("criterion", "text"), ("measure", "text"), ("readers", "text"), ("value", "number"), *ends)
            + (("images", "whole"), ("note", "text")),
            tuple(_agreement(report)),
        ),
        ReportTable(
            "comparisons",
            (("criterion", "text"), ("first", "text"), ("second", "text"), ("mean difference", "number"))
            + (("W", "number"), ("p", "number"), ("p (Holm)", "number"))
            + (("pairs", "whole"), ("zeros", "whole"), ("note", "text")),
            tuple(_comparisons(report)),
        ),
        ReportTable(
            "scores",
            tuple((title, "text" if n < 3 else "whole") for n, title in enumerate(given)),
            tuple(tuple(row[title] for title in given) for row in report["table"]),
        ),
    )


def as_text(table: ReportTable) -> str:
    """A table as aligned lines, numbers to three digits; columns without any value are left out."""
    kept = [n for n in range(len(table.columns)) if any(row[n] not in (None, "") for row in table.rows)]
    cells = [[table.columns[n][0] for n in kept]]
    cells += [[_cell(row[n]) for n in kept] for row in table.rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(kept))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _means(report: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for criterion, of in report["criteria"].items():
        for method, one in of["methods"].items():
            yield (criterion, method, *_of(one, "mean", "low", "high", "cases", "readers"), one.get("note", ""))


def _agreement(report: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for criterion, of in report["criteria"].items():
        found = of["agreement"]
        if found["icc"] is None:
            yield criterion, "ICC(2,1)", ", ".join(report["readers"]), None, None, None, None, found["note"]
            continue
        icc = found["icc"]
        values = _of(icc, "value", "low", "high", "items")
        yield (criterion, "ICC(2,1)", ", ".join(report["readers"]), *values, icc.get("note", ""))
        for one in found["kappa"]:
            pair = ", ".join(one["readers"])
            for weights in ("linear", "quadratic"):
                values = (*_of(one[weights], "value", "low", "high"), one["items"])
                yield (criterion, f"kappa, {weights}", pair, *values, one[weights].get("note", ""))
            yield criterion, "equal scores", pair, one["equal"], None, None, one["items"], ""


def _comparisons(report: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for criterion, of in report["criteria"].items():
        for one in of["comparisons"]:
            values = _of(one, "mean_difference", "statistic", "p", "p_holm", "pairs", "zeros")
            yield (criterion, *one["methods"], *values, one.get("note", ""))


def _of(one: dict[str, Any], *names: str) -> Sequence[Any]:
    return [one.get(name) for name in names]
