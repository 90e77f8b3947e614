"""``medmapai simulate``: what a scanner would have measured of a volume, at a dose and with views that are chosen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .errors import InputError, NotHounsfield
from .files import check_apart, check_place, write_atomically
from .image import WRITABLE, ending_of
from .terminal import ProgressBar

#: Endings that no measurement has: an image is meant.
_ONLY_IMAGES = tuple(ending for ending in WRITABLE if ending != ".nrrd")
#: Options of the command line that are settings of an acquisition → what they are called there.
_SETTINGS = {
    "beam": "beam",
    "views": "views",
    "arc": "arc_degrees",
    "photons": "photons",
    "electronic_noise": "electronic_noise",
    "sampling": "sampling",
    "acceleration": "acceleration",
    "coils": "coils",
    "noise": "noise",
    "sd": "sd",
    "copies": "copies",
}


def add_simulate(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        "simulate", help="simulate a CT or MR measurement of a volume, or what a poorer scan would have shown of it"
    )
    parser.add_argument(
        "volume",
        metavar="VOLUME",
        type=Path,
        help="a volume file or a DICOM folder; with --pairs a folder of them, or a table with the column image",
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        type=Path,
        help="a measurement: .nrrd (and a .json beside it) or .h5 for CT, .npy (and .json) or .h5 for MR; an image "
        "where it ends in .nii.gz, .nii or .mha, or with --image; with --pairs the folder of the data set to make",
    )
    parser.add_argument("--kind", default="ct", choices=("ct", "mr", "noise"), help="what scans (default: ct)")
    parser.add_argument(
        "--image", action="store_true", help="write the image: FBP of CT, zero-filled MR, with the noise"
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="make a data set to train with: inputs/ (images, simulated), targets/ and about.json; files are numbered",
    )
    ct = parser.add_argument_group("CT (--kind ct)")
    ct.add_argument("--beam", choices=("parallel", "fan"), help="geometry (default: parallel)")
    ct.add_argument("--views", type=_numbers, metavar="N", help="views (default: 360); N,N,… draws one of them")
    ct.add_argument("--arc", type=_numbers, metavar="DEGREES", help="that views spread over (default: all that count)")
    ct.add_argument(
        "--photons",
        type=_numbers,
        metavar="P",
        help="for each detector in each view (default: 100000); LOW,HIGH draws; 0 leaves out all noise",
    )
    ct.add_argument("--electronic-noise", type=_numbers, metavar="SD", help="in photons (default: 5)")
    mr = parser.add_argument_group("MR (--kind mr)")
    mr.add_argument("--sampling", metavar="NAME", help="random, equispaced, variable-density, poisson-disc …")
    mr.add_argument("--acceleration", type=_numbers, metavar="R", help="(default: 4); LOW,HIGH draws")
    mr.add_argument("--coils", type=_numbers, metavar="C", help="on a ring (default: 1)")
    mr.add_argument("--noise", type=_numbers, metavar="SD", help="part of the brightest tissue (default: 0.01)")
    noise = parser.add_argument_group("noise in the image (--kind noise)")
    noise.add_argument("--sd", type=_numbers, metavar="SD", help="in the image's unit (default: 20); LOW,HIGH draws")
    parser.add_argument("--copies", type=_numbers, metavar="N", help="with --pairs: inputs made of each image")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a further setting, as in section [acquisition] of a training, such as filter=hann or oversampling=2",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all draws (default: 0)")
    parser.add_argument("--patient-pattern", metavar="P", help="with --pairs: finds the patient in a file's name")
    parser.add_argument("--add-hu", type=float, default=0.0, metavar="HU", help="added to every voxel first")
    parser.add_argument(
        "--assume-hu", action="store_true", help="go on where the values of a CT do not look like Hounsfield units"
    )
    parser.add_argument("--series", metavar="UID", help="which series of a DICOM folder with several")
    parser.add_argument("--frame", type=int, metavar="N", help="which frame of a 4D file, from 0")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda:0")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_simulate)


def _simulate(options: argparse.Namespace) -> None:
    from .measurements.acquisition import acquisition_of

    acquisition = acquisition_of(_settings(options))
    acquisition.drawn(options.seed)
    if options.pairs:
        report = _pairs(options, acquisition)
    elif options.image or acquisition.kind == "noise" or ending_of(options.output) in _ONLY_IMAGES:
        report = _image(options, acquisition)
    else:
        report = _measurement(options, acquisition)
    report["warning"] = "Simulated; no scan of a patient."
    sentence = report.pop("sentence")
    print(json.dumps(report, indent=2) if options.json else f"{options.output}: {sentence} ({report['warning']})")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The section [acquisition] that the options mean."""
    settings: dict[str, Any] = {"kind": options.kind}
    for name, key in _SETTINGS.items():
        value = getattr(options, name)
        if value is not None:
            settings[key] = value
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text} is not of the form key=value, for example filter=hann.")
        try:
            settings[key.strip()] = json.loads(value)
        except ValueError:
            settings[key.strip()] = value.strip()
    return settings


