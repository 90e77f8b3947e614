"""The XML header of ISMRMRD files, which fastMRI files carry, too: sizes, fields of view, where the center is.

Inati and others, "ISMRM Raw data format: a proposed standard for MRI raw datasets", MRM 77 (2017); its schema is
ismrmrd.xsd. Only numbers of the geometry are read: nothing on who the patient is.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

from ..errors import InputError


@dataclass(frozen=True)
class MrHeader:
    """Of the first encoding. Sizes and fields of view are (x, y, z): readout, first and second phase encoding.

    encoded, recon: samples measured, and pixels of the image as the scanner made it. encoded_mm, recon_mm: fields of
    view. centers: of k-space among the steps of y and z, None where not said. trajectory: "cartesian" or another.
    calibration: how lines for calibration were taken, "" where not said.
    """

    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    encoded_mm: tuple[float, float, float]
    recon_mm: tuple[float, float, float]
    centers: tuple[int | None, int | None]
    trajectory: str = "cartesian"
    calibration: str = ""

    @property
    def pixel_mm(self) -> tuple[float, float, float]:
        """The size of a pixel along x, y and z of an image of all encoded samples, mm."""
        x, y, z = (length / count for length, count in zip(self.encoded_mm, self.encoded, strict=True))
        return x, y, z


def read_header(text: str, where: str) -> MrHeader:
    """The header in an XML text. Raises InputError for what is no XML, or lacks the sizes."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"The header of {where} is no valid XML ({error}).") from None
    # Names without their namespace, which some writers leave out.
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    encoding = root.find("encoding")
    if encoding is None:
        raise InputError(f"The header of {where} has no encoding, so it does not say how k-space was sampled.")

    def three(path: str, kind: type, default: tuple | None = None) -> tuple:
        values = [encoding.findtext(f"{path}/{axis}") for axis in "xyz"]
        if None in values:
            if default is not None:
                return default
            raise InputError(f"The header of {where} lacks {path}.")
        try:
            found = tuple(kind(float(value)) for value in values)
        except ValueError:
            raise InputError(f"The header of {where}: {path} is {', '.join(values)}, not three numbers.") from None
        if min(found) <= 0:
            raise InputError(f"The header of {where}: {path} is {', '.join(values)}; each is above zero.")
        return found

    encoded = three("encodedSpace/matrixSize", int)
    encoded_mm = three("encodedSpace/fieldOfView_mm", float)
    centers = [encoding.findtext(f"encodingLimits/kspace_encoding_step_{n}/center") for n in (1, 2)]
    return MrHeader(
        encoded,
        three("reconSpace/matrixSize", int, encoded),
        encoded_mm,
        three("reconSpace/fieldOfView_mm", float, encoded_mm),
        tuple(None if text is None else int(text) for text in centers),
        encoding.findtext("trajectory") or "cartesian",
        encoding.findtext("parallelImaging/calibrationMode") or root.findtext("parallelImaging/calibrationMode") or "",
    )
