"""``make demo``: shipped models on a real MR image and a chest CT, in Slicer's own scene and views, with a report."""

from __future__ import annotations

import csv
import io
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from demo_data import MNI152_T1, cache_folder, extract, fetch
from demo_low_dose import lines as low_dose_lines
from demo_low_dose import run_low_dose
from demo_lungs import lines, run_lungs
from demo_report import Report, write_report
from MedMapAILib import mrml, standalone_scene
from MedMapAILib.bundle import load_bundle
from MedMapAILib.errors import InputError, RunError
from MedMapAILib.files import write_atomically
from MedMapAILib.image import read_image
from MedMapAILib.inference.predictor import Predictor
from MedMapAILib.results import Segment, Segmentation, write_segmentation
from MedMapAILib.terminal import ProgressBar

OUTPUT = Path(__file__).resolve().parents[2] / "demo"
MODEL = "hippocampus"
#: Where the hippocampi lie in the template, and boxes as large as the crops that the model was trained on: RAS mm.
CENTERS = {"Right": (26.0, -22.0, -14.0), "Left": (-26.0, -22.0, -14.0)}
BOX = (40.0, 60.0, 45.0)


def main() -> int:
    """Run the demo and return its exit status: 0 done, 2 the input is wrong, 1 it failed."""
    warnings.simplefilter("ignore", FutureWarning)  # libraries' remarks about themselves
    try:
        _run(OUTPUT)
    except (InputError, RunError) as error:
        print(f"medmapai: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print("medmapai: stopped.", file=sys.stderr)
        return 1
    return 0


def _run(output: Path) -> None:
    began = time.monotonic()
    output.mkdir(exist_ok=True)
    _step("the MNI152 T1 template, from PyPI's nilearn (checked, kept in the cache)")
    cache = cache_folder()
    path = extract(MNI152_T1, fetch(MNI152_T1, cache), cache)

    _step("Slicer's scene")
    standalone_scene.start()
    volumeNode = mrml.volume_node_from_image(read_image(path), name="MNI152 T1")
    roiNodes = {side: _roi_node(f"{side} hippocampus box", center) for side, center in CENTERS.items()}

    _step(f"the model {MODEL}, on each side")
    predictor = Predictor(load_bundle(MODEL))
    image = mrml.image_from_node(volumeNode)
    results, seconds = {}, 0.0
    with ProgressBar() as bar:
        for side, node in roiNodes.items():
            results[side] = predictor.predict(image, roi=mrml.roi_bounds(node), progress=bar)
            seconds += predictor.seconds
    both = join_sides(results)
    volumes = both.volumes_ml()
    if not any(volumes.values()):
        raise RunError("The model found no hippocampus in the template; something is wrong with it.")

    _step("Slicer's segmentation, table and views")
    segmentationNode = mrml.node_from_segmentation(both, name="Hippocampi", referenceVolumeNode=volumeNode)
    mrml.node_from_volumes_table(both, name="Hippocampus volumes")
    pictures = _pictures(output, volumeNode, segmentationNode, results)
    files = {
        "hippocampus.mrb": "the scene: image, boxes, segmentation and table; open it in 3D Slicer",
        "hippocampus.seg.nrrd": "the segmentation alone",
        "volumes.csv": "the table alone",
        **{picture.name: text for picture, text in pictures.items()},
    }
    standalone_scene.save_scene(output / "hippocampus.mrb")
    write_segmentation(both, output / "hippocampus.seg.nrrd")
    write_atomically(output / "volumes.csv", volumes_csv(both).encode())
    _step("the model lung-nodule on a whole chest CT, from PyPI's pyradiomics (checked, kept in the cache)")
    lungs = run_lungs(output)
    _step("the model low-dose-ct on that CT, as if it had been taken with a quarter of the dose")
    low_dose = run_low_dose(output)
    report = Report(
        model=predictor.bundle.info,
        segmentation=both,
        image=image,
        boxes={side: (center, BOX) for side, center in CENTERS.items()},
        device=predictor.device_description,
        seconds=seconds,
        pictures=pictures,
        files=files,
        wheel=MNI152_T1,
        lungs=lungs,
        low_dose=low_dose,
    )
    write_report(report, output / "report.html")

    print(f"\nHippocampi of the MNI152 template ({predictor.device_description}, {seconds:.1f} s for both sides):")
    for side in CENTERS:
        parts = {name: volume for name, volume in volumes.items() if name.startswith(side)}
        print(f"  {side:<5}  {sum(parts.values()):.2f} mL:  " + ",  ".join(f"{n} {v:.2f} mL" for n, v in parts.items()))
    print("\n" + "\n".join(lines(lungs)))
    print("\n" + "\n".join(low_dose_lines(low_dose)))
    print(f"\nIn {output}:")
    found = {"report.html": "what was done and found, with the pictures", **files, **lungs.files, **low_dose.files}
    for name, text in found.items():
        print(f"  {name:<22}{text}")
    print(f"\nResearch use only; not a medical device.  ({time.monotonic() - began:.0f} s in all)")


def join_sides(results: dict[str, Segmentation]) -> Segmentation:
    """One segmentation of those of both sides, on the same grid: "Anterior …" becomes "Right anterior …".

    The values of later sides follow those of earlier ones. Voxels of two sides at once stay with the earlier one.
    """
    segments: list[Segment] = []
    labels, first = None, next(iter(results.values()))
    labels = np.zeros_like(first.labels)
    for side, result in results.items():
        shift = max((s.value for s in segments), default=0)
        labels = np.where((labels == 0) & (result.labels > 0), result.labels + shift, labels).astype(first.labels.dtype)
        segments += [
            replace(s, value=s.value + shift, name=f"{side} {s.name[:1].lower()}{s.name[1:]}") for s in result.segments
        ]
    notes = tuple(dict.fromkeys(note for result in results.values() for note in result.notes))
    return Segmentation(labels, first.affine, tuple(segments), notes)


def volumes_csv(segmentation: Segmentation) -> str:
    """A row for each segment: its voxels, its volume in mL and its center in RAS mm."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["segment", "voxels", "volume_ml", "center_r_mm", "center_a_mm", "center_s_mm"])
    volumes, centers = segmentation.volumes_ml(), segmentation.centroids_ras()
    for segment in segmentation.segments:
        center = [f"{x:.1f}" for x in centers.get(segment.name, ())] or [""] * 3
        count = int((segmentation.labels == segment.value).sum())
        writer.writerow([segment.name, count, f"{volumes[segment.name]:.3f}", *center])
    return text.getvalue()


def _roi_node(name: str, center: tuple[float, float, float]) -> Any:
    """A markups ROI of the demo's box size, hidden so that it does not cover what it is about."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
    node.SetCenter(center)
    node.SetSize(BOX)
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility(False)
    return node


def _pictures(
    output: Path, volumeNode: Any, segmentationNode: Any, results: dict[str, Segmentation]
) -> dict[Path, str]:
    """Slicer's views of both hippocampi, and of each from near. Returns what is on each picture."""
    made = {}
    centers = {side: _center_of(result) for side, result in results.items()}
    path = output / "views.png"
    standalone_scene.render(path, volumeNode, [segmentationNode], centers["Right"])
    made[path] = "both hippocampi in the whole head, by Slicer's slice and 3D views"
    for side, center in centers.items():
        path = output / f"views_{side.lower()}.png"
        _show(segmentationNode, side)
        standalone_scene.render(path, volumeNode, [segmentationNode], center, fieldOfView=80)
        made[path] = f"the {side.lower()} hippocampus from near, by the same views"
    _show(segmentationNode, "")
    return made


def _show(segmentationNode: Any, start: str) -> None:
    """Show the segments whose names start so, and hide the others."""
    content, display = segmentationNode.GetSegmentation(), segmentationNode.GetDisplayNode()
    for number in range(content.GetNumberOfSegments()):
        identifier = content.GetNthSegmentID(number)
        display.SetSegmentVisibility(identifier, content.GetSegment(identifier).GetName().startswith(start))


def _center_of(segmentation: Segmentation) -> tuple[float, ...]:
    """The center of gravity of all segments together, RAS mm; that of the grid where all are empty."""
    where = np.argwhere(segmentation.labels > 0)
    middle = where.mean(axis=0) if len(where) else (np.array(segmentation.labels.shape) - 1) / 2
    return tuple(float(x) for x in segmentation.affine[:3, :3] @ middle + segmentation.affine[:3, 3])


def _step(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
