"""LIDC-IDRI written for tests: CT series and the XML files of their readers, both as the collection has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

#: A name that must never be seen again.
PATIENT = "Doe^Jane"
#: Where the first voxel lies (LPS mm), columns, rows, and mm between rows and columns.
ORIGIN, SIZE, PIXEL = (-20.0, -30.0, -100.0), (48, 40), 0.5
RATINGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip


def write_scan(folder: Path, heights, *, series=None, orientation=(1, 0, 0, 0, 1, 0), modality="CT", names="{:03}.dcm"):
    """A slice at each height (mm, third coordinate). Returns the SeriesInstanceUID and height → SOPInstanceUID."""
    folder.mkdir(parents=True, exist_ok=True)
    series, instances = series or generate_uid(), {}
    study = generate_uid()
    values = np.random.default_rng(0).integers(-1000, 400, (len(heights), *SIZE[::-1]), dtype=np.int16)
    for index, z in enumerate(heights):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
        instances[z] = header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
        header.PatientName = header.PatientID = PATIENT
        header.Modality, header.SeriesInstanceUID, header.StudyInstanceUID = modality, series, study
        header.SeriesNumber, header.InstanceNumber = 1, index + 1
        header.ImagePositionPatient, header.ImageOrientationPatient = [*ORIGIN[:2], z], list(orientation)
        header.PixelSpacing, header.SliceThickness = [PIXEL, PIXEL], 2.5
        header.Columns, header.Rows = SIZE
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.RescaleSlope, header.RescaleIntercept = 1, 0
        header.PixelData = values[index].tobytes()
        pydicom.dcmwrite(folder / names.format((7 * index) % len(heights)), header, enforce_file_format=True)
    return series, instances


def rectangle(x0, y0, x1, y1):
    """The pixels just outside of the columns x0 … x1 and rows y0 … y1, one after the other."""
    x0, y0, x1, y1 = x0 - 1, y0 - 1, x1 + 1, y1 + 1
    return (
        [(x, y0) for x in range(x0, x1)]
        + [(x1, y) for y in range(y0, y1)]
        + [(x, y1) for x in range(x1, x0, -1)]
        + [(x0, y) for y in range(y1, y0, -1)]
    )


def roi(z, points, instance="", included=True):
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
    return (
        f"<roi><imageZposition>{z:.6f} </imageZposition><imageSOP_UID>{instance}</imageSOP_UID>"
        f"<inclusion>{'TRUE' if included else 'FALSE'}</inclusion>{edges}</roi>"
    )


def nodule(name, *rois, ratings=None):
    """ratings: a number for each of RATINGS, or one for all; None for a nodule of less than 3 mm."""
    given = "".join(f"<{key}>{ratings}</{key}>" for key in RATINGS) if ratings else ""
    rated = f"<characteristics>{given}</characteristics>" if ratings else ""
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{rated}{''.join(rois)}</unblindedReadNodule>"


def box_nodule(name, box, heights, instances, ratings=3):
    """A nodule that fills columns x0 … x1 and rows y0 … y1 (box: x0, y0, x1, y1) of the slices at some heights."""
    return nodule(name, *(roi(z, rectangle(*box), instances.get(z, "1.2.3")) for z in heights), ratings=ratings)


def other(name, z, point, instance=""):
    x, y = point
    return (
        f"<nonNodule><nonNoduleID>{name}</nonNoduleID><imageZposition>{z}</imageZposition>"
        f"<imageSOP_UID>{instance}</imageSOP_UID><locus><xCoord>{x}</xCoord><yCoord>{y}</yCoord></locus></nonNodule>"
    )


def write_reading(path: Path, series, readers, root="LidcReadMessage"):
    """readers: a list of marks for each reader."""
    sessions = "".join(
        f"<readingSession><servicingRadiologistID>{n}</servicingRadiologistID>{''.join(marks)}</readingSession>"
        for n, marks in enumerate(readers)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} uid="1.2" xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>{sessions}</{root}>\n"
    )
    return path
