"""LIDC-IDRI as it is distributed: DICOM series, and an XML file with the readings of four radiologists beside each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Case, Dataset, Problems, is_hidden, listed, patient_finder
from .dicom_grid import Header, read_header, series_grid
from .lidc_nodules import Nodules, nodules_of
from .lidc_xml import Reading, is_reading, read_reading

#: The public names of the collection's patients.
_PATIENT = r"(LIDC-IDRI-\d{4})"
_NODULE = "nodule"
#: XML files that are looked at to find out what a folder holds; some patients have readings of chest X-rays besides.
_LOOKED_AT = 20


def open_lidc(
    path: Path,
    labels: Mapping[int, str] | None = None,
    patient_pattern: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """Read LIDC-IDRI, or a part of it: any folder with series and readings somewhere below it.

    A reading belongs to the series that it names; both usually lie in one folder (PATIENT/STUDY/SERIES/*.dcm, *.xml).
    Findings are the nodules of 3 mm or more that enough readers outlined (``lidc_nodules.nodules_of``); those that
    fewer outlined, nodules below 3 mm and other marked lesions are ignored: they count neither as found nor as false
    alarms. options: consensus (0.5; with 0.75 three of four readers must agree, as in LUNA16), annotations (a folder
    with the XML files, where they lie elsewhere), seriesuids (a file with one SeriesInstanceUID a line, such as
    LUNA16's: no other scan is taken), classes (one name, instead of "nodule"). labels plays no part. patient_pattern:
    finds the patient in the path of the series; None looks for LIDC-IDRI-0000.

    The headers of all files are read, and no voxel. ``source["notes"]`` lists scans without a reading, readings without
    a scan, and nodules that the scan holds not at all or not whole; ``source["series"]`` has each case's
    SeriesInstanceUID. Raises InputError that lists what cannot be used, with the slices that are missing under nodules.
    """
    path, options = Path(path), dict(options or {})
    consensus = _consensus(options.get("consensus"))
    label = _label(options.get("classes"))
    readings = _readings(path, options.get("annotations"))
    if options.get("seriesuids"):
        chosen = _listed_series(path, options["seriesuids"])
        readings = {uid: reading for uid, reading in readings.items() if uid in chosen}
    series, unread = _series(path, set(readings))
    if not series:
        raise InputError(
            f"{path} holds readings of {len(readings)} scans and the DICOM series of none of them; put both into one "
            "folder, or name that of the readings in dataset.annotations."
        )
    problems = Problems()
    names = _names(series, patient_pattern, problems)
    cases: dict[str, Case] = {}
    results: dict[str, Nodules] = {}
    for uid, headers in series.items():
        name, patient = names[uid]
        try:
            grid = series_grid(headers, name)
        except InputError as error:
            problems.add("scan(s) whose slices do not form a volume", str(error).rstrip("."))
            continue
        found = results[name] = nodules_of(readings[uid], grid, consensus, label)
        for nodule, heights in found.missing.items():
            where = ", ".join(f"{z:g}" for z in heights)
            problems.add("nodule(s) under which slices are missing", f"{name}: {nodule} at z = {where} mm")
        folder = headers[0].path.parent
        cases[name] = Case(name, patient, (folder,), findings=tuple(found.findings), ignored=tuple(found.ignored))
    problems.raise_if_any(path, "get these series again, whole and each in a folder of its own, or take them out")
    source: dict[str, Any] = {"kind": "lidc", "series": {names[uid][0]: uid for uid in series}}
    if notes := _notes(results, unread, [readings[uid].file for uid in readings if uid not in series]):
        source["notes"] = notes
    ordered = tuple(case for _, case in sorted(cases.items()))
    return Dataset(path.resolve().name, ordered, {}, source=source, findings=(label,))


def is_lidc(path: Path) -> bool:
    """Whether one of the first XML files somewhere below a folder is a reading of LIDC-IDRI."""
    files = (file for file in path.rglob("*.xml") if not is_hidden(file))
    return any(is_reading(file) for file in islice(files, _LOOKED_AT))


def _consensus(value: Any) -> float:
    try:
        consensus = 0.5 if value is None else float(value)
    except (TypeError, ValueError):
        consensus = -1.0
    if not 0 < consensus <= 1:
        raise InputError(
            f"dataset.consensus is {value!r}; it is the part of the readers that agree, above 0 and up to 1."
        )
    return consensus


def _label(classes: Any) -> str:
    classes = [classes] if isinstance(classes, str) else list(classes or [_NODULE])
    if len(classes) != 1:
        raise InputError(f"dataset.classes names {listed(classes)}; LIDC-IDRI has one class of findings: name one.")
    return str(classes[0])


def _readings(path: Path, elsewhere: Any) -> dict[str, Reading]:
    """SeriesInstanceUID → what was marked in it. Raises InputError where there are none, or two for one series."""
    folders = [path]
    if elsewhere:
        folder = Path(str(elsewhere)).expanduser()
        folders.append(folder if folder.is_absolute() else path / folder)
        if not folders[-1].exists():
            raise InputError(f"There is no folder {folders[-1]}, which dataset.annotations names.")
    files = {
        file.resolve(): file
        for folder in folders
        for file in sorted(folder.rglob("*.xml") if folder.is_dir() else [folder])
        if not is_hidden(file) and is_reading(file)
    }
    readings: dict[str, Reading] = {}
    problems = Problems()
    for file in files.values():
        reading = read_reading(file)
        other = readings.setdefault(reading.series, reading)
        if other is not reading and other.file.read_bytes() != file.read_bytes():
            problems.add(
                "reading(s) of a series that another file reads differently", f"{file.name}, {other.file.name}"
            )
    problems.raise_if_any(path, "keep the one that is meant")
    if not readings:
        raise InputError(
            f"{path} holds no reading of LIDC-IDRI (an XML file with LidcReadMessage); put the XML files beside the "
            "DICOM files, or name their folder in dataset.annotations."
        )
    return readings


def _listed_series(path: Path, name: Any) -> set[str]:
    file = Path(str(name)).expanduser()
    file = file if file.is_absolute() else path / file
    try:
        return {line.strip().strip('"') for line in file.read_text(encoding="utf-8-sig").splitlines()}
    except (OSError, UnicodeDecodeError):
        raise InputError(f"There is no readable list {file}, which dataset.seriesuids names.") from None


def _series(path: Path, wanted: set[str]) -> tuple[dict[str, list[Header]], list[str]]:
    """The headers of the series that have a reading, and the folders of other CT series."""
    series: dict[str, list[Header]] = {}
    unread: list[str] = []
    for folder in sorted({path, *(entry for entry in path.rglob("*") if entry.is_dir())}):
        files = sorted(file for file in folder.iterdir() if file.is_file() and not is_hidden(file))
        first = next((header for file in files if (header := read_header(file)) is not None), None)
        if first is None:
            continue
        if first.series not in wanted:
            if first.modality == "CT":
                unread.append(folder.name if folder != path else path.resolve().name)
            continue
        headers = [header for file in files if (header := read_header(file)) is not None]
        several = {header.series for header in headers}
        if len(several) > 1:
            raise InputError(f"{folder} holds {len(several)} DICOM series; put each into a folder of its own.")
        if first.series in series:
            raise InputError(
                f"{folder} holds the same series as {series[first.series][0].path.parent}; keep one of them."
            )
        series[first.series] = headers
    return series, unread


def _names(series: Mapping[str, list[Header]], pattern: str | None, problems: Problems) -> dict[str, tuple[str, str]]:
    """Series → name of the case and patient. The case is called after the patient, and where one has several scans
    after the end of its series too."""
    find = patient_finder(pattern or _PATIENT)
    patients: dict[str, str] = {}
    for uid, headers in series.items():
        folder = headers[0].path.parent.absolute()
        patient = find(folder.name, folder.as_posix())
        if patient is None and pattern is not None:
            problems.add(f"scan(s) whose path does not match patient_pattern {pattern!r}", folder.name)
        patients[uid] = patient or headers[0].study or uid
    scans = Counter(patients.values())
    return {
        uid: (patient if scans[patient] == 1 else f"{patient}_{uid.rpartition('.')[2][-12:]}", patient)
        for uid, patient in patients.items()
    }


def _notes(results: Mapping[str, Nodules], unread: list[str], without_scan: Iterable[Path]) -> tuple[str, ...]:
    notes = []

    def note(items: list[str], sentence: str) -> None:
        if items:
            notes.append(f"{len(items)} {sentence} ({listed(items)}).")

    def of(kind: str) -> list[str]:
        return [f"{name}: {what}" for name, found in results.items() for what in getattr(found, kind)]

    note(unread, "CT series have no reading and are left out")
    note([file.name for file in without_scan], "readings are of scans that are not there")
    beyond = [f"{len(found.outside)} of {name}" for name, found in results.items() if found.outside]
    if beyond:
        notes.append(f"Marks in slices that the scan does not have are left out ({listed(beyond)}).")
    note(of("cut"), "outlines reach beyond the last slice of the scan and are cut off there")
    note(of("tiny"), "outlines go round no voxel; their line is taken instead")
    return tuple(notes)
