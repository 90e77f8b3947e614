"""The endless, repeatable stream of training samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset


class PreparedCases:
    """Cases on the model grid, in memory as far as the budget goes and memory-mapped from disk beyond it.

    folder: for what does not fit; made when first needed. memory_gb: the budget.
    """

    def __init__(self, folder: Path, memory_gb: float):
        self._folder = Path(folder)
        self._room = int(memory_gb * 2**30)
        self._cases: list[dict[str, np.ndarray]] = []

    def add(self, prepared: dict[str, np.ndarray]) -> None:
        """Keep one more case."""
        size = sum(array.nbytes for array in prepared.values())
        if size > self._room:
            self._folder.mkdir(parents=True, exist_ok=True)
            for key, array in prepared.items():
                path = self._folder / f"{len(self._cases)}-{key}.npy"
                np.save(path, array)
                prepared[key] = np.load(path, mmap_mode="r")
        else:
            self._room -= size
        self._cases.append(prepared)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._cases[index]


class SampleStream(Dataset):
    """Sample n of a training: which case it is cut from, and how, depends on the seed and n alone.

    That is what lets a run that was killed go on as if nothing had happened. Every case comes once in each round of as
    many samples as there are cases, in an order drawn anew each round.
    """

    def __init__(self, cases: PreparedCases, transform: Callable[[dict, int], dict], seed: int):
        self._cases = cases
        self._transform = transform
        self._seed = seed

    def __getitem__(self, number: int) -> dict:
        turn, position = divmod(number, len(self._cases))
        order = np.random.default_rng([self._seed, 1, turn]).permutation(len(self._cases))
        sample_seed = int(np.random.default_rng([self._seed, 2, number]).integers(2**31))
        return self._transform(self._cases[int(order[position])], sample_seed)
