"""Merge the nuclei of all tiles: each nucleus once, and whole.

Tiles own generously (a margin beyond their write window), so a nucleus near a seam may be seen twice. Duplicates are
pairs from different tiles that share much of the smaller one, whatever their classes; the more probable one stays.
"""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import shapely

from pathopan.geometry import Grid


def merge_nuclei(
    candidates: gpd.GeoDataFrame, grid: Grid, *, margin_px: float, max_overlap: float = 0.3
) -> gpd.GeoDataFrame:
    """Drop duplicates at seams and number the nuclei.

    Parameters
    ----------
    candidates : GeoDataFrame
        ``prob``, ``tile_index`` and polygons in grid pixels, in any order.
    grid : Grid
        Where the seams are.
    margin_px : float
        How far beyond its write window a tile kept nuclei.
    max_overlap : float
        Two nuclei of different tiles that share more than this of the smaller one are one nucleus.

    Returns
    -------
    GeoDataFrame
        The kept rows, with ``nucleus_id`` 1.. in row-major order of centroids (y, then x).

    Notes
    -----
    The result does not depend on the order of the rows: ties in probability go to the lower tile index, then to the
    upper left.
    """
    centroid = shapely.centroid(candidates.geometry.to_numpy())
    x, y = shapely.get_x(centroid), shapely.get_y(centroid)
    order = np.lexsort((x, y, candidates["tile_index"], -candidates["prob"].to_numpy()))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    keep = np.ones(len(candidates), dtype=bool)
    for better, worse in duplicate_pairs(candidates, grid, rank, margin_px=margin_px, max_overlap=max_overlap):
        if keep[better]:
            keep[worse] = False
    rows = np.flatnonzero(keep)
    rows = rows[np.lexsort((rank[rows], x[rows], y[rows]))]
    merged = candidates.iloc[rows].reset_index(drop=True)
    merged.insert(0, "nucleus_id", np.arange(1, len(merged) + 1, dtype=np.int64))
    return merged


def duplicate_pairs(
    candidates: gpd.GeoDataFrame,
    grid: Grid,
    rank: npt.NDArray[np.int64],
    *,
    margin_px: float,
    max_overlap: float,
) -> list[tuple[int, int]]:
    """List pairs of rows that are one nucleus, (better, worse) by rank, the best first.

    One of the two may lie well inside its tile: what the other tile saw of it then reaches over the seam.
    """
    shapes = candidates.geometry.to_numpy()
    tiles = candidates["tile_index"].to_numpy()
    seam = np.flatnonzero(near_seam(shapes, tiles, grid, margin_px=margin_px))
    found, right = shapely.STRtree(shapes).query(shapes[seam], predicate="intersects")
    left = seam[found]
    other = tiles[left] != tiles[right]
    pairs = np.stack([left, right])[:, other]
    left, right = np.unique(np.take_along_axis(pairs, rank[pairs].argsort(axis=0), axis=0), axis=1)
    shared = shapely.area(shapely.intersection(shapes[left], shapes[right]))
    same = shared > max_overlap * np.minimum(shapely.area(shapes[left]), shapely.area(shapes[right]))
    left, right = left[same], right[same]
    by_rank = np.lexsort((rank[right], rank[left]))
    return list(zip(left[by_rank].tolist(), right[by_rank].tolist(), strict=True))


def near_seam(
    shapes: npt.NDArray[np.object_], tiles: npt.NDArray[np.int64], grid: Grid, *, margin_px: float
) -> npt.NDArray[np.bool_]:
    """Say which nuclei reach outside their tile's write window shrunk by the margin: one of any two twins does."""
    row, column = np.divmod(tiles, max(1, grid.shape[1]))
    x0, y0 = column * grid.step - grid.offset[0] + margin_px, row * grid.step - grid.offset[1] + margin_px
    inner = grid.step - 2 * margin_px
    bounds = shapely.bounds(shapes)
    within = (bounds[:, 0] >= x0) & (bounds[:, 1] >= y0) & (bounds[:, 2] <= x0 + inner) & (bounds[:, 3] <= y0 + inner)
    return ~within
