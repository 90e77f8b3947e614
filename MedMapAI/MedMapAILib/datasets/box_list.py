"""A table of findings: boxes, or centers and diameters, in images that lie beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..image import affine_of, ending_of, read_volume
from ..pictures import is_picture
from ..results import Finding
from .csv_list import PARTS, PATIENT, name_of
from .dataset import Case, Dataset, Problems, is_hidden, is_image_name, listed, patient_finder
from .decathlon import located, shown
from .finding_geometry import FitNotes, fit_findings
from .finding_rows import Columns, FindingRow, FindingTable, find_columns, option_frame
from .folder import IMAGES, LABELS
from .loading import grid_of_file
from .table import Table, read_table
from .targets import option_names, picture_channels

#: What the table is called in a folder that holds the images, too.
TABLES = ("findings.csv", "boxes.csv", "annotations.csv")
_SPLIT = "split"


def open_box_list(
    path: Path,
    *,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read a table of findings, or a folder with ``images/`` and such a table (findings.csv, boxes.csv).

    One row a finding: the image, where it is and how large (see ``finding_rows.find_columns`` for the columns), and
    optionally its class, score, patient, split, ``synthetic``, ``ignored`` (neither a hit nor a miss) and ``state``;
    what a reader rejected is left out. Further columns stay with the finding. A row without coordinates says that its
    image holds no finding, and so does an image in ``images/`` that the table does not name. Images are found by their
    path, relative to the table's folder or to image_folder, or by their name without ending in ``images/`` or anywhere
    below. A label map in ``labels/`` of an image's name holds its findings besides, value n + 1 for the nth of them.

    options: annotations (name of the table, for a folder), image_column, image_folder, patient_column, frame (LPS, RAS
    or voxel; else the table says it, or has LUNA16's columns, which are LPS), classes (their order), excluded and
    proposals (tables of ignored findings, and of boxes for a Fast R-CNN), seriesuids (a list of images, one a line: all
    that there are). labels plays no part. Raises InputError that lists all rows, images or findings that are wrong.
    """
    path, options = Path(path), dict(options or {})
    file = _table_of(path, options)
    root = _image_root(path, file, options)
    table = read_table(file, comments=True)
    columns = _columns(table, options, file)
    patient_column = _column(table, options, "patient_column", file) or table.first_of(PATIENT)
    classes = option_names(options, "classes")
    rows = list(
        FindingTable(
            table,
            file,
            frame=option_frame(options),
            columns=columns,
            label=classes[0] if len(classes) == 1 else None,
            keep={column for column in (patient_column, _SPLIT) if column in table.columns},
        ).rows()
    )
    images = _Images(root)
    there = _scans(options, file)
    problems = Problems()
    by_image: dict[Path, list[FindingRow]] = {}
    for text in there if there is not None else ():
        by_image.setdefault(images.find(text), [])
    known = None if there is None else set(by_image)
    for row in rows:
        image = images.find(row.image)
        if known is not None and image not in known:
            problems.add("row(s) of images that dataset.seriesuids does not list", f"line {row.line}")
        by_image.setdefault(image, []).append(row)
    if images.missing:  # all of them: that is the list of what to bring
        raise InputError(
            f"The data set {file} has {len(images.missing)} missing image(s) ({', '.join(images.missing)}): bring them "
            f"or correct the table; they are looked for below {root} (dataset.image_folder)."
        )
    unnamed: list[str] = []
    if path.is_dir() and known is None:
        for image in images.in_folder():
            if image not in by_image:
                unnamed.append(image.name)
                by_image[image] = []
    if not by_image:
        raise InputError(f"{file} lists no images; write one row a finding below the header.")
    names = _names(by_image, root)
    excluded = _further(options, "excluded", file, images, unmeasured=True)
    proposals = _further(options, "proposals", file, images, unmeasured=True)
    find_patient = patient_finder(patient_pattern)
    fits, cases, parts = FitNotes(), [], {}
    flat = len(columns.low or columns.center) == 2
    for image, name in sorted(names.items(), key=lambda item: item[1]):
        own = by_image[image]
        patient = _one(own, patient_column, "patient", name, problems) if patient_column else None
        patient = patient or find_patient(name, shown(image, root))
        if patient is None:
            problems.add(f"image(s) whose name does not match patient_pattern {patient_pattern!r}", name)
        if _SPLIT in table.columns and own:
            part = PARTS.get((_one(own, _SPLIT, _SPLIT, name, problems) or "").lower())
            if part is None:
                problems.add("image(s) whose split is not train, validation or test", name)
            else:
                parts[name] = part
        if flat and any(row.place for row in own) and _is_thick(image):
            problems.add("image(s) of several slices, and no column that says where along z its findings are", name)
        grid = _Grid(image)
        findings = [row.finding("reference", grid.affine_for(row)) for row in own if row.place and not row.ignored]
        ignored = [row.finding("reference", grid.affine_for(row)) for row in own if row.place and row.ignored]
        ignored += [row.finding("reference", grid.affine_for(row)) for row in excluded.get(image, ())]
        boxes = None
        if options.get("proposals"):
            boxes = tuple(row.finding("found", grid.affine_for(row)) for row in proposals.get(image, ()))
        cases.append(
            case_in_its_scan(
                Case(
                    name,
                    patient or name,
                    (image,),
                    _label_map(root, image),
                    findings=tuple(findings),
                    ignored=tuple(ignored),
                    proposals=boxes,
                ),
                fits,
            )
        )
    problems.raise_if_any(file, "correct the table")
    fits.raise_if_outside(file)
    notes = list(fits.sentences)
    if unnamed:
        notes.append(f"{len(unnamed)} image(s) have no row and so hold no finding ({listed(unnamed)}).")
    channels, said = ("image",), ()
    if any(is_picture(case.images[0]) for case in cases):
        channels, said = picture_channels([case.images[0] for case in cases], file)
    source: dict[str, Any] = {"kind": "box-list", "notes": (*notes, *said)}
    if parts:
        missing = sorted({case.name for case in cases} - set(parts))
        source["split"] = parts | dict.fromkeys(missing, "train")
    found = class_names([finding for case in cases for finding in case.findings], classes, file)
    title = path.resolve().name if path.is_dir() else path.stem
    return Dataset(title, tuple(cases), {}, channels, source, findings=found)


