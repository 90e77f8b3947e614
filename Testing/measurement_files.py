"""Small files of measurements, true to their formats, as scanners and beamlines write them."""

from __future__ import annotations

import h5py
import numpy as np
from ct_phantoms import disc_sinogram
from MedMapAILib.physics.ct_geometry import ParallelBeam, full_angles

DISCS = ((3.0, -4.0, 20.0, 0.02), (-6.0, 5.0, 5.0, -0.01))
#: Of the data set data of an ISMRMRD file (ismrmrd.h, schema version 1).
COUNTERS = [
    *((name, "<u2") for name in ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast")),
    *((name, "<u2") for name in ("phase", "repetition", "set", "segment")),
    ("user", "<u2", (8,)),
]
HEAD = [
    ("version", "<u2"),
    ("flags", "<u8"),
    *((name, "<u4") for name in ("measurement_uid", "scan_counter", "acquisition_time_stamp")),
    ("physiology_time_stamp", "<u4", (3,)),
    *((name, "<u2") for name in ("number_of_samples", "available_channels", "active_channels")),
    ("channel_mask", "<u8", (16,)),
    *((n, "<u2") for n in ("discard_pre", "discard_post", "center_sample", "encoding_space_ref")),
    ("trajectory_dimensions", "<u2"),
    ("sample_time_us", "<f4"),
    *((n, "<f4", (3,)) for n in ("position", "read_dir", "phase_dir", "slice_dir", "patient_table_position")),
    ("idx", COUNTERS),
    ("user_int", "<i4", (8,)),
    ("user_float", "<f4", (8,)),
]
VARIABLE = h5py.special_dtype(vlen=np.dtype("float32"))
RECORD = np.dtype([("head", HEAD), ("traj", VARIABLE), ("data", VARIABLE)])


def scan(views=60, detectors=72, offset=3.2, rows=1):
    """Geometry and closed-form line integrals (rows, A, D) of DISCS, the rows' attenuation growing."""
    geometry = ParallelBeam(full_angles(views), detectors, 1.0, 64, 1.0, offset)
    lines = disc_sinogram(geometry, DISCS)[0].numpy()
    return geometry, np.concatenate([lines * (1 + n / 4) for n in range(rows)])


def write_data_exchange(path, lines, degrees, *, flat=20000.0, dark=100.0, units="degrees", change=None, seed=0):
    """Counts (A, row, D) of line integrals (row, A, D), with a flat field that differs from pixel to pixel.

    change: function(file), called with the open file at the end.
    """
    rng = np.random.default_rng(seed)
    beam = flat * rng.uniform(0.8, 1.2, (1, lines.shape[0], lines.shape[2]))
    with h5py.File(path, "w") as file:
        exchange = file.create_group("exchange")
        exchange["data"] = (beam * np.exp(-lines.transpose(1, 0, 2)) + dark).astype(np.float32)
        exchange["data_white"] = np.repeat(beam + dark, 5, axis=0).astype(np.float32)
        exchange["data_dark"] = np.full((5, *beam.shape[1:]), dark, np.float32)
        exchange["theta"] = np.asarray(degrees, dtype=float)
        if units:
            exchange["theta"].attrs["units"] = units
        file["implements"] = "exchange"
        if change:
            change(file)


def header(encoded, recon, encoded_mm, recon_mm, *, center=None, limit=None, trajectory="cartesian", extra=""):
    """The XML header of ISMRMRD, as short as its schema allows, (x, y, z) each."""

    def three(name, values):
        return f"<{name}><x>{values[0]}</x><y>{values[1]}</y><z>{values[2]}</z></{name}>"

    def space(name, size, length):
        return f"<{name}>{three('matrixSize', size)}{three('fieldOfView_mm', length)}</{name}>"

    center = encoded[1] // 2 if center is None else center
    limit = encoded[1] - 1 if limit is None else limit
    step = f"<minimum>0</minimum><maximum>{limit}</maximum><center>{center}</center>"
    return (
        '<?xml version="1.0" encoding="utf-8"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<subjectInformation><patientName>DOE^JANE</patientName></subjectInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', encoded, encoded_mm)}{space('reconSpace', recon, recon_mm)}"
        f"<encodingLimits><kspace_encoding_step_1>{step}</kspace_encoding_step_1></encodingLimits>"
        f"<trajectory>{trajectory}</trajectory>{extra}</encoding></ismrmrdHeader>"
    )


def write_fastmri(path, k_space, xml, *, reconstruction=None, mask=None):
    """k_space: (slice, coil, row, column), or (slice, row, column) of a single-coil file."""
    with h5py.File(path, "w") as file:
        file["kspace"] = k_space.astype(np.complex64)
        file["ismrmrd_header"] = xml
        if reconstruction is not None:
            name = "reconstruction_rss" if k_space.ndim == 4 else "reconstruction_esc"
            file[name] = reconstruction.astype(np.float32)
            file.attrs.update({"max": float(reconstruction.max()), "norm": float(np.linalg.norm(reconstruction))})
        if mask is not None:
            file["mask"] = mask
        file.attrs.update({"acquisition": "AXT2", "patient_id": "0123456789abcdef"})


def readout(line, y, z=0, *, flags=0, slice_=0, position=(0, 0, 0), center=None, **counters):
    """One record of an ISMRMRD file: line (C, samples) complex."""
    record = np.zeros(1, RECORD)[0]
    head = record["head"]
    coils, samples = line.shape
    values = {
        "version": 1,
        "flags": flags,
        "number_of_samples": samples,
        "available_channels": coils,
        "active_channels": coils,
        "center_sample": samples // 2 if center is None else center,
        "position": position,
        "read_dir": (0, 1, 0),
        "phase_dir": (1, 0, 0),
        "slice_dir": (0, 0, 1),
    }
    for name, value in values.items():
        head[name] = value
    for name, value in {"kspace_encode_step_1": y, "kspace_encode_step_2": z, "slice": slice_, **counters}.items():
        head["idx"][name] = value
    record["data"] = np.ascontiguousarray(line, dtype=np.complex64).view(np.float32).ravel()
    record["traj"] = np.zeros(0, np.float32)
    return record


def write_ismrmrd(path, records, xml, *, group="dataset"):
    """records: from ``readout``."""
    with h5py.File(path, "w") as file:
        made = file.create_group(group)
        made.create_dataset("xml", (1,), dtype=h5py.special_dtype(vlen=bytes))[0] = xml.encode()
        data = made.create_dataset("data", (len(records),), maxshape=(None,), dtype=RECORD)
        for number, record in enumerate(records):
            data[number] = record
