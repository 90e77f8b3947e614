"""Make the data set that the model lung-nodule was trained on, outside the project: real nodules put into real lungs.

    python Testing/benchmarks/lung_nodule_data.py ../shared/data /tmp/lung-nodule

Two patients are hosts: CPTAC-LSCC-C3N-00247 (of the data folder) and lung2 of pyradiomics (from PyPI). So that two look
like many, each scan is one of them turned, stretched and mirrored, with other slices, noise, sharpness and density of
the lung, before nodules of LIDC-IDRI are put in (``MedMapAILib.lungs``). Both patients have a tumor: around these
nothing is put and nothing counts.

The right lung of lung2 is in no training scan: validation and test scans are of it alone, with nodules of patients
kept apart for each (``lung_nodule_parts``), so false positives are counted in anatomy that was not learned.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lung_nodule_parts import parts_of_patients, places_of_scans
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))
from demo_data import PYRADIOMICS, cache_folder, extract, fetch  # noqa: E402
from MedMapAILib.image import affine_of, make_image, read_image, write_array  # noqa: E402
from MedMapAILib.lungs import lung_mask  # noqa: E402
from MedMapAILib.lungs.axes import oriented_affine, to_patient_axes  # noqa: E402
from MedMapAILib.lungs.host import prepare_host  # noqa: E402
from MedMapAILib.lungs.nodules import Nodule, NoduleEntry, list_nodules, read_nodule  # noqa: E402
from MedMapAILib.lungs.places import PLACES  # noqa: E402
from MedMapAILib.lungs.rare import ground_glass, part_solid  # noqa: E402
from MedMapAILib.lungs.transplant import Transplants  # noqa: E402
from MedMapAILib.terminal import ProgressBar  # noqa: E402

#: Part → host → scans, and nodules in each.
SCANS = {
    "train": {"cptac": 30, "lung2-left": 14},
    "validation": {"lung2-right": 8},
    "test": {"lung2-right": 10},
}
PER_SCAN = {"cptac": 16, "lung2-left": 8, "lung2-right": 7}
#: Slices that scans of a host are given, mm; thinner than its own they are smooth, but not sharper.
SLICES = {"cptac": (1.5, 2.0, 2.5, 3.0, 3.0, 4.0, 5.0), "lung2-left": (2.5, 4.0, 5.0), "lung2-right": (2.5, 4.0, 5.0)}
#: The patients' own tumors, first and last voxel (I, J, K) along the axes right, front, head; found by eye in CPTAC,
#: in lung2 by the label that comes with it and by eye around it.
TUMORS = {"cptac": ((366, 296, 25), (432, 377, 37)), "lung2": ((88, 105, 12), (215, 235, 28))}
#: Voxels along the first axis (to the right) of lung2 from here on are its right half.
MIDDLE = 255
PIXEL = 0.8
PLACE_SHARES = {"parenchyma": 0.40, "vessel": 0.25, "pleura": 0.35}
COLUMNS = (
    "image", "x", "y", "z", "size_x", "size_y", "size_z", "diameter_mm", "class", "patient", "split", "ignored",
    "synthetic", "kind", "place", "source_nodule", "host", "frame",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A host as acquired, cut to its lungs. voxels: (I, J, K) HU along the patient's axes. affine: to RAS mm. tumors:
    boxes, RAS mm."""

    voxels: np.ndarray
    lungs: np.ndarray
    affine: np.ndarray
    tumors: tuple[np.ndarray, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with chest_ct, lidc_nodules and luna16")
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=tuple(SCANS), action="append", help="parts to make")
    parser.add_argument("--most", type=int, default=10**6, help="scans of a host at most")
    options = parser.parse_args()
    (options.output / "images").mkdir(parents=True, exist_ok=True)
    sources = read_sources(options.data)
    donors = read_donors(options.data)
    work = [
        (part, host, number)
        for part, hosts in SCANS.items()
        for host, count in hosts.items()
        for number in range(min(count, options.most))
        if not options.only or part in options.only
    ]
    rows: list[dict] = []
    with ProgressBar() as bar:
        for done, (part, host, number) in enumerate(work):
            bar(done / len(work), f"{part}, {host}, scan {number + 1}")
            random = np.random.default_rng([options.seed, tuple(SCANS).index(part), tuple(SLICES).index(host), number])
            name = f"images/synthetic_{part}_{host}_{number:02}.nrrd"
            rows += make_scan(sources[host], donors[part], host, random, options.output / name, part)
    with open(options.output / "findings.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(work)} scans with {sum(not row['ignored'] for row in rows)} nodules in {options.output}")


