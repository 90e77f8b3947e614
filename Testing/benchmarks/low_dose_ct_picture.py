"""The picture of low_dose_ct.py: one slice by every method, enlarged, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from low_dose_ct_scans import SETTINGS, Measured
from matplotlib.figure import Figure

#: Display window of the images, HU, and of the errors.
_WINDOW, _ERROR = (-1000, 400), 300
#: Rows and columns that are shown, as parts of the image.
_ROWS, _COLUMNS = (0.25, 0.75), (0.10, 0.60)


def draw(path: Path, measured: Measured, images: dict[str, np.ndarray]) -> None:
    """Write a picture of the middle slice: above the images, below their difference from the truth."""
    number = len(measured.truth) // 2
    truth = measured.truth[number]
    part = tuple(slice(round(a * n), round(b * n)) for (a, b), n in zip((_ROWS, _COLUMNS), truth.shape, strict=True))
    shown = {"truth": truth, **{name: each[number] for name, each in images.items() if not name.startswith("SIRT")}}
    figure = Figure((2.6 * len(shown), 5.6))
    axes = figure.subplots(2, len(shown))
    for column, (name, image) in enumerate(shown.items()):
        axes[0, column].imshow(image[part], cmap="gray", vmin=_WINDOW[0], vmax=_WINDOW[1], interpolation="nearest")
        axes[0, column].set_title(name.split(" (")[0], fontsize=11)
        if column:
            error = (image - truth)[part]
            axes[1, column].imshow(error, cmap="gray", vmin=-_ERROR, vmax=_ERROR, interpolation="nearest")
    axes[1, 0].text(
        0.5,
        0.5,
        f"{measured.scan},\n{SETTINGS[measured.setting]['title']}\n\nabove: {_WINDOW[0]} to {_WINDOW[1]} HU\n"
        f"below: error,\n-{_ERROR} to {_ERROR} HU",
        ha="center",
        va="center",
        wrap=True,
        fontsize=9,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