def case_in_its_scan(case: Case, notes: FitNotes) -> Case:
    """A case whose findings are cut off at the edge of its scan and nowhere thinner than a voxel of it.

    Only the header of the scan is read, and that of DICOM files not at all: ``load_case`` looks at those, and at
    ignored findings and proposals, of which those that lie outside are left out. notes: learn what changed.
    """
    grid = grid_of_file(case.images[0])
    if grid is None or case.findings is None:
        return case
    fitted = fit_findings(case.findings, *grid)
    notes.add(case.name, fitted)
    return replace(case, findings=fitted.findings)


def class_names(findings: Sequence[Finding], declared: Sequence[str], where: str | Path) -> tuple[str, ...]:
    """Names of the classes of findings: as declared, else sorted. Raises InputError where one is not declared, or there
    is no finding at all and none declared.
    """
    there = {finding.label for finding in findings}
    if declared:
        unknown = sorted(there - set(declared))
        if unknown:
            raise InputError(
                f"{where} has findings of classes that dataset.classes does not list ({listed(unknown)}); it lists "
                f"{listed(declared)}."
            )
        return tuple(declared)
    if not there:
        raise InputError(
            f"{where} holds no finding; name the classes that there could be in dataset.classes, or give findings to "
            "learn from."
        )
    return tuple(sorted(there, key=lambda name: (name.casefold(), name)))


