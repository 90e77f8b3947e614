"""Files of findings: a table, JSON, Slicer's markups, and LUNA16's submission."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place, write_atomically
from ..results import Detections, Finding, FindingMask, FindingReference
from . import finding_markups
from .csv_list import name_of
from .dataset import listed
from .finding_rows import FindingTable, find_columns, frame_of
from .table import read_table

ENDINGS = (".csv", ".json", ".mrk.json")
#: Columns of a table of findings. x, y, z and the sizes are mm in the frame of the last column.
COLUMNS = (
    "image", "rank", "class", "score", "x", "y", "z", "size_x", "size_y", "size_z", "diameter_mm", "volume_ml",
    "state", "called", "ignored", "synthetic", "frame",
)  # fmt: skip
_SUBMISSION = ("seriesuid", "coordX", "coordY", "coordZ", "probability")


def write_findings(
    result: Detections | FindingReference,
    path: str | Path,
    *,
    scan: str = "",
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write the findings of one scan, whole or not at all, in RAS mm unless said otherwise.

    ``.csv``: one row a finding, with the columns COLUMNS; ``.json``: everything, with "frame": "RAS mm";
    ``.mrk.json``: ROI nodes of Slicer, whose files are in LPS and say so. Each says of each finding whether it is
    synthetic. scan: what the scan is called, which must not be a patient's name. about: further entries of the JSON.
    Raises InputError for another ending, RunError when the disk is full.
    """
    path = Path(path)
    check_writable_findings(path)
    ending = _ending(path)
    if ending == ".csv":
        text = _table({scan: result}, whole=False)
    elif ending == ".mrk.json":
        text = _json(finding_markups.to_markups(result))
    else:
        text = _json({**(about or {}), "scan": scan, **to_dict(result)})
    write_atomically(path, text.encode())


