"""Images that ``medmapai generate`` made, for the training part of a classification."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..pictures import is_picture
from .dataset import Case, Dataset, is_hidden, is_image_name, listed
from .duplicates import content_hash
from .split import Split

#: What says, in a folder of generated images, that they are and of which model.
ABOUT = "about.json"


@dataclass(frozen=True)
class Generated:
    """Generated images. cases: with their classes. sentence: for the card: how many, of which model."""

    cases: tuple[Case, ...]
    sentence: str


def read_about(folder: Path) -> dict[str, Any]:
    """What is written beside generated images. Raises InputError for a folder that holds none."""
    try:
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
    except OSError:
        about = None
    except ValueError as error:
        raise InputError(f"{Path(folder) / ABOUT} is not valid JSON ({error}); generate the images again.") from None
    if not isinstance(about, dict) or about.get("synthetic") is not True or "model" not in about:
        raise InputError(
            f"{folder} is no folder of generated images: it has no {ABOUT} that says so; make one with `medmapai "
            "generate MODEL OUT_DIR`."
        )
    return about


def generated_cases(folder: str | Path, dataset: Dataset, split: Split) -> Generated:
    """The images of a folder that ``medmapai generate`` wrote, as further training cases of a data set.

    They are in no part of the split, so that they never serve for validation or test. Raises InputError where the
    folder holds no such images, shows a class that the data set does not have, or where its generator learned from an
    image of the validation or test part, which the classifier would then know of.
    """
    folder = Path(folder)
    about = read_about(folder)
    if dataset.task != "classification" or dataset.kind == "multi-label":
        raise InputError(
            f"dataset.generated is for data sets in which every image has one class, which {dataset.name} is not; "
            "take it out."
        )
    cases = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p)):
        images = [p for p in sorted(place.iterdir()) if not is_hidden(p) and (is_picture(p) or is_image_name(p))]
        if images and place.name not in dataset.classes:
            raise InputError(
                f"The generated images in {place} are of a class that {dataset.name} does not have; it has "
                f"{listed(dataset.classes)}."
            )
        cases += [
            Case(
                f"generated/{place.name}/{image.name}",
                f"generated/{place.name}/{image.name}",
                (image,),
                classes=(dataset.classes.index(place.name),),
                auxiliary=(float("nan"),) * len(dataset.auxiliary),
            )
            for image in images
        ]
    if not cases:
        raise InputError(f"{folder} holds no generated images; make some with `medmapai generate MODEL OUT_DIR`.")
    _check_kept_apart(about, dataset, split, folder)
    count = Counter(dataset.classes[case.classes[0]] for case in cases)
    shown = ", ".join(f"{number} {name}" for name, number in count.items())
    return Generated(
        tuple(cases),
        f"{len(cases)} generated images ({shown}) of the model {about['model']}, which are not of any patient, joined "
        "the training part; validation and test are real images alone.",
    )


def with_generated(dataset: Dataset, generated: Generated) -> Dataset:
    """The data set, whose notes say that generated images are learned from besides."""
    notes = [*dataset.source.get("notes", ()), generated.sentence]
    return replace(dataset, source=dataset.source | {"notes": notes})


def _check_kept_apart(about: dict[str, Any], dataset: Dataset, split: Split, folder: Path) -> None:
    known = set(about.get("training_images_sha256", ()))
    apart = {name: part for part in ("validation", "test") for name in getattr(split, part)}
    seen = [case.name for case in dataset.cases if case.name in apart and content_hash(case) in known]
    if seen:
        raise InputError(
            f"The generator of {folder} learned from {len(seen)} image(s) of the {apart[seen[0]]} part of "
            f"{dataset.name} ({listed(seen)}), which would make the scores too good; train the generator by the same "
            "split (split.file)."
        )
