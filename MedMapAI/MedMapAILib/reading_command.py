"""``medmapai reading``: lay out a blinded reading of several methods' images, and what came of it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .errors import InputError
from .reading.study import LAYOUTS, check_window
from .terminal import ProgressBar


def add_reading(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser("reading", help="readers' visual scores: make a blinded study, and its report")
    parts = parser.add_subparsers(required=True, metavar="create|report")

    create = parts.add_parser("create", help="lay out a study; it is read in Slicer, in the module MedMapAI")
    create.add_argument(
        "images",
        metavar="IMAGES",
        type=Path,
        help="a .csv with the columns case, method, file; or a folder with a folder for each method, in each an image "
        "a case",
    )
    create.add_argument("folder", metavar="STUDY", type=Path, help="the folder of the study to make")
    create.add_argument(
        "--layout",
        default=LAYOUTS[0],
        choices=LAYOUTS,
        help="show one image at a time (default), or all methods of a case at once",
    )
    create.add_argument(
        "--window",
        metavar="LOW,HIGH",
        help="the lowest and highest value shown, such as --window=-160,240 for the abdomen in CT; by default the 1st "
        "and 99th percentile of each case's images",
    )
    create.add_argument("--seed", type=int, metavar="S", help="of all orders; by default one that nobody can guess")
    create.add_argument(
        "--key", type=Path, metavar="FILE.json", help="where to write the key, out of the readers' sight"
    )
    create.add_argument("--json", action="store_true", help="print JSON")
    create.set_defaults(command=_create)

    report = parts.add_parser("report", help="means, agreement of the readers, and tests between methods")
    report.add_argument("folder", metavar="STUDY", type=Path, help="the folder of a study")
    report.add_argument("--key", type=Path, metavar="FILE.json", help="the key, where it lies elsewhere")
    report.add_argument(
        "--output",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write the scores (.csv) or everything (.json); may be given twice",
    )
    report.add_argument("--resamples", type=int, default=10_000, metavar="N", help="of the bootstrap (default: 10000)")
    report.add_argument("--seed", type=int, default=0, metavar="S", help="of its draws (default: 0)")
    report.add_argument("--json", action="store_true", help="print JSON")
    report.set_defaults(command=_report)


def _create(options: argparse.Namespace) -> None:
    from .reading.images import make_study
    from .reading.sources import images_of

    if options.seed is not None and options.seed < 0:
        raise InputError(f"--seed {options.seed} makes no sense; give 0 or more.")
    window = None if options.window is None else check_window(options.window.split(","))
    images = images_of(options.images)
    with ProgressBar() as bar:
        study = make_study(
            options.folder,
            images,
            window=window,
            layout=options.layout,
            seed=options.seed,
            key=options.key,
            progress=bar,
        )
    methods = list(dict.fromkeys(method for of in images.values() for method in of))
    if options.json:
        about = {"study": str(options.folder), "layout": study.layout, "images": study.images}
        print(json.dumps({**about, "cases": len(images), "methods": methods}, indent=2, ensure_ascii=False))
    else:
        print(f"{options.folder}: {study.images} images, {len(images)} cases by {len(methods)} methods")


def _report(options: argparse.Namespace) -> None:
    from .reading.report import check_output, reading_report, write_reading
    from .reading.tables import as_text, report_tables

    if options.resamples < 1:
        raise InputError(f"--resamples {options.resamples} makes no sense; give 1 or more.")
    if options.seed < 0:
        raise InputError(f"--seed {options.seed} makes no sense; give 0 or more.")
    for path in options.output:
        check_output(path)
    report = reading_report(options.folder, key=options.key, resamples=options.resamples, seed=options.seed)
    for path in options.output:
        write_reading(report, path)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    done = ", ".join(f"{reader} {count} of {report['images']}" for reader, count in report["scored"].items())
    print(f"{report['cases']} cases, methods {', '.join(report['methods'])}; scored: {done}")
    for table in report_tables(report)[:3]:
        if table.rows:
            print(f"\n{table.name}\n{as_text(table)}")
