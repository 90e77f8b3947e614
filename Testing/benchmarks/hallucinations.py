r"""Are lesions that were there before a scan there after its reconstruction, and is anything there that was not?

    OMP_NUM_THREADS=1 python Testing/benchmarks/hallucinations.py fbp sirt tv:weight=0.001 sparse-view-ct \
        --views 60 --photons 50000 --output hallucinations.json

Discs of known contrast are put into slices of a chest CT (lung1 of pyradiomics, fetched from PyPI and verified; a
phantom with --phantom or where it cannot be had): some in soft tissue, some in the lungs. The slices are measured on
their own pixels, with and without lesions and with the same noise, and made into images of pixels twice as large by
every method. Methods are those of ``medmapai reconstruct``, with options after a colon, and models by name or path: of
measurements, or of images, which get the filtered backprojection. What counts as found, lost and made up is said in
``metrics/inserted_lesions.py``; structures are looked for where a lesion could have been put: at the borders of tissue
every blur would be one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from MedMapAILib.errors import InputError, RunError
from MedMapAILib.files import check_place, write_atomically
from MedMapAILib.image import affine_of, make_image, read_image, spacing
from MedMapAILib.measurements.acquisition import Acquisition, acquisition_of
from MedMapAILib.measurements.measured import CtMeasurement
from MedMapAILib.measurements.options import parse_settings
from MedMapAILib.metrics.image_quality import image_quality
from MedMapAILib.metrics.inserted_lesions import InsertedLesion, LesionCheck, check_lesions, insert_lesions
from MedMapAILib.metrics.inserted_lesions import place_lesions as place
from MedMapAILib.physics.attenuation import without_padding
from MedMapAILib.reconstruct_command import reconstructed
from MedMapAILib.terminal import ProgressBar
from scipy import ndimage

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "demo")]
from chest_phantom import chest  # noqa: E402
from demo_data import PYRADIOMICS, cache_folder, extract, fetch  # noqa: E402

#: How many times finer the pixels are that are measured than those of the images.
FINER = 2
WINDOW = (-1000.0, 1000.0)
#: Blur, mm, before tissue is told by its HU: what is uneven on a finer scale is noise or vessels.
_BLUR = 1.5


@dataclass(frozen=True)
class LesionKind:
    """Where lesions are put: tissue of HU between low and high. contrast: HU; most: in a slice."""

    name: str
    low: float
    high: float
    diameter_mm: float
    contrast: float
    most: int


KINDS = (
    LesionKind("soft tissue", -10.0, 100.0, 10.0, 60.0, 4),
    LesionKind("lung", -980.0, -700.0, 8.0, 150.0, 6),
)


@dataclass(frozen=True)
class Slice:
    """One slice, (rows, columns): true HU without and with lesions on the coarse grid, and measurements of both.

    lesions: of each of KINDS, on the coarse grid; looked: where such a lesion could lie.
    """

    before: np.ndarray
    after: np.ndarray
    without: CtMeasurement
    with_lesions: CtMeasurement
    looked: tuple[np.ndarray, ...]
    lesions: tuple[tuple[InsertedLesion, ...], ...]
    pixel_mm: float


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["fbp", "fbp:filter=hann", "sirt", "tv"], metavar="METHOD")
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--photons", type=float, default=50_000)
    parser.add_argument("--slices", type=int, default=6, help="how many, evenly through the scan")
    parser.add_argument("--seed", type=int, default=0, help="of places and noise")
    parser.add_argument("--phantom", action="store_true", help="use a phantom of a chest")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="write all numbers as JSON")
    options = parser.parse_args(arguments)
    if options.output:
        check_place(options.output)
    acquisition = acquisition_of(
        {"kind": "ct", "views": options.views, "photons": options.photons, "oversampling": FINER}
    ).drawn(options.seed)
    source, values, pixel = _phantom() if options.phantom else _scan()
    slices = [
        measured_slice(values[number], pixel, acquisition, options.seed + number)
        for number in np.linspace(0, len(values) - 1, options.slices + 2)[1:-1].round().astype(int)
    ]
    report: dict[str, Any] = {"scan": source, "acquisition": acquisition.about, "methods": {}}
    with ProgressBar() as bar:
        for number, text in enumerate(options.methods):
            name, _, settings = text.partition(":")
            parsed = parse_settings(settings.split(",")) if settings else {}
            rows = []
            for count, one in enumerate(slices):
                bar((number + count / len(slices)) / len(options.methods), f"{text}, slice {count + 1}")
                rows.append(checked(one, name, parsed, options.device))
            report["methods"][text] = summary(rows)
    for line in table(report, len(slices)):
        print(line)
    if options.output:
        write_atomically(options.output, (json.dumps(report, indent=1) + "\n").encode())
    return report


def measured_slice(fine: np.ndarray, pixel_mm: float, acquisition: Acquisition, seed: int) -> Slice:
    """Lesions in a slice (rows, columns), HU, and measurements without and with them.

    pixel_mm: of the image to be made; those of ``fine`` are ``FINER`` times smaller. Poisson noise cannot be drawn
    twice alike behind different bodies, so what was drawn without lesions is scaled to the deviation with them: counts
    fall with exp(-line integral), and the deviation of a line integral is the root of 1 / counts.
    """
    before, steps = coarse(fine), (pixel_mm, pixel_mm)
    smooth = ndimage.gaussian_filter(before, _BLUR / pixel_mm)
    masks = tuple((smooth > kind.low) & (smooth < kind.high) for kind in KINDS)
    lesions = tuple(_placed(mask, kind, steps, seed) for mask, kind in zip(masks, KINDS, strict=True))
    # As far from the tissue's border as the surroundings of a lesion reach.
    looked = tuple(
        ndimage.distance_transform_edt(mask, sampling=pixel_mm) >= kind.diameter_mm
        for mask, kind in zip(masks, KINDS, strict=True)
    )
    everywhere = [lesion for group in lesions for lesion in group]
    on_fine = [
        dataclasses.replace(lesion, center=tuple(FINER * n + (FINER - 1) / 2 for n in lesion.center))
        for lesion in everywhere
    ]
    small = pixel_mm / FINER
    fine_after = insert_lesions(fine, on_fine, (small, small))
    quiet = acquisition_of({**acquisition.about, "photons": 0})

    def measure(of: Acquisition, image: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
        return of.measure(tensor, (small, small), seed)[:, 0].numpy()

    clean, clean_after = measure(quiet, fine), measure(quiet, fine_after)
    noisy = measure(acquisition, fine)
    noisy_after = clean_after + (noisy - clean) * np.exp((clean_after - clean) / 2)
    geometry = acquisition.geometry(before.shape, steps)
    affine = np.diag([pixel_mm, pixel_mm, 1.0, 1.0])
    without, with_lesions = (CtMeasurement(data, geometry, affine) for data in (noisy, noisy_after))
    return Slice(before, coarse(fine_after), without, with_lesions, looked, lesions, pixel_mm)


def _placed(mask: np.ndarray, kind: LesionKind, steps: tuple[float, float], seed: int) -> tuple[InsertedLesion, ...]:
    """As many lesions as there is room for, up to ``kind.most``."""
    for count in range(kind.most, 0, -1):
        try:
            return place(mask, steps, count, diameter_mm=kind.diameter_mm, contrast=kind.contrast, seed=seed)
        except InputError:
            continue
    return ()


def coarse(fine: np.ndarray) -> np.ndarray:
    """The mean over FINER × FINER pixels."""
    rows, columns = (n // FINER for n in fine.shape)
    return fine.reshape(rows, FINER, columns, FINER).mean(axis=(1, 3))


def checked(one: Slice, method: str, settings: dict[str, Any], device: str) -> dict[str, Any]:
    """What a method made of a slice: for each kind its ``LesionCheck``, and PSNR and SSIM without lesions."""
    shown, other = (
        reconstructed(method, measured, settings, device=device).values[:, :, 0].T
        for measured in (one.with_lesions, one.without)
    )
    steps = (one.pixel_mm, one.pixel_mm)
    quality = image_quality(one.before, other, window=WINDOW)
    row: dict[str, Any] = {"psnr_db": quality.psnr, "ssim": quality.ssim}
    for number, kind in enumerate(KINDS):
        if one.lesions[number]:
            # The lesions of the other kind belong to the patient here.
            rest = [lesion for n, group in enumerate(one.lesions) if n != number for lesion in group]
            body = insert_lesions(one.before, rest, steps) if rest else one.before
            row[kind.name] = check_lesions(
                body,
                shown,
                one.lesions[number],
                steps,
                without=other + (body - one.before),
                mask=one.looked[number],
            )
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Over all slices."""
    result: dict[str, Any] = {key: float(np.mean([row[key] for row in rows])) for key in ("psnr_db", "ssim")}
    for kind in KINDS:
        checks: list[LesionCheck] = [row[kind.name] for row in rows if kind.name in row]
        found = [lesion for check in checks for lesion in check.lesions]
        result[kind.name] = {
            "inserted": len(found),
            "detected": sum(lesion.detected for lesion in found),
            "mean_recovery": float(np.mean([lesion.recovery for lesion in found])) if found else None,
            "sd_recovery": float(np.std([lesion.recovery for lesion in found])) if found else None,
            "false_structures": sum(check.false_structures for check in checks),
            "lost_structures": sum(check.lost_structures for check in checks),
        }
    return result


