"""The seam audit: does the grid show in the result? Measured on every run's own output."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pathopan.geometry import Grid


@dataclass(frozen=True)
class SeamAudit:
    """Nuclei near seams against nuclei elsewhere."""

    band_um: float  # half width of the band around each seam
    n_seam: int  # nuclei whose centroid lies in the band
    n_elsewhere: int
    area_seam_mm2: float  # analysed tissue in the band
    area_elsewhere_mm2: float
    ratio: float | None  # density in the band over density elsewhere; 1 where the grid does not show

    def to_dict(self) -> dict[str, float | int | None]:
        """Give the form that records store."""
        return asdict(self)


def audit_seams(
    centroids_px: npt.NDArray[np.float64],
    analysed: npt.NDArray[np.bool_],
    grid: Grid,
    *,
    analysed_mpp: float,
    band_um: float = 16.0,
) -> SeamAudit:
    """Compare the density of nuclei around seams with the density elsewhere.

    Parameters
    ----------
    centroids_px : (N, 2) float
        xy in grid pixels.
    analysed : (Y, X) bool
        Where a tile looked at tissue, at ``analysed_mpp``.
    grid : Grid
        Where the seams are.
    analysed_mpp, band_um : float
        Micrometres.

    Returns
    -------
    SeamAudit
        ``ratio`` is ``None`` where there is no seam, no tissue or no nucleus to compare.
    """
    band_px = band_um / grid.mpp
    pixel = analysed_mpp / grid.mpp
    rows = _near_seam((np.arange(analysed.shape[0]) + 0.5) * pixel, 1, grid, band_px)
    columns = _near_seam((np.arange(analysed.shape[1]) + 0.5) * pixel, 0, grid, band_px)
    in_band = rows[:, None] | columns[None, :]
    area_um2 = analysed_mpp**2
    seam_mm2 = float((analysed & in_band).sum()) * area_um2 / 1e6
    else_mm2 = float((analysed & ~in_band).sum()) * area_um2 / 1e6
    seam = _near_seam(centroids_px[:, 0], 0, grid, band_px) | _near_seam(centroids_px[:, 1], 1, grid, band_px)
    n_seam, n_else = int(seam.sum()), int((~seam).sum())
    comparable = seam_mm2 > 0 and else_mm2 > 0 and n_else > 0
    ratio = (n_seam / seam_mm2) / (n_else / else_mm2) if comparable else None
    return SeamAudit(band_um, n_seam, n_else, seam_mm2, else_mm2, ratio)


def _near_seam(along_px: npt.NDArray[np.floating], axis: int, grid: Grid, band_px: float) -> npt.NDArray[np.bool_]:
    """Say which coordinates lie near a border between two tiles; the slide's own border is no seam."""
    index = np.round((along_px + grid.offset[axis]) / grid.step)
    seam = index * grid.step - grid.offset[axis]
    return (np.abs(along_px - seam) < band_px) & (seam > 0) & (seam < grid.size[axis])
