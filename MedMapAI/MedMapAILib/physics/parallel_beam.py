"""The parallel beam's projector by shearing: fast on a CPU, a strip integral over whole pixels and detectors.

Under a view whose rays run steeper than 45 degrees, the rows of an image are shifted against each other and added up;
under the others, the columns. In units of a pixel the shift of row r is σ (r - middle), |σ| ≤ 1. It is rounded to a
``PHASES``-th of a pixel, so that a view becomes a sum of whole rows from ``PHASES`` interleaved grids: contiguous
copies and one small matrix product instead of one interpolation for each pixel and view. What a square pixel at each
place of those grids gives to each detector is known in closed form (its projection is a trapezoid) and kept in a
sparse matrix. The adjoint is the transpose of both steps, so it is exact.

Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE TMI 1 (1982), goes along the rows in
the same way and interpolates between two pixels; Long, Fessler and Balter, "3D forward and back-projection for X-ray
CT using separable footprints", IEEE TMI 29 (2010), say what trapezoids are good for.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from .ct_geometry import ParallelBeam

#: Shifts are rounded to this part of a pixel: the error of a place, at most 1/8 pixel, spreads like a blur of
#: deviation 0.07 pixels.
PHASES = 4
#: Parts of a footprint below this share of a pixel are rounding.
_LEAST = 1e-9


@dataclasses.dataclass(frozen=True)
class _View:
    """One view. along_columns: whether columns are shifted. scale: t / u, mm. shift: of each line, in phases."""

    along_columns: bool
    scale: float
    slope: float
    shift: np.ndarray
    #: Of the grids: their width, and the first cell of this view among all views' cells.
    width: int
    first: int

    @property
    def cells(self) -> int:
        return PHASES * self.width


class ParallelProjection(nn.Module):
    """The two directions of a parallel beam's projector, and interpolation for filtered backprojection.

    Images are (B, H, W), sinograms (B, A, D).
    """

    def __init__(self, geometry: ParallelBeam) -> None:
        super().__init__()
        self.geometry = geometry
        rows, columns = geometry.image_size
        self.views: list[_View] = []
        places = []
        first = 0
        for angle in geometry.angles_rad:
            view, place = _view(angle, geometry, first)
            self.views.append(view)
            places.append(place)
            first += view.cells
        self.cells = first
        #: Zeros between the lines, so that a shifted line never reads its neighbor.
        self.gap = {turned: 0 for turned in (False, True)}
        for view in self.views:
            length = rows if view.along_columns else columns
            self.gap[view.along_columns] = max(self.gap[view.along_columns], view.width - length)
        matrix = _footprints(self.views, places, geometry)
        self._keep("to_detectors", matrix.T.tocsr())
        self._keep("to_cells", matrix)
        for number, view in enumerate(self.views):
            self._keep_starts(number, view)

    def forward(self, images: Tensor) -> Tensor:
        """Line integrals (B, A, D) of images (B, H, W)."""
        padded = {turned: self._padded(images, turned) for turned in {view.along_columns for view in self.views}}
        cells = images.new_empty(len(images), self.cells)
        for number, view in enumerate(self.views):
            starts = getattr(self, f"read_{number}")
            selection = getattr(self, f"phase_{number}").to(images.dtype)
            for source, target in zip(padded[view.along_columns], cells, strict=True):
                lines = _windows(source, view.width).index_select(0, starts)
                target[view.first : view.first + view.cells] = (selection @ lines).flatten()
        return (
            self._matrix("to_detectors", images.dtype).mm(cells.T).T.reshape(len(images), *self.geometry.sinogram_size)
        )

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """The transpose of ``forward``: images (B, H, W) of sinograms (B, A, D)."""
        return self._spread(self._matrix("to_cells", sinograms.dtype).mm(sinograms.flatten(1).T).T.contiguous())

    def backproject(self, sinograms: Tensor) -> Tensor:
        """The sum over the views of each view's value where the ray through a pixel's middle meets the detector.

        Linear interpolation between detectors, zero beyond them. Not the adjoint: for filtered backprojection, where
        a footprint would blur. Returns (B, H, W).
        """
        geometry = self.geometry
        count = geometry.detectors
        padded = functional.pad(sinograms, (1, 2))
        cells = sinograms.new_empty(len(sinograms), self.cells)
        zero = geometry.detectors_mm[0]
        for number, view in enumerate(self.views):
            lowest, middle = int(view.shift.min()) // PHASES, _middle(view, geometry)
            place = torch.arange(view.cells, device=sinograms.device, dtype=torch.float64)
            place = torch.remainder(place, view.width) + torch.div(place, view.width, rounding_mode="floor") / PHASES
            place = ((place + lowest - middle) * view.scale - zero) / geometry.detector_spacing_mm + 1
            place = place.clamp(0, count + 1)
            below = place.long()
            part = (place - below).to(sinograms.dtype)
            row = padded[:, number]
            low, high = row.index_select(1, below), row.index_select(1, below + 1)
            cells[:, view.first : view.first + view.cells] = torch.lerp(low, high, part.expand_as(low))
        return self._spread(cells)

    def _spread(self, cells: Tensor) -> Tensor:
        """Each pixel's sum over the views of the cell that it fell into: (B, H, W)."""
        rows, columns = self.geometry.image_size
        turned = {view.along_columns for view in self.views}
        images = {t: cells.new_zeros(len(cells), *((columns, rows) if t else (rows, columns))) for t in turned}
        for number, view in enumerate(self.views):
            starts = getattr(self, f"write_{number}")
            target = images[view.along_columns]
            for item in range(len(cells)):
                grids = cells[item, view.first : view.first + view.cells]
                target[item] += _windows(grids, target.shape[2]).index_select(0, starts)
        total = images.get(False, 0)
        return total + images[True].transpose(1, 2) if True in turned else total

    def _padded(self, images: Tensor, turned: bool) -> Tensor:
        """Each image's lines one after the other with zeros between them: (B, N)."""
        gap = self.gap[turned]
        lines = functional.pad(images.transpose(1, 2) if turned else images, (0, gap))
        return functional.pad(lines.flatten(1), (gap, 0)).contiguous()

    def _keep_starts(self, number: int, view: _View) -> None:
        rows, columns = self.geometry.image_size
        length = rows if view.along_columns else columns
        gap = self.gap[view.along_columns]
        whole, phase = view.shift // PHASES, view.shift % PHASES
        whole = whole - whole.min()
        lines = np.arange(len(whole))
        starts = {"read": lines * (length + gap) + gap - whole, "write": phase * view.width + whole}
        for name, values in starts.items():
            self.register_buffer(f"{name}_{number}", torch.from_numpy(values.astype(np.int64)), persistent=False)
        selection = (phase == np.arange(PHASES)[:, None]).astype(np.float32)
        self.register_buffer(f"phase_{number}", torch.from_numpy(selection), persistent=False)

    def _keep(self, name: str, matrix: sparse.csr_matrix) -> None:
        """A sparse matrix as plain buffers, so that ``.to(device)`` moves it like any other."""
        self.shapes = {**getattr(self, "shapes", {}), name: matrix.shape}
        index = np.int32 if max(matrix.nnz, *matrix.shape) < 2**31 else np.int64
        for part, values in (("starts", matrix.indptr.astype(index)), ("columns", matrix.indices.astype(index))):
            self.register_buffer(f"{name}_{part}", torch.from_numpy(values), persistent=False)
        self.register_buffer(f"{name}_values", torch.from_numpy(matrix.data.astype(np.float32)), persistent=False)

    def _matrix(self, name: str, dtype: torch.dtype) -> Tensor:
        parts = [getattr(self, f"{name}_{part}") for part in ("starts", "columns", "values")]
        with warnings.catch_warnings():
            # torch calls its sparse matrices a beta.
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(*parts[:2], parts[2].to(dtype), self.shapes[name])