def read_sources(data: Path) -> dict[str, Source]:
    """The hosts, lung2 as its two halves."""
    cptac = _source(data / "chest_ct" / "CPTAC-LSCC-C3N-00247", "cptac")
    cache = cache_folder()
    lung2 = _source(extract(PYRADIOMICS["lung2_image"], fetch(PYRADIOMICS["lung2_image"], cache), cache), "lung2")
    left, right = (slice(0, MIDDLE), slice(None), slice(None)), (slice(MIDDLE, None), slice(None), slice(None))
    return {"cptac": _cut(cptac), "lung2-left": _cut(_part(lung2, left)), "lung2-right": _cut(_part(lung2, right))}


def _source(path: Path, name: str) -> Source:
    image = read_image(path)
    voxels, _, storage = to_patient_axes(image.numpy()[0], affine_of(image))
    lungs, _, _ = to_patient_axes(lung_mask(image), affine_of(image))
    affine = oriented_affine(affine_of(image), storage, voxels.shape)
    corners = np.array(TUMORS[name], dtype=float) @ affine[:3, :3].T + affine[:3, 3]
    return Source(np.asarray(voxels, np.float32), np.asarray(lungs), affine, (corners,))


def _part(source: Source, where: tuple[slice, ...]) -> Source:
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [part.start or 0 for part in where]
    return Source(source.voxels[where], source.lungs[where], affine, source.tumors)


def _cut(source: Source, margin: float = 14.0) -> Source:
    steps = np.linalg.norm(source.affine[:3, :3], axis=0)
    found = ndimage.find_objects(source.lungs.astype(np.uint8))[0]
    where = tuple(
        slice(max(0, part.start - round(margin / step)), min(n, part.stop + round(margin / step)))
        for part, step, n in zip(found, steps, source.voxels.shape, strict=True)
    )
    return _part(source, where)


