"""The command line, ``medmapai``.

Exit status: 0 done; 2 the input or the call is wrong, in one line that says what and where; 1 it failed. ``--json``
prints one JSON object on standard output and nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .errors import Cancelled, InputError, NotHounsfield, RunError
from .froc_command import add_froc
from .generate_command import add_generate
from .reading_command import add_reading
from .reconstruct_command import add_reconstruct
from .simulate_command import add_simulate
from .terminal import ProgressBar
from .transplant_command import add_transplant

#: Of a model's held-out metrics those that a list has room for.
_SHOWN = (
    "dice",
    "iou",
    "hd95_mm",
    "auc",
    "accuracy",
    "balanced_accuracy",
    "froc",
    "recall",
    "precision",
    "psnr_db",
    "ssim",
    "coverage",
)
#: Tasks whose scores come with curves.
_HAS_CURVES = ("classification", "detection")
RESEARCH_ONLY = "Research use only; not a medical device."

_NO_MEMORY = "medmapai: out of memory; close other programs, or ask for less (a smaller region, image or batch)."


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # Chatter of libraries about themselves is not for users.
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            return options.command(options) or 0
        except NotHounsfield as error:
            ways = " (--add-hu=HU adds a number to every voxel, --assume-hu goes on.)"
            _say(f"medmapai: {_one_line(error)}{ways if hasattr(options, 'assume_hu') else ''}")
            return 2
        except InputError as error:
            _say(f"medmapai: {_one_line(error)}")
            return 2
        except RunError as error:
            _say(f"medmapai: {_one_line(error)}")
            return 1
        except (Cancelled, KeyboardInterrupt):
            _say("medmapai: stopped; nothing was left half-written.")
            return 1
        except MemoryError:
            _say(_NO_MEMORY)
            return 1
        except RuntimeError as error:
            # torch has no error of its own for a processor without memory.
            if "allocate" not in str(error) and "out of memory" not in str(error):
                raise
            _say(_NO_MEMORY)
            return 1
        except BrokenPipeError:
            return 1


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong with a call in one line, as for every other mistake."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"medmapai: {message}; see {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="medmapai", description="Train, evaluate and run models on medical images. " + RESEARCH_ONLY)
    parser.add_argument("--version", action="version", version=f"medmapai {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    models = commands.add_parser("models", help="list the models at hand")
    models.add_argument("--json", action="store_true", help="print JSON")
    models.set_defaults(command=_models)

    run = commands.add_parser("run", help="run a model on one image")
    run.add_argument("model", metavar="MODEL", help="a name from `medmapai models`, or a bundle's folder or zip")
    run.add_argument("input", metavar="INPUT", type=Path, help="a volume file or a DICOM folder")
    run.add_argument(
        "output",
        metavar="OUTPUT",
        type=Path,
        help="what to write: .seg.nrrd, .nrrd, .nii.gz, .mha for a segmentation; .csv, .json for a classification; "
        ".csv, .json, .mrk.json for a detection; .nii.gz, .nrrd, .mha for a reconstruction",
    )
    run.add_argument(
        "--reference",
        metavar="R",
        help="what to score the result against: a segmentation or label map; names of classes, separated by commas; a "
        "file of findings; a volume",
    )
    run.add_argument(
        "--saliency",
        type=Path,
        metavar="MAP",
        help="write where a classifier looked, as a volume: .nii.gz, .nrrd, .mha",
    )
    run.add_argument(
        "--saliency-method",
        default="grad-cam",
        choices=("grad-cam", "grad-cam++", "occlusion", "attention"),
        help="how to find out where it looked (default: grad-cam)",
    )
    run.add_argument(
        "--saliency-class", metavar="CLASS", help="whose score the map explains; by default the most probable class"
    )
    run.add_argument(
        "--roi", metavar="X,Y,Z,DX,DY,DZ", type=_roi, help="run in a box only: its center and size, RAS mm"
    )
    run.add_argument(
        "--proposals",
        type=Path,
        metavar="BOXES",
        help="a file of boxes that a detector chooses among which was trained to (a Fast R-CNN)",
    )
    run.add_argument(
        "--add-hu",
        type=_number,
        metavar="HU",
        help="added to every voxel first, for CT that was stored without its intercept (often -1024)",
    )
    run.add_argument(
        "--assume-hu", action="store_true", help="go on where the values of a CT do not look like Hounsfield units"
    )
    run.add_argument("--series", metavar="UID", help="which series of a DICOM folder with several")
    run.add_argument("--frame", type=int, metavar="N", help="which frame of a 4D file, from 0")
    _add_predictor(run)
    run.add_argument("--scene", type=Path, metavar="OUT.mrb", help="write image and result as a Slicer scene, too")
    run.add_argument("--picture", type=Path, metavar="OUT.png", help="write a picture of slices and 3D view, too")
    run.add_argument("--json", action="store_true", help="print JSON")
    run.set_defaults(command=_run)

    train = commands.add_parser("train", help="train a model")
    train.add_argument("config", metavar="CONFIG", type=Path, help="a .toml or .json configuration")
    train.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting")
    train.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for checkpoints and bundle")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in DIR")
    train.add_argument(
        "--events",
        action="store_true",
        help="print events as JSON lines on standard output; stop when a pipe to standard input is closed",
    )
    train.add_argument("--json", action="store_true", help="print JSON at the end")
    train.set_defaults(command=_train)

    cross = commands.add_parser(
        "crossvalidate", help="measure a recipe: each case answered by a model that never saw it"
    )
    cross.add_argument("config", metavar="CONFIG", type=Path, help="a .toml or .json configuration, as for train")
    cross.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a setting")
    cross.add_argument("--folds", type=int, default=5, metavar="N", help="how many models to train (default: 5)")
    cross.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw of the folds (default: 0)")
    cross.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the folds and the report; goes on there"
    )
    cross.add_argument(
        "--curves", type=Path, metavar="DIR", help="write curves of a classification or detection as pictures"
    )
    cross.add_argument("--json", action="store_true", help="print JSON")
    cross.set_defaults(command=_crossvalidate)

    evaluate = commands.add_parser("evaluate", help="score a model on a data set")
    evaluate.add_argument("model", metavar="MODEL", help="a name from `medmapai models`, or a bundle's folder or zip")
    evaluate.add_argument("dataset", metavar="DATASET", type=Path, help="a data set's folder or list")
    evaluate.add_argument(
        "--split",
        default="held-out",
        choices=("held-out", "all", "train", "validation", "test"),
        help="which cases; held-out (default): all that the model was not trained on, told by their voxels",
    )
    _add_predictor(evaluate)
    evaluate.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of section [dataset] in which this data set differs from the one that was trained on, such as "
        "class_column=Diagnosis or excluded=annotations_excluded.csv",
    )
    evaluate.add_argument(
        "--curves", type=Path, metavar="DIR", help="write curves of a classification or detection as pictures"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(command=_evaluate)

    add_froc(commands)
    add_reading(commands)
    add_transplant(commands)
    add_generate(commands)
    add_simulate(commands)
    add_reconstruct(commands)
    return parser


def _add_predictor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda:0 or mps")
    parser.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="number format; auto (default) is bf16 where the processor computes in it, else fp32",
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "torch", "openvino"),
        help="what computes; auto (default) is OpenVINO on CPUs where it is installed, else torch",
    )
    parser.add_argument(
        "--overlap", type=float, metavar="O", help="share of a window that the next one sees again, 0 to <1"
    )
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        help="average the answers for mirrored images; twice the time for each axis the model names",
    )
    parser.add_argument(
        "--keep-air",
        action="store_true",
        help="run windows that hold only the air around the patient, too",
    )
    parser.add_argument(
        "--memory", type=_gigabytes, metavar="GB", help="what a run may take; by default what is free when it begins"
    )


def _predictor(bundle: Any, options: argparse.Namespace) -> Any:
    from .inference.opening import open_predictor

    return open_predictor(
        bundle,
        options.device,
        options.precision,
        options.backend,
        overlap=options.overlap,
        mirror=options.mirror,
        memory_bytes=None if options.memory is None else int(options.memory * 2**30),
        skip_air=not options.keep_air,
    )


def _models(options: argparse.Namespace) -> None:
    from .bundle import list_bundles

    problems: list[str] = []
    bundles = list_bundles(problems)
    for problem in problems:
        _say(f"medmapai: left out: {problem}")
    if options.json:
        _print_json(
            {
                "models": [
                    {
                        "name": b.name,
                        "title": b.title,
                        "task": b.task,
                        "modality": b.modality,
                        "segments": [s.name for s in b.segments],
                        "classes": list(b.classes.names) if b.classes else [],
                        "findings": list(b.findings.names) if b.findings else [],
                        "size_bytes": b.size_bytes,
                        "metrics": b.metrics,
                        "path": str(b.path),
                    }
                    for b in bundles
                ]
            }
        )
        return
    rows = [("name", "task", "modality", "size", "held-out metrics")]
    for b in bundles:
        numbers = [f"{key} {b.metrics[key]['mean']:.3f}" for key in _SHOWN if key in b.metrics]
        rows.append((b.name, b.task, b.modality, f"{b.size_bytes / 1e6:.1f} MB", ", ".join(numbers) or "not measured"))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _run(options: argparse.Namespace) -> None:
    for extra, ending in ((options.scene, ".mrb"), (options.picture, ".png")):
        if extra is not None and extra.suffix.lower() != ending:
            raise InputError(f"{extra} must end in {ending}; rename it.")
    from .bundle import load_bundle, read_info
    from .files import check_apart
    from .run_outputs import OUTPUTS

    for output in (options.output, options.scene, options.picture, options.saliency):
        check_apart(output, (options.input, options.reference))
    answer = OUTPUTS[read_info(options.model).task](options)
    from .image import read_image

    bundle = load_bundle(options.model)
    image = read_image(options.input, series=options.series, frame=options.frame)
    if options.add_hu:
        image = image + options.add_hu
    image.meta["assume_hounsfield"] = options.assume_hu
    reference = answer.reference(bundle, image)
    predictor = _predictor(bundle, options)
    with ProgressBar() as bar:
        result = predictor.predict(
            image,
            roi=options.roi,
            progress=bar,
            on_estimate=lambda estimate: bar.line(estimate.sentence),
            **answer.wishes(bundle),
        )
    report: dict[str, Any] = {
        "model": bundle.info.name,
        "output": str(options.output),
        "device": predictor.device_description,
        "seconds": round(predictor.seconds, 3),
        **answer.found(result),
        "notes": list(result.notes),
        "warning": RESEARCH_ONLY,
    }
    if reference is not None:
        report["metrics"] = answer.scores(predictor.task, result, reference)
    answer.write(result, report)
    if options.scene is not None or options.picture is not None:
        answer.show(image, result)
    if options.json:
        _print_json(report)
        return
    answer.say(report)
    for note in report["notes"]:
        _say(note)
    print(f"{options.output}  ({RESEARCH_ONLY})")


def _train(options: argparse.Namespace) -> int:
    from .training.config import read_config
    from .training.run import train

    stop = _Stop()
    if options.events:
        _when_input_ends(stop.ask)
    config = read_config(options.config, options.set)
    last: dict = {}

    with ProgressBar() as bar:

        def on_event(event: dict) -> None:
            last.update(event)
            if options.events:
                print(json.dumps(event, default=str), flush=True)
            elif event["event"] == "progress":
                bar(event["fraction"], event["message"])
            elif event["event"] == "epoch":
                bar.line(_epoch_line(event, config["training"]["epochs"]))
            elif event["event"] == "started":
                bar.line(
                    f"{event['train_cases']} cases for training, {event['validation_cases']} for validation, "
                    f"{event['parameters']:,} parameters, on {event['device']}"
                )
                for note in event["notes"]:
                    bar.line(note)
            elif event["event"] == "stopped":
                bar.line(event["reason"])

        try:
            bundle = train(config, options.output, resume=options.resume, on_event=on_event, should_stop=stop.asked)
        except (InputError, RunError) as error:
            if options.events:
                print(json.dumps({"event": "failed", "reason": _one_line(error)}), flush=True)
            raise
    if options.json:
        _print_json({"bundle": str(bundle) if bundle else None, **{k: last.get(k) for k in ("event", "metrics")}})
    elif bundle is not None and not options.events:
        print(f"{bundle}  ({RESEARCH_ONLY})")
    return 0


def _crossvalidate(options: argparse.Namespace) -> int:
    from .training.config import read_config
    from .training.crossvalidation import crossvalidate

    stop = _Stop()
    config = read_config(options.config, options.set)
    if options.curves is not None:
        if config["task"]["name"] not in _HAS_CURVES:
            raise InputError(
                f"--curves is for models that classify or detect; this one is for {config['task']['name']}."
            )
        _check_folder(options.curves)
    _check_folder(options.output)
    with ProgressBar() as bar:

        def on_event(event: dict) -> None:
            if event["event"] == "progress":
                bar(event["fraction"], event["message"])
            elif event["event"] == "epoch":
                bar.line(f"fold {event['fold']}: {_epoch_line(event, config['training']['epochs'])}")
            elif event["event"] == "started":
                bar.line(f"{event['cases']} cases in {event['folds']} folds")
                for note in event["notes"]:
                    bar.line(note)
            elif event["event"] == "stopped":
                bar.line(event["reason"])

        report = crossvalidate(
            config,
            options.output,
            folds=options.folds,
            seed=options.seed,
            on_event=on_event,
            should_stop=stop.asked,
        )
    if report is not None and options.curves is not None:
        from .figures import draw_curves

        for path in draw_curves(report, options.curves, title=f"{report['model']}, cross-validation"):
            _say(str(path))
    if options.json:
        _print_json(report)
    elif report is not None:
        for name, value in report["summary"].items():
            spread = report["between_folds"].get(name)
            folds = f", folds {spread['mean']:.4g} ± {spread['sd']:.2g}" if spread else ""
            print(f"{name}: {value['mean']:.4g} ({value['low']:.4g} to {value['high']:.4g}){folds}")
        print(options.output / "report.json")
    return 0


class _Stop:
    """Whether the user or the system asked this process to stop; a training then stops at a place to go on from.

    A plain flag: a lock, as threading.Event has, could be waited for forever by a signal within a signal.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.ask)

    def ask(self, *_: Any) -> None:
        """Ask for it."""
        self._asked = True

    def asked(self) -> bool:
        """Whether it was asked for."""
        return self._asked


