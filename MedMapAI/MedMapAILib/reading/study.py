"""A study of readers: which images are read, under which codes, and the key that says what they are.

A study is a folder. ``study.json`` is what anybody may see: what is scored, and how many images there are. ``key.json``
says which case and method each code stands for, and holds the seed of all orders; it may lie elsewhere, out of the
readers' sight. Each reader's scores are in a file of their own, which knows codes only (see ``session``).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place, write_atomically

#: The scores that can be given; the highest is the best for every criterion.
SCALE = (1, 2, 3, 4, 5)

#: What is scored, and what the ends of the scale mean.
CRITERIA: dict[str, tuple[str, str]] = {
    "noise": ("too strong to read the image", "hardly any"),
    "sharpness": ("fine structures are lost", "fine structures are sharp"),
    "artifacts": ("so strong that they hide or feign findings", "none"),
    "diagnostic acceptability": ("not acceptable for a diagnosis", "fully acceptable"),
}

#: Whether images are shown one by one, or all methods of a case at once.
LAYOUTS = ("single", "side-by-side")

STUDY_FILE, KEY_FILE = "study.json", "key.json"
_VERSION = 1
#: No vowels and nothing that looks alike: no code is a word or the name of a method.
_LETTERS = "bcdfghjkmnpqrstvwxz23456789"
_CODE_LENGTH = 6


@dataclass(frozen=True)
class KeyEntry:
    """What a code stands for. image: where it is, as given to ``create_study`` (a path, the id of a node)."""

    case: str
    method: str
    image: str


@dataclass(frozen=True)
class Key:
    """The key of a study. entries: by code. seed: of all its random orders. windows: case → (lowest, highest value
    shown), the same for all its images; cases without one are shown as the viewer sees fit."""

    study: str
    seed: int
    entries: Mapping[str, KeyEntry]
    windows: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What anybody may see of a study. criteria: name → (meaning of the lowest score, of the highest)."""

    study: str
    criteria: Mapping[str, tuple[str, str]]
    scale: tuple[int, ...]
    layout: str
    images: int


def create_study(
    folder: str | Path,
    images: Mapping[str, Mapping[str, str]],
    *,
    seed: int | None = None,
    layout: str = "single",
    criteria: Mapping[str, tuple[str, str]] = CRITERIA,
    key: str | Path | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> Study:
    """Lay out a study: writes ``study.json`` into the folder, and the key. Images are not looked at (see ``sources``).

    folder: is there already or is made. images: case → method → where the image is; each case has an image of each
    method. seed: of codes and orders; by default one that nobody can guess: who knows seed and cases knows the key.
    layout: one of LAYOUTS. key: the file to write the key to, ``key.json`` in the folder by default. windows: case →
    (lowest, highest value) that its images are all shown with.
    Raises InputError where there is nothing to compare, or where a study is there already.
    """
    folder = Path(folder)
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout {layout!r}; choose one of {', '.join(LAYOUTS)}.")
    if not criteria or not all(criteria):
        raise InputError("There is nothing to score; name at least one criterion.")
    check_complete(images)
    windows = {case: check_window(window) for case, window in (windows or {}).items()}
    key_path = check_free(folder, key)
    if not folder.is_dir():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"The folder {folder} cannot be made ({error.strerror}); choose another.") from None
    check_place(folder / STUDY_FILE)
    seed = secrets.randbits(64) if seed is None else int(seed)
    entries = [KeyEntry(case, method, str(image)) for case, of in images.items() for method, image in of.items()]
    coded = dict(zip(_codes(len(entries), seed), entries, strict=True))
    listed = {code: [entry.case, entry.method, entry.image] for code, entry in sorted(coded.items())}
    name = hashlib.sha256(json.dumps([seed, listed]).encode()).hexdigest()[:16]
    study = Study(name, {c: (low, high) for c, (low, high) in criteria.items()}, SCALE, layout, len(entries))
    # The key first: a study without its key could be read, and not be evaluated.
    shown = {case: list(window) for case, window in windows.items()}
    _write(key_path, "key", {"study": name, "seed": seed, "images": listed, "windows": shown})
    about = {"study": name, "criteria": {c: list(ends) for c, ends in study.criteria.items()}, "scale": list(SCALE)}
    _write(folder / STUDY_FILE, "study", {**about, "layout": layout, "images": len(entries)})
    return study