def write_finding_table(results: Mapping[str, Detections | FindingReference], path: str | Path) -> None:
    """Write the findings of several scans as one table, which ``open_dataset`` reads as a "box-list".

    results: name of the image's file → what it holds. A scan without findings has one row without coordinates. Raises
    as ``write_findings``.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path} cannot be written: a table of findings of several scans is written as .csv.")
    check_place(path)
    write_atomically(path, _table(results, whole=True).encode())


def write_luna16_submission(results: Mapping[str, Detections], path: str | Path) -> None:
    """Write what LUNA16's evaluation reads: seriesuid, coordX, coordY, coordZ (LPS mm), probability.

    results: seriesuid → all candidates of that scan, whatever the operating point. What a reader rejected is left out;
    what a reader says has no score and gets a probability of 1. Raises as ``write_findings``.
    """
    path = Path(path)
    check_place(path)
    rows = []
    for scan, result in results.items():
        for finding in result.findings:
            if finding.state != "rejected":
                x, y, z = finding.center
                score = 1.0 if finding.score is None else finding.score
                rows.append((scan, *(f"{n:.6f}" for n in (0 - x, 0 - y, z)), f"{score:.9g}"))
    write_atomically(path, _csv(_SUBMISSION, rows).encode())


def check_writable_findings(path: str | Path) -> None:
    """Find out, before any work is done, whether findings can be written to ``path``. Raises InputError."""
    path = Path(path)
    if _ending(path) not in ENDINGS:
        raise InputError(f"{path} cannot be written: findings are written as {' or '.join(ENDINGS)}.")
    check_place(path)


def read_findings(path: str | Path, classes: Sequence[str] | None = None, *, scan: str = "") -> FindingReference:
    """Read the findings of one scan from a table, a JSON or a markups file, such as ``write_findings`` writes.

    classes: those that there can be; None takes those of the file. scan: the one that is meant in a table of several,
    as the table calls it, with or without ending. What was rejected, or lies below the operating point, is left out. A
    table has to say its frame (LUNA16's columns are LPS); "voxel" cannot be read without the
    image. Raises InputError where the file is none of them, or holds findings of other classes or of several scans.
    """
    path = Path(path)
    if _ending(path) == ".csv":
        reference = _read_table(path, classes, scan)
    else:
        content = _read_json(path)
        if "markups" in content:
            reference = finding_markups.from_markups(content, path, classes)
        else:
            reference = from_dict(content, path)
    if classes is None:
        return reference
    unknown = sorted({finding.label for finding in reference.findings} - set(classes))
    if unknown:
        raise InputError(f"{path} has findings of {', '.join(unknown)}; there can be {', '.join(classes)} only.")
    return FindingReference(
        tuple(classes), reference.findings, tuple(f for f in reference.ignored if f.label in classes)
    )


def to_dict(result: Detections | FindingReference) -> dict[str, Any]:
    """As JSON takes it; masks are packed bits, compressed, in base64."""
    content: dict[str, Any] = {"frame": "RAS mm", "classes": list(result.classes)}
    if isinstance(result, Detections):
        content |= {"threshold": float(result.threshold), "notes": list(result.notes)}
    called = _called(result)
    content["findings"] = [_finding(finding) | {"called": id(finding) in called} for finding in result.findings]
    if isinstance(result, FindingReference):
        content["ignored"] = [_finding(finding) for finding in result.ignored]
    return content


def from_dict(content: Mapping[str, Any], where: str | Path) -> FindingReference:
    """The findings of what ``to_dict`` made, with state "reference". Raises InputError where it is something else."""
    frame = str(content.get("frame", ""))
    if not isinstance(content.get("findings"), list) or not frame:
        raise InputError(f"{where} holds no findings; it needs a list findings and the frame of its coordinates.")
    turn = {"RAS": (1, 1, 1), "LPS": (-1, -1, 1)}.get(frame_of(frame, f"frame in {where}"))
    if turn is None:
        raise InputError(f"{where} gives findings as indices of voxels; give them in RAS mm or LPS mm.")
    findings, ignored = (
        tuple(
            _from_entry(entry, turn, number, where)
            for number, entry in enumerate(content.get(key, []), start=1)
            if not isinstance(entry, dict) or (entry.get("state") != "rejected" and entry.get("called", True))
        )
        for key in ("findings", "ignored")
    )
    classes = tuple(map(str, content.get("classes", ()))) or tuple(sorted({f.label for f in findings}))
    return FindingReference(classes, findings, ignored)


def _finding(finding: Finding) -> dict[str, Any]:
    entry = {
        "class": finding.label,
        "score": finding.score,
        "center": list(finding.center),
        "size": list(finding.size),
        "diameter_mm": finding.diameter_mm,
        "measured_diameter_mm": finding.measured_diameter_mm,
        "volume_ml": finding.volume_ml,
        "state": finding.state,
        "synthetic": finding.synthetic,
    }
    if finding.about:
        entry["about"] = finding.about
    if finding.mask is not None:
        packed = zlib.compress(np.packbits(finding.mask.values.ravel()).tobytes())
        entry["mask"] = {
            "shape": list(finding.mask.values.shape),
            "affine": finding.mask.affine.tolist(),
            "voxels": base64.b64encode(packed).decode(),
        }
    return entry


def _from_entry(entry: Any, turn: Sequence[int], number: int, where: str | Path) -> Finding:
    try:
        mask = None
        if entry.get("mask"):
            shape = tuple(entry["mask"]["shape"])
            bits = np.frombuffer(zlib.decompress(base64.b64decode(entry["mask"]["voxels"])), dtype=np.uint8)
            values = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
            mask = FindingMask(values, np.diag([*turn, 1]) @ np.array(entry["mask"]["affine"], dtype=np.float64))
        return Finding(
            tuple(s * float(n) for s, n in zip(turn, entry["center"], strict=True)),
            tuple(map(float, entry["size"])),
            str(entry.get("class") or "finding"),
            entry.get("score"),
            "reference",
            entry.get("measured_diameter_mm"),
            mask,
            bool(entry.get("synthetic", False)),
            entry.get("about"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise InputError(f"Finding {number} of {where} cannot be read ({error}); correct it.") from None


def _called(result: Detections | FindingReference) -> set[int]:
    """Identities of the findings at the operating point; all of a reference."""
    return set(map(id, result.called if isinstance(result, Detections) else result.findings))


def _table(results: Mapping[str, Detections | FindingReference], whole: bool) -> str:
    rows: list[tuple[Any, ...]] = []
    for scan, result in results.items():
        called = _called(result)
        ignored = result.ignored if isinstance(result, FindingReference) else ()
        for rank, finding in enumerate((*result.findings, *ignored), start=1):
            known = rank <= len(result.findings)
            rows.append(
                (
                    scan,
                    rank if known else "",
                    finding.label,
                    "" if finding.score is None else f"{finding.score:.6g}",
                    *(f"{n:.4f}" for n in (*finding.center, *finding.size)),
                    f"{finding.diameter_mm:.4g}",
                    f"{finding.volume_ml:.4g}",
                    finding.state,
                    int(known and id(finding) in called),
                    int(not known),
                    int(finding.synthetic),
                    "RAS",
                )
            )
        if whole and not result.findings and not ignored:
            rows.append((scan, *[""] * (len(COLUMNS) - 1)))
    return _csv(COLUMNS, rows)


def _read_table(path: Path, classes: Sequence[str] | None, scan: str) -> FindingReference:
    table = read_table(path, comments=True)
    columns = find_columns(table)
    label = classes[0] if classes and len(classes) == 1 else None
    if columns.image is not None and not any(row[columns.image] for _, row in table.rows):
        # Written without the name of a scan.
        del table.columns[columns.image]
        columns = find_columns(table)
    rows = list(FindingTable(table, path, columns=columns, label=label).rows())
    scans = sorted({row.image for row in rows})
    if scan:
        same = [name for name in scans if scan in (name, name_of(Path(name)))]
        if not same:
            raise InputError(f"{path} has no row of the scan {scan}; it has rows of {listed(scans)}.")
        rows = [row for row in rows if row.image in same]
    elif len(scans) > 1:
        raise InputError(f"{path} has findings of {len(scans)} scans ({listed(scans)}); give a table of one scan.")
    if any(row.frame == "voxel" for row in rows if row.place):
        raise InputError(f"{path} gives findings as indices of voxels; give them in RAS mm or LPS mm.")
    findings = tuple(row.finding("reference") for row in rows if row.place and not row.ignored)
    ignored = tuple(row.finding("reference") for row in rows if row.place and row.ignored)
    names = tuple(classes or sorted({finding.label for finding in findings})) or ("finding",)
    return FindingReference(names, findings, ignored)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from None
    except ValueError as error:
        raise InputError(
            f"{path} is neither a table (.csv) nor valid JSON ({error}); give a file of findings."
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no findings; give a file that medmapai or Slicer wrote.")
    return content


def _ending(path: Path) -> str:
    name = path.name.lower()
    return ".mrk.json" if name.endswith(".mrk.json") else path.suffix.lower()


def _csv(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return buffer.getvalue()


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
