"""How measurements come about: the section [acquisition] of a training, and what ``medmapai simulate`` does.

One kind a file: ``ct_acquisition``, ``mr_acquisition``, ``noise_acquisition``. An acquisition may say ranges ("photons"
from 20 000 to 100 000); ``drawn(seed)`` fixes them. Whatever is drawn depends on its seed alone, never on the device
nor on how many slices are worked on at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..image import affine_of, check_not_constant, make_image, spacing
from .body_axis import Slicing
from .settings import Check, called, check_seed, optional, slice_seed, whole

if TYPE_CHECKING:
    from monai.data import MetaTensor
    from torch import Tensor

    from .measured import Measurement

#: Kind → file and class in it.
_KINDS = {
    "none": ("acquisition", "Acquisition"),
    "ct": ("ct_acquisition", "CtAcquisition"),
    "mr": ("mr_acquisition", "MrAcquisition"),
    "noise": ("noise_acquisition", "NoiseAcquisition"),
}
KINDS = tuple(_KINDS)
#: Called with a fraction, 0 to 1, and a message.
Progress = Callable[[float, str], None]
#: Slices that are measured at once: memory, not randomness, depends on it.
_SLICES = 8


class Acquisition:
    """What is done to an image to have a measurement of it; this one does nothing ("none": pairs need no simulation).

    about: every setting, with the defaults filled in, as JSON takes it; ``acquisition_of(a.about)`` equals ``a``. After
    ``drawn`` it holds "seed" besides.
    """

    kind = "none"
    #: Setting → (default, check).
    SETTINGS: dict[str, tuple[Any, Check]] = {}

    def __init__(self, about: Mapping[str, Any], where: str = "") -> None:
        known = {**self.SETTINGS, "copies": (1, whole(1)), "seed": (None, optional(whole(0)))}
        unknown = sorted(set(about) - set(known) - {"kind"})
        if unknown:
            raise InputError(
                f"{called('kind', where)} is {self.kind!r}, which has no {', '.join(unknown)}; it has "
                f"{', '.join(name for name in known if name != 'seed')}."
            )
        values = {
            name: check(about.get(name, default), called(name, where)) for name, (default, check) in known.items()
        }
        if values["seed"] is None:
            del values["seed"]
        #: The complete settings.
        self.about: dict[str, Any] = {"kind": self.kind, **values}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Acquisition) and self.about == other.about

    def __hash__(self) -> int:
        return hash(repr(self.about))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.about})"

    def __getitem__(self, name: str) -> Any:
        """A setting."""
        return self.about[name]

    @property
    def copies(self) -> int:
        """How many differently drawn degraded copies of a volume a training in the image domain has."""
        return self.about["copies"]

    @property
    def finer(self) -> int:
        """How many times finer the slices that are measured are than the image that is made of the measurement."""
        return 1

    @property
    def is_drawn(self) -> bool:
        """Whether every range is fixed."""
        return "seed" in self.about and not any(isinstance(value, list) for value in self.about.values())

    def drawn(self, seed: int) -> Acquisition:
        """This acquisition with every range fixed, the same for the same seed; one that is drawn is returned as it is.

        Raises InputError for a seed that is no whole number from 0.
        """
        check_seed(seed)
        if self.is_drawn:
            return self
        rng = np.random.default_rng([seed, 1])
        return type(self)({**self.about, **self._draws(rng), "seed": int(seed)})

    def measure(
        self,
        slices: Tensor,
        spacing_mm: tuple[float, float],
        seed: int,
        *,
        first_slice: int = 0,
        scale: float | None = None,
    ) -> Tensor:
        """The measurement of slices (S, 1, H, W): line integrals (S, 1, A, D), k-space (S, C, H, W), or noisy slices.

        slices: HU for CT, magnitude for MR, on any device, where the result is too; ``finer`` times as many rows and
        columns as the image that is to be made. spacing_mm: of their rows and columns. seed: of ranges that are not
        drawn yet, and of the noise: that of a slice depends on its number only, ``first_slice`` for the first. scale:
        for MR, what its noise is a part of (see MrAcquisition.scale_of); by default from these slices.
        Raises InputError for slices that do not fit.
        """
        if slices.ndim != 4 or slices.shape[1] != 1 or 0 in slices.shape:
            raise InputError(f"Slices have the shape (slices, 1, rows, columns), not {tuple(slices.shape)}.")
        drawn = self.drawn(seed)
        seeds = [slice_seed(seed, first_slice + number) for number in range(len(slices))]
        return drawn._measured(slices.detach(), spacing_mm, seeds, drawn.scale_of(slices) if scale is None else scale)

    def operator(self, size: tuple[int, int], spacing_mm: tuple[float, float], *, device: Any = None) -> Any:
        """The map from the image that is to be made, rows and columns, to the measurement: CtProjector or MrOperator.

        Raises InputError for a kind that has none, or where ranges are not drawn yet.
        """
        raise InputError(f'An acquisition of the kind "{self.kind}" measures nothing; "ct" and "mr" do.')

    def first_images(self, data: Tensor, size: tuple[int, int], spacing_mm: tuple[float, float]) -> Tensor:
        """Images (S, 1, H, W) of a measurement without any model: FBP in HU, zero-filled magnitude, noisy slices."""
        return data

    def simulate_volume(
        self, image: MetaTensor, seed: int, *, device: Any = None, progress: Progress | None = None
    ) -> Measurement:
        """The measurement of a volume (1, I, J, K), slice by slice across its last axis.

        CT: across the axis that is nearest to the patient's length, where that is another one; the affine of the
        measurement says so. device: what computes. progress: called with a fraction and a message.
        Raises InputError for a volume with channels or with the same value everywhere, NotHounsfield for a CT whose
        values are none (unless ``image.meta["assume_hounsfield"]``).
        """
        raise InputError(f'An acquisition of the kind "{self.kind}" measures nothing; "ct" and "mr" do.')

    def degraded(
        self, image: MetaTensor, seed: int, *, device: Any = None, progress: Progress | None = None
    ) -> MetaTensor:
        """The volume (1, I, J, K) as it looks after this acquisition: measured, and made an image by ``first_images``.

        On the grid of ``image``; otherwise as ``simulate_volume``.
        """
        import torch

        if self.kind == "none":
            return image
        drawn, slicing = self.drawn(seed), self.slicing(image)
        steps, size = slicing.spacing_mm, slicing.size
        parts = [
            drawn.first_images(data, size, steps)[:, 0].float().cpu()
            for data in drawn._measured_parts(slicing, seed, device, progress)
        ]
        values = slicing.volume(torch.cat(parts).numpy())
        meta = {key: value for key, value in image.meta.items() if key in ("notes", "space", "assume_hounsfield")}
        return make_image(values[None], affine_of(image), meta=meta)

    def slicing(self, image: MetaTensor) -> Slicing:
        """The slices of a volume that are measured, after a look at whether it can be. Raises InputError."""
        if image.ndim != 4 or image.shape[0] != 1:
            channels = image.shape[0] if image.ndim == 4 else image.shape
            raise InputError(f"The volume has {channels} channels; one that is measured has one.")
        check_not_constant(image, "The volume")
        self._check_values(image)
        return Slicing(image[0].detach().cpu().numpy(), affine_of(image), along_body=self.kind == "ct")

    def scale_of(self, values: Any) -> float:
        """What the noise of this kind is measured by; 1 where that is the image's own unit."""
        return 1.0

    def _measured_parts(self, slicing: Slicing, seed: int, device: Any, progress: Progress | None) -> Iterator[Tensor]:
        """The measurement, a few slices at a time."""
        import torch

        scale = self.scale_of(slicing.slices)
        for first in range(0, len(slicing.slices), _SLICES):
            if progress is not None:
                progress(first / len(slicing.slices), f"slice {first + 1} of {len(slicing.slices)}")
            part = torch.from_numpy(np.ascontiguousarray(slicing.slices[first : first + _SLICES], dtype=np.float32))
            fine, steps = self._refined(part[:, None].to(device), slicing.spacing_mm)
            yield self.measure(fine, steps, seed, first_slice=first, scale=scale)

    def _refined(self, slices: Tensor, spacing_mm: tuple[float, float]) -> tuple[Tensor, tuple[float, float]]:
        """Slices of the image to be made as those that are measured, and their spacing."""
        return slices, spacing_mm

    def _check_drawn(self) -> None:
        if not self.is_drawn:
            raise InputError("This acquisition has ranges that were not drawn yet; call drawn(seed) first.")

    def _draws(self, rng: np.random.Generator) -> dict[str, Any]:
        """What is fixed by a draw."""
        return {}

    def _check_values(self, image: MetaTensor) -> None:
        """Raise InputError where the voxels cannot be measured this way."""

    def _measured(self, slices: Tensor, spacing_mm: tuple[float, float], seeds: list[int], scale: float) -> Tensor:
        """``measure`` of a drawn acquisition; one seed a slice."""
        raise InputError(f'An acquisition of the kind "{self.kind}" measures nothing; "ct", "mr" and "noise" do.')


def acquisition_of(about: Mapping[str, Any], where: str = "") -> Acquisition:
    """The acquisition that these settings describe, defaults filled in; of no settings at all, "none".

    about: "kind" ("none", "ct", "mr" or "noise") and the settings of that kind (``SETTINGS`` of its class, and
    "copies"). where: what holds them, for messages, such as the name of a configuration.
    Raises InputError that names the key that is wrong.
    """
    kind = about.get("kind", "none" if not about else None)
    if kind not in KINDS:
        raise InputError(f"{called('kind', where)} is {kind!r}; there are {', '.join(KINDS)}.")
    file, name = _KINDS[kind]
    return getattr(importlib.import_module(f".{file}", __package__), name)(about, where)


def spacing_of_slices(image: Any) -> tuple[float, float]:
    """(row, column) spacing in mm of the slices across the last axis of a volume (…, I, J, K): that of j and of i."""
    along_i, along_j, _ = spacing(image)
    return along_j, along_i
