"""What low-dose-ct, low-dose-ct-gan and sparse-view-ct are reported with: all methods on the same measurements.

    .venv/bin/python Testing/benchmarks/low_dose_ct.py [--slices 6] [--picture Resources/Figures/low_dose_ct.png]
    .venv/bin/python Testing/benchmarks/low_dose_ct.py --tune     (the weights of TV and the iterations of SIRT)

Slices of two chest CTs that no model has seen (lung1 and lung2 of pyradiomics), measured on their own pixels with a
parallel beam and made on pixels twice as large: from 60 views of 50 000 photons for each detector, and from 360 of
100 000 (a quarter of 200 000 and of 400 000), with electronic noise of 5 photons. PSNR and SSIM over the window from
-1000 to 1000 HU, data range 2000; mean and 95 % bootstrap interval over slices. The weights of TV and the iterations
of SIRT were chosen on slices of the patient that was trained on, kept apart for validation.

Bias: mean of an image minus the truth in regions of the truth: air (below -900 HU), water-like (-50 to 100) and bone
(above 300), in a smoothed truth and away from the region's edge, as a reader would draw it. Beside it what of this the
model added to filtered backprojection, which is less sharp than the truth and so has less than it in small bones. The
JSON has it voxel by voxel, too, where the noise and the edges of the truth choose the voxels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from low_dose_ct_picture import draw
from low_dose_ct_scans import SETTINGS, TEST, TRAINED, VALIDATION, Measured, measure
from MedMapAILib.bundle import load_bundle
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.metrics import summarize_rows
from MedMapAILib.metrics.image_quality import image_quality
from MedMapAILib.physics.attenuation import hounsfield_of_attenuation
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.reconstruction.iteration import Stopping
from MedMapAILib.reconstruction.sirt import sirt
from MedMapAILib.reconstruction.total_variation import total_variation
from scipy import ndimage

_ROOT = Path(__file__).resolve().parents[2]
WINDOW = (-1000.0, 1000.0)
#: Chosen by --tune: the weight of TV, and the iterations of SIRT, for each setting.
WEIGHTS = {"sparse": 7e-4, "full": 2e-4}
ITERATIONS = {"sparse": 120, "full": 240}
_TRIED_WEIGHTS = {"sparse": (5e-4, 7e-4, 1e-3, 1.4e-3), "full": (1e-4, 2e-4, 3e-4, 5e-4)}
_TRIED_ITERATIONS = {"sparse": (40, 80, 120, 160, 240), "full": (80, 160, 240)}
#: Networks for images, and for measurements with the setting that they were trained for.
MODELS = {"U-Net (low-dose-ct)": "low-dose-ct", "GAN (low-dose-ct-gan)": "low-dose-ct-gan"}
MEASUREMENT_MODELS = {"Learned Primal-Dual (sparse-view-ct)": ("sparse-view-ct", ("sparse",))}
REGIONS = {"air": (-np.inf, -900.0), "water-like": (-50.0, 100.0), "bone": (300.0, np.inf)}
#: Deviation of the smoothing, and voxels between a region and its edge.
_SMOOTH, _EDGE = 1.5, 1


def fbp(measured: Measured) -> np.ndarray:
    """(S, H, W), HU; with the ramp, as what the networks begin with."""
    image = filtered_backprojection(measured.projector, measured.line_integrals)
    return hounsfield_of_attenuation(image)[:, 0].numpy()


def by_sirt(measured: Measured, iterations: int) -> np.ndarray:
    """(S, H, W), HU."""
    solution = sirt(measured.projector, measured.line_integrals, stopping=Stopping(iterations, 0.0))
    return hounsfield_of_attenuation(solution.image)[:, 0].numpy()


def by_tv(measured: Measured, weight: float) -> np.ndarray:
    """(S, H, W), HU; one slice after the other, each with its own weight and end."""
    images = [
        total_variation(
            measured.projector, data[None], weight=weight, stopping=Stopping(200, 1e-4), nonnegative=True
        ).image
        for data in measured.line_integrals
    ]
    return hounsfield_of_attenuation(torch.cat(images))[:, 0].numpy()


def by_model(name: str) -> Callable[[Measured], np.ndarray]:
    """A bundle: of images, which begins with filtered backprojection, or of measurements."""
    predictor = open_predictor(load_bundle(name), device="cpu")

    def run(measured: Measured) -> np.ndarray:
        if predictor.bundle.info.answers.domain == "measurement":
            result = predictor.predict(measured.measurement)
        else:
            image = make_image(fbp(measured).transpose(2, 1, 0)[None], measured.measurement.affine)
            image.meta["assume_hounsfield"] = True
            result = predictor.predict(image)
        return np.ascontiguousarray(result.values.transpose(2, 1, 0))

    return run


def methods_for(setting: str, models: Path | None) -> dict[str, Callable[[Measured], np.ndarray]]:
    """Name → what makes images (S, H, W) in HU of measurements; models that are not there are left out."""
    methods: dict[str, Callable[[Measured], np.ndarray]] = {
        "FBP": fbp,
        f"SIRT ({ITERATIONS[setting]} iterations)": lambda m: by_sirt(m, ITERATIONS[setting]),
        f"TV (weight {WEIGHTS[setting]:g})": lambda m: by_tv(m, WEIGHTS[setting]),
    }
    names = dict(MODELS) | {name: model for name, (model, good) in MEASUREMENT_MODELS.items() if setting in good}
    for name, model in names.items():
        place = str(models / model / "bundle") if models else model
        try:
            methods[name] = by_model(place)
        except InputError as error:
            print(f"{name} is left out: {error}")
    return methods


def scores(truth: np.ndarray, images: np.ndarray) -> list[dict[str, float]]:
    """PSNR and SSIM of each slice."""
    found = [image_quality(t, i, window=WINDOW) for t, i in zip(truth, images, strict=True)]
    return [{"psnr": q.psnr, "ssim": q.ssim} for q in found]


def bias(truth: np.ndarray, images: np.ndarray, before: np.ndarray) -> dict[str, dict[str, float]]:
    """Region → mean of images minus truth, HU: "drawn" in regions of the smoothed truth, "voxels" voxel by voxel; and
    "added", of images minus ``before``, what the model was given, in the first of these."""
    smooth = ndimage.gaussian_filter(truth, (0, _SMOOTH, _SMOOTH))
    across = np.ones((1, 2 * _EDGE + 1, 2 * _EDGE + 1), dtype=bool)
    found = {}
    for name, (low, high) in REGIONS.items():
        drawn = ndimage.binary_erosion((smooth > low) & (smooth < high), across)
        voxels = (truth > low) & (truth < high)
        found[name] = {
            "drawn": _mean(images - truth, drawn),
            "added": _mean(images - before, drawn),
            "voxels": _mean(images - truth, voxels),
            "size": int(drawn.sum()),
        }
    return found


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean(dtype=np.float64)) if where.any() else float("nan")


def tune(data: Path) -> None:
    """Print the mean PSNR of the slices for validation at each weight of TV and each number of iterations of SIRT."""
    for setting in SETTINGS:
        measured = measure(TRAINED, setting, data, slices=VALIDATION)
        for name, method, tried in (
            ("TV", by_tv, _TRIED_WEIGHTS[setting]),
            ("SIRT", by_sirt, _TRIED_ITERATIONS[setting]),
        ):
            means = {v: np.mean([s["psnr"] for s in scores(measured.truth, method(measured, v))]) for v in tried}
            line = ", ".join(f"{value:g}: {mean:.2f}" for value, mean in means.items())
            print(f"{setting}, {name}: {line} dB; best {max(means, key=means.get):g}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=6, help="of each scan (default: 6)")
    parser.add_argument("--setting", choices=tuple(SETTINGS), action="append", help="both by default")
    parser.add_argument("--scan", choices=(*TEST, TRAINED), action="append", help="both that were not trained on")
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, help="folder of trainings, instead of the models that ship")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--picture", type=Path, help="write the picture there")
    parser.add_argument("--tune", action="store_true", help="only print what the weights are chosen from")
    options = parser.parse_args()
    if options.tune:
        tune(options.data)
        return
    numbers: dict[str, Any] = {"window": WINDOW, "data_range": WINDOW[1] - WINDOW[0], "slices": options.slices}
    for setting in options.setting or SETTINGS:
        methods = methods_for(setting, options.models)
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
        for scan in options.scan or TEST:
            kept = VALIDATION if scan == TRAINED else ()
            measured = measure(scan, setting, options.data, count=options.slices, slices=kept)
            part, images, seconds = {}, {}, {}
            for name, method in methods.items():
                began = time.monotonic()
                images[name] = method(measured)
                seconds[name] = (time.monotonic() - began) / len(measured.truth)
                part[name] = scores(measured.truth, images[name])
                rows[name] += part[name]
            about = f"{SETTINGS[setting]['title']}; {scan}, {len(measured.truth)} slices"
            found = {name: summarize_rows(part[name]) for name in methods}
            biases = {
                name: bias(measured.truth, images[name], images["FBP"])
                for name in ("FBP", *MODELS, *MEASUREMENT_MODELS)
                if name in images
            }
            show(about, found, seconds, biases)
            numbers[f"{setting}, {scan}"] = {"scores": found, "seconds a slice": seconds, "bias": biases}
            if options.picture and setting == "sparse" and scan == TEST[0]:
                draw(options.picture, measured, images)
        if len(options.scan or TEST) > 1:
            found = {name: summarize_rows(rows[name]) for name in methods}
            show(f"{SETTINGS[setting]['title']}; all", found, {}, {})
            numbers[f"{setting}, all"] = {"scores": found}
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n")


def show(title: str, found: dict[str, Any], seconds: dict[str, float], biases: dict[str, Any]) -> None:
    """Print one table."""
    print(f"\n{title}; window -1000 to 1000 HU, data range 2000")
    for name, scored in found.items():
        psnr, ssim = scored["psnr"], scored["ssim"]
        took = f"  {seconds[name]:6.2f} s a slice" if name in seconds else ""
        print(
            f"  {name:38s} PSNR {psnr['mean']:5.2f} dB ({psnr['low']:5.2f} to {psnr['high']:5.2f})  "
            f"SSIM {ssim['mean']:.3f} ({ssim['low']:.3f} to {ssim['high']:.3f}){took}"
        )
    for name, regions in biases.items():
        line = ", ".join(f"{region} {each['drawn']:+.1f} ({each['added']:+.1f})" for region, each in regions.items())
        print(f"  bias, HU (added to that of FBP), {name}: {line}", flush=True)


if __name__ == "__main__":
    main()
