"""The demo's second part: the shipped lung-nodule model on a whole chest CT, in Slicer's own scene and views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from demo_data import PYRADIOMICS, Wheel, cache_folder, extract, fetch
from MedMapAILib import mrml, standalone_scene
from MedMapAILib.bundle import BundleInfo, load_bundle
from MedMapAILib.datasets.findings_table import write_findings
from MedMapAILib.errors import RunError
from MedMapAILib.image import affine_of, read_image
from MedMapAILib.inference.opening import open_predictor
from MedMapAILib.results import Detections
from MedMapAILib.terminal import ProgressBar

MODEL = "lung-nodule"
SCAN = "lung1"
#: Edge of what the views show around a finding, mm.
_NEAR_MM = 110


@dataclass(frozen=True)
class LungReport:
    """What was found in the chest CT. truth: for each called finding the part of the reader's mask that lies in its
    box, 0 to 1. pictures: picture → what is on it. files: name of a file → what it is."""

    model: BundleInfo
    result: Detections
    truth: tuple[float, ...]
    shape: tuple[int, ...]
    device: str
    seconds: float
    pictures: dict[Path, str]
    files: dict[str, str]
    wheel: Wheel


def run_lungs(output: Path) -> LungReport:
    """Fetch the scan, run the model, write scene, table and views into ``output``. Raises RunError where nothing is
    found, which would be a fault of the model."""
    import slicer

    wheel, cache = PYRADIOMICS[f"{SCAN}_image"], cache_folder()
    archive = fetch(wheel, cache)
    image = read_image(extract(wheel, archive, cache))
    label = read_image(extract(PYRADIOMICS[f"{SCAN}_label"], archive, cache))
    slicer.mrmlScene.Clear(False)
    volumeNode = mrml.volume_node_from_image(image, name="Chest CT")
    display = volumeNode.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(1500, -500)
    predictor = open_predictor(load_bundle(MODEL))
    with ProgressBar() as bar:
        result = predictor.predict(image, progress=bar)
    if not result.called:
        raise RunError(f"The model {MODEL} found no nodule in {SCAN}; something is wrong with it.")
    mrml.nodes_from_detections(result, volumeNode, name="Lung nodules")
    files = {
        "lungs.mrb": "the scene: CT, one ROI a finding, and their table; open it in 3D Slicer",
        "nodules.csv": "the findings as a table, RAS mm",
        "nodules.mrk.json": "the findings as ROIs that Slicer reads",
    }
    standalone_scene.save_scene(output / "lungs.mrb")
    for name in ("nodules.csv", "nodules.mrk.json"):
        write_findings(result, output / name, scan=SCAN)
    picture = output / "views_lungs.png"
    standalone_scene.render(picture, volumeNode, (), result.called[0].center, fieldOfView=_NEAR_MM)
    pictures = {picture: "the finding that scores highest, with its box, by Slicer's slice and 3D views"}
    return LungReport(
        model=predictor.bundle.info,
        result=result,
        truth=tuple(share_inside(label, finding.bounds) for finding in result.called),
        shape=tuple(image.shape[1:]),
        device=predictor.device_description,
        seconds=predictor.seconds,
        pictures=pictures,
        files=files | {picture.name: pictures[picture]},
        wheel=wheel,
    )


def share_inside(label: Any, bounds: tuple[float, ...]) -> float:
    """Which part of a mask (1, I, J, K) lies in a box (lowest, then highest corner, RAS mm): 0 to 1."""
    places = np.argwhere(label.numpy()[0] > 0)
    if not len(places):
        return 0.0
    affine = affine_of(label)
    ras = places @ affine[:3, :3].T + affine[:3, 3]
    return float(((ras >= bounds[:3]) & (ras <= bounds[3:])).all(axis=1).mean())


def lines(report: LungReport) -> list[str]:
    """What is printed at the end."""
    text = [f"Nodules in {SCAN}, a chest CT of pyradiomics ({report.device}, {report.seconds:.1f} s):"]
    for number, (finding, share) in enumerate(zip(report.result.called, report.truth, strict=True), start=1):
        where = ", ".join(f"{v:.0f}" for v in finding.center)
        known = f"; holds {share:.0%} of the tumor that a reader outlined" if share else ""
        size = f"{finding.label} {finding.diameter_mm:.1f} mm"
        text.append(f"  {number}  {size} at ({where}) RAS, score {finding.score:.2f}{known}")
    return text
