"""Pictures: PNG and JPEG files as images of one slice, gray or red, green and blue.

SimpleITK decodes them, so that a model sees what Slicer shows: palettes become colors, 16 bits stay, the orientation
tag of cameras plays no part, and where a JPEG file tells its density the pixels get that size, else 1 mm. That a file
is whole is checked here: ITK fills up a JPEG file that is cut off, and says so nowhere but on the terminal.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from .image import Volume

ENDINGS = (".png", ".jpg", ".jpeg")
#: Names of the channels of a color picture.
COLORS = ("red", "green", "blue")

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Color types of PNG (specification, section 11.2.2).
_PNG_GRAY, _PNG_GRAY_ALPHA = 0, 4
# The start-of-frame markers of JPEG: C0 to CF without the tables C4 and CC and the reserved C8.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"


@dataclass(frozen=True)
class Header:
    """What a picture file says of itself: ``channels`` is 1 (gray) or 3, ``bits`` are those of one of them."""

    kind: str  # "PNG" or "JPEG"
    channels: int
    bits: int
    png_type: int | None = None


def is_picture(path: str | Path) -> bool:
    """Whether the name ends as that of a picture."""
    return Path(path).suffix.lower() in ENDINGS


def can_be_color(path: Path) -> bool:
    """Whether one file may hold three channels for one image: a picture, or a DICOM file or folder."""
    return is_picture(path) or path.is_dir() or path.suffix.lower() in (".dcm", ".ima", "")


def read_header(path: str | Path) -> Header:
    """What a picture file is, from its first bytes: PNG or JPEG by its content, whatever its name says.

    Raises InputError where it is neither, is cut off before that, or holds printing inks (CMYK).
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _header(path, stream)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def read_picture(path: Path, *, frame: int | None = None, color: bool = False) -> Volume:
    """The pixels of a picture, (columns, rows, 1) in their own number type, or (3, columns, rows, 1) with ``color``.

    Index i runs along the columns to the patient's left and j down the rows, in ITK's default place. ``frame`` (0 to 2)
    takes one of red, green and blue; without it and without ``color`` a color picture is refused. An opacity (alpha)
    that is full everywhere is left out. Raises InputError, also for files that are cut off and for transparent pixels.
    """
    import SimpleITK as sitk

    from .image import Volume, affine_of_itk, not_an_image, pick_frame, quiet_itk

    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    header = _header(path, io.BytesIO(data))
    if header.kind == "PNG":
        keyed = _check_png(path, data)
    else:
        keyed = False
        _check_jpeg(path, data)
    if header.png_type == _PNG_GRAY_ALPHA or (header.png_type == _PNG_GRAY and keyed):
        array, affine = _gray_and_alpha(path, header), np.diag([-1.0, -1.0, 1.0, 1.0])
    else:
        reader = sitk.ImageFileReader()
        reader.SetImageIO(f"{header.kind}ImageIO")  # by its content: a PNG file may be called .jpg
        reader.SetFileName(str(path))
        try:
            with quiet_itk(sitk):
                picture = reader.Execute()
        except RuntimeError as error:
            raise not_an_image(path, "its pixels are damaged or of an unknown coding") from error
        array, affine = sitk.GetArrayFromImage(picture), affine_of_itk(picture)
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[-1] in (2, 4):
        array = _without_opacity(path, array)
    channels = array.T[..., None]
    if color and frame is None and len(channels) > 1:
        return Volume(channels, affine, (), {})
    return Volume(channels[pick_frame(path, len(channels), "color components", frame)], affine, (), {})


def with_channels(image: MetaTensor, count: int, what: str | Path) -> MetaTensor:
    """An image of one slice with 1 or 3 channels, where it has 3 or 1; all others as they are.

    Gray becomes three equal channels, and three equal channels gray: X-ray pictures are often saved as color ones.
    Raises InputError, which begins with ``what``, where there is color and one channel is wanted.
    """
    from .image import affine_of, make_image

    if 1 not in image.shape[1:]:
        return image
    about = {key: value for key, value in image.meta.items() if key != "affine"}
    if (image.shape[0], count) == (1, 3):
        return make_image(np.repeat(image.numpy(), 3, axis=0), affine_of(image), meta=about)
    if (image.shape[0], count) == (3, 1):
        if not is_gray(image.numpy()):
            raise InputError(f"{what} is a color picture and the others are gray; convert it to gray or leave it out.")
        return make_image(image.numpy()[:1], affine_of(image), meta=about)
    return image