def read_donors(data: Path) -> dict[str, list[NoduleEntry]]:
    """Part → nodules of its patients."""
    folder = data / "lidc_nodules"
    with open(folder / "nodules.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    parts = parts_of_patients(rows, places_of_scans(data / "luna16" / "seriesuids.csv"))
    return {part: list_nodules(folder, {p for p, own in parts.items() if own == part}) for part in SCANS}


def make_scan(
    source: Source, donors: list[NoduleEntry], host: str, random: np.random.Generator, path: Path, part: str
) -> list[dict]:
    """Write one scan; its rows of the table."""
    voxels, lungs, affine, tumors = varied(source, float(random.choice(SLICES[host])), random, strong=part == "train")
    image = make_image(voxels[None], affine)
    boxes = [np.concatenate([box.min(axis=0), box.max(axis=0)]) for box in tumors]
    prepared = prepare_host(image, lungs=lungs, avoid=boxes, seed=int(random.integers(2**31)))
    state = Transplants.begin(prepared)
    tries = 0
    while len(state.findings) < PER_SCAN[host] and tries < 3 * PER_SCAN[host]:
        tries += 1
        nodule = _donor(donors, random)
        if nodule is None:
            continue
        wanted = str(random.choice(PLACES, p=[PLACE_SHARES[place] for place in PLACES]))
        places = ["pleura"] if nodule.touches == "pleura" else [wanted, *(p for p in PLACES if p != wanted)]
        _ = any(state.add(nodule, place, random) for place in places)
    about = {"synthetic": "nodules of other patients were put into this scan by MedMapAI; it is no scan of a patient"}
    write_array(state.image(), affine, path, about)
    common = {"image": f"images/{path.name}", "patient": path.stem, "split": part, "host": host, "frame": "RAS"}
    common["class"] = "nodule"
    rows = []
    for finding in state.findings:
        row = dict(zip(COLUMNS[1:7], (round(float(v), 3) for v in (*finding.center, *finding.size)), strict=True))
        known = {key: finding.about[key] for key in ("kind", "place", "source_nodule")}
        measured = {"diameter_mm": round(finding.diameter_mm, 3), "ignored": 0, "synthetic": 1}
        rows.append(common | row | known | measured)
    for box in boxes:
        place = (*((box[:3] + box[3:]) / 2), *(box[3:] - box[:3]))
        row = dict(zip(COLUMNS[1:7], (round(float(v), 3) for v in place), strict=True))
        rows.append(common | row | {"ignored": 1, "synthetic": 0})
    return rows


def _donor(donors: list[NoduleEntry], random: np.random.Generator) -> Nodule | None:
    """Any nodule, but of three the one whose diameter comes nearest to one drawn evenly on a scale of logarithms: large
    ones are rare among the donors. Some of the solid ones are made into what is rare."""
    wanted = random.uniform(np.log(4.0), np.log(28.0))
    some = [donors[int(n)] for n in random.integers(len(donors), size=3)]
    nodule = read_nodule(min(some, key=lambda entry: abs(np.log(entry.diameter_mm) - wanted)))
    if nodule is not None and nodule.entry.kind == "solid" and nodule.entry.diameter_mm >= 5.5:
        draw = random.random()
        return ground_glass(nodule, random) if draw < 0.1 else part_solid(nodule, random) if draw < 0.18 else nodule
    return nodule


def varied(
    source: Source, slices: float, random: np.random.Generator, *, strong: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """A host that looks like another: voxels (I, J, K) HU, lungs, affine to RAS mm, and corners of the tumors' boxes.

    slices: their distance, mm. strong: turned, stretched and mirrored; else only its slices and its noise are other.
    """
    size = np.array(source.voxels.shape) * np.linalg.norm(source.affine[:3, :3], axis=0)
    middle = source.affine[:3, :3] @ ((np.array(source.voxels.shape) - 1) / 2) + source.affine[:3, 3]
    change = np.eye(3)
    if strong:
        angles = np.radians(random.uniform([-6, -6, -12], [6, 6, 12]))
        change = np.diag(random.uniform(0.85, 1.15, 3)) @ _turned(angles)
        change[:2, :2] += random.uniform(-0.06, 0.06, (2, 2))
        change[:, 0] *= random.choice([-1, 1])
    extent = np.abs(change) @ size
    steps = np.array([PIXEL, PIXEL, slices])
    shape = np.ceil(np.minimum(extent, size * 1.2) / steps).astype(int)
    affine = np.diag([*steps, 1.0])
    affine[:3, 3] = middle - steps * (shape - 1) / 2
    # Voxel of the new scan → of the source.
    inverse = np.linalg.inv(source.affine)[:3, :3] @ np.linalg.inv(change)
    matrix = inverse @ np.diag(steps)
    origin = (np.array(source.voxels.shape) - 1) / 2 - matrix @ (shape - 1) / 2
    own = abs(source.affine[2, 2]) * abs(change[2, 2])
    voxels = source.voxels
    width = np.sqrt(max(slices**2 - own**2, 0)) / own
    if width > 0.3:
        voxels = ndimage.gaussian_filter1d(voxels, width / 2.6, axis=2)
    voxels = ndimage.affine_transform(voxels, matrix, origin, tuple(shape), order=1, mode="nearest", output=np.float32)
    lungs = ndimage.affine_transform(
        source.lungs.astype(np.float32), matrix, origin, tuple(shape), order=1, mode="constant"
    )
    tumors = []
    for box in source.tumors:
        corners = np.array(np.meshgrid(*box.T, indexing="ij")).reshape(3, -1).T
        tumors.append((corners - middle) @ change.T + middle)
    if strong:
        # More or less air, as when people breathe in or out.
        voxels += random.uniform(-40, 90) * np.clip((-450 - voxels) / 350, 0, 1)
    kind = random.integers(3)
    if kind == 0:
        voxels += random.uniform(0.3, 1.2) * (voxels - ndimage.gaussian_filter(voxels, (1.1, 1.1, 0)))
    elif kind == 1:
        voxels = ndimage.gaussian_filter(voxels, (*[random.uniform(0.3, 0.9)] * 2, 0))
    if random.random() < 0.6:
        grain = ndimage.gaussian_filter(
            random.standard_normal(voxels.shape, np.float32), (*[random.uniform(0.4, 1.1)] * 2, 0)
        )
        voxels += random.uniform(5, 40) * grain / grain.std()
    return np.clip(voxels, -1024, 3071), lungs > 0.5, affine, tumors


def _turned(angles: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()


if __name__ == "__main__":
    main()