def _view(angle: float, geometry: ParallelBeam, first: int) -> tuple[_View, np.ndarray]:
    """A view, and where its cells lie on the detector's axis (cells,), mm."""
    rows, columns = geometry.image_size
    cosine, sine = math.cos(angle), math.sin(angle)
    # With u = t / scale: u = (j - middle) + slope (i - middle), i and j changing their parts for columns.
    along_columns = abs(sine) > abs(cosine)
    scale = geometry.pixel_mm * (-sine if along_columns else cosine)
    slope = -cosine / sine if along_columns else -sine / cosine
    lines, length = (columns, rows) if along_columns else (rows, columns)
    shift = np.rint(PHASES * slope * (np.arange(lines) - (lines - 1) / 2)).astype(np.int64)
    whole = shift // PHASES
    width = length + int(whole.max() - whole.min())
    view = _View(along_columns, scale, slope, shift, width, first)
    place = np.arange(width) + np.arange(PHASES)[:, None] / PHASES + whole.min() - (length - 1) / 2
    return view, place.ravel() * scale


def _middle(view: _View, geometry: ParallelBeam) -> float:
    rows, columns = geometry.image_size
    return ((rows if view.along_columns else columns) - 1) / 2


def _footprints(views: list[_View], places: list[np.ndarray], geometry: ParallelBeam) -> sparse.csr_matrix:
    """What a pixel of value 1 at each cell gives to each detector: (all cells, A × D), mm."""
    counts, columns, values = [], [], []
    detectors, spacing = geometry.detectors, geometry.detector_spacing_mm
    for number, (view, place) in enumerate(zip(views, places, strict=True)):
        # In widths of a detector, detector d reaching from d to d + 1.
        middle = (place - geometry.detector_edges_mm[0]) / spacing
        wide, narrow = abs(view.scale) / spacing, abs(view.scale * view.slope) / spacing
        half = (wide + narrow) / 2
        lowest = np.floor(middle - half).astype(np.int64)
        detector = lowest[:, None] + np.arange(math.ceil(2 * half) + 1)
        before = detector - middle[:, None]
        share = trapezoid_below(before + 1, wide, narrow) - trapezoid_below(before, wide, narrow)
        keep = (share > _LEAST) & (detector >= 0) & (detector < detectors)
        counts.append(keep.sum(axis=1))
        columns.append((detector + number * detectors)[keep].astype(np.int32))
        values.append((share[keep] * (geometry.pixel_mm**2 / spacing)).astype(np.float32))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    shape = (len(starts) - 1, len(views) * detectors)
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape=shape)


def trapezoid_below(place: np.ndarray, wide: float, narrow: float) -> np.ndarray:
    """The share of a trapezoid round 0 that lies below a place: two boxes, ``wide`` and ``narrow``, convolved."""
    # So narrow a box changes nothing, and dividing by its width would.
    narrow = max(narrow, 1e-6 * wide)
    sums = sum(
        sign * np.square(np.maximum(place + at, 0))
        for sign, at in (
            (1, (wide + narrow) / 2), (-1, (wide - narrow) / 2), (-1, (narrow - wide) / 2), (1, -(wide + narrow) / 2),
        )
    )  # fmt: skip
    return np.clip(sums / (2 * wide * narrow), 0, 1)


def _windows(flat: Tensor, width: int) -> Tensor:
    """All stretches of ``width`` values of a flat tensor as rows of a matrix, without a copy."""
    return flat.as_strided((flat.numel() - width + 1, width), (1, 1), flat.storage_offset())
