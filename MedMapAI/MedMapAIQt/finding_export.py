"""Findings of the scene as files, and as training data."""

from __future__ import annotations

from pathlib import Path

import slicer
from slicer.i18n import tr as _

#: A submission to LUNA16, which is a table as well.
SUBMISSION = ".luna16.csv"


def export_formats() -> list[tuple[str, str]]:
    """(ending, what it is called) of the files that findings can be saved as."""
    return [
        (".csv", _("Table (CSV, RAS mm)…")),
        (".json", _("Everything (JSON, RAS mm)…")),
        (".mrk.json", _("Markups of Slicer (JSON)…")),
        (SUBMISSION, _("Submission to LUNA16 (CSV, LPS mm)…")),
    ]


def save_findings(folder: int, kind: str, path: str | Path) -> Path:
    """Write a folder of findings as the reader left it to a file. Returns its path, with the ending of its kind.

    kind: an ending of ``export_formats``. In a submission the scan is called as its volume node is, which for a scan of
    LUNA16 is the series that its evaluation looks for. Raises InputError, RunError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.datasets.findings_table import write_findings, write_luna16_submission

    path, ending = Path(path), ".csv" if kind == SUBMISSION else kind
    if not path.name.lower().endswith(ending):
        path = path.with_name(path.name + ending)
    result = mrml.findings_from_nodes(folder)
    if kind == SUBMISSION:
        volume = mrml.findings_volume(folder)
        write_luna16_submission({volume.GetName() if volume is not None else "scan": result}, path)
    else:
        write_findings(result, path)
    return path


def export_reviewed(folder: int, place: str | Path) -> str:
    """Write the scan of a folder of findings, and those of the scene's other folders that were reviewed, as training
    data: what is called there is true. Made in a new folder under ``place``. Returns a sentence for the user.

    Nothing that names a patient is written. Whole or not at all; raises InputError, RunError.
    """
    from MedMapAILib import mrml
    from MedMapAILib.datasets.scene import write_detection_cases
    from MedMapAILib.errors import InputError

    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    others = [mrml.findings_folder(table) for table in tables]
    folders = [folder, *(one for one in others if one and one != folder and mrml.is_reviewed(one))]
    unseen = sum(one.state == "found" for each in folders for one in mrml.findings_from_nodes(each).called)

    def cases():
        for each in folders:
            volume = mrml.findings_volume(each)
            if volume is None:
                raise InputError(_("The scan of these findings is no longer in the scene; load it, or leave them out."))
            yield mrml.image_from_node(volume), mrml.reference_from_nodes(each)

    target = _free(Path(place))
    written = write_detection_cases(cases(), target)
    text = _("{scans} scans with {findings} findings are in {path}.").format(
        scans=len(folders), findings=written, path=target
    )
    if unseen:
        text += " " + _("You did not look at {number} of them.").format(number=unseen)
    return text


def _free(place: Path) -> Path:
    """A folder under ``place`` that is not there yet."""
    number = 1
    while (place / f"findings_{number:03d}").exists():
        number += 1
    return place / f"findings_{number:03d}"
