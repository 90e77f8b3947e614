"""``medmapai reconstruct``: an image from a measurement, by a classical method or by a model trained to."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import InputError
from .image import WRITABLE, ending_of
from .terminal import ProgressBar

#: Of a reference's numbers those that are printed, with their form.
_SHOWN = {"psnr": "{:.2f} dB", "ssim": "{:.4f}", "nrmse": "{:.4f}"}


def add_reconstruct(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "reconstruct",
        help="make an image of a sinogram or a k-space",
        description="Make an image of a sinogram or a k-space. METHOD is fbp, sirt, sart, cgls, mlem, tv or "
        "plug-and-play for a sinogram; zero-filled, cg-sense, tv or wavelet for a k-space; or a model. "
        "`medmapai reconstruct help` lists them with their options.",
    )
    parser.add_argument("method", metavar="METHOD", help="a method, a model's name, a bundle's path, or help")
    parser.add_argument(
        "measurement",
        metavar="MEASUREMENT",
        type=Path,
        nargs="?",
        help="DataExchange, fastMRI or ISMRMRD (.h5), a sinogram (.nrrd) or k-space (.npy) with a .json beside it",
    )
    parser.add_argument(
        "output", metavar="OUT", type=Path, nargs="?", help="the image to write: .nrrd, .nii, .nii.gz, .mha"
    )
    parser.add_argument(
        "--geometry", type=Path, metavar="G", help="a JSON file that says what the measurement's file does not"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an option of the method, such as iterations=50"
    )
    parser.add_argument("--pixel", type=float, metavar="MM", help="side of a pixel of a CT image, mm")
    parser.add_argument("--size", type=_size, metavar="N|HxW", help="pixels of a CT image, rows and columns")
    parser.add_argument(
        "--rows", type=_range, metavar="A:B", help="which rows of the detector, or slices, from A to before B"
    )
    parser.add_argument(
        "--hounsfield",
        action=argparse.BooleanOptionalAction,
        help="whether a CT image is in HU or in 1/mm; by default as the measurement says (DataExchange: 1/mm)",
    )
    parser.add_argument("--reference", type=Path, metavar="V", help="a volume to score the image against")
    parser.add_argument(
        "--window", type=_window, metavar="LOW,HIGH", help="the display window that it is scored over, in its unit"
    )
    parser.add_argument(
        "--residuals", type=Path, metavar="R", help="write |A x - y| / |y| after each iteration: .csv, or a .png"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda:0 or mps")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_reconstruct)


def _reconstruct(options: argparse.Namespace) -> None:
    from .cli import RESEARCH_ONLY
    from .measurements.methods import METHODS, check_method
    from .measurements.options import parse_settings

    if options.method == "help" and options.measurement is None:
        print(methods_help())
        return
    if options.measurement is None or options.output is None:
        raise InputError("Give a method, a measurement and the image to write; see medmapai reconstruct --help.")
    _check_outputs(options)
    settings = parse_settings(options.set)
    if options.method in METHODS:
        # A mistake in an option is told before a large file is read.
        for kind in METHODS[options.method].kinds[:1] if len(METHODS[options.method].kinds) == 1 else ():
            check_method(options.method, kind, settings)
    else:
        _check_model(options.method, settings)
    from .measurements.files import read_measurement

    measurement = read_measurement(
        options.measurement,
        options.geometry,
        pixel_mm=options.pixel,
        image_size=options.size,
        rows=options.rows,
        hounsfield=options.hounsfield,
    )
    reference = None if options.reference is None else _reference(options, measurement)
    began = time.monotonic()
    with ProgressBar() as bar:
        result = reconstructed(options.method, measurement, settings, progress=bar, device=options.device)
    report = {
        "method": options.method,
        "how": result.method,
        "measurement": str(options.measurement),
        "output": str(options.output),
        "size": list(result.values.shape),
        "unit": result.unit,
        "seconds": round(time.monotonic() - began, 3),
        "residuals": list(result.residuals),
        "notes": list(result.notes),
        "warning": RESEARCH_ONLY,
    }
    if reference is not None:
        report["metrics"] = _score(result, reference, options.window)
    _write(result, options)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False))
        return
    for note in report["notes"]:
        print(note, file=sys.stderr)
    for name, form in _SHOWN.items():
        if report.get("metrics", {}).get(name) is not None:
            print(f"{name}: {form.format(report['metrics'][name])}")
    if "metrics" in report:
        print(f"data range: {report['metrics']['data_range']:g} {result.unit}")
    print(f"{options.output}  ({RESEARCH_ONLY})")


def reconstructed(
    method: str,
    measurement: Any,
    settings: dict[str, Any] | None = None,
    *,
    progress: Callable[[float, str], Any] | None = None,
    cancelled: Callable[[], bool] | None = None,
    device: str = "auto",
) -> Any:
    """The Reconstruction of a measurement by a method of METHODS, or by a model.

    method: a name in METHODS, a model's name, or a bundle's path. settings: options of a method; a model has none. A
    model that takes images is given the filtered backprojection, or the zero-filled image, and the notes say so.
    Raises InputError for what does not fit, Cancelled, RunError.
    """
    from .measurements.methods import METHODS, reconstruct_measurement

    run = {"progress": progress, "cancelled": cancelled}
    if method in METHODS:
        return reconstruct_measurement(method, measurement, options=settings, device=device, **run)
    images = _check_model(method, settings or {})
    from dataclasses import replace

    from .bundle import load_bundle
    from .image import make_image
    from .inference.opening import open_predictor

    bundle = load_bundle(method)
    if images.domain == "measurement":
        return open_predictor(bundle, device).predict(measurement, **run)
    first = reconstruct_measurement("fbp" if measurement.kind == "ct" else "zero-filled", measurement, device=device)
    if images.unit and images.unit != first.unit:
        raise InputError(
            f"The model {bundle.info.name} takes images in {images.unit}, and those of this measurement are in "
            f"{first.unit or 'no unit'}; give --hounsfield where it is of a patient."
        )
    # The measurement says whether it is of a patient; its image need not be asked.
    image = make_image(first.values[None], first.affine, meta={"assume_hounsfield": first.unit == "HU"})
    result = open_predictor(bundle, device).predict(image, **run)
    note = f"The model {bundle.info.name} takes an image: it was given the measurement's image by {first.method}."
    return replace(result, notes=(*first.notes, *result.notes, note))


def methods_help() -> str:
    """All methods with their options and defaults, for reading."""
    from .measurements.methods import METHODS

    lines = []
    kinds = {"ct": "sinograms", "mr": "k-spaces"}
    for name, method in METHODS.items():
        for kind in method.kinds:
            lines.append(f"{name} ({kinds[kind]}): {method.sentence}")
            lines += [
                f"    --set {key}={'' if option.default is None else option.default}".ljust(34) + f"{option.help}"
                for key, option in method.options[kind].items()
            ]
    return "\n".join([*lines, "Any other METHOD is a model: `medmapai models` lists them."])


def _check_model(name: str, settings: dict[str, Any]) -> Any:
    """The ImageKind of a model. Raises InputError where there is none, or it makes no images, or options are given."""
    from .bundle import read_info
    from .measurements.methods import METHODS

    try:
        info = read_info(name)
    except InputError as error:
        raise InputError(f"{name} is no method ({', '.join(METHODS)}), and no model: {error}") from None
    if info.images is None:
        raise InputError(f"The model {info.name} is for {info.task}, not for reconstruction; use medmapai run.")
    if settings:
        raise InputError(f"The model {info.name} has no options; leave --set out.")
    return info.images


def _check_outputs(options: argparse.Namespace) -> None:
    """Whether everything could be written, before any work is done. Raises InputError."""
    from .files import check_apart, check_place

    for output in (options.output, options.residuals):
        check_apart(output, (options.measurement, options.geometry, options.reference))
    if ending_of(options.output) not in WRITABLE:
        raise InputError(f"{options.output} cannot be written: its name must end in one of {', '.join(WRITABLE)}.")
    check_place(options.output)
    if options.residuals is not None:
        if options.residuals.suffix.lower() not in (".csv", ".png"):
            raise InputError(f"{options.residuals} must end in .csv or .png; rename it.")
        check_place(options.residuals)


def _reference(options: argparse.Namespace, measurement: Any) -> Any:
    """What the image is scored against: a volume on its grid, or a fastMRI file's own image. Raises InputError."""
    from .image import check_same_geometry, image_in_voxel_order, make_image, read_image
    from .measurements.fastmri import fastmri_reference
    from .measurements.hdf5 import SIGNATURE

    path = options.reference
    if path.is_file() and path.open("rb").read(len(SIGNATURE)) == SIGNATURE:
        found = fastmri_reference(path, slices=options.rows)
        if found is None:
            raise InputError(f"{path} holds no image (reconstruction_rss) to score against.")
        image = make_image(found.values[None], found.affine)
    else:
        image = read_image(path)
    import numpy as np

    grid = make_image(np.zeros((1, *measurement.shape), np.float32), measurement.affine)
    image = image_in_voxel_order(image, measurement.affine)
    check_same_geometry(image, grid, str(path), "the image to be made")
    return image


