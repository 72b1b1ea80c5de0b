"""Merge the nuclei of all tiles: each nucleus once, and whole.

Tiles own generously (a margin beyond their write window), so a nucleus near a seam may be seen twice. Duplicates are
pairs from different tiles that share much of the smaller one, whatever their classes; the more probable one stays.
Rows of tiles are merged one after the other, so that memory does not grow with the slide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pathopan.geometry import Grid

IntArray = npt.NDArray[np.int64]

_X, _Y = "_centroid_x", "_centroid_y"
"""Columns that candidates have while they are merged."""


@dataclass(frozen=True)
class MergedNuclei:
    """A part of a slide's nuclei, final: parts follow each other from top to bottom."""

    nuclei: gpd.GeoDataFrame  # nucleus_id, then the candidates' columns; polygons in grid pixels
    settled_px: float  # no later part has anything above this y


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
    (merged,) = merge_rows([(0, candidates)], grid, margin_px=margin_px, max_overlap=max_overlap)
    return merged.nuclei


def tile_rows(tables: Iterable[gpd.GeoDataFrame], grid: Grid) -> Iterator[tuple[int, gpd.GeoDataFrame]]:
    """Gather candidates that come in the order of their tiles into rows of tiles: (row, its candidates).

    Where there is no candidate at all, one row without any tells the columns.
    """
    row, held, empty = 0, list[gpd.GeoDataFrame](), list[gpd.GeoDataFrame]()
    for table in tables:
        empty = empty or [table.iloc[:0]]
        owner = table["tile_index"].to_numpy() // max(1, grid.shape[1])
        cuts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(table)]
        for first, last in pairwise(cuts if len(table) else []):
            if held and owner[first] != row:
                yield row, _joined(held)
                held = []
            row = int(owner[first])
            held.append(table.iloc[first:last])
    if held or empty:
        yield row, _joined(held or empty)


def merge_rows(
    rows: Iterable[tuple[int, gpd.GeoDataFrame]], grid: Grid, *, margin_px: float, max_overlap: float = 0.3
) -> Iterator[MergedNuclei]:
    """Merge like :func:`merge_nuclei`, row of tiles by row of tiles, with the same result.

    Parameters
    ----------
    rows : iterable of (int, GeoDataFrame)
        Rows of tiles from top to bottom, at least one, with the candidates of each.

    Yields
    ------
    MergedNuclei
        What no later row of tiles can change any more, for each row.
    """
    held = _Held()
    source = iter(rows)
    _, here = next(source)
    for row, below in chain(source, [(None, None)]):
        merged, held = _merge_row(held, here, grid, next_row=row, margin_px=margin_px, max_overlap=max_overlap)
        yield merged
        here = below


@dataclass(frozen=True)
class _Held:
    """What may still change after a row of tiles."""

    waiting: tuple[gpd.GeoDataFrame, ...] = ()  # candidates that later rows may have seen too
    ready: tuple[gpd.GeoDataFrame, ...] = ()  # nuclei that those of later rows may precede
    count: int = 0  # nuclei that are final


def _merge_row(
    held: _Held,
    candidates: gpd.GeoDataFrame,
    grid: Grid,
    *,
    next_row: int | None,
    margin_px: float,
    max_overlap: float,
) -> tuple[MergedNuclei, _Held]:
    """Take a row of tiles, the next of which is known, and give what is final."""
    top = np.inf if next_row is None else float(next_row * grid.step - grid.offset[1])
    reach, least_y = top - grid.halo, top - margin_px  # of anything that the rows from there on can hold
    pool = _joined([*held.waiting, _with_centroids(candidates)])
    keep, waits = _judge(pool, grid, reach, margin_px=margin_px, max_overlap=max_overlap)
    waiting, ready = pool[waits], _joined([*held.ready, pool[keep & ~waits]])
    if len(waiting):
        least_y = min(least_y, float(waiting[_Y].min()))
    x, y = ready[_X].to_numpy(), ready[_Y].to_numpy()
    order = np.lexsort((ready["tile_index"], -ready["prob"].to_numpy(), x, y))
    merged = ready.drop(columns=[_X, _Y]).iloc[order[y[order] < least_y]].reset_index(drop=True)
    merged.insert(0, "nucleus_id", np.arange(1, len(merged) + 1, dtype=np.int64) + held.count)
    after = _Held((waiting,), (ready[y >= least_y],), held.count + len(merged))
    tops = [shapely.bounds(part.geometry.to_numpy())[:, 1] for part in (*after.waiting, *after.ready)]
    return MergedNuclei(merged, float(min([reach, *(t.min() for t in tops if len(t))]))), after


def _judge(
    pool: gpd.GeoDataFrame, grid: Grid, reach: float, *, margin_px: float, max_overlap: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Say which candidates stay, and which cannot be judged yet: they or their twins reach into later rows."""
    order = np.lexsort((pool[_X], pool[_Y], pool["tile_index"], -pool["prob"].to_numpy()))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    pairs = duplicate_pairs(pool, grid, rank, margin_px=margin_px, max_overlap=max_overlap)
    keep = np.ones(len(pool), dtype=bool)
    for better, worse in pairs:
        if keep[better]:
            keep[worse] = False
    left, right = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(pool), len(pool)))
    count, group = connected_components(graph, directed=False)
    late = np.zeros(count, bool)
    late[group[shapely.bounds(pool.geometry.to_numpy())[:, 3] > reach]] = True
    return keep, late[group]


def _joined(tables: list[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    kept = [table for table in tables if len(table)] or tables[-1:]
    return gpd.GeoDataFrame(pd.concat(kept, ignore_index=True), crs=None) if len(kept) > 1 else kept[0]


def _with_centroids(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Add where each candidate lies: it is asked for as long as the candidate waits."""
    centroid = shapely.centroid(table.geometry.to_numpy())
    return table.assign(**{_X: shapely.get_x(centroid), _Y: shapely.get_y(centroid)})


def duplicate_pairs(
    candidates: gpd.GeoDataFrame,
    grid: Grid,
    rank: IntArray,
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
    shapes: npt.NDArray[np.object_], tiles: IntArray, grid: Grid, *, margin_px: float
) -> npt.NDArray[np.bool_]:
    """Say which nuclei reach outside their tile's write window shrunk by the margin: one of any two twins does."""
    row, column = np.divmod(tiles, max(1, grid.shape[1]))
    x0, y0 = column * grid.step - grid.offset[0] + margin_px, row * grid.step - grid.offset[1] + margin_px
    inner = grid.step - 2 * margin_px
    bounds = shapely.bounds(shapes)
    within = (bounds[:, 0] >= x0) & (bounds[:, 1] >= y0) & (bounds[:, 2] <= x0 + inner) & (bounds[:, 3] <= y0 + inner)
    return ~within
