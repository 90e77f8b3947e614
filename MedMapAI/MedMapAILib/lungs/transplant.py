"""Real nodules put into real lungs.

A voxel of lung is air with some tissue in it. What a nodule does is fill the air:

    out = host + opacity × (tissue − host)

So the host's vessels go on through ground-glass, the rim is a mixture of nodule and *this* host's lung, and where the
host already is tissue (chest wall, vessels) nothing changes: there is no seam, and no halo of the donor's surroundings,
which never enter. The noise that filling takes away is put back with the host's own spectrum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..image import affine_of, make_image
from ..results.detection import Finding, FindingMask
from .axes import from_patient_axes
from .graft import Graft, half_size, make_graft, random_pose, turned_to
from .host import HostScan, local_noise, prepare_host
from .nodules import HEALTHY, TISSUE, Nodule
from .noise import rough
from .places import PLACES, find_place

if TYPE_CHECKING:
    from monai.data import MetaTensor

#: Part of a voxel that a nodule must fill to be called its voxel.
_HALF = 0.5


@dataclass
class Transplants:
    """A host with what was put into it so far.

    voxels: float32 (I, J, K) HU along the patient's axes. instances: uint16 (I, J, K), n + 1 for findings[n]. taken:
    centers (voxel index) and radii (mm). where: the voxels that each was computed for.
    """

    host: HostScan
    voxels: np.ndarray
    instances: np.ndarray
    findings: list[Finding] = field(default_factory=list)
    taken: list[tuple[np.ndarray, float]] = field(default_factory=list)
    where: list[tuple[slice, slice, slice]] = field(default_factory=list)

    @classmethod
    def begin(cls, host: HostScan) -> Transplants:
        """Nothing yet."""
        return cls(host, host.voxels.copy(), np.zeros(host.voxels.shape, np.uint16))

    def add(self, nodule: Nodule, place: str, rng: np.random.Generator, about: dict[str, Any] | None = None) -> bool:
        """Put a nodule in; False where it fits nowhere. place: one of PLACES. about: kept with the finding."""
        if place not in PLACES:
            raise InputError(f"{place!r} is no place for a nodule; there are {', '.join(PLACES)}.")
        host = self.host
        pose = random_pose(rng)
        reach = half_size(nodule, pose)
        flat = nodule.reach * pose.scale if nodule.touches == "pleura" else None
        found = find_place(host, place, reach, rng, self.taken, reach=flat)
        if found is None:
            return False
        center, outward = found
        if place == "pleura" and nodule.touches == "pleura":
            # Its flat side to this host's wall.
            pose = turned_to(pose, pose.matrix @ nodule.outward, outward)
        graft = make_graft(nodule, pose, center, host.spacing, host.voxels.shape, host.sharpness)
        inside = self._put(graft, rng)
        if not inside.any():
            return False
        self._note(nodule, graft, inside, pose.scale, place, about or {})
        self.taken.append((center, float(reach.max())))
        self.where.append(graft.where)
        return True

    def _put(self, graft: Graft, rng: np.random.Generator) -> np.ndarray:
        """Blend the graft into the voxels; the voxels that are the nodule's from now on, bool (i, j, k)."""
        host, where = self.host, graft.where
        # It grows in the lung: beyond the pleura nothing is filled. About a voxel of softness there.
        lung = host.lungs[where].astype(np.float32)
        near = np.clip(ndimage.gaussian_filter(lung, (1.0, 1.0, 0)) * 2, 0, 1)
        opacity, excess = graft.opacity * near, graft.excess * near
        part = self.voxels[where]
        result = part + opacity * (TISSUE - part) + excess
        # What a mixture leaves of the host's noise is (1 - opacity) of it.
        missing = np.sqrt(np.clip(1 - (1 - np.clip(opacity, 0, 1)) ** 2, 0, 1))
        wanted = local_noise(host, where)
        brought = self._brought(graft)
        lacking = np.sqrt(max(wanted**2 - brought**2, 0.0))
        self.voxels[where] = result + missing * lacking * host.texture.draw(part.shape, rng)
        inside = (graft.inside >= _HALF) & (lung > 0)
        if not inside.any():
            inside = (graft.inside == graft.inside.max()) & (graft.inside > 0) & (lung > 0)
        return inside & (self.instances[where] == 0)

    def _brought(self, graft: Graft) -> float:
        """The noise, as standard deviation in HU, that is left of the donor's scan in a graft."""
        fine = np.abs(rough(graft.opacity * (TISSUE - HEALTHY)))[graft.inside > _HALF]
        # The lower quartile, for the rest are edges; 0.3186 is that of |N(0, 1)|.
        return float(np.quantile(fine, 0.25) / 0.3186 / self.host.texture.roughness) if fine.size >= 20 else 0.0

    def _note(
        self, nodule: Nodule, graft: Graft, inside: np.ndarray, scale: float, place: str, about: dict[str, Any]
    ) -> None:
        self.instances[graft.where][inside] = len(self.findings) + 1
        matrix = self.host.affine.copy()
        matrix[:3, 3] = (self.host.affine @ [*graft.start, 1.0])[:3]
        low, high = bounds_of(inside, matrix)
        entry = nodule.entry
        self.findings.append(
            Finding(
                tuple((low + high) / 2),
                tuple(high - low),
                "nodule",
                state="reference",
                measured_diameter_mm=entry.diameter_mm * scale,
                mask=FindingMask(inside, matrix),
                synthetic=True,
                about={
                    "kind": entry.kind,
                    "place": place,
                    "source_nodule": entry.name,
                    "source_patient": entry.patient,
                    "scale": round(scale, 4),
                    **about,
                },
            )
        )

    def image(self) -> np.ndarray:
        """int16 (I, J, K) HU, stored as the host's image is."""
        whole = np.clip(np.rint(self.voxels), -32768, 32767).astype(np.int16)
        return from_patient_axes(whole, self.host.storage)

    def labels(self) -> np.ndarray:
        """uint16 (I, J, K): n + 1 at the voxels of findings[n], stored as the host's image is."""
        return from_patient_axes(self.instances, self.host.storage)


def transplant(
    image: MetaTensor,
    nodule: Nodule,
    place: str = "parenchyma",
    *,
    lungs: np.ndarray | None = None,
    avoid: Sequence[Sequence[float]] = (),
    seed: int = 0,
) -> tuple[MetaTensor, Finding]:
    """A CT with a nodule put into it, and the finding that says where, marked as synthetic.

    image: (1, I, J, K) HU. nodule: of :func:`nodules.read_nodule`. place: "parenchyma", "vessel" or "pleura". lungs:
    the lung mask (I, J, K) where it is known. avoid: boxes (lowest, then highest corner, RAS mm) to stay away from.
    Raises InputError where there are no lungs or the nodule fits nowhere.
    """
    state = Transplants.begin(prepare_host(image, lungs=lungs, avoid=avoid, seed=seed))
    if not state.add(nodule, place, np.random.default_rng(seed)):
        raise InputError(f"The nodule {nodule.entry.name} fits nowhere on the {place} of this scan; take another.")
    result = make_image(state.image()[None], affine_of(image), meta={"synthetic": "transplanted nodule"})
    return result, state.findings[0]


def bounds_of(inside: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners (RAS mm) of the box along the patient's axes that holds the voxels, their edges included."""
    index = np.argwhere(inside)
    low, high = index.min(axis=0) - 0.5, index.max(axis=0) + 0.5
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
    places = affine[:3, :3] @ corners + affine[:3, 3:]
    return places.min(axis=1), places.max(axis=1)
