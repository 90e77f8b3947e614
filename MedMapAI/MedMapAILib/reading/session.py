"""One reader's way through a study: what to show next, and the scores given so far.

Everything is on disk as soon as it is said, in ``reader-CODE.json``: a reader may stop at any moment, and goes on with
a new ``ReadingSession`` of the same code. The file holds codes of images and scores, and neither case nor method. The
order is random and each reader's own, from the study's seed and the reader's code:

single        in rounds; each case is in each round once, with one of its methods that it has not had yet, so that a
              case comes again as late as possible, and never twice in a row where there are several
side-by-side  cases in random order, and in each the methods in random order
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from .study import Key, KeyEntry, Study, check_reader_code, load_key, load_study, read_part, write_reader


class ReadingSession:
    """A reader at work. Knows no window: a panel shows the images of ``codes`` and passes on the scores.

    Raises InputError for a folder without a study, a wrong key, or a code that looks like a person's name.
    """

    def __init__(self, folder: str | Path, reader: str, *, key: str | Path | None = None) -> None:
        """Begin or go on. folder: of the study. reader: see ``check_reader_code``. key: its file, if elsewhere."""
        self.reader = check_reader_code(reader)
        self.study: Study = load_study(folder)
        self._key: Key = load_key(folder, key)
        self._path = Path(folder) / reader_file(self.reader)
        if self._path.exists():
            self._resume()
        else:
            self.screens = reading_order(self._key, self.study.layout, self.reader)
            self._scores: dict[str, dict[str, int]] = {}
            self._position = 0
            self._finished = False
            self._save()

    @property
    def position(self) -> int:
        """Which screen is shown, from 0."""
        return self._position

    @property
    def finished(self) -> bool:
        """Whether the reader has closed the session: scores stay as they are then."""
        return self._finished

    @property
    def codes(self) -> tuple[str, ...]:
        """The images to show now, from left to right; codes that may be shown to the reader."""
        return self.screens[self._position]

    @property
    def progress(self) -> tuple[int, int]:
        """(images scored by all criteria, images in all)."""
        codes = [code for screen in self.screens for code in screen]
        return sum(self.is_complete(code) for code in codes), len(codes)

    def image(self, code: str) -> str:
        """Where the image of a code is, for the program that shows it; not to be shown to the reader."""
        return self._entry(code).image

    def window(self, code: str) -> tuple[float, float] | None:
        """(lowest, highest value) to show an image with, the same for all images of its case; None: not said."""
        return self._key.windows.get(self._entry(code).case)

    def scores(self, code: str) -> dict[str, int]:
        """Criterion → score given so far."""
        self._entry(code)
        return dict(self._scores.get(code, {}))

    def is_complete(self, code: str) -> bool:
        """Whether an image has a score by every criterion."""
        return set(self._scores.get(code, {})) >= set(self.study.criteria)

    def score(self, code: str, criterion: str, value: int) -> None:
        """Give, or change, a score; it is on disk when this returns.

        Raises InputError for a criterion or a score that there is not, and after the session was closed.
        """
        self._entry(code)
        if self._finished:
            raise InputError(f"The reading of {self.reader} is closed; its scores stay as they are.")
        if criterion not in self.study.criteria:
            raise InputError(f"{criterion!r} is not scored here; choose one of {', '.join(self.study.criteria)}.")
        if isinstance(value, bool) or value not in self.study.scale:
            raise InputError(
                f"{value} is no score; give a whole number from {self.study.scale[0]} to {self.study.scale[-1]}."
            )
        before = {code: dict(scores) for code, scores in self._scores.items()}
        self._scores.setdefault(code, {})[criterion] = int(value)
        try:
            self._save()
        except Exception:
            # What is on screen is what is on disk.
            self._scores = before
            raise

    def go_to(self, position: int) -> tuple[str, ...]:
        """Turn to a screen; returns its codes. Raises InputError where there is none."""
        if not 0 <= position < len(self.screens):
            raise InputError(f"There is no screen {position + 1}; there are {len(self.screens)}.")
        before, self._position = self._position, int(position)
        try:
            self._save()
        except Exception:
            self._position = before
            raise
        return self.codes

    def next_open(self) -> int | None:
        """The next screen, after this one and then from the start, with an image not scored yet; None: all are."""
        count = len(self.screens)
        for position in [(self._position + step) % count for step in range(1, count + 1)]:
            if not all(self.is_complete(code) for code in self.screens[position]):
                return position
        return None

    def finish(self) -> None:
        """Close the session. Raises InputError while an image is not scored by all criteria."""
        done, count = self.progress
        if done < count:
            raise InputError(f"{count - done} of {count} images have no score by some criterion; score them first.")
        self._finished = True
        try:
            self._save()
        except Exception:
            self._finished = False
            raise

    def _entry(self, code: str) -> KeyEntry:
        if code not in self._key.entries:
            raise InputError(f"There is no image {code} in this study.")
        return self._key.entries[code]

    def _save(self) -> None:
        write_reader(
            self._path,
            {
                "study": self.study.study,
                "reader": self.reader,
                "finished": self._finished,
                "position": self._position,
                "screens": [list(screen) for screen in self.screens],
                "scores": self._scores,
            },
        )

    def _resume(self) -> None:
        stored = load_reader(self._path, self.study)
        self.screens = tuple(tuple(screen) for screen in stored["screens"])
        self._scores = stored["scores"]
        self._position = stored["position"]
        self._finished = stored["finished"]
        if sorted(code for screen in self.screens for code in screen) != sorted(self._key.entries):
            raise InputError(f"{self._path} does not hold the images of this study; restore it from a copy.")


def reader_file(reader: str) -> str:
    """The name of a reader's file in the folder of the study."""
    return f"reader-{reader}.json"


