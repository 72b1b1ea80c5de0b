"""The seam audit: does the grid show in the result? Measured on every run's own output."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pathopan.geometry import Grid

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CONTROL_UM = 32.0
"""Width of the strip on each side of a band that the band is compared with: the same tissue, away from the seam."""

_Z95 = 1.959964


@dataclass(frozen=True)
class SeamAudit:
    """Nuclei near seams against nuclei in the strips beside them."""

    band_um: float  # half width of the band around each seam
    control_um: float  # width of the strip on each side of the band
    n_seam: int  # nuclei whose centroid lies in a band; one near two seams counts for both
    n_elsewhere: int  # nuclei in the strips
    area_seam_mm2: float  # analysed tissue in the bands
    area_elsewhere_mm2: float
    ratio: float | None  # nuclei in bands over those that the strips beside each let expect; 1: the grid does not show
    ratio_low: float | None  # its 95 % interval: jackknife over the sides of tiles
    ratio_high: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """Give the form that records store."""
        return asdict(self)


class SeamCounter:
    """Counts nuclei in the bands around seams and in the strips beside them, side of a tile by side of a tile.

    Parameters
    ----------
    grid : Grid
        Where the seams are.
    band_um : float
        Half width of the band around each seam. Where steps are short, the strips beside it are narrower.
    """

    def __init__(self, grid: Grid, *, band_um: float = 16.0) -> None:
        self._grid = grid
        self._band_um = band_um
        self._control_um = min(CONTROL_UM, grid.step * grid.mpp / 2 - band_um)
        rows, columns = grid.shape
        self._sides = ((columns, rows), (rows, columns))  # of seams across x, and across y
        self._counts = [np.zeros((2, *shape), np.int64) for shape in self._sides]

    def add(self, centroids_px: FloatArray) -> None:
        """Count nuclei at (N, 2) xy in grid pixels."""
        for axis, counts in enumerate(self._counts):
            kind, seam = self._place(centroids_px[:, axis], axis)
            along = self._tile(centroids_px[:, 1 - axis], 1 - axis)
            near = kind >= 0
            np.add.at(counts, (kind[near], seam[near], along[near]), 1)

    def result(self, analysed: Any, analysed_mpp: float) -> SeamAudit:
        """Compare.

        Parameters
        ----------
        analysed : (Y, X) array, also of zarr
            Not 0 where a tile looked at tissue; read a row of tiles at a time.
        analysed_mpp : float
            Micrometres per pixel of it.
        """
        areas = self._areas(analysed, analysed_mpp)
        n_seam, n_beside, a_seam, a_beside = (
            np.concatenate([part[kind].ravel() for part in of]) for of in (self._counts, areas) for kind in (0, 1)
        )
        ratio, low, high = _matched_ratio(n_seam, n_beside, a_seam, a_beside)
        return SeamAudit(
            self._band_um,
            max(0.0, self._control_um),
            int(n_seam.sum()),
            int(n_beside.sum()),
            float(a_seam.sum()),
            float(a_beside.sum()),
            ratio,
            low,
            high,
        )

    def _place(self, along_px: FloatArray, axis: int) -> tuple[IntArray, IntArray]:
        """Say where coordinates lie (0 band, 1 strip, -1 elsewhere) of which seam; the slide's border is no seam."""
        grid = self._grid
        index = np.round((along_px + grid.offset[axis]) / grid.step).astype(np.int64)
        seam = index * grid.step - grid.offset[axis]
        away = np.abs(along_px - seam) * grid.mpp
        kind = np.where(away < self._band_um, 0, np.where(away < self._band_um + self._control_um, 1, -1))
        kind[(seam <= 0) | (seam >= grid.size[axis])] = -1
        return kind, index

    def _tile(self, along_px: FloatArray, axis: int) -> IntArray:
        grid = self._grid
        last = self._sides[axis][0] - 1
        return np.clip((along_px + grid.offset[axis]) // grid.step, 0, max(0, last)).astype(np.int64)

    def _areas(self, analysed: Any, analysed_mpp: float) -> list[FloatArray]:
        """Measure the analysed tissue in bands and strips, mm2, in the layout of the counts."""
        pixel, (height, width) = analysed_mpp / self._grid.mpp, analysed.shape
        across = [np.zeros((2, *shape)) for shape in self._sides]
        x_px, y_px = (np.arange(width) + 0.5) * pixel, (np.arange(height) + 0.5) * pixel
        (kind_x, seam_x), column = self._place(x_px, 0), self._tile(x_px, 0)
        (kind_y, seam_y), tile_row = self._place(y_px, 1), self._tile(y_px, 1)
        near = np.flatnonzero(kind_x >= 0)
        cuts = np.flatnonzero(np.diff(tile_row)) + 1
        for lines in np.split(np.arange(height), cuts) if height else []:
            block = np.asarray(analysed[lines[0] : lines[-1] + 1]) > 0
            per_column = block.sum(axis=0)
            np.add.at(across[0], (kind_x[near], seam_x[near], tile_row[lines[0]]), per_column[near])
            for line in lines[kind_y[lines] >= 0]:
                found = np.bincount(column, block[line - lines[0]], self._sides[0][0])
                across[1][kind_y[line], seam_y[line]] += found
        return [part * (analysed_mpp / 1000) ** 2 for part in across]


def _matched_ratio(
    n_seam: IntArray, n_beside: IntArray, a_seam: FloatArray, a_beside: FloatArray
) -> tuple[float | None, float | None, float | None]:
    """Sum over the sides of tiles what was found and what was to be expected; their ratio, with its interval."""
    fit = (a_seam > 0) & (a_beside > 0)
    found = n_seam[fit].astype(np.float64)
    expected = n_beside[fit] * a_seam[fit] / a_beside[fit]
    if not expected.sum() > 0:
        return None, None, None
    ratio = float(found.sum() / expected.sum())
    rest = expected.sum() - expected
    if len(found) < 2 or (rest <= 0).any():
        return ratio, None, None
    without = (found.sum() - found) / rest
    spread = float(np.sqrt((len(found) - 1) / len(found) * ((without - without.mean()) ** 2).sum()))
    return ratio, max(0.0, ratio - _Z95 * spread), ratio + _Z95 * spread