def table(report: dict[str, Any], slices: int) -> list[str]:
    """Lines for a person."""
    about = report["acquisition"]
    lines = [f"{report['scan']}, {slices} slices, {about['views']} views, {about['photons']:g} photons"]
    lines += [
        f"{kind.name}: lesions of {kind.diameter_mm:g} mm and {kind.contrast:+g} HU; a structure has half of that"
        for kind in KINDS
    ]
    lines.append(f"{'method':24}  PSNR  SSIM" + "".join(f" | {kind.name:^33}" for kind in KINDS))
    lines.append(f"{'':24}    dB      " + f" | {'found':>8} {'contrast':>12} {'false':>5} {'lost':>5}" * len(KINDS))
    for name, row in report["methods"].items():
        text = f"{Path(name).name[:24]:24}{row['psnr_db']:6.2f} {row['ssim']:5.3f}"
        for kind in KINDS:
            part = row[kind.name]
            found = f"{part['detected']}/{part['inserted']}"
            left = f"{part['mean_recovery']:.0%} ± {part['sd_recovery']:.0%}" if part["inserted"] else "–"
            text += f" | {found:>8} {left:>12} {part['false_structures']:5d} {part['lost_structures']:5d}"
        lines.append(text)
    return lines


def _scan() -> tuple[str, np.ndarray, float]:
    """What it is called, slices (S, rows, columns) in HU on the pixels that are measured, and the side of those of the
    image that is made, mm."""
    wheel = PYRADIOMICS["lung1_image"]
    try:
        image = read_image(extract(wheel, fetch(wheel, cache_folder()), cache_folder()))
    except RunError as error:
        print(f"{error} A phantom is used.", file=sys.stderr)
        return _phantom()
    return ("lung1 of pyradiomics 3.0.1", *_slices(image))


def _phantom() -> tuple[str, np.ndarray, float]:
    body = chest((0.8, 0.8, 10.0), height_mm=100.0, noise=0.0)
    return ("a phantom of a chest", *_slices(make_image(body.voxels[None], body.affine)))


def _slices(image: Any) -> tuple[np.ndarray, float]:
    values = without_padding(image.numpy()[0].transpose(2, 1, 0))
    rows, columns = (n // FINER * FINER for n in values.shape[1:])
    return values[:, :rows, :columns].astype(np.float64), spacing(affine_of(image))[0] * FINER


if __name__ == "__main__":
    main()
