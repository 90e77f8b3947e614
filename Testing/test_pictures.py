"""Pictures: every kind of PNG and JPEG by the values that were put into it, and what is cut off or not whole."""

import io
import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from MedMapAILib.errors import InputError
from MedMapAILib.image import affine_of, make_image, read_image, read_volume
from MedMapAILib.pictures import is_gray, read_header, with_channels
from PIL import Image

RANDOM = np.random.default_rng(0)
GRAY = RANDOM.integers(0, 256, (40, 60), dtype=np.uint8)  # rows, columns
RGB = RANDOM.integers(0, 256, (40, 60, 3), dtype=np.uint8)
GRAY_16 = RANDOM.integers(0, 65536, (40, 60)).astype(np.uint16)
RGB_16 = RANDOM.integers(0, 65536, (40, 60, 3)).astype(np.uint16)


def opaque(array):
    return np.dstack([array, np.full(array.shape[:2], np.iinfo(array.dtype).max, array.dtype)])


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    for word in (path.name, *words):
        assert word in str(caught.value), str(caught.value)


def by_itk(array, path):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


def png(path, array, color_type):
    """A PNG file of 8 or 16 bits, written by the specification and no library, for kinds that none writes."""
    rows, columns = array.shape[:2]
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    data = b"".join(b"\0" + row.tobytes() for row in big_endian)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8 * array.dtype.itemsize, color_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    )
    pieces = (struct.pack(">I", len(p)) + k + p + struct.pack(">I", zlib.crc32(k + p)) for k, p in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(pieces))


@pytest.mark.parametrize(
    "values, color_type",
    [(GRAY, 0), (GRAY_16, 0), (RGB, 2), (RGB_16, 2), (opaque(GRAY), 4), (opaque(RGB), 6), (opaque(RGB_16), 6)],
    ids=["gray", "gray 16", "rgb", "rgb 16", "gray with alpha", "rgba", "rgba 16"],
)
def test_png_values_and_place(tmp_path, values, color_type):
    png(tmp_path / "a.png", values, color_type)
    image = read_image(tmp_path / "a.png")
    expected = values.reshape(40, 60, -1)
    expected = expected[..., : 3 if expected.shape[-1] > 2 else 1]
    assert image.shape == (expected.shape[-1], 60, 40, 1)
    np.testing.assert_array_equal(image.numpy()[..., 0], expected.T)
    np.testing.assert_array_equal(affine_of(image), np.diag([-1, -1, 1, 1]))
    assert image.meta["notes"] == []
    assert read_header(tmp_path / "a.png").channels == len(image)
    assert read_header(tmp_path / "a.png").bits == 8 * values.dtype.itemsize


def test_the_pixel_in_the_corner_is_where_slicer_has_it(tmp_path):
    values = np.zeros((4, 6), dtype=np.uint8)
    values[0, 5], values[3, 0] = 200, 100  # upper right, lower left
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    picture = sitk.ReadImage(str(tmp_path / "a.png"))
    for value in (100, 200):
        (index,) = np.argwhere(image.numpy()[0] == value)
        lps = picture.TransformIndexToPhysicalPoint([int(n) for n in index[:2]])
        np.testing.assert_allclose((affine_of(image) @ [*index, 1])[:2], [-lps[0], -lps[1]])


