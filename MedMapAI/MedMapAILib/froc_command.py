"""``medmapai froc``: how a list of nodule candidates is judged, as LUNA16 judges it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .errors import InputError


def add_froc(commands: Any) -> None:
    """Add the command to what ``ArgumentParser.add_subparsers`` returned."""
    parser = commands.add_parser(
        "froc",
        help="score nodule candidates as LUNA16 does",
        description="Score nodule candidates as LUNA16's own evaluation does. Tables are CSV with world coordinates in "
        "mm, of the same frame in all (LUNA16: LPS); rows of scans that are not in SERIESUIDS do not count.",
    )
    parser.add_argument(
        "annotations", metavar="ANNOTATIONS", type=Path, help="seriesuid, coordX, coordY, coordZ, diameter_mm"
    )
    parser.add_argument("excluded", metavar="EXCLUDED", type=Path, help="the same, of findings that do not count")
    parser.add_argument("seriesuids", metavar="SERIESUIDS", type=Path, help="the scans, an id a line")
    parser.add_argument(
        "submission", metavar="SUBMISSION", type=Path, help="seriesuid, coordX, coordY, coordZ, probability"
    )
    parser.add_argument("--curve", type=Path, metavar="OUT.png", help="draw the curve")
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="of the bootstrap over scans (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of its draws (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_froc)


def _froc(options: argparse.Namespace) -> None:
    from .files import check_place
    from .metrics.froc import evaluate_luna16

    if options.resamples < 1:
        raise InputError(f"--resamples {options.resamples} makes no sense; give 1 or more.")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed} makes no sense; give 0 or more.")
    if options.curve is not None:
        if options.curve.suffix.lower() != ".png":
            raise InputError(f"{options.curve} must end in .png; rename it.")
        check_place(options.curve)
    report = evaluate_luna16(
        options.annotations,
        options.excluded,
        options.seriesuids,
        options.submission,
        resamples=options.resamples,
        seed=options.seed,
    )
    if options.curve is not None:
        from .figures import draw_froc

        draw_froc(report, options.curve, title=f"{options.submission.name}, {report['scans']} scans")
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for note in report["notes"]:
        print(note, file=sys.stderr)
    print("\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> list[str]:
    counts, intervals = report["counts"], report["intervals"]
    rows = [("false positives per scan", "sensitivity", f"{intervals['confidence']:.0%} interval")]
    for rate, found, ends in zip(report["rates"], report["sensitivities"], intervals["sensitivities"], strict=True):
        rows.append((f"{rate:g}", f"{found:.4f}", f"{ends[0]:.4f} to {ends[1]:.4f}"))
    low, high = intervals["score"]
    rows.append(("mean", f"{report['score']:.4f}", f"{low:.4f} to {high:.4f}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{report['scans']} scans, {counts['findings']} nodules, {counts['candidates']} candidates",
        f"{counts['true_positives']} true positives, {counts['false_negatives']} missed, "
        f"{counts['false_positives']} false positives, {counts['ignored_on_excluded']} ignored on excluded findings, "
        f"{counts['double_hits']} double hits",
        *("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