def readers_of(folder: str | Path) -> dict[str, bool]:
    """Codes of those who have begun to read the study in a folder, and whether each has finished.

    Raises InputError where there is no study, or a reader's file is damaged.
    """
    study = load_study(folder)
    stored = [load_reader(path, study) for path in sorted(Path(folder).glob(reader_file("*")))]
    return {one["reader"]: one["finished"] for one in stored}


def load_reader(path: Path, study: Study) -> dict:
    """What a reader's file holds, checked. Raises InputError where it is damaged, or of another study."""
    stored = read_part(path, "reader")
    if stored.get("study") != study.study:
        raise InputError(f"{path} holds scores of another study; keep each study in its own folder.")
    scores, screens = stored.get("scores"), stored.get("screens")
    fine = (
        isinstance(scores, dict)
        and isinstance(screens, list)
        and all(isinstance(s, list) and s and all(isinstance(code, str) for code in s) for s in screens)
        and isinstance(stored.get("finished"), bool)
        and isinstance(stored.get("reader"), str)
        and isinstance(stored.get("position"), int)
        and 0 <= stored["position"] < len(screens)
        and all(isinstance(of, dict) and set(of) <= set(study.criteria) for of in scores.values())
        and all(value in study.scale for of in scores.values() for value in of.values())
    )
    if not fine:
        raise InputError(f"{path} is damaged; restore it from a copy.")
    return stored


def reading_order(key: Key, layout: str, reader: str) -> tuple[tuple[str, ...], ...]:
    """The screens of a reader: codes, left to right on each. The same reader, the same order; see this file's top."""
    # Python's own hash differs from run to run.
    own = int.from_bytes(hashlib.sha256(reader.encode()).digest()[:8], "big")
    random = np.random.default_rng([key.seed, 1, own])
    cases: dict[str, list[str]] = {}
    for code, entry in sorted(key.entries.items()):
        cases.setdefault(entry.case, []).append(code)
    names = sorted(cases)
    methods = {case: [cases[case][k] for k in random.permutation(len(cases[case]))] for case in names}
    if layout == "side-by-side":
        return tuple(tuple(methods[names[k]]) for k in random.permutation(len(names)))
    screens: list[tuple[str, ...]] = []
    last = None
    for turn in range(max(map(len, methods.values()))):
        order = [names[k] for k in random.permutation(len(names))]
        if order[0] == last and len(order) > 1:
            # Exchanged with any other one.
            other = int(random.integers(1, len(order)))
            order[0], order[other] = order[other], order[0]
        screens.extend((methods[case][turn],) for case in order)
        last = order[-1]
    return tuple(screens)
