"""Lay out a data set of scans with findings as LUNA16 is distributed, so that its recipes can be run without its 60 GB.

    python Testing/benchmarks/luna16_like.py SET OUT --scans 10

SET: what ``medmapai transplant`` or lung_nodule_data.py made, or any other table of findings. OUT gets subset0 …
subset9 with .mhd scans, annotations.csv, annotations_excluded.csv, seriesuids.csv and candidates_V2.csv, whose
candidates are bright blobs in the lungs. Then, as for LUNA16 itself (here in two folds, and far too short to learn
anything):

    medmapai crossvalidate MedMapAITraining/Resources/Recipes/luna16-3d.toml --set dataset.path=OUT --folds 2 \\
      --set training.epochs=1 --set training.iterations_per_epoch=10 --output RUN
    medmapai froc OUT/annotations.csv OUT/annotations_excluded.csv OUT/seriesuids.csv RUN/submission.csv
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from MedMapAILib.blobs import blob_proposals
from MedMapAILib.datasets import open_dataset
from MedMapAILib.datasets.loading import load_case
from MedMapAILib.image import affine_of, write_array
from MedMapAILib.lungs import lung_mask
from MedMapAILib.results import Finding

_SUBSETS = 10
#: Ids of a branch that nobody owns: the scans are not LUNA16's.
_UID = "1.3.6.1.4.1.14519.5.2.1.99999.{:03d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--blobs", type=int, default=30, help="candidates of a scan")
    options = parser.parse_args()
    dataset = open_dataset(options.set)
    chosen = dataset.cases[:: max(1, len(dataset.cases) // options.scans)][: options.scans]
    tables: dict[str, list[list]] = {"annotations": [], "annotations_excluded": [], "candidates_V2": []}
    for number, case in enumerate(chosen):
        uid = _UID.format(number)
        image, reference = load_case(case, dataset)
        folder = options.output / f"subset{number % _SUBSETS}"
        folder.mkdir(parents=True, exist_ok=True)
        write_array(np.rint(image.numpy()[0]).astype(np.int16), affine_of(image), folder / f"{uid}.mha")
        as_mhd(folder / f"{uid}.mha")
        tables["annotations"] += [[uid, *lps(f), f"{f.diameter_mm:.4f}"] for f in reference.findings]
        tables["annotations_excluded"] += [[uid, *lps(f), f"{f.diameter_mm:.4f}"] for f in reference.ignored]
        tables["candidates_V2"] += [[uid, *lps(f), 1] for f in reference.findings]
        tables["candidates_V2"] += [[uid, *place, 0] for place in blobs(image, options.blobs, reference.findings)]
        print(f"{uid}: {case.name}, {len(reference.findings)} findings", flush=True)
    headers = {"candidates_V2": "class"}
    for name, rows in tables.items():
        with open(options.output / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["seriesuid", "coordX", "coordY", "coordZ", headers.get(name, "diameter_mm")])
            writer.writerows(rows)
    (options.output / "seriesuids.csv").write_text("".join(_UID.format(n) + "\n" for n in range(len(chosen))))


def lps(finding: Finding) -> list[str]:
    """Center, LPS mm."""
    return [f"{sign * x:.4f}" for sign, x in zip((-1, -1, 1), finding.center, strict=True)]


def as_mhd(path: Path) -> None:
    """Turn a .mha into the .mhd and .raw that LUNA16 has."""
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path.with_suffix(".mhd")))
    path.unlink()


def blobs(image, count: int, findings: tuple[Finding, ...]) -> list[list[str]]:
    """Middles, LPS mm, of bright blobs of 6 mm in the lungs that are no finding."""
    affine, mask = affine_of(image), lung_mask(image)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    voxels = torch.from_numpy(np.clip(image.numpy(), -1000, 200) / 100)[None]
    (boxes,) = blob_proposals(voxels, sizes=[list(6 / spacing)], count=40 * count)
    found = []
    for middle in ((boxes[:, :3] + boxes[:, 3:]) / 2 - 0.5).numpy():
        place = affine[:3, :3] @ middle + affine[:3, 3]
        near = any(np.linalg.norm(place - f.center) < f.diameter_mm / 2 + 3 for f in findings)
        if mask[tuple(np.round(middle).astype(int))] and not near:
            found.append([f"{sign * x:.4f}" for sign, x in zip((-1, -1, 1), place, strict=True)])
        if len(found) == count:
            break
    return found


if __name__ == "__main__":
    main()
