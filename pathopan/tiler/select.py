"""Choose the tiles that touch tissue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from pathopan.geometry import FloatArray, Grid
from pathopan.tables import TILES
from pathopan.tiler.tissue import TissueMask


def select_tiles(grid: Grid, tissue: TissueMask, *, min_tissue_fraction: float = 0.0) -> pd.DataFrame:
    """List the tiles whose write window holds more tissue than a fraction.

    Parameters
    ----------
    grid : Grid
        All tiles of the slide.
    tissue : TissueMask
        Of the same slide, at any mpp.
    min_tissue_fraction : float
        Of the part of the write window that lies on the slide. At 0, every tile that touches tissue is read.

    Returns
    -------
    DataFrame
        Schema ``tables.TILES``, by ascending ``tile_index``.
    """
    fraction = tissue_fractions(grid, tissue)
    rows, columns = np.nonzero(fraction > min_tissue_fraction)
    table = pd.DataFrame(
        {
            "tile_index": rows * grid.shape[1] + columns,
            "x_px": columns * grid.step - grid.offset[0],
            "y_px": rows * grid.step - grid.offset[1],
            "tissue_fraction": fraction[rows, columns],
        }
    )
    return TILES.check(table)


def tissue_fractions(grid: Grid, tissue: TissueMask) -> FloatArray:
    """Measure the share of tissue in every tile's write window, exactly, mask pixels cut where windows cut them.

    Returns
    -------
    (rows, columns) float
        Of the part of the window that lies on the slide, 0 to 1.
    """
    rows, columns = grid.shape
    if rows == 0:
        return np.zeros((0, 0))
    edges_x = np.clip(np.arange(columns + 1) * grid.step - grid.offset[0], 0, grid.size[0])
    edges_y = np.clip(np.arange(rows + 1) * grid.step - grid.offset[1], 0, grid.size[1])
    per_px = grid.mpp / tissue.mpp
    weights_x = _overlaps(edges_x * per_px, tissue.mask.shape[1])
    weights_y = _overlaps(edges_y * per_px, tissue.mask.shape[0])
    covered = weights_y @ tissue.mask.astype(np.float64) @ weights_x.T
    window = np.diff(edges_y)[:, None] * np.diff(edges_x)[None, :] * per_px**2
    fractions: FloatArray = np.minimum(covered / window, 1.0)
    return fractions


def _overlaps(edges: npt.NDArray[np.floating], pixels: int) -> FloatArray:
    """Length that each interval between edges shares with each unit pixel: (intervals, pixels)."""
    starts = np.arange(pixels)
    reach = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.maximum(reach, 0)