def _score(result: Any, reference: Any, window: tuple[float, float] | None) -> dict[str, Any]:
    """PSNR, SSIM and the others, slice by slice, with their data range."""
    from .metrics.image_quality import image_quality

    truth = reference[0].numpy()
    return image_quality(truth, result.values, window=window or result.window, slices=2).as_dict()


def _write(result: Any, options: argparse.Namespace) -> None:
    from .figures import draw_residuals
    from .files import write_atomically
    from .image import write_array

    if options.residuals is not None and result.residuals:
        if options.residuals.suffix.lower() == ".csv":
            rows = [f"{number},{value:.9g}" for number, value in enumerate(result.residuals, start=1)]
            write_atomically(options.residuals, "\n".join(["iteration,residual", *rows, ""]).encode())
        else:
            draw_residuals({result.method: result.residuals}, options.residuals)
    elif options.residuals is not None:
        print(f"{options.method} does not iterate; {options.residuals} was not written.", file=sys.stderr)
    write_array(result.values, result.affine, options.output)


def _size(text: str) -> int | tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of pixels nor rows x columns")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _range(text: str) -> tuple[int, int]:
    first, colon, end = text.partition(":")
    if not colon or not first.isdigit() or not end.isdigit() or int(first) >= int(end):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form A:B with A less than B, from 0")
    return int(first), int(end)


def _window(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH") from None
    if not low < high:
        raise argparse.ArgumentTypeError(f"{text!r}: the low end has to be below the high one")
    return low, high
