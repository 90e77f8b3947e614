"""``medmapai transplant``: nodules of other patients put into chest CTs, to train and test detection with."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .image import affine_of, read_volume
from .terminal import ProgressBar


def add_transplant(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser("transplant", help="put real nodules into chest CTs: synthetic data for detection")
    parser.add_argument(
        "hosts", metavar="HOSTS", type=Path, nargs="+", help="chest CTs in HU: volume files or DICOM folders"
    )
    parser.add_argument(
        "nodules", metavar="NODULES", type=Path, help="a folder with nodules.csv, image/ and mask/ (from LIDC-IDRI)"
    )
    parser.add_argument("output", metavar="OUT", type=Path, help="the folder of the data set to make")
    parser.add_argument("--scans", type=int, default=10, metavar="N", help="how many scans to make (default: 10)")
    parser.add_argument("--per-scan", type=int, default=8, metavar="M", help="nodules in each (default: 8)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all draws (default: 0)")
    parser.add_argument(
        "--patients", type=Path, metavar="FILE", help="use nodules of these patients only: one a line, or a .json list"
    )
    parser.add_argument(
        "--avoid",
        action="append",
        default=[],
        metavar="FILE",
        help="what is the patient's own in a scan and must stay as it is: a label map or a table of findings; once "
        "for each of HOSTS in their order, - for none",
    )
    parser.add_argument("--no-rare", action="store_true", help="make no ground-glass and part-solid nodules")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_transplant)


def _transplant(options: argparse.Namespace) -> None:
    from .lungs.transplanted_set import make_transplanted

    if options.seed < 0:
        raise InputError(f"--seed {options.seed} makes no sense; give 0 or more.")
    avoid = None
    if options.avoid:
        if len(options.avoid) != len(options.hosts):
            raise InputError(
                f"--avoid is given {len(options.avoid)} times for {len(options.hosts)} scans; give it once for each, - "
                "for none."
            )
        avoid = [boxes_to_avoid(text) for text in options.avoid]
    with ProgressBar() as bar:
        folder = make_transplanted(
            options.hosts,
            options.nodules,
            options.output,
            scans=options.scans,
            per_scan=options.per_scan,
            seed=options.seed,
            patients=None if options.patients is None else read_patients(options.patients),
            avoid=avoid,
            rare=not options.no_rare,
            progress=bar,
        )
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    if options.json:
        print(json.dumps({"output": str(folder), **about}, indent=2))
    else:
        print(f"{folder}: {about['scans']} scans with {about['findings']} nodules ({about['synthetic']})")


def read_patients(path: Path) -> list[str]:
    """Names of patients: one a line (the first cell of a table; a header such as patient_id is left out), or the list
    in a .json file. Raises InputError where there are none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}, a list of patients, cannot be read ({error}); write one a line.") from None
    if not isinstance(values, list):
        raise InputError(f"{path} holds no list of patients; write one a line, or a list in JSON.")
    cells = [str(value).split(",")[0].strip().strip('"') for value in values]
    names = [cell for cell in dict.fromkeys(cells) if cell and cell.lower() not in ("patient", "patient_id")]
    if not names:
        raise InputError(f"{path} names no patient; write one a line.")
    return names


def boxes_to_avoid(text: str) -> Sequence[Sequence[float]]:
    """Boxes (lowest, then highest corner, RAS mm) of the regions of a label map, or of the findings of a file; none of
    "-". Raises InputError where it can be read as neither."""
    if text == "-":
        return []
    path = Path(text)
    if path.suffix.lower() in (".csv", ".json", ".tsv"):
        from .datasets.findings_table import read_findings

        return [finding.bounds for finding in read_findings(path).findings]
    from scipy import ndimage

    from .lungs.transplant import bounds_of

    volume = read_volume(path)
    numbers, count = ndimage.label(volume.array != 0)
    parts = ndimage.find_objects(numbers)
    boxes = []
    for number in range(count):
        matrix = affine_of(volume).copy()
        matrix[:3, 3] = (matrix @ [*(part.start for part in parts[number]), 1.0])[:3]
        low, high = bounds_of(numbers[parts[number]] == number + 1, matrix)
        boxes.append([float(n) for n in np.concatenate([low, high])])
    return boxes