def is_gray(array: np.ndarray) -> bool:
    """Whether three channels (3, …) are one and the same."""
    return bool((array[1] == array[0]).all() and (array[2] == array[0]).all())


# --------------------------------------------------------------------------------------------------------------------


def _header(path: Path, stream: BinaryIO) -> Header:
    from .image import not_an_image

    start = stream.read(33)
    if not start:
        raise InputError(f"{path} is an empty file.")
    if start.startswith(_PNG):
        if len(start) < 33 or start[12:16] != b"IHDR":
            raise not_an_image(path, "it is truncated or damaged")
        bits, kind = start[24], start[25]
        return Header("PNG", 1 if kind in (_PNG_GRAY, _PNG_GRAY_ALPHA) else 3, bits, kind)
    if start.startswith(_JPEG):
        frame = next((stream.read(6) for marker in _jpeg_segments(stream) if marker in _JPEG_FRAMES), b"")
        if len(frame) < 6:
            raise not_an_image(path, "it is truncated or damaged")
        bits, components = frame[0], frame[5]
        if components == 4:
            raise InputError(f"{path} is a picture in printing inks (CMYK); save it as RGB or gray.")
        return Header("JPEG", 1 if components == 1 else 3, bits)
    raise not_an_image(path, "it is not of the format that its ending says")


def _jpeg_segments(stream: BinaryIO) -> Iterator[int]:
    """The markers of a JPEG file's header up to its first scan, the stream behind the length of each."""
    stream.seek(2)
    while (byte := stream.read(1)) == b"\xff":
        while byte == b"\xff":  # any number of these may stand before a marker
            byte = stream.read(1)
        length = int.from_bytes(stream.read(2), "big")
        if not byte or length < 2:
            return
        here = stream.tell()
        yield byte[0]
        stream.seek(here + length - 2)


def _check_png(path: Path, data: bytes) -> bool:
    """InputError unless all pieces of a PNG file are there with the right checksums. Returns whether a color is marked
    as transparent.
    """
    from .image import not_an_image

    position, keyed = len(_PNG), False
    while True:
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        if len(data) < end:
            raise not_an_image(path, "it is truncated or damaged")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise not_an_image(path, "it is damaged")
        if kind == b"IEND":
            return keyed
        keyed |= kind == b"tRNS"
        position = end


def _check_jpeg(path: Path, data: bytes) -> None:
    """InputError where a JPEG file does not come to its end, which nothing else in its pixels looks like."""
    from .image import not_an_image

    stream = io.BytesIO(data)
    # From the first scan on, as a preview in the header has an end of its own.
    scans = (stream.tell() for marker in _jpeg_segments(stream) if marker == _JPEG_SCAN)
    if data.find(_JPEG_END, next(scans, len(data))) < 0:
        raise not_an_image(path, "it is truncated or damaged")


def _gray_and_alpha(path: Path, header: Header) -> np.ndarray:
    """(rows, columns, 2) by Pillow: SimpleITK has no pixels of gray and opacity. Pillow has them in 8 bits alone."""
    if header.bits == 16:
        raise InputError(f"{path} is a 16-bit gray picture with transparency; save it without.")
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("LA"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more
        from .image import not_an_image

        raise not_an_image(path, "its pixels are damaged or of an unknown coding") from error


def _without_opacity(path: Path, array: np.ndarray) -> np.ndarray:
    if (array[..., -1] != np.iinfo(array.dtype).max).any():
        raise InputError(f"{path} is transparent in places; save it without transparency (alpha channel).")
    return array[..., :-1]