class _Images:
    """Where the images are that a table names, by path or by name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_name: dict[str, list[Path]] | None = None
        self._found: dict[str, Path] = {}
        self.missing: list[str] = []

    def find(self, text: str) -> Path:
        """The image; where there is none, it is in ``missing``, once."""
        if text not in self._found:
            self._found[text] = self._find(text)
        return self._found[text]

    def in_folder(self) -> list[Path]:
        """All images in ``images/``, or in the folder itself."""
        folder = next((self._root / name for name in IMAGES if (self._root / name).is_dir()), self._root)
        entries = sorted(entry for entry in folder.iterdir() if not is_hidden(entry))
        # In images/ a folder is a DICOM series.
        return [entry for entry in entries if _is_image(entry) or (entry.is_dir() and folder != self._root)]

    def _find(self, text: str) -> Path:
        for folder in (self._root, *(self._root / name for name in IMAGES)):
            path = located(text, folder)
            if path.exists() and (path.is_dir() or _is_image(path)):
                return path
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._root.rglob("*")):
                parts = path.relative_to(self._root).parts
                if any(part.startswith(".") or part in LABELS for part in parts) or not _is_image(path):
                    continue
                self._by_name.setdefault(name_of(path), []).append(path)
        same = self._by_name.get(Path(text).name, []) or self._by_name.get(name_of(Path(text)), [])
        near = [path for path in same if path.parent in (self._root, *(self._root / name for name in IMAGES))]
        same = near if len(near) == 1 else same
        if len(same) > 1:
            raise InputError(
                f"Several images below {self._root} are called {text} ({listed(shown(p, self._root) for p in same)}); "
                "give their paths in the table."
            )
        if same:
            return same[0]
        self.missing.append(text)
        return self._root / text


class _Grid:
    """The geometry of an image, read when a row needs it."""

    def __init__(self, image: Path) -> None:
        self._image = image
        self._affine: np.ndarray | None = None

    def affine_for(self, row: FindingRow) -> np.ndarray | None:
        if row.frame != "voxel":
            return None
        if self._affine is None:
            grid = grid_of_file(self._image)
            self._affine = grid[1] if grid is not None else affine_of(read_volume(self._image, color=True))
        return self._affine


def _is_thick(image: Path) -> bool:
    """Whether the header of an image says that it has several slices."""
    grid = grid_of_file(image)
    return grid is not None and grid[0][2] > 1


def _is_image(path: Path) -> bool:
    return path.is_file() and (is_image_name(path) or is_picture(path)) and ending_of(path) != ".seg.nrrd"


def _table_of(path: Path, options: Mapping[str, Any]) -> Path:
    if path.is_file():
        return path
    names = (str(options["annotations"]),) if options.get("annotations") else TABLES
    for name in names:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path} holds no table of findings ({' or '.join(names)}); name it in dataset.annotations.")


def _image_root(path: Path, file: Path, options: Mapping[str, Any]) -> Path:
    if options.get("image_folder"):
        root = file.parent / Path(str(options["image_folder"])).expanduser()
        if not root.is_dir():
            raise InputError(
                f"There is no folder {root}, which dataset.image_folder names; it counts from the table's folder."
            )
        return root
    return path if path.is_dir() else file.parent


def _column(table: Table, options: Mapping[str, Any], key: str, file: Path) -> str | None:
    name = str(options.get(key) or "").strip().lower()
    if name and name not in table.columns:
        raise InputError(
            f"{file} has no column {options[key]!r}, which dataset.{key} names; it has "
            f"{listed(table.columns.values())}."
        )
    return name or None


def _columns(table: Table, options: Mapping[str, Any], file: Path) -> Columns:
    columns = find_columns(table, _column(table, options, "image_column", file))
    if columns.image is None:
        raise InputError(
            f"{file} has no column of images (image, or seriesuid); it has {listed(table.columns.values())}: name the "
            "one in dataset.image_column."
        )
    return columns


def _scans(options: Mapping[str, Any], file: Path) -> list[str] | None:
    return scan_list(located(str(options["seriesuids"]), file.parent)) if options.get("seriesuids") else None


def scan_list(path: Path) -> list[str]:
    """The first cells of the lines of a file such as LUNA16's seriesuids.csv; a header "seriesuid" is left out."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}, a list of scans, cannot be read ({error}); give a text file.") from None
    cells = [line.replace(";", ",").replace("\t", ",").split(",")[0].strip().strip('"') for line in lines]
    return [cell for cell in dict.fromkeys(cells) if cell and cell.lower() not in ("seriesuid", "image", "scan")]


def _further(
    options: Mapping[str, Any], key: str, file: Path, images: _Images, **about: Any
) -> dict[Path, list[FindingRow]]:
    """The rows of another table, by image; those of images that the first table does not name are left out."""
    if not options.get(key):
        return {}
    path = located(str(options[key]), file.parent)
    if not path.is_file():
        raise InputError(f"There is no table {path}, which dataset.{key} names; it counts from the table's folder.")
    table = read_table(path, comments=True)
    found: dict[Path, list[FindingRow]] = {}
    reader = FindingTable(
        table, path, frame=option_frame(options), columns=_columns(table, {}, path), sized=False, **about
    )
    for row in reader.rows():
        if row.place:
            found.setdefault(images.find(row.image), []).append(row)
    return found


def _names(images: Mapping[Path, Any], root: Path) -> dict[Path, str]:
    """Image → name of its case: without its ending, or, where those repeat, the whole relative path."""
    stems = {image: name_of(image) for image in images}
    if len(set(stems.values())) == len(stems):
        return stems
    return {image: f"{shown(image.parent, root)}/{name_of(image)}".replace("/", "_") for image in images}


def _one(rows: Sequence[FindingRow], column: str, what: str, name: str, problems: Problems) -> str | None:
    texts = {row.kept[column] for row in rows}
    if len(texts) > 1:
        problems.add(f"image(s) with several entries under {what}", name)
    return next(iter(texts), None)


def _label_map(root: Path, image: Path) -> Path | None:
    for folder in LABELS:
        for ending in (".nrrd", ".nii.gz", ".nii", ".mha", ".mhd", ".seg.nrrd"):
            path = root / folder / f"{name_of(image)}{ending}"
            if path.is_file():
                return path
    return None
