"""What low-dose-ct, low-dose-ct-gan and sparse-view-ct are reported with: all methods on the same measurements.

    .venv/bin/python Testing/benchmarks/low_dose_ct.py [--slices 6] [--picture Resources/Figures/low_dose_ct.png]
    .venv/bin/python Testing/benchmarks/low_dose_ct.py --tune     (what is chosen on the patient that was trained on)

Slices of two chest CTs that no model has seen (lung1 and lung2 of pyradiomics), measured on their own pixels with a
parallel beam and made on pixels twice as large: from 60 views of 50 000 photons for each detector, and from 360 of
100 000 (a quarter of 200 000 and of 400 000), with electronic noise of 5 photons. PSNR and SSIM over the window from
-1000 to 1000 HU, data range 2000; mean and 95 % bootstrap interval over slices. The weights of TV and the iterations
of SIRT were chosen on slices of the patient that was trained on, kept apart for validation; so was the scale at which
the networks for images keep the means of what they are given (inference.keep_means: where the largest bias in bone is
smallest, from many views, in thin and thick slices, on pixels twice as large as the scan's and on its own).

Bias, over all slices since bone is small: mean of an image minus the truth in air (below -900 HU), where the truth is
like water (-50 to 100) and in bone (above 300), regions drawn as a reader would (metrics/tissue_bias.py). Beside it
what of this the model added to filtered backprojection, which is less sharp than the truth and so has less than it in
small bones. The JSON has it voxel by voxel, too, where the noise and the edges of the truth choose the voxels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from low_dose_ct_picture import draw
from low_dose_ct_scans import FINER, SETTINGS, TEST, TRAINED, VALIDATION, Measured, measure, read_scan, some_slices
from MedMapAILib.bundle import load_bundle
from MedMapAILib.errors import InputError
from MedMapAILib.image import make_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.metrics import summarize_rows
from MedMapAILib.metrics.image_quality import image_quality
from MedMapAILib.metrics.tissue_bias import TISSUES, mean_difference, tissue_regions
from MedMapAILib.physics.attenuation import hounsfield_of_attenuation
from MedMapAILib.physics.filtered_backprojection import filtered_backprojection
from MedMapAILib.reconstruction.iteration import Stopping
from MedMapAILib.reconstruction.sirt import sirt
from MedMapAILib.reconstruction.total_variation import total_variation
from monai.data import MetaTensor

_ROOT = Path(__file__).resolve().parents[2]
WINDOW = (-1000.0, 1000.0)
#: Chosen by --tune: the weight of TV, and the iterations of SIRT, for each setting.
WEIGHTS = {"sparse": 7e-4, "full": 2e-4}
ITERATIONS = {"sparse": 120, "full": 240}
_TRIED_WEIGHTS = {"sparse": (5e-4, 7e-4, 1e-3, 1.4e-3), "full": (1e-4, 2e-4, 3e-4, 5e-4)}
_TRIED_ITERATIONS = {"sparse": (40, 80, 120, 160, 240), "full": (80, 160, 240)}
#: Scales at which means are kept, voxels.
_TRIED_SCALES = tuple(round(1 + 0.02 * n, 2) for n in range(31))
#: Networks for images, and for measurements with the setting that they were trained for.
MODELS = {"U-Net (low-dose-ct)": "low-dose-ct", "GAN (low-dose-ct-gan)": "low-dose-ct-gan"}
MEASUREMENT_MODELS = {"Learned Primal-Dual (sparse-view-ct)": ("sparse-view-ct", ("sparse",))}


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


def before_networks(measured: Measured) -> MetaTensor:
    """(1, W, H, S), HU: what the networks for images are given."""
    image = make_image(fbp(measured).transpose(2, 1, 0)[None], measured.measurement.affine)
    image.meta["assume_hounsfield"] = True
    return image


def by_model(name: str, **inference: Any) -> Callable[[Measured | MetaTensor], np.ndarray]:
    """A bundle: of images, which begins with filtered backprojection where it is given a measurement, or of
    measurements. inference: instead of what it says."""
    bundle = load_bundle(name)
    predictor = open_predictor(replace(bundle, inference=bundle.inference | inference), device="cpu")

    def run(given: Measured | MetaTensor) -> np.ndarray:
        if predictor.bundle.info.answers.domain == "measurement":
            result = predictor.predict(given.measurement)
        else:
            result = predictor.predict(given if isinstance(given, MetaTensor) else before_networks(given))
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


def bias(truth: np.ndarray, images: np.ndarray, before: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Tissue → mean of images minus truth, HU: "drawn" in regions as a reader would draw them, "voxels" voxel by voxel;
    and "added", of images minus ``before``, what the model was given, in the first of these."""
    found = {}
    for name, drawn in tissue_regions(truth, slices=0).items():
        low, high = TISSUES[name]
        found[name] = {
            "drawn": mean_difference(truth, images, drawn),
            "added": mean_difference(before, images, drawn),
            "voxels": mean_difference(truth, images, (truth > low) & (truth < high)),
            "size": int(drawn.sum()),
        }
    return found


