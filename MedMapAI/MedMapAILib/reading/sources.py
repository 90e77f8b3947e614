"""Where the images of a study come from: a table of files, or a folder with a folder for each method.

table   .csv with the columns case, method and file; a file that is not absolute is beside the table
folder  METHOD/CASE.nrrd: each method has a folder, in which each case has an image of the same name (.nrrd .nii .nii.gz
        .mha …)
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..image import READABLE, ending_of
from .study import check_complete

#: Columns of a table of images.
COLUMNS = ("case", "method", "file")


def images_of(path: str | Path) -> dict[str, dict[str, str]]:
    """case → method → absolute path of its image, of a table or a folder (see this file's top).

    Raises InputError where it is neither, an image is named twice or is not there, or a case lacks a method.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; give a table of images, or a folder with one a method.")
    images = _of_folder(path) if path.is_dir() else _of_table(path)
    check_complete(images)
    return images


def _of_table(path: Path) -> dict[str, dict[str, str]]:
    # A package that needs torch; folders do without.
    from ..datasets.table import read_table

    table = read_table(path)
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; it needs the columns {', '.join(COLUMNS)}.")
    images: dict[str, dict[str, str]] = {}
    for line, row in table.rows:
        case, method, file = (row[name] for name in COLUMNS)
        if not (case and method and file):
            raise InputError(f"{path}, line {line}: there is no {COLUMNS[[case, method, file].index('')]}; fill it in.")
        if method in images.get(case, {}):
            raise InputError(f"{path}, line {line}: case {case} has an image of {method} already; take one away.")
        image = (path.parent / file).resolve()
        if not image.exists():
            raise InputError(f"{path}, line {line}: there is no file {image}; correct the table.")
        images.setdefault(case, {})[method] = str(image)
    return images


def _of_folder(path: Path) -> dict[str, dict[str, str]]:
    images: dict[str, dict[str, str]] = {}
    for folder in sorted(one for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")):
        for file in sorted(folder.iterdir()):
            ending = ending_of(file)
            if file.name.startswith(".") or ending not in READABLE:
                continue
            case = file.name[: -len(ending)]
            if folder.name in images.get(case, {}):
                raise InputError(f"{folder} has two images of case {case}; take one away.")
            images.setdefault(case, {})[folder.name] = str(file.resolve())
    if not images:
        raise InputError(
            f"{path} holds no images to read; it needs a folder for each method, in each an image a case, such as "
            "fbp/patient-1.nrrd."
        )
    return images