def _when_input_ends(stop: Callable[..., None]) -> None:
    """Call ``stop`` when whoever started this process closes the pipe to its standard input, or is no more.

    That works on every system, where signals do not, and leaves no orphan behind. An input that is no pipe means
    nothing.
    """
    try:
        if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            return
    except (OSError, ValueError, AttributeError):
        return

    def wait() -> None:
        sys.stdin.buffer.read()
        stop()

    threading.Thread(target=wait, daemon=True).start()


def _epoch_line(event: dict, epochs: int) -> str:
    parts = [f"epoch {event['epoch']} of {epochs}", f"loss {event['train_loss']:.4f}"]
    for key, value in event.items():
        if key.startswith("validation_") and value is not None:
            parts.append(f"{key.replace('_', ' ')} {value:.4f}")
    return ", ".join([*parts, f"{event['seconds']:.0f} s"])


def _evaluate(options: argparse.Namespace) -> None:
    from .bundle import load_bundle
    from .datasets import open_dataset
    from .inference.evaluation import check_answers, choose_cases, dataset_options, evaluate_cases

    bundle = load_bundle(options.model)
    if options.curves is not None and bundle.info.task not in _HAS_CURVES:
        raise InputError(f"--curves is for models that classify or detect; this one is for {bundle.info.task}.")
    if options.curves is not None:
        _check_folder(options.curves)
    dataset = open_dataset(
        options.dataset,
        labels={s.value: s.name for s in bundle.info.segments},
        options=dataset_options(bundle, options.dataset, options.set),
    )
    check_answers(bundle, dataset)
    cases, said = choose_cases(bundle, dataset, options.split)
    _say(said)
    predictor = _predictor(bundle, options)
    with ProgressBar() as bar:
        result = evaluate_cases(predictor, dataset, cases, bar)
    report = {
        "model": bundle.info.name,
        "dataset": str(options.dataset),
        "split": options.split,
        "cases_chosen": said,
        "device": predictor.device_description,
        **result,
    }
    if options.curves is not None:
        from .figures import draw_curves

        for path in draw_curves(result, options.curves, title=bundle.info.title):
            _say(str(path))
    if options.json:
        _print_json(report)
        return
    for name, value in result["summary"].items():
        print(f"{name}: {value['mean']:.4g} ({value['low']:.4g} to {value['high']:.4g}), {value['cases']} cases")
    for note in result.get("notes", ()):
        _say(note)


def _roi(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        numbers = tuple(float(part) for part in text.replace(" ", "").split(","))
        if len(numbers) != 6 or not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a box; give six numbers in mm, X,Y,Z,DX,DY,DZ (center and size, RAS), with an = sign if "
            "the first is negative: --roi=-26,-22,-14,40,60,45"
        ) from None
    return numbers[:3], numbers[3:]


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return number


def _gigabytes(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0; give GB, such as 4")
    return number


def _check_folder(folder: Path) -> None:
    """Find out, before any work is done, whether a folder could be made. Raises InputError."""
    from .files import check_place

    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file; choose a folder.")
    place = folder / "file"
    while not place.parent.exists():
        place = place.parent
    check_place(place)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(text, file=sys.stderr, flush=True)


def _show_warning(message: Any, category: Any, filename: str, *rest: Any) -> None:
    _say(f"medmapai: {_one_line(message)}")


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())


# Libraries that print while they are imported would break --json.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
