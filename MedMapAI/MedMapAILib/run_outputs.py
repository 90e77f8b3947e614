"""What ``medmapai run`` takes, writes and says, by task."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError


class _Output:
    """What all have in common."""

    def scores(self, task: Any, result: Any, reference: Any) -> dict[str, Any]:
        """How well the result agrees with the reference."""
        return task.evaluate(result, reference)


class SegmentationOutput(_Output):
    """A label map or segmentation file; volumes and places of the segments."""

    def __init__(self, options: argparse.Namespace):
        from .results import check_writable_segmentation

        if options.saliency is not None:
            raise InputError("--saliency is for models that classify; this one segments.")
        _refuse_proposals(options)
        check_writable_segmentation(options.output)
        self._options = options

    def wishes(self, bundle: Any) -> dict[str, Any]:
        """What to ask of the predictor besides."""
        return {}

    def reference(self, bundle: Any, image: Any) -> Any:
        """The reference of --reference, on the grid of the image, or None."""
        from .image import affine_of, check_same_geometry
        from .results import read_segmentation

        if self._options.reference is None:
            return None
        reference = read_segmentation(self._options.reference, segments=bundle.info.segments)
        reference = reference.in_voxel_order(affine_of(image))
        check_same_geometry(image, reference, str(self._options.input), str(self._options.reference))
        return reference

    def found(self, result: Any) -> dict[str, Any]:
        """The result in numbers, for the report."""
        return {
            "volumes_ml": {name: round(volume, 4) for name, volume in result.volumes_ml().items()},
            "centroids_ras_mm": {name: [round(x, 2) for x in point] for name, point in result.centroids_ras().items()},
        }

    def write(self, result: Any, report: dict[str, Any]) -> None:
        """Write the files that were asked for."""
        from .results import write_segmentation

        write_segmentation(result, self._options.output)

    def show(self, image: Any, result: Any) -> None:
        """Write scene and picture."""
        from . import mrml

        centers = list(result.centroids_ras().values())
        center = [sum(axis) / len(centers) for axis in zip(*centers, strict=True)] if centers else None
        with _scene(self._options, image) as (stem, volume, look):
            node = mrml.node_from_segmentation(result, name=f"{stem} segmentation", referenceVolumeNode=volume)
            look |= {"segmentationNodes": [node], "center": center}

    def say(self, report: dict[str, Any]) -> None:
        """Print the report for a person."""
        for name, volume in report["volumes_ml"].items():
            where = report["centroids_ras_mm"].get(name)
            place = f"centered at {', '.join(f'{x:.1f}' for x in where)} mm (RAS)" if where else "not found"
            print(f"{name}: {volume:.2f} mL, {place}")
        for name, value in report.get("metrics", {}).get("mean", {}).items():
            print(f"mean {name}: {'not defined' if value is None else format(value, '.4g')}")


class ClassificationOutput(_Output):
    """A table or JSON file of classes and probabilities; a saliency map as a volume."""

    def __init__(self, options: argparse.Namespace):
        from .files import check_place
        from .image import WRITABLE, ending_of
        from .results import check_writable_classification

        check_writable_classification(options.output)
        _refuse_proposals(options)
        if options.saliency is not None:
            if ending_of(options.saliency) not in WRITABLE:
                raise InputError(f"{options.saliency} must end in one of {', '.join(WRITABLE)}; rename it.")
            check_place(options.saliency)
        self._options = options

    def wishes(self, bundle: Any) -> dict[str, Any]:
        """What to ask of the predictor besides."""
        options = self._options
        wanted = options.saliency is not None or options.scene is not None or options.picture is not None
        return {"saliency": options.saliency_method, "of_class": options.saliency_class} if wanted else {}

    def reference(self, bundle: Any, image: Any) -> Any:
        """The true classes named by --reference, or None."""
        from .results import ClassReference

        if self._options.reference is None:
            return None
        classes = bundle.info.classes
        names = [name.strip() for name in self._options.reference.split(",") if name.strip()]
        unknown = [name for name in names if name not in classes.names]
        if unknown or (len(names) != 1 and classes.kind != "multi-label"):
            wrong = f"{unknown[0]!r} is none" if unknown else f"{len(names)} classes are given"
            raise InputError(f"--reference: {wrong}; the classes are {', '.join(classes.names)}.")
        return ClassReference(classes.names, classes.kind, tuple(sorted(classes.names.index(name) for name in names)))

    def found(self, result: Any) -> dict[str, Any]:
        """The result in numbers, for the report."""
        return result.to_dict()

    def write(self, result: Any, report: dict[str, Any]) -> None:
        """Write the files that were asked for."""
        from .image import make_image, write_image
        from .results import write_classification

        if self._options.saliency is not None:
            write_image(make_image(result.saliency.values[None], result.saliency.affine), self._options.saliency)
        about = {key: report[key] for key in ("model", "device", "warning")}
        write_classification(result, self._options.output, about)

    def show(self, image: Any, result: Any) -> None:
        """Write scene and picture."""
        from . import mrml

        with _scene(self._options, image) as (stem, _, look):
            mrml.node_from_classification(result, name=f"{stem} classification")
            look["overlayNode"] = mrml.node_from_saliency(result.saliency, name=f"{stem} {result.saliency.method}")

    def say(self, report: dict[str, Any]) -> None:
        """Print the report for a person."""
        for name, probability in report["probabilities"].items():
            threshold = report["thresholds"][name]
            called = "  called" if name in report["called"] else ""
            print(f"{name}: {probability:.4f}" + (f" (operating point {threshold:.4f})" if threshold else "") + called)
        if not report["called"]:
            print("None of the classes reaches its operating point.")
        if report["familiarity"] and report["familiarity"]["sentence"]:
            print(report["familiarity"]["sentence"])
        if report["saliency"] and report["saliency"]["warning"]:
            print(report["saliency"]["warning"])
        for name, value in report.get("metrics", {}).items():
            print(f"{name.replace('_', ' ')}: {value:.4g}")


class DetectionOutput(_Output):
    """A table, JSON or markups file of findings."""

    def __init__(self, options: argparse.Namespace):
        from .datasets.findings_table import check_writable_findings

        if options.saliency is not None:
            raise InputError("--saliency is for models that classify; this one detects.")
        check_writable_findings(options.output)
        self._options = options

    def wishes(self, bundle: Any) -> dict[str, Any]:
        """What to ask of the predictor besides."""
        from .datasets.findings_table import read_findings

        if self._options.proposals is None:
            return {}
        if bundle.network["name"] != "fast-rcnn":
            raise InputError(
                f"--proposals is for a network that chooses among given boxes (fast-rcnn), and {bundle.info.name} is "
                "none; leave it out."
            )
        return {"proposals": read_findings(self._options.proposals).findings}

    def reference(self, bundle: Any, image: Any) -> Any:
        """The findings in the file of --reference, or None."""
        from .datasets.finding_geometry import fit_findings
        from .datasets.findings_table import read_findings
        from .image import affine_of

        path = self._options.reference
        if path is None:
            return None
        reference = read_findings(path, classes=bundle.info.findings.names)
        outside = fit_findings(reference.findings, image.shape[1:], affine_of(image)).outside
        if outside:
            raise InputError(
                f"{len(outside)} of {len(reference.findings)} findings of {path} lie wholly outside of "
                f"{self._options.input}; check that they are of this scan and that their frame (RAS or LPS) is right."
            )
        return reference

    def found(self, result: Any) -> dict[str, Any]:
        """What was called, in numbers, for the report; coordinates are RAS mm."""
        return {
            "frame": "RAS mm",
            "threshold": result.threshold,
            "candidates": len(result.findings),
            "findings": [
                {
                    "rank": rank,
                    "label": finding.label,
                    "score": finding.score,
                    "center": [round(x, 2) for x in finding.center],
                    "size_mm": [round(x, 2) for x in finding.size],
                    "diameter_mm": round(finding.diameter_mm, 2),
                    "volume_ml": round(finding.volume_ml, 4),
                }
                for rank, finding in enumerate(result.called, start=1)
            ],
        }

    def write(self, result: Any, report: dict[str, Any]) -> None:
        """Write the files that were asked for."""
        from .datasets.findings_table import write_findings

        stem = Path(self._options.input).name.split(".")[0]
        write_findings(result, self._options.output, scan=stem, about={"model": report["model"]})

    def show(self, image: Any, result: Any) -> None:
        """Write scene and picture."""
        from . import mrml

        called = result.called
        with _scene(self._options, image) as (stem, volume, look):
            mrml.nodes_from_detections(result, volume, name=f"{stem} findings")
            look["center"] = called[0].center if called else None

    def say(self, report: dict[str, Any]) -> None:
        """Print the report for a person."""
        for finding in report["findings"]:
            place = ", ".join(f"{x:.1f}" for x in finding["center"])
            score = "" if finding["score"] is None else f", score {finding['score']:.3f}"
            print(
                f"{finding['rank']}. {finding['label']}{score}: {finding['diameter_mm']:.1f} mm, centered at {place} "
                "mm (RAS)"
            )
        if not report["findings"]:
            print(f"No finding reaches the operating point ({report['threshold']:.3f}).")
        print(f"{report['candidates']} candidates in all, down to the lowest scores, are in the file.")
        for name, value in report.get("metrics", {}).items():
            print(f"{name.replace('_', ' ')}: {value:g}")


class ReconstructionOutput(_Output):
    """An image, as a volume file."""

    def __init__(self, options: argparse.Namespace):
        from .files import check_place
        from .image import WRITABLE, ending_of

        if options.saliency is not None:
            raise InputError("--saliency is for models that classify; this one makes images.")
        _refuse_proposals(options)
        if ending_of(options.output) not in WRITABLE:
            raise InputError(f"{options.output} must end in one of {', '.join(WRITABLE)}; rename it.")
        check_place(options.output)
        self._options = options

    def wishes(self, bundle: Any) -> dict[str, Any]:
        """What to ask of the predictor besides."""
        if bundle.info.images.domain == "measurement":
            raise InputError(
                f"The model {bundle.info.name} makes images of measurements, not of images; use `medmapai reconstruct "
                f"{bundle.info.name} MEASUREMENT OUT`."
            )
        return {}

    def reference(self, bundle: Any, image: Any) -> Any:
        """The image of --reference, on the grid of the image, or None."""
        from .image import affine_of, check_same_geometry, image_in_voxel_order, read_image
        from .results import ImageReference

        self.wishes(bundle)
        if self._options.reference is None:
            return None
        reference = image_in_voxel_order(read_image(self._options.reference), affine_of(image))
        check_same_geometry(image, reference, str(self._options.input), str(self._options.reference))
        return ImageReference(reference.numpy()[0], affine_of(reference))

    def found(self, result: Any) -> dict[str, Any]:
        """The result in numbers, for the report."""
        values = result.values
        return {
            "unit": result.unit,
            "window": list(result.window) if result.window else None,
            "mean": round(float(values.mean(dtype="float64")), 4),
            "lowest": round(float(values.min()), 4),
            "highest": round(float(values.max()), 4),
        }

    def scores(self, task: Any, result: Any, reference: Any) -> dict[str, Any]:
        """PSNR, SSIM and the others in the whole image and, where a region was chosen, in it alone."""
        from .inference.scoring import image_scores

        scores = image_scores(task.evaluate, result, reference, roi=self._options.roi)
        region = scores.pop("region", {})
        return scores | {f"roi_{name}": value for name, value in region.items()}

    def write(self, result: Any, report: dict[str, Any]) -> None:
        """Write the files that were asked for."""
        from .image import make_image, write_image

        write_image(make_image(result.values[None], result.affine), self._options.output)

    def show(self, image: Any, result: Any) -> None:
        """Write scene and picture."""
        from . import mrml

        with _scene(self._options, image) as (stem, volume, look):
            node = mrml.node_from_reconstruction(result, name=f"{stem} reconstructed", referenceVolumeNode=volume)
            look["volumeNode"] = node

    def say(self, report: dict[str, Any]) -> None:
        """Print the report for a person."""
        unit = f" {report['unit']}" if report["unit"] else ""
        print(f"values from {report['lowest']:g} to {report['highest']:g}{unit}, mean {report['mean']:g}{unit}")
        for name, value in report.get("metrics", {}).items():
            said = "not defined" if value is None else format(value, ".4g")
            print(f"{name.replace('_', ' ')}: {said}")
        if report.get("metrics") and report["window"]:
            low, high = report["window"]
            print(f"(over the window from {low:g} to {high:g}{unit})")


def _refuse_proposals(options: argparse.Namespace) -> None:
    if options.proposals is not None:
        raise InputError("--proposals is for models that detect; leave it out.")


def _refuse_generator(options: argparse.Namespace) -> Any:
    raise InputError(
        f"The model {options.model} makes images and looks at none; use `medmapai generate {options.model} OUT_DIR`."
    )


#: Task → what it takes, writes and says.
OUTPUTS = {
    "segmentation": SegmentationOutput,
    "classification": ClassificationOutput,
    "detection": DetectionOutput,
    "reconstruction": ReconstructionOutput,
    "generation": _refuse_generator,
}


@contextlib.contextmanager
def _scene(options: argparse.Namespace, image: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """A scene with the image, for the block to add nodes to; then --scene and --picture are written.

    Gives a name for the image, its node, and an empty dictionary for how ``standalone_scene.render`` shall show it.
    """
    from . import mrml, standalone_scene

    standalone_scene.start()
    stem = Path(options.input).name.split(".")[0] or "Image"
    volume = mrml.volume_node_from_image(image, name=stem)
    look: dict[str, Any] = {}
    yield stem, volume, look
    if options.scene is not None:
        standalone_scene.save_scene(options.scene)
    if options.picture is not None:
        standalone_scene.render(options.picture, volume, **look)
