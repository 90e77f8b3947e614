"""Who is in which part of the lung-nodule model: one division by patient for all that comes from LIDC-IDRI.

LUNA16's lists are sorted by the identifier of the scan, and so is its candidates.csv: a row of candidates.csv tells
about where its scan stands in that order (its positives follow annotations.csv to within 1 % of the whole list). So
parts are stretches of that order, with gaps between them, for nodules (whose scan is known) and candidate crops (whose
row is known) alike: ::

    0                                  0.66   0.68         0.80   0.82          1
    |  training                          | gap | validation | gap |  test       |

No candidate crop at hand comes from the test stretch. LIDC-IDRI-0001, on which the model is reported, stands at 0.260;
crops around it are left out.
"""

from __future__ import annotations

from pathlib import Path

#: LUNA16 has so many scans, and so many rows in candidates.csv.
SCANS, ROWS = 888, 551_065
#: Part → where it begins and ends in the order of the scans.
STRETCHES = {"train": (0.0, 0.66), "validation": (0.68, 0.80), "test": (0.82, 1.01)}
#: Around LIDC-IDRI-0001.
LEFT_OUT = (0.235, 0.285)
RESERVED_PATIENT = "LIDC-IDRI-0001"


def places_of_scans(seriesuids: Path) -> dict[str, float]:
    """Series identifier → its place in LUNA16's order, 0 to 1. seriesuids: LUNA16's seriesuids.csv."""
    names = sorted(line.strip() for line in seriesuids.read_text().splitlines() if line.strip())
    return {name: number / len(names) for number, name in enumerate(names)}


def part_of(place: float | None) -> str | None:
    """The part of a place in the order; None in the gaps, and for a scan that LUNA16 does not have."""
    if place is None:
        return None
    return next((part for part, (low, high) in STRETCHES.items() if low <= place < high), None)


def part_of_row(row: int) -> str | None:
    """The part of a row of candidates.csv; None in the gaps and around the reserved patient."""
    place = row / ROWS
    return None if LEFT_OUT[0] <= place < LEFT_OUT[1] else part_of(place)


def parts_of_patients(rows: list[dict[str, str]], places: dict[str, float]) -> dict[str, str]:
    """Patient → part, for rows with ``patient_id`` and ``seriesuid`` (or ``series_uid``). Patients in no part, in two,
    or reserved are left out.
    """
    found: dict[str, set[str | None]] = {}
    for row in rows:
        series = row.get("seriesuid") or row.get("series_uid")
        found.setdefault(row["patient_id"], set()).add(part_of(places.get(series)))
    return {
        patient: next(iter(parts))
        for patient, parts in found.items()
        if len(parts) == 1 and None not in parts and patient != RESERVED_PATIENT
    }
