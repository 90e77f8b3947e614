"""A data set of pairs, made from true images: what a poorer scan would have shown of each, and the image itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..datasets.dataset import Case
from ..datasets.pairs import ABOUT
from ..errors import InputError, NotHounsfield
from ..files import atomic_folder
from ..image import affine_of, make_image, read_image, write_array
from ..physics.attenuation import without_padding
from .acquisition import Acquisition, Progress

#: In the header of every file.
SIMULATED = "simulated by MedMapAI from another image; this is no scan of a patient"


def make_pairs(
    cases: Sequence[Case],
    output: str | Path,
    acquisition: Acquisition,
    *,
    seed: int = 0,
    add_hu: float = 0.0,
    assume_hounsfield: bool = False,
    device: Any = None,
    progress: Progress | None = None,
) -> Path:
    """A folder that is a data set of kind "pairs": targets/*.nii.gz (the images), inputs/*.nii.gz (simulated, on their
    grids, ``acquisition.copies`` of each) and about.json with everything that was drawn.

    cases: of ``datasets.volumes``. Files are numbered, since the names of scans are often those of patients; patients
    are numbered, too. CT is rounded to whole HU (int16). add_hu, assume_hounsfield: as for ``medmapai run``. The same
    arguments give the same voxels. Raises InputError for an image that cannot be measured this way, by its name; an
    older folder is replaced only where it was made by this function. Nothing is left half-written.
    """
    output = Path(output)
    if output.exists() and not (output / ABOUT).is_file():
        raise InputError(f"{output} is there already and was not made by this command; choose another folder.")
    if acquisition.kind == "none":
        raise InputError('Pairs of the kind "none" would be pairs of equals; choose "ct", "mr" or "noise".')
    say = progress or (lambda fraction, message: None)
    patients = {name: f"patient_{number:04d}" for number, name in enumerate(dict.fromkeys(c.patient for c in cases))}
    pairs: dict[str, dict[str, Any]] = {}
    with atomic_folder(output) as folder:
        for part in ("inputs", "targets"):
            (folder / part).mkdir()
        for number, case in enumerate(cases):
            say(number / len(cases), f"image {number + 1} of {len(cases)}")
            image = read_image(case.images[0])
            if add_hu:
                image = image + add_hu
            image.meta["assume_hounsfield"] = assume_hounsfield
            name = f"case_{number:04d}"
            for copy in range(acquisition.copies):
                own_seed = int(np.random.SeedSequence([seed, number, copy]).generate_state(1)[0])
                drawn = acquisition.drawn(own_seed)
                try:
                    degraded = drawn.degraded(image, own_seed, device=device)
                except InputError as error:
                    kind = NotHounsfield if isinstance(error, NotHounsfield) else InputError
                    raise kind(f"{case.images[0]}: {error}") from None
                own_name = name if acquisition.copies == 1 else f"{name}_{copy}"
                _write(degraded, folder / "inputs" / f"{own_name}.nii.gz", acquisition.kind)
                pairs[own_name] = {
                    "target": name,
                    "patient": patients[case.patient],
                    "seed": own_seed,
                    "acquisition": drawn.about,
                }
            if acquisition.kind == "ct":
                # A scanner's padding is not measured, and no input has it.
                image = make_image(without_padding(image), affine_of(image))
            _write(image, folder / "targets" / f"{name}.nii.gz", acquisition.kind)
        about = {
            "simulated": SIMULATED,
            "made_by": f"MedMapAI {__version__}",
            "seed": seed,
            "acquisition": acquisition.about,
            "pairs": pairs,
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    say(1.0, "done")
    return output


def _write(image: Any, path: Path, kind: str) -> None:
    voxels = image[0].numpy()
    if kind == "ct":
        limits = np.iinfo(np.int16)
        voxels = np.rint(np.clip(voxels, limits.min, limits.max)).astype(np.int16)
    write_array(voxels, affine_of(image), path)