def check_free(folder: str | Path, key: str | Path | None = None) -> Path:
    """Where the key of a new study would be. Raises InputError where a study or a key is there already."""
    folder = Path(folder)
    key_path = folder / KEY_FILE if key is None else Path(key)
    for path in (folder / STUDY_FILE, key_path):
        if path.exists():
            raise InputError(f"{path} is there already; take another folder, since a new key would spoil its scores.")
    if key is not None:
        check_place(key_path)
    return key_path


def check_window(window: Any) -> tuple[float, float]:
    """(lowest, highest value shown). Raises InputError where that is no window."""
    try:
        low, high = (float(value) for value in window)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"{window} is no window; give the lowest and the highest value to show, such as -160,240.")
    return low, high


def load_study(folder: str | Path) -> Study:
    """What ``create_study`` laid out. Raises InputError where there is none."""
    path = Path(folder) / STUDY_FILE
    stored = read_part(path, "study")
    try:
        criteria = {name: (str(low), str(high)) for name, (low, high) in stored["criteria"].items()}
        return Study(stored["study"], criteria, tuple(stored["scale"]), stored["layout"], int(stored["images"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{path} is damaged; restore it from a copy.") from None


def load_key(folder: str | Path, key: str | Path | None = None) -> Key:
    """The key of the study in a folder; ``key`` is its path where it lies elsewhere.

    Raises InputError where it is missing, damaged, or another study's.
    """
    path = Path(folder) / KEY_FILE if key is None else Path(key)
    stored = read_part(path, "key")
    try:
        entries = {code: KeyEntry(*parts) for code, parts in stored["images"].items()}
        windows = {case: check_window(window) for case, window in stored.get("windows", {}).items()}
        found = Key(stored["study"], int(stored["seed"]), entries, windows)
    except (KeyError, TypeError, ValueError, AttributeError, InputError):
        raise InputError(f"{path} is damaged; restore it from a copy.") from None
    if found.study != load_study(folder).study:
        raise InputError(f"{path} is the key of another study than that in {folder}; give the right one.")
    return found


def check_reader_code(code: str) -> str:
    """The code of a reader, in capitals. Raises InputError for what looks like a name or an address.

    A code is 1 to 16 letters, digits, - or _; of more than three letters only with a digit in it: R1, AB, reader-2.
    """
    code = str(code).strip()
    if "@" in code:
        raise InputError("That looks like an e-mail address; readers go by a code such as R1.")
    if re.search(r"\s", code) or (code.replace("-", "").isalpha() and len(code) > 3):
        raise InputError("That looks like a name; readers go by a code such as R1.")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,16}", code):
        raise InputError("A reader's code has 1 to 16 letters, digits, - or _, such as R1.")
    return code.upper()


def read_part(path: Path, part: str) -> dict[str, Any]:
    """The JSON object in a file of a study. Raises InputError where it is not there, or something else."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; choose the folder of a study (and its key).") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore it from a copy.") from None
    if not isinstance(stored, dict) or stored.get("format") != f"MedMapAI reading {part}":
        raise InputError(f"{path} is no {part} of a reading; choose another file.")
    if stored.get("version") != _VERSION:
        raise InputError(f"{path} was written by another version of MedMapAI; use that one.")
    return stored


def _write(path: Path, part: str, content: dict[str, Any]) -> None:
    stored = {"format": f"MedMapAI reading {part}", "version": _VERSION, **content}
    write_atomically(path, (json.dumps(stored, indent=1, ensure_ascii=False) + "\n").encode())


def write_reader(path: Path, content: dict[str, Any]) -> None:
    """Write a reader's file, whole or not at all."""
    _write(path, "reader", content)


def check_complete(images: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError unless there are cases, and each has an image of each method."""
    if not images:
        raise InputError("There are no cases to read; give at least one.")
    methods = list(dict.fromkeys(method for of in images.values() for method in of))
    if not methods:
        raise InputError("There are no images to read; give at least one for each case.")
    for case, of in images.items():
        missing = [method for method in methods if method not in of]
        if missing:
            raise InputError(f"Case {case} has no image of {missing[0]}; give each case an image of each method.")


def _codes(count: int, seed: int) -> list[str]:
    random = np.random.default_rng([seed, 0])
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes["".join(random.choice(list(_LETTERS), _CODE_LENGTH))] = None
    return list(codes)
