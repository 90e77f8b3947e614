r"""Make a data set of classes from LUNA16's candidate crops, outside the project.

    python Testing/benchmarks/candidate_crops.py ../shared/data /tmp/candidates
    medmapai train MedMapAITraining/Resources/Recipes/nodule-false-positive.toml \
        --set dataset.path=/tmp/candidates/crops.csv --output runs/nodule-false-positive

Writes one small volume a crop (HU, with its pixel size) and a table crops.csv: image, class, patient, split.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from lung_nodule_parts import ROWS, part_of_row
from MedMapAILib.image import make_image, write_image

#: The pixel size of the crops is not told. Their nodules are 5 to 14 % larger in pixels than the same nodules in
#: lidc_slices, whose pixels have 0.70 mm in the median, by one measure of area: about this, mm.
PIXEL = 0.68
#: The window in which the crops were stored, HU.
WINDOW = (-1000.0, 400.0)
CLASSES = ("other", "nodule")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with luna16_candidates")
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    (options.output / "crops").mkdir(parents=True, exist_ok=True)
    rows = _candidates(options.data, options.output)
    with open(options.output / "crops.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", "patient", "split"])
        writer.writerows(rows)
    print(f"{len(rows)} crops in {options.output}")


def _candidates(data: Path, output: Path) -> list[tuple[str, str, str, str]]:
    with np.load(data / "luna16_candidates" / "candidates.npz") as stored:
        images, labels, numbers = stored["image"], stored["label"], stored["row"]
    rows = []
    for image, label, number in zip(images, labels, numbers, strict=True):
        part = part_of_row(int(number))
        if part is None:
            continue
        values = WINDOW[0] + image.astype(np.float32) / 255 * (WINDOW[1] - WINDOW[0])
        name = f"crops/candidate_{number:06}.nrrd"
        _write(values, PIXEL, output / name)
        # The patients are not told: a hundredth of the list stands for one.
        rows.append((name, CLASSES[label], f"rows_{int(number / ROWS * 100):02}", part))
    return rows


def _write(values: np.ndarray, pixel: float, path: Path) -> None:
    """values: (rows, columns) HU. Columns run to the patient's left, rows to the back."""
    affine = np.diag([-pixel, -pixel, 1.0, 1.0])
    write_image(make_image(values.T[None, :, :, None].astype(np.float32), affine), path)


if __name__ == "__main__":
    main()
