"""From rows of measurements to the figures that are reported, and their table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.contenders import NAMES, TITLES
from benchmarks.measure import median, median_ratio, per_round

#: Who is divided by whom.
THEIRS = ("nnunet", "monai")
OURS = ("ours-fp32", "ours-auto", "ours-torch-fp32", "ours-torch")


def summarize(case: dict[str, Any]) -> dict[str, Any]:
    """The summary of a case, from its rows, Dice values and agreements; see ``results``.

    {"contenders": {name: {"wall", "cpu" (seconds a scan, the median over rounds), "peak_bytes" (the largest of a
    round, median), "dice"}}, "ratios": {"theirs / ours": {"wall", "cpu", "memory": as ``median_ratio``, "equal",
    "agreement_dice", "dice_difference"}}, "warm_over_cold"}
    """
    rows = {name: [row for row in case["rows"] if row["contender"] == name] for name in NAMES}
    rows = {name: found for name, found in rows.items() if found}
    contenders = {name: _of_contender(found, case["dice"].get(name, {})) for name, found in rows.items()}
    ratios = {}
    for theirs in (name for name in THEIRS if name in rows):
        for ours in (name for name in OURS if name in rows):
            both = case["agreement"].get(pair(theirs, ours), {}).values()
            ratios[f"{theirs} / {ours}"] = {
                "wall": median_ratio(rows[theirs], rows[ours], "wall"),
                "cpu": median_ratio(rows[theirs], rows[ours], "cpu"),
                "memory": median_ratio(rows[theirs], rows[ours], "peak_bytes", largest=True),
                "equal": _mean(value["equal"] for value in both),
                "agreement_dice": _mean(value["dice"] for value in both),
                "dice_difference": _difference(case["dice"].get(theirs, {}), case["dice"].get(ours, {})),
            }
    warm_over_cold = {}
    if "end-to-end-warm" in rows:
        for state in ("first", "cold"):
            if f"end-to-end-{state}" in rows:
                cold = median_ratio(rows["end-to-end-warm"], rows[f"end-to-end-{state}"], "wall")
                warm_over_cold[state] = cold
    return {"contenders": contenders, "ratios": ratios, "warm_over_cold": warm_over_cold}


def pair(first: str, second: str) -> str:
    """The key of two contenders in "agreement", whatever their order."""
    return " | ".join(sorted((first, second)))


def _of_contender(rows: list[dict[str, Any]], dice: dict[str, float]) -> dict[str, Any]:
    peaks = {}
    for row in rows:
        if row["peak_bytes"] is not None:
            peaks[row["round"]] = max(peaks.get(row["round"], 0), row["peak_bytes"])
    return {
        "wall": median(list(per_round(rows, "wall").values())),
        "cpu": median(list(per_round(rows, "cpu").values())),
        "peak_bytes": median(list(peaks.values())),
        "rounds": len({row["round"] for row in rows}),
        "scans_a_round": len(rows) / len({row["round"] for row in rows}),
        "dice": _mean(dice.values()),
        "phases": _phases(rows),
    }


def _phases(rows: list[dict[str, Any]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row.get("phases", {}))
    return {name: median([row["phases"][name] for row in rows if name in row.get("phases", {})]) for name in names}


def _difference(theirs: dict[str, float], ours: dict[str, float]) -> float | None:
    """Mean Dice of ours minus theirs, over the scans that both have done."""
    return _mean(ours[scan] - theirs[scan] for scan in theirs if scan in ours)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


# --------------------------------------------------------------------------------------------------------------------
# The table


def table(data: dict[str, Any]) -> str:
    """All of it as text for a terminal."""
    settings, machine = data["settings"], data["machine"]
    lines = [
        f"{machine['cpu']}, cores {','.join(map(str, settings['cores'])) or 'all'}, {settings['threads']} thread(s), "
        f"{machine['memory_gb']:g} GB; " + ", ".join(f"{name} {version}" for name, version in data["versions"].items()),
    ]
    for name, case in data["cases"].items():
        lines += ["", f"{name}: {case['title']}"]
        if case["caution"]:
            lines.append(f"({case['caution']})")
        lines += _case_lines(case)
    if "convolution_peak" in data:
        lines += ["", *_peak_lines(data["convolution_peak"])]
    return "\n".join(lines)


def _case_lines(case: dict[str, Any]) -> list[str]:
    summary = case["summary"]
    if not summary:
        return ["nothing measured yet"]
    rows = [["", "wall s/scan", "CPU s/scan", "peak GB", "Dice", "first s", "scans/round", "rounds"]]
    for name, values in summary["contenders"].items():
        start = case["starts"].get(name, {})
        first = start["start_seconds"] + start["warm_up"]["wall"] if start.get("whole") else None
        rows.append(
            [
                TITLES[name],
                _number(values["wall"], 2),
                _number(values["cpu"], 2),
                _number(values["peak_bytes"] and values["peak_bytes"] / 2**30, 2),
                _number(values["dice"], 4),
                _number(first, 1),
                _number(values["scans_a_round"], 0),
                str(values["rounds"]),
            ]
        )
    lines = _aligned(rows)
    if summary["ratios"]:
        rows = [["theirs / ours", "wall", "CPU", "memory", "Dice of ours more by", "equal voxels", "Dice between"]]
        for names, values in summary["ratios"].items():
            rows.append(
                [
                    names,
                    _ratio(values["wall"]),
                    _ratio(values["cpu"]),
                    _ratio(values["memory"]),
                    _number(values["dice_difference"], 4, sign=True),
                    _number(values["equal"], 4),
                    _number(values["agreement_dice"], 4),
                ]
            )
        lines += ["", *_aligned(rows)]
    for state, values in summary["warm_over_cold"].items():
        what = "new process" if state == "cold" else "new process that has nothing compiled"
        lines.append(f"node to node, warm worker over {what}: {_ratio(values)}")
    lines += [f"left out: {TITLES[name]}: {reason}" for name, reason in case["left_out"].items()]
    return lines


def _peak_lines(peak: dict[str, Any]) -> list[str]:
    rows = [["convolutions, GFLOP/s", "layers alone", "whole network", "share", "Predictor", "share"]]
    for name, values in peak.items():
        for precision, found in values["precisions"].items():
            rows.append(
                [
                    f"{name}, {precision}",
                    _number(found["peak"], 0),
                    _number(found.get("network"), 0),
                    _percent(found.get("network"), found["peak"]),
                    _number(found.get("predictor"), 0),
                    _percent(found.get("predictor"), found["peak"]),
                ]
            )
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _number(value: float | None, decimals: int, *, sign: bool = False) -> str:
    return "–" if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"


def _ratio(values: dict[str, Any]) -> str:
    if values["median"] is None:
        return "–"
    return f"{values['median']:.2f} ({values['low']:.2f} to {values['high']:.2f})"


def _percent(part: float | None, whole: float) -> str:
    return "–" if part is None else f"{part / whole:.0%}"
