"""The fan beam's projector, distance-driven: each view crosses the image row by row, and nothing is interpolated.

On the middle line of a row, the edges of the pixels and the rays to the edges of the detectors cut each other into
pieces; a pixel counts for a detector by the length of their common piece. The sums over such pieces are differences of
running totals, taken of the row for the projection and of the view for the adjoint; both describe the same overlaps,
so the adjoint is exact, and neither scatters. De Man and Basu, "Distance-driven projection and backprojection in three
dimensions", Physics in Medicine and Biology 49 (2004).

A view and the image are turned together by quarter turns until the central ray runs within 45 degrees of the columns.
Views a quarter turn apart then share all their places, and are computed as one.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from .ct_geometry import FanBeam

#: Angles as close as this are the same, radians.
_SAME = 1e-9


class FanProjection(nn.Module):
    """The two directions of a fan beam's projector, and the weighted backprojection of a filtered sinogram.

    Images are (B, H, W), sinograms (B, A, D).
    """

    def __init__(self, geometry: FanBeam) -> None:
        super().__init__()
        self.geometry = geometry
        groups: dict[tuple, list[tuple[int, int]]] = defaultdict(list)
        for number, angle in enumerate(geometry.angles_rad):
            turns = -round(angle / (math.pi / 2))
            angle = angle + turns * math.pi / 2
            # Images that are not square have another shape after an odd turn.
            odd = turns % 2 if geometry.image_size[0] != geometry.image_size[1] else 0
            groups[round(angle / _SAME), odd].append((turns % 4, number))
        #: Angle after turning, and for each of its views the quarter turns and the number of the view.
        self.groups = [(key[0] * _SAME, members) for key, members in groups.items()]
        # Only says where the module is.
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Line integrals (B, A, D) of images (B, H, W)."""
        count = len(images)
        sinograms = images.new_empty(count, *self.geometry.sinogram_size)
        tables: dict[tuple[int, ...], tuple[Tensor, int, int]] = {}
        for angle, members in self.groups:
            turns = tuple(turn for turn, _ in members)
            if turns not in tables:
                tables[turns] = _running_totals(torch.cat([torch.rot90(images, turn, (1, 2)) for turn in turns]))
            table, rows, length = tables[turns]
            rays = _Rays(angle, self.geometry, rows, length, images)
            # Where the rays to the detectors' edges cross the rows, in pixels from the row's begin.
            cut = torch.addcmul(rays.offset, rays.stretch[:, None], rays.edges).clamp_(0, length)
            whole = cut.long()
            part = (cut - whole).flatten()[:, None]
            whole += (torch.arange(rows, device=images.device) * (length + 1))[:, None]
            found = table.index_select(0, whole.flatten())
            items = found.shape[1] // 2
            total = torch.addcmul(found[:, :items], found[:, items:], part).view(rows, -1, items)
            pieces = total[:, 1:] - total[:, :-1]
            sums = (1 / rays.stretch) @ pieces.view(rows, -1)
            values = sums.view(-1, items) * rays.scale[:, None]
            for index, (_, number) in enumerate(members):
                sinograms[:, number] = values[:, index * count : (index + 1) * count].T
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """The transpose of ``forward``: images (B, H, W) of sinograms (B, A, D)."""

        def one(rays: _Rays, values: Tensor) -> Tensor:
            density = values * rays.scale[:, None]
            width = (rays.edges[1:] - rays.edges[:-1])[:, None]
            total = torch.cat([torch.zeros_like(density[:1]), torch.cumsum((density * width).double(), 0).to(density)])
            density = torch.cat([density, torch.zeros_like(density[:1])])
            table = torch.cat([total, density, rays.edges[:, None]], dim=1)
            # The slopes of the rays to the pixels' edges, and between which detectors' edges they fall.
            steps = torch.arange(rays.length + 1, device=values.device, dtype=values.dtype) - rays.offset
            slope = (steps / rays.stretch[:, None]).clamp_(rays.edges[0], rays.edges[-1])
            whole = rays.detector_edge(slope).long().clamp_(0, self.geometry.detectors).flatten()
            found = table.index_select(0, whole)
            items = values.shape[1]
            beyond = (slope.flatten() - found[:, -1])[:, None]
            reached = torch.addcmul(found[:, :items], found[:, items:-1], beyond).view(rays.rows, -1, items)
            return reached[:, 1:] - reached[:, :-1]

        return self._gather(sinograms, one)

    def backproject(self, sinograms: Tensor) -> Tensor:
        """The weighted sum over the views of the value on the ray through each pixel's middle: (B, H, W).

        The weight is (source to center / depth)², depth being that of the pixel along the central ray: what the
        filtered backprojection of a flat detector wants. Linear interpolation, zero beyond the detector.
        """
        count = self.geometry.detectors

        def one(rays: _Rays, values: Tensor) -> Tensor:
            edge = torch.zeros_like(values[:1])
            low = torch.cat([edge, values, edge])
            table = torch.cat([low, torch.diff(low, dim=0, append=edge)], dim=1)
            steps = torch.arange(rays.length, device=values.device, dtype=values.dtype) + 0.5 - rays.offset
            # In middles of detectors, the first padded one at 0.
            place = (rays.detector_edge(steps / rays.stretch[:, None]) + 0.5).clamp_(0, count + 1)
            whole = place.long()
            found = table.index_select(0, whole.flatten())
            items = values.shape[1]
            part = (place - whole).flatten()[:, None]
            weight = (self.geometry.source_to_center_mm / rays.depth(steps)).square()
            return (
                torch.addcmul(found[:, :items], found[:, items:], part).view(rays.rows, -1, items) * weight[..., None]
            )

        return self._gather(sinograms, one)

    def _gather(self, sinograms: Tensor, one) -> Tensor:
        """The sum over all views; one(rays, values (D, N)) gives the turned images (rows, length, N) of one angle."""
        count, (rows, columns) = len(sinograms), self.geometry.image_size
        turned = {
            turn: sinograms.new_zeros(*((rows, columns) if turn % 2 == 0 else (columns, rows)), count)
            for _, members in self.groups
            for turn, _ in members
        }
        for angle, members in self.groups:
            shape = turned[members[0][0]].shape
            rays = _Rays(angle, self.geometry, shape[0], shape[1], sinograms)
            values = torch.cat([sinograms[:, number].T for _, number in members], dim=1)
            found = one(rays, values.contiguous())
            for index, (turn, _) in enumerate(members):
                turned[turn] += found[..., index * count : (index + 1) * count]
        return sum(torch.rot90(image.permute(2, 0, 1), -turn, (1, 2)) for turn, image in turned.items())


