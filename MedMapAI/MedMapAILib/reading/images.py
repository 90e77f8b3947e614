"""The images of a study: looked at once when it is made, so that no reader meets one that differs or cannot be read.

Two images of a case that lie on different grids would be told apart by their pixels, and could not be shown at the
same place; images that are windowed differently would be told apart by that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Cancelled, InputError, RunError
from ..image import GeometryWarning, Volume, check_finite, check_same_geometry, read_volume
from .session import ReadingSession
from .study import Study, check_complete, check_free, check_window, create_study, load_key

#: A window that is not given spans these percentiles of all images of a case.
PERCENTILES = (1.0, 99.0)
_LOOKED_AT = 100_000


def make_study(
    folder: str | Path,
    images: Mapping[str, Mapping[str, str]],
    *,
    window: tuple[float, float] | None = None,
    progress: Callable[[float, str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    **options: Any,
) -> Study:
    """``create_study`` after every image was read: they fit, and each case has one window for all its images.

    images: case → method → path, from the study's folder where it is not absolute. window: (lowest, highest value
    shown) of all cases; by default each case's own, by PERCENTILES of all its images together. options: as for
    ``create_study``. Raises InputError for an image that cannot be read, has no finite values, or lies on another grid
    than the case's others, and as ``create_study``.
    """
    check_complete(images)
    check_free(folder, options.get("key"))
    fixed = None if window is None else check_window(window)
    windows = {}
    for number, (case, of) in enumerate(images.items()):
        if cancelled is not None and cancelled():
            raise Cancelled("No study was made.")
        if progress is not None:
            progress(number / len(images), f"case {number + 1} of {len(images)}")
        found = _window_of_case(case, {method: _place(folder, image) for method, image in of.items()})
        windows[case] = fixed or found
    return create_study(folder, images, windows=windows, **options)


def shown_image(folder: str | Path, session: ReadingSession, code: str) -> Volume:
    """The image of a code, scalar (I, J, K). What goes wrong is said without the name of a file, which tells a method.

    Raises InputError.
    """
    try:
        return _read(_place(folder, session.image(code)))
    except (InputError, RunError):
        raise InputError(_unreadable(code)) from None


def check_images_there(folder: str | Path, key: str | Path | None = None) -> None:
    """Raises InputError unless all images of a study are where its key says; names the first by its code."""
    for code, entry in load_key(folder, key).entries.items():
        if not _place(folder, entry.image).exists():
            raise InputError(_unreadable(code))


def _unreadable(code: str) -> str:
    return (
        f"The image {code} of this study is not there, or cannot be read; whoever made the study finds its file in the "
        "key, and puts it back."
    )


def _place(folder: str | Path, image: str) -> Path:
    return Path(folder).absolute() / image


def _read(path: Path) -> Volume:
    with warnings.catch_warnings():
        # A warning would show the path.
        warnings.simplefilter("ignore", GeometryWarning)
        return read_volume(path)


def _window_of_case(case: str, paths: Mapping[str, Path]) -> tuple[float, float]:
    """Checks the images of a case, and gives the window of all of them."""
    first: tuple[str, Any] | None = None
    values = []
    for method, path in paths.items():
        if not path.exists():
            raise InputError(f"Case {case}: the image of {method}, {path}, is not there; correct its place.")
        volume = _read(path)
        check_finite(volume.array, f"Case {case}: the image of {method}")
        if first is None:
            first = method, _Grid(volume)
        check_same_geometry(first[1], volume, f"Case {case}: the image of {first[0]}", f"that of {method}")
        every = volume.array.reshape(-1)
        values.append(every[:: max(1, every.size // _LOOKED_AT)].astype(np.float64))
    low, high = np.percentile(np.concatenate(values), PERCENTILES)
    return float(low), float(high if high > low else low + 1)


class _Grid:
    """The geometry of a volume without its voxels."""

    def __init__(self, volume: Volume) -> None:
        self.shape, self.affine = volume.array.shape, volume.affine