def biases_of(
    scan: str, setting: str, options: argparse.Namespace, methods: dict[str, Callable[[Measured], np.ndarray]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Name → ``bias`` of FBP and of the models, over ``options.bias_slices`` slices."""
    kept = VALIDATION if scan == TRAINED else ()
    measured = measure(scan, setting, options.data, count=options.bias_slices, slices=kept)
    before = fbp(measured)
    models = [name for name in (*MODELS, *MEASUREMENT_MODELS) if name in methods]
    images = {"FBP": before} | {name: methods[name](measured) for name in models}
    return {name: bias(measured.truth, image, before) for name, image in images.items()}


def seen_by_networks(data: Path) -> list[tuple[np.ndarray, MetaTensor]]:
    """What the networks for images were validated with, from many views: slices (S, H, W), HU, and their filtered
    backprojection (1, W, H, S); thin and thick, on pixels twice as large as the scan's, and on its own (there from
    twice the views at half the photons)."""
    values, affine, _ = read_scan(TRAINED, data)
    full = SETTINGS["full"]
    acquisition = acquisition_of(
        {"kind": "ct", "oversampling": FINER, "views": 2 * full["views"], "photons": full["photons"] / 2}
    )
    seen = []
    for thick in (False, True):
        measured = measure(TRAINED, "full", data, slices=VALIDATION, thick=thick)
        seen.append((measured.truth, before_networks(measured)))
        truth = some_slices(values, VALIDATION, thick=thick)
        image = acquisition.degraded(make_image(truth.transpose(2, 1, 0)[None], affine), 1)
        image.meta["assume_hounsfield"] = True
        seen.append((truth, image))
    return seen


def tune(data: Path) -> None:
    """Print, of the slices for validation, the mean PSNR at each weight of TV and each number of iterations of SIRT,
    and the bias in bone at each scale at which means are kept."""
    for setting in SETTINGS:
        measured = measure(TRAINED, setting, data, slices=VALIDATION)
        for name, method, tried in (
            ("TV", by_tv, _TRIED_WEIGHTS[setting]),
            ("SIRT", by_sirt, _TRIED_ITERATIONS[setting]),
        ):
            means = {v: np.mean([s["psnr"] for s in scores(measured.truth, method(measured, v))]) for v in tried}
            line = ", ".join(f"{value:g}: {mean:.2f}" for value, mean in means.items())
            print(f"{setting}, {name}: {line} dB; best {max(means, key=means.get):g}", flush=True)
    seen = seen_by_networks(data)
    for model in MODELS.values():
        biases = {}
        for scale in _TRIED_SCALES:
            run = by_model(model, keep_means=scale)
            biases[scale] = [bias(truth, run(before), truth)["bone"]["drawn"] for truth, before in seen]
        line = "; ".join(f"{scale:g}: {' '.join(f'{b:+.1f}' for b in found)}" for scale, found in biases.items())
        best = min(biases, key=lambda scale: max(abs(b) for b in biases[scale]))
        print(f"{model}, bias in bone, thin and thick slices, on larger and own pixels: {line} HU; best {best:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=6, help="of each scan (default: 6)")
    parser.add_argument("--bias-slices", type=int, default=1000, help="of each scan, for the bias (default: all)")
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
            biases = biases_of(scan, setting, options, methods)
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
