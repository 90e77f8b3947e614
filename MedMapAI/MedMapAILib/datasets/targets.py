"""Classes, and what kind of question they are: the rules that all sources of classification data share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..image import read_image
from ..pictures import COLORS, is_gray, is_picture, read_header
from ..results import KINDS
from .dataset import Problems, listed
from .loading import frame_count

#: Names of the absence of a finding. Of two classes such a one comes first, so that the second is the positive one.
_NEGATIVE = {
    "0", "absent", "benign", "control", "controls", "false", "healthy", "neg", "negative", "no", "no finding", "none",
    "normal",
}  # fmt: skip


def ordered_classes(found: Collection[str], declared: Sequence[str] | None, where: str | Path) -> tuple[str, ...]:
    """The classes of a data set in their order, from the names that occur in it.

    declared: all classes in the order that the user wants. Without it whole numbers are in their order, names in that
    of the alphabet, and of two classes one like "normal" or "benign" comes first. Raises InputError where a class
    occurs that is not declared, where there is one class only, and for numbers that are not whole.
    """
    if declared:
        classes = _declared(declared, where)
        unknown = sorted(set(found) - set(classes))
        if unknown:
            raise InputError(
                f"{where} has classes that dataset.classes does not list ({listed(unknown)}); it lists "
                f"{listed(classes)}."
            )
    else:
        numbers = [_number(name) for name in found]
        if found and None not in numbers:
            fractions = sorted((n for n in numbers if not float(n).is_integer()), key=float)
            if fractions:
                raise InputError(
                    f"{where} has labels that are not whole numbers ({listed(fractions)}); a class needs a name or a "
                    "whole number."
                )
            classes = tuple(sorted(found, key=lambda name: int(float(name))))
        else:
            classes = tuple(sorted(found, key=lambda name: (name.casefold(), name)))
        negative = [name for name in classes if name.casefold() in _NEGATIVE]
        if len(classes) == 2 and len(negative) == 1:
            classes = (*negative, *(name for name in classes if name not in negative))
    if len(classes) < 2:
        raise InputError(
            f"{where} has one class only ({listed(classes) or 'none'}); a classification needs at least two to tell "
            "apart, and a detection a table of findings or readings (.xml) beside the scans."
        )
    return classes


def kind_of_target(wanted: str | None, classes: Sequence[str], where: str | Path, *, several: bool = False) -> str:
    """One of ``results.KINDS``: the one that is wanted, if it goes with the classes, else what their number says.

    several: whether any number of classes can be true of a case. Raises InputError.
    """
    if wanted is None:
        return "multi-label" if several else "binary" if len(classes) == 2 else "single-label"
    if wanted not in KINDS:
        raise InputError(f"dataset.target is {wanted!r}; it is one of {', '.join(KINDS)}.")
    if wanted == "binary" and len(classes) != 2:
        raise InputError(
            f"dataset.target is binary, and {where} has {len(classes)} classes ({listed(classes)}); choose "
            "single-label."
        )
    if several != (wanted == "multi-label"):
        raise InputError(
            f"dataset.target is {wanted}, and {where} says of each class whether it is true; choose multi-label."
            if several
            else f"dataset.target is multi-label, and {where} names one class a case; choose single-label, or name one "
            "column a class in dataset.class_columns of a table."
        )
    return wanted


def check_order_is_known(kind: str, classes: Sequence[str], declared: Sequence[str] | None, where: str | Path) -> None:
    """InputError where an ordinal target has names whose order nobody has given."""
    if kind == "ordinal" and not declared and any(_number(name) is None for name in classes):
        raise InputError(
            f"dataset.target is ordinal, and the order of the classes of {where} ({listed(classes)}) is not known; "
            "list them from low to high in dataset.classes."
        )


def option_names(options: dict, key: str) -> tuple[str, ...]:
    """A list of names in section [dataset]; InputError where it is none."""
    value = options.get(key) or ()
    if isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise InputError(f"dataset.{key} is {value!r}; it must be a list of names.")
    return tuple(value)


def picture_channels(paths: Iterable[Path], where: str | Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the channels in which images are read, and sentences on what is unusual about them.

    paths: of images. Of DICOM files and volumes the first says it for all. All gray: ("image",). All
    in color: red, green and blue. Of both: gray, if what is saved in color holds gray, else color, and gray ones get
    three equal channels. Raises InputError that names all pictures that are none.
    """
    paths = list(paths)
    problems = Problems()
    channels: dict[Path, int] = {}
    bits = set()
    for path in paths:
        if is_picture(path):
            try:
                header = read_header(path)
            except InputError as error:
                if len(paths) == 1:
                    raise
                problems.add(
                    "picture(s) that cannot be read", f"{path.name}: {str(error).split(';')[0].split(': ')[-1]}"
                )
                continue
            channels[path] = header.channels
            bits.add(header.bits if header.bits > 8 else 8)
    problems.raise_if_any(where, "get whole copies of them, as PNG or JPEG, or leave them out")
    if not channels:
        return COLORS if paths and _is_color(paths[0]) else ("image",), ()
    notes = []
    if len(bits) > 1:
        notes.append("Its pictures are of 8 and of 16 bits, which go from 0 to 255 and to 65535.")
    colored = [path for path, count in channels.items() if count == 3]
    if len(colored) == len(paths):
        return COLORS, tuple(notes)
    if not colored:
        return ("image",), tuple(notes)
    if all(is_gray(read_image(path).numpy()) for path in colored):
        notes.append(f"{len(colored)} of its {len(paths)} images are gray and saved in color; they are read as gray.")
        return ("image",), tuple(notes)
    notes.append(
        f"{len(paths) - len(colored)} of its {len(paths)} images are gray and the others in color; they get three "
        "equal channels."
    )
    return COLORS, tuple(notes)


def _is_color(path: Path) -> bool:
    """Whether a DICOM picture or a volume file (as the scene writes color pictures) holds three values a voxel."""
    from ..dicom import is_color

    return is_color(path) or frame_count(path) == len(COLORS)


def _declared(declared: Sequence[str], where: str | Path) -> tuple[str, ...]:
    classes = tuple(str(name).strip() for name in declared)
    if isinstance(declared, str) or "" in classes or len(set(classes)) < len(classes):
        raise InputError(f"dataset.classes for {where} must be a list of names, each once, and is {declared!r}.")
    return classes


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
