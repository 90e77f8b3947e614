"""The demo's third part: a chest CT as if it had been taken at a low dose, and the shipped low-dose-ct on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_data import PYRADIOMICS, Wheel, cache_folder, extract, fetch
from MedMapAILib import mrml, standalone_scene
from MedMapAILib.bundle import BundleInfo, load_bundle
from MedMapAILib.image import affine_of, make_image, read_image, write_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.measurements.acquisition import acquisition_of
from MedMapAILib.metrics.image_quality import ImageQuality, image_quality
from MedMapAILib.terminal import ProgressBar

MODEL = "low-dose-ct"
SCAN = "lung1"
#: What is shown: so many slices around the tumor, and this much of them, mm.
SLICES, _NEAR_MM = 10, 50
#: A whole turn of views, and the photons that leave for each detector in each: a quarter of a usual 400 000.
ACQUISITION = {"kind": "ct", "views": 360, "photons": 100_000}
WINDOW = (-1000.0, 1000.0)


@dataclass(frozen=True)
class LowDoseReport:
    """What came of it. before, after: scores of the low-dose image and of the model's, against the scan as it was.
    pictures: picture → what is on it. files: name of a file → what it is."""

    model: BundleInfo
    before: ImageQuality
    after: ImageQuality
    shape: tuple[int, ...]
    device: str
    seconds: float
    pictures: dict[Path, str]
    files: dict[str, str]
    wheel: Wheel


def run_low_dose(output: Path) -> LowDoseReport:
    """Simulate the dose, run the model, write scene, volume and views into ``output``."""
    import slicer

    wheel, cache = PYRADIOMICS[f"{SCAN}_image"], cache_folder()
    archive = fetch(wheel, cache)
    whole = read_image(extract(wheel, archive, cache))
    label = read_image(extract(PYRADIOMICS[f"{SCAN}_label"], archive, cache)).numpy()[0] > 0
    affine = affine_of(whole)
    middle = np.argwhere(label).mean(axis=0)
    first = int(np.clip(round(middle[2]) - SLICES // 2, 0, whole.shape[3] - SLICES))
    place = affine.copy()
    place[:3, 3] += first * affine[:3, 2]
    truth = make_image(np.maximum(whole.numpy()[..., first : first + SLICES], WINDOW[0]), place)
    low = acquisition_of(ACQUISITION).degraded(truth, seed=1)

    slicer.mrmlScene.Clear(False)
    beforeNode = mrml.volume_node_from_image(low, name="Chest CT, low dose")
    predictor = open_predictor(load_bundle(MODEL))
    began = time.monotonic()
    with ProgressBar() as bar:
        result = predictor.predict(low, progress=bar)
    seconds = time.monotonic() - began
    afterNode = mrml.node_from_reconstruction(
        result, name="Chest CT, low dose, denoised", referenceVolumeNode=beforeNode
    )
    mrml.volume_node_from_image(truth, name="Chest CT")

    files = {"low_dose.mrb": "the scene: the CT, as if at a low dose, and denoised; open it in 3D Slicer"}
    standalone_scene.save_scene(output / "low_dose.mrb")
    write_image(make_image(result.values[None], result.affine), output / "denoised.nrrd")
    files["denoised.nrrd"] = "the denoised volume alone"
    center = tuple(float(x) for x in (affine @ np.append(middle, 1))[:3])
    pictures = {}
    for name, node, text in (
        ("views_low_dose.png", beforeNode, "the tumor in a CT simulated at a low dose, by Slicer's slice views"),
        ("views_denoised.png", afterNode, "the same after the model, in the same window"),
    ):
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(1500, -500)
        standalone_scene.render(output / name, node, (), center, fieldOfView=_NEAR_MM)
        pictures[output / name] = text
        files[name] = text
    reference = truth.numpy()[0]
    return LowDoseReport(
        model=predictor.bundle.info,
        before=image_quality(reference, low.numpy()[0], window=WINDOW, slices=2),
        after=image_quality(reference, result.values, window=WINDOW, slices=2),
        shape=tuple(truth.shape[1:]),
        device=predictor.device_description,
        seconds=seconds,
        pictures=pictures,
        files=files,
        wheel=wheel,
    )


def lines(report: LowDoseReport) -> list[str]:
    """What is printed at the end."""
    before, after = report.before, report.after
    return [
        f"{SCAN} as if taken with a quarter of the dose, {report.shape[2]} slices, denoised by {report.model.name} "
        f"({report.device}, {report.seconds:.1f} s):",
        f"  PSNR {before.psnr:.1f} to {after.psnr:.1f} dB, SSIM {before.ssim:.3f} to {after.ssim:.3f} against the scan "
        f"as it was (window {WINDOW[0]:.0f} to {WINDOW[1]:.0f} HU, data range {after.data_range:.0f})",
    ]