def _pairs(options: argparse.Namespace, acquisition: Any) -> dict[str, Any]:
    from .datasets.volumes import open_volumes
    from .measurements.simulated_pairs import make_pairs

    if not options.volume.exists():
        raise InputError(f"There is no file or folder {options.volume}.")
    if options.series is not None or options.frame is not None:
        raise InputError("--series and --frame are for one volume, not for a data set of pairs.")
    volumes = open_volumes(options.volume, patient_pattern=options.patient_pattern)
    with ProgressBar() as bar:
        make_pairs(
            volumes.cases,
            options.output,
            acquisition,
            seed=options.seed,
            add_hu=options.add_hu,
            assume_hounsfield=options.assume_hu,
            device=_device(options),
            progress=bar,
        )
    count = len(volumes.cases) * acquisition.copies
    return {
        "output": str(options.output),
        "pairs": count,
        "seed": options.seed,
        "acquisition": acquisition.about,
        "sentence": f"{count} pairs of {len(volumes.cases)} images, seed {options.seed}",
    }


def _image(options: argparse.Namespace, acquisition: Any) -> dict[str, Any]:
    from . import __version__
    from .image import affine_of, write_array
    from .measurements.simulated_pairs import SIMULATED

    ending = ending_of(options.output)
    if ending not in WRITABLE:
        raise InputError(f"{options.output} cannot be written: an image ends in one of {', '.join(WRITABLE)}.")
    # An .nrrd has room for what was drawn; beside it, a .json would make it a sinogram.
    beside = None if ending == ".nrrd" else options.output.with_name(options.output.name[: -len(ending)] + ".json")
    for path in (options.output, *([beside] if beside else [])):
        check_apart(path, (options.volume,))
        check_place(path)
    image = _read(options)
    drawn = acquisition.drawn(options.seed)
    with ProgressBar() as bar:
        degraded = _checked(options, lambda: drawn.degraded(image, options.seed, device=_device(options), progress=bar))
    about = {
        "simulated": SIMULATED,
        "made_by": f"MedMapAI {__version__}",
        "seed": options.seed,
        "acquisition": drawn.about,
    }
    header = {"simulated": SIMULATED, "acquisition": json.dumps({key: about[key] for key in ("seed", "acquisition")})}
    write_array(degraded[0].numpy(), affine_of(degraded), options.output, header)
    if beside:
        write_atomically(beside, (json.dumps(about, indent=2) + "\n").encode())
    return {
        "output": str(options.output),
        "size": list(degraded.shape[1:]),
        "seed": options.seed,
        "acquisition": drawn.about,
        "sentence": f"an image of {'×'.join(map(str, degraded.shape[1:]))} voxels, {_in_words(drawn.about)}",
    }


def _measurement(options: argparse.Namespace, acquisition: Any) -> dict[str, Any]:
    from .measurements.files import check_writable_measurement, write_measurement

    check_apart(options.output, (options.volume,))
    check_writable_measurement(options.output, kind=acquisition.kind)
    image = _read(options)
    drawn = acquisition.drawn(options.seed)
    with ProgressBar() as bar:
        measured = _checked(
            options, lambda: drawn.simulate_volume(image, options.seed, device=_device(options), progress=bar)
        )
    write_measurement(measured, options.output)
    values = measured.line_integrals if measured.kind == "ct" else measured.k_space
    return {
        "output": str(options.output),
        "size": list(values.shape),
        "seed": options.seed,
        "acquisition": drawn.about,
        "notes": list(measured.notes),
        "sentence": f"{len(values)} slices, {_in_words(drawn.about)}",
    }


def _read(options: argparse.Namespace) -> Any:
    from .image import read_image

    image = read_image(options.volume, series=options.series, frame=options.frame)
    if options.add_hu:
        image = image + options.add_hu
    image.meta["assume_hounsfield"] = options.assume_hu
    return image


def _checked(options: argparse.Namespace, make: Any) -> Any:
    """What ``make`` makes; where the volume is no CT, the sentence says what else it can be taken for."""
    try:
        return make()
    except NotHounsfield as error:
        raise NotHounsfield(f"{options.volume}: {error} An MR volume is measured with --kind mr.") from None


def _device(options: argparse.Namespace) -> Any:
    from .devices import choose_device

    device = choose_device(options.device)
    # Sparse matrices in double precision, which the projector is made of, are nothing for Apple's GPUs.
    return "cpu" if options.device == "auto" and device.type == "mps" else device


def _in_words(about: dict[str, Any]) -> str:
    """What matters most of an acquisition."""
    seed = f"seed {about['seed']}"
    if about["kind"] == "ct":
        photons = f"{about['photons']:.0f} photons" if about["photons"] else "no noise"
        return f"{about['views']} views, {about['beam']} beam, {photons}, {seed}"
    if about["kind"] == "mr":
        return (
            f"{about['sampling']} sampling, acceleration {about['acceleration']:.3g}, {about['coils']} coil(s), {seed}"
        )
    return f"{about['distribution']} noise of standard deviation {about['sd']:.4g}, {seed}"


def _numbers(text: str) -> Any:
    """A number, or several between commas, as JSON would have them."""
    try:
        values = [json.loads(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, and no numbers with commas between them") from None
    return values[0] if len(values) == 1 else values
