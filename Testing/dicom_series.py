"""DICOM series written for tests, with a patient whose name must never be seen again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"
PATIENT_ID = "PID-4711"


def write_series(
    folder: Path, positions, *, orientation=(1, 0, 0, 0, 1, 0), seed=0, prefix="slice", **fields
) -> np.ndarray:
    """One CT file of 6 columns and 5 rows for each position (mm, LPS). Returns the stored values (K, rows, columns).

    fields: attributes of every slice; a list gives one value to each slice; None takes the attribute away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 2000, (len(positions), 5, 6), dtype=np.int16)
    series = fields.pop("SeriesInstanceUID", generate_uid())
    # File names say nothing about the order of the slices.
    numbers = np.random.default_rng(seed).permutation(len(positions))
    for index, position in enumerate(positions):
        header = _header(CTImageStorage, series, index)
        header.ImagePositionPatient = [round(float(v), 6) for v in position]
        header.ImageOrientationPatient = [round(float(v), 8) for v in orientation]
        header.PixelSpacing = [0.8, 0.6]
        header.SliceThickness = 2.0
        header.RescaleSlope, header.RescaleIntercept = 1, -1024
        for name, value in fields.items():
            value = value[index] if isinstance(value, list) and len(value) == len(positions) else value
            if value is None:
                if name in header:
                    delattr(header, name)
            else:
                setattr(header, name, value)
        header.PixelData = values[index].tobytes()
        header.save_as(folder / f"{prefix}{numbers[index]:03}.dcm", enforce_file_format=True)
    return values


def write_enhanced(path: Path, positions, *, orientation=(1, 0, 0, 0, 1, 0), slopes=None) -> np.ndarray:
    """One enhanced multi-frame MR file with a frame at each position, in the order given. Returns (frames, 5, 6)."""
    values = np.random.default_rng(1).integers(0, 2000, (len(positions), 5, 6), dtype=np.int16)
    header = _header(EnhancedMRImageStorage, generate_uid(), 0)
    header.Modality = "MR"
    header.NumberOfFrames = len(positions)
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=[float(v) for v in orientation])])
    shared.PixelMeasuresSequence = Sequence([_item(PixelSpacing=[0.8, 0.6], SliceThickness=2.0)])
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for index, position in enumerate(positions):
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([_item(ImagePositionPatient=[float(v) for v in position])])
        slope = 2.0 if slopes is None else slopes[index]
        frame.PixelValueTransformationSequence = Sequence(
            [_item(RescaleSlope=slope, RescaleIntercept=10.0, RescaleType="US")]
        )
        frames.append(frame)
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    header.PixelData = values.tobytes()
    header.save_as(path, enforce_file_format=True)
    return values


def _item(**fields) -> Dataset:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return item


def _header(kind: str, series: str, index: int) -> pydicom.Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = kind
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.PatientName, header.PatientID, header.PatientBirthDate = PATIENT, PATIENT_ID, "19700131"
    header.Modality, header.SeriesDescription = "CT", "Lung 2 mm"
    header.SeriesInstanceUID, header.StudyInstanceUID, header.FrameOfReferenceUID = (
        series,
        generate_uid(),
        generate_uid(),
    )
    header.SeriesNumber, header.InstanceNumber = 3, index + 1
    header.Rows, header.Columns, header.SamplesPerPixel = 5, 6, 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    return header
