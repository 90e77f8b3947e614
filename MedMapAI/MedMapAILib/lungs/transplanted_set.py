"""A data set of scans with nodules put into them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import Cancelled, InputError
from ..files import atomic_folder
from ..image import affine_of, read_image, write_array
from ..results.detection import Finding
from .host import HostScan, prepare_host
from .nodules import Nodule, NoduleEntry, list_nodules, read_nodule
from .places import PLACES
from .rare import ground_glass, part_solid
from .transplant import Transplants

#: How often nodules are put where.
PLACE_SHARES = {"parenchyma": 0.40, "vessel": 0.25, "pleura": 0.35}
#: How many of the nodules are turned into what is rare, and from which diameter on, mm.
RARE_SHARES, RARE_FROM_MM = {"ground-glass": 0.12, "part-solid": 0.08}, 5.5
#: In the header of every file, and in the table.
SYNTHETIC = "nodules of other patients were put into this scan by MedMapAI; it is no scan of a patient"

_COLUMNS = ("image", "frame", "center_x", "center_y", "center_z", "size_x", "size_y", "size_z", "diameter_mm", "class")
_ABOUT = ("kind", "made", "place", "source_nodule", "source_patient", "malignancy", "scale", "host")


def make_transplanted(
    hosts: Sequence[Any],
    nodules_folder: str | Path,
    output: str | Path,
    *,
    scans: int,
    per_scan: int = 8,
    seed: int = 0,
    patients: Collection[str] | None = None,
    avoid: Sequence[Sequence[Sequence[float]]] | None = None,
    rare: bool = True,
    progress: Callable[[float, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Path:
    """A folder that is a data set of kind "box-list": images/*.nrrd (int16 HU), labels/*.nrrd (uint16, n + 1 for the
    nth row of that image), findings.csv (RAS mm) and about.json.

    hosts: files or DICOM folders of chest CTs, or images (1, I, J, K) in HU; used in turn. nodules_folder: nodules.csv,
    image/ and mask/. scans: how many to make. per_scan: nodules in each (fewer where no more fit). patients: only
    nodules of these are used; None for all. avoid: for each host, boxes (lowest, then highest corner, RAS mm) to stay
    away from. rare: make ground-glass and part-solid nodules out of some of the solid ones. The same arguments give the
    same voxels. Every nodule is used once before any is used again.
    Raises InputError before anything is written where hosts are no chest CTs in HU or there are no nodules; Cancelled
    when should_stop says so. Nothing is left half-written.
    """
    output = Path(output)
    if scans < 1 or per_scan < 1:
        raise InputError(f"{scans} scans with {per_scan} nodules each cannot be made; give numbers of at least 1.")
    if not hosts:
        raise InputError("There is no scan to put nodules into; give at least one chest CT.")
    if avoid is not None and len(avoid) != len(hosts):
        raise InputError(f"There are {len(hosts)} scans and boxes to avoid for {len(avoid)}; give one list a scan.")
    if output.exists() and not (output / "about.json").is_file():
        raise InputError(f"{output} is there already and was not made by this command; choose another folder.")
    entries = list_nodules(nodules_folder, patients)
    if not entries:
        raise InputError(f"There are no nodules of these patients in {nodules_folder}.")
    say = progress or (lambda fraction, message: None)
    prepared = []
    for number, host in enumerate(hosts):
        say(0.0, f"looking at scan {number + 1} of {len(hosts)}")
        image = read_image(host) if isinstance(host, (str, Path)) else host
        boxes = avoid[number] if avoid is not None else ()
        prepared.append((prepare_host(image, avoid=boxes, seed=seed), affine_of(image)))
    donors = _Donors(entries, seed)
    with atomic_folder(output) as folder:
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        rows: list[dict[str, Any]] = []
        for scan in range(scans):
            if should_stop is not None and should_stop():
                raise Cancelled
            say(scan / scans, f"scan {scan + 1} of {scans}")
            host, affine = prepared[scan % len(prepared)]
            state = _filled(host, donors, per_scan, np.random.default_rng([seed, scan]), rare)
            name = f"synthetic_{scan:04d}.nrrd"
            header = {"synthetic": SYNTHETIC, "nodules": str(len(state.findings))}
            write_array(state.image(), affine, folder / "images" / name, header)
            write_array(state.labels(), affine, folder / "labels" / name, {"synthetic": SYNTHETIC})
            rows += [_row(finding, f"images/{name}", scan % len(prepared)) for finding in state.findings]
        _write_table(folder / "findings.csv", rows)
        about = {
            "synthetic": SYNTHETIC,
            "made_by": f"MedMapAI {__version__}",
            "seed": seed,
            "scans": scans,
            "per_scan": per_scan,
            "findings": len(rows),
            # Not what they are called: names of files and folders may be those of patients.
            "hosts": [_size_of(host) for host, _ in prepared],
            "source_patients": sorted({row["source_patient"] for row in rows}),
            "kinds": _counts(rows, "kind"),
            "places": _counts(rows, "place"),
        }
        (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    say(1.0, "done")
    return output


def _size_of(host: HostScan) -> dict[str, list]:
    return {"voxels": list(host.voxels.shape), "spacing_mm": [round(float(mm), 3) for mm in host.spacing]}


class _Donors:
    """Nodules in a random order, all of them before one comes again."""

    def __init__(self, entries: Sequence[NoduleEntry], seed: int) -> None:
        self._entries = list(entries)
        self._rng = np.random.default_rng([seed, 1 << 20])
        self._left: list[int] = []
        self._read: dict[int, Nodule | None] = {}

    def next(self) -> Nodule:
        """The next one that has lung around it. Raises InputError where there is none at all."""
        for _ in range(2 * len(self._entries)):
            if not self._left:
                self._left = list(self._rng.permutation(len(self._entries)))
            number = int(self._left.pop())
            if number not in self._read:
                self._read[number] = read_nodule(self._entries[number])
            nodule = self._read[number]
            if nodule is not None:
                return nodule
        raise InputError("None of these nodules has lung around it, so none can be put into another lung.")


def _filled(host: HostScan, donors: _Donors, count: int, rng: np.random.Generator, rare: bool) -> Transplants:
    """A host with up to ``count`` nodules."""
    state = Transplants.begin(host)
    tries = 0
    while len(state.findings) < count and tries < 3 * count:
        tries += 1
        nodule, made = donors.next(), "as it was"
        if rare and nodule.entry.kind == "solid" and nodule.entry.diameter_mm >= RARE_FROM_MM:
            draw = rng.random()
            if draw < RARE_SHARES["ground-glass"]:
                nodule, made = ground_glass(nodule, rng), "simulated"
            elif draw < sum(RARE_SHARES.values()):
                nodule, made = part_solid(nodule, rng), "simulated"
        wanted = str(rng.choice(PLACES, p=[PLACE_SHARES[place] for place in PLACES]))
        # A nodule that sat on a wall has a flat side, which belongs there again.
        places = ["pleura"] if nodule.touches == "pleura" else [wanted, *(p for p in PLACES if p != wanted)]
        for place in places:
            if state.add(nodule, place, rng, {"made": made, "malignancy": nodule.entry.malignancy}):
                break
    return state


def _row(finding: Finding, image: str, host: int) -> dict[str, Any]:
    x, y, z = finding.center
    dx, dy, dz = finding.size
    values = (image, "RAS", x, y, z, dx, dy, dz, finding.diameter_mm, finding.label)
    row = {key: f"{v:.4f}" if isinstance(v, float) else v for key, v in zip(_COLUMNS, values, strict=True)}
    about = {**(finding.about or {}), "host": host}
    return {**row, "synthetic": 1, **{key: about[key] for key in _ABOUT}}


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*_COLUMNS, "synthetic", *_ABOUT], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _counts(rows: Sequence[dict[str, Any]], key: str) -> dict[str, int]:
    values = [row[key] for row in rows]
    return {value: values.count(value) for value in sorted(set(values))}