def test_palettes_become_colors(tmp_path):
    picture = Image.fromarray(RGB).quantize(16)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").numpy()[..., 0], np.asarray(picture.convert("RGB")).T)
    Image.fromarray(GRAY).convert("1", dither=0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png").numpy()[0, ..., 0], np.where(GRAY > 127, 255, 0).T)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused(tmp_path, mode):
    values = np.asarray(Image.fromarray(RGB).convert(mode)).copy()
    values[3, 4, -1] = 254
    Image.fromarray(values, mode).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", "transparent in places", "save it without")


def test_other_transparency(tmp_path):
    Image.fromarray(RGB).quantize(16).save(tmp_path / "palette.png", transparency=3)
    refused(tmp_path / "palette.png", "transparent in places")
    Image.fromarray(GRAY).save(tmp_path / "key.png", transparency=int(GRAY[0, 0]))
    refused(tmp_path / "key.png", "transparent in places")
    png(tmp_path / "a.png", opaque(GRAY_16), 4)
    refused(tmp_path / "a.png", "16-bit gray", "without")


def test_jpeg(tmp_path):
    y, x = np.mgrid[:40, :60]
    smooth = np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8)
    for name, values, options in (
        ("gray", smooth[..., 0], {}),
        ("color", smooth, {}),
        ("progressive", smooth, {"progressive": True}),
        ("with a preview", smooth, {"exif": _exif(smooth)}),
    ):
        Image.fromarray(values).save(tmp_path / f"{name}.jpg", quality=95, **options)
        image = read_image(tmp_path / f"{name}.jpg")
        assert len(image) == read_header(tmp_path / f"{name}.jpg").channels == (1 if name == "gray" else 3)
        # JPEG loses a little: 4 of 255 are far above what quality 95 does to a ramp.
        assert np.abs(image.numpy()[..., 0] - values.reshape(40, 60, -1).T).max() <= 4
        np.testing.assert_array_equal(affine_of(image), np.diag([-1, -1, 1, 1]))


def _exif(values):
    """A tag block as cameras write it, with a JPEG preview of its own in it."""
    preview = io.BytesIO()
    Image.fromarray(values[::2, ::2]).save(preview, "jpeg")
    return b"Exif\0\0" + preview.getvalue()


def test_gray_saved_as_color_is_seen(tmp_path):
    for ending in (".png", ".jpg"):
        Image.fromarray(np.dstack([GRAY] * 3)).save(tmp_path / f"a{ending}")
        image = read_image(tmp_path / f"a{ending}")
        assert len(image) == 3 and is_gray(image.numpy())
        assert with_channels(image, 1, "a").shape == (1, 60, 40, 1)
        np.testing.assert_array_equal(with_channels(with_channels(image, 1, "a"), 3, "a").numpy(), image.numpy())
    Image.fromarray(RGB).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="b.png is a color picture"):
        with_channels(read_image(tmp_path / "b.png"), 1, tmp_path / "b.png")
    for shape, count in (((2, 3, 3, 1), 1), ((1, 3, 3, 3), 3), ((3, 3, 3, 1), 2)):
        other = make_image(np.zeros(shape), np.eye(4))
        assert with_channels(other, count, "two channels, a volume, or no such number") is other


def test_one_color_of_a_picture(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", frame=1).numpy()[0, ..., 0], RGB[..., 1].T)
    with pytest.raises(InputError, match="3 color components"):
        read_volume(tmp_path / "a.png")
    with pytest.raises(InputError, match="no frame 3"):
        read_image(tmp_path / "a.png", frame=3)


def test_the_content_counts_and_not_the_name(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.JPG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.JPG").numpy()[..., 0], RGB.T)


@pytest.mark.parametrize(
    "name", ["gray.png", "rgb16.png", "la.png", "gray.jpg", "color.jpg", "preview.jpg", "progressive.jpg"]
)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9, 0.999])
def test_truncated_pictures_are_refused(tmp_path, capfd, name, part):
    path = tmp_path / name
    if name == "rgb16.png":
        by_itk(RGB_16, path)
    elif name == "la.png":
        png(path, opaque(GRAY), 4)
    elif name == "preview.jpg":
        Image.fromarray(RGB).save(path, exif=_exif(RGB))
    else:
        Image.fromarray(GRAY if "gray" in name else RGB).save(path, **({"progressive": True} if "prog" in name else {}))
    data = path.read_bytes()
    path.write_bytes(data[: max(1, min(int(part * len(data)), len(data) - 1))])
    refused(path, "truncated" if part > 0.02 else "")
    assert capfd.readouterr().err == ""


def test_damaged_pictures_and_what_is_none(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", "damaged")
    (tmp_path / "b.jpg").write_bytes(b"GIF89a and more")
    refused(tmp_path / "b.jpg", "not of the format")
    (tmp_path / "c.png").write_bytes(b"")
    refused(tmp_path / "c.png", "empty file")
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "d.jpg")
    refused(tmp_path / "d.jpg", "printing inks")