class _Rays:
    """The rays of one view, the central one within 45 degrees of straight down.

    A ray is known by its slope m = -dx/dy, which rises along the detector; it crosses row r at
    ``offset + stretch[r] · m``, in pixels from the begin of the row.
    """

    def __init__(self, angle: float, geometry: FanBeam, rows: int, length: int, like: Tensor) -> None:
        self.rows, self.length, self.geometry = rows, length, geometry
        self.cosine, self.sine = math.cos(angle), math.sin(angle)
        pixel, source = geometry.pixel_mm, geometry.source_to_center_mm
        height = source * self.cosine - ((rows - 1) / 2 - np.arange(rows)) * pixel
        self.stretch = _tensor(height / pixel, like)
        self.offset = torch.as_tensor(-source * self.sine / pixel + length / 2).to(like)
        far, edges = geometry.source_to_detector_mm, geometry.detector_edges_mm
        slopes = (far * self.sine + edges * self.cosine) / (far * self.cosine - edges * self.sine)
        middle = (slopes[1:] + slopes[:-1]) / 2
        self.edges = _tensor(slopes, like)
        # A ray's length within a row, over the width of a detector in slopes.
        self.scale = _tensor(pixel * np.hypot(1, middle) / np.diff(slopes), like)

    def detector_edge(self, slope: Tensor) -> Tensor:
        """Where rays of these slopes meet the detector, in pixels of it from its begin."""
        far = self.geometry.source_to_detector_mm
        place = (slope * self.cosine - self.sine) / (slope * self.sine + self.cosine) * far
        return (place - float(self.geometry.detector_edges_mm[0])) / self.geometry.detector_spacing_mm

    def depth(self, steps: Tensor) -> Tensor:
        """How far along the central ray the pixels lie, (rows, length), mm; steps: from the source along the row."""
        return (self.stretch[:, None] * self.cosine + steps * self.sine) * self.geometry.pixel_mm


def _running_totals(images: Tensor) -> tuple[Tensor, int, int]:
    """For each pixel's begin the total of its row so far, and its value: (rows · (length + 1), 2 N), rows, length."""
    items, rows, length = images.shape
    values = images.permute(1, 2, 0)
    end = values.new_zeros(rows, 1, items)
    totals = torch.cat([end, torch.cumsum(values.double(), 1).to(values)], dim=1)
    table = torch.cat([totals, torch.cat([values, end], dim=1)], dim=2)
    return table.reshape(-1, 2 * items), rows, length


def _tensor(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like)
