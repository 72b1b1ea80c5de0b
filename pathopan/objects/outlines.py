"""Outlines of all regions of a slide at once: exact pixel borders, without a Python step per pixel or vertex.

The border of a region is a set of straight runs between pixels. Each run points so that its region lies to the right,
runs are chained where they meet, and the chains are rings: shells turn one way, holes the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from scipy import sparse
from scipy.sparse import csgraph

IntArray = npt.NDArray[np.integer]

LINES = 64
"""Pixel borders examined at once: bounds temporary memory, changes no result."""


class _Runs(NamedTuple):
    """Directed straight pieces of borders: from ``start`` to ``end`` along one line."""

    label: IntArray
    line: IntArray
    start: IntArray
    end: IntArray


def region_outlines(
    ids: npt.NDArray[np.integer], *, scale: tuple[float, float] = (1.0, 1.0)
) -> npt.NDArray[np.object_]:
    """Trace every region along its pixel borders, with holes.

    Parameters
    ----------
    ids : (Y, X) int
        Region ids 1..N; 0 and less is nothing.
    scale : (float, float)
        Units of the result per pixel, along x and y.

    Returns
    -------
    (N,) shapely.Polygon or shapely.MultiPolygon
        Entry ``i`` outlines region ``i + 1``, in scaled pixels with corners at integers. Valid, and its area is
        exactly that of the region's pixels; pieces that touch only at a corner become a MultiPolygon.

    Examples
    --------
    >>> region_outlines(np.array([[1, 1, 2], [1, 1, 2]])).tolist()
    [<POLYGON ((0 0, 2 0, 2 2, 0 2, 0 0))>, <POLYGON ((2 0, 3 0, 3 2, 2 2, 2 0))>]
    """
    count = int(ids.max(initial=0))
    if count == 0:
        return np.empty(0, object)
    ring, corners, label = _rings(*_borders(ids), ids.shape)
    return _assemble(ring, corners, label, np.asarray(scale), count)


def _borders(ids: npt.NDArray[np.integer]) -> tuple[_Runs, _Runs]:
    """Find all runs, across and down, each with its region to the right."""
    eastward, westward = _runs(ids)
    northward, southward = _runs(ids.T)
    return _joined(eastward, _reversed(westward)), _joined(_reversed(northward), southward)


def _runs(ids: npt.NDArray[np.integer]) -> tuple[_Runs, _Runs]:
    """Find the runs along every line between rows: those whose region lies after the line, and before it."""
    found: tuple[list[_Runs], list[_Runs]] = ([], [])
    blank = np.zeros((1, ids.shape[1]), ids.dtype)
    for top in range(0, len(ids) + 1, LINES):
        bottom = min(top + LINES, len(ids) + 1)
        before = ids[max(top - 1, 0) : bottom - 1]
        after = ids[top:bottom]
        before = np.concatenate([blank, before]) if top == 0 else np.ascontiguousarray(before)
        after = np.concatenate([after, blank]) if bottom > len(ids) else np.ascontiguousarray(after)
        differ = before != after
        for side, labels in zip(found, (after, before), strict=True):
            side.append(_runs_of(labels, differ & (labels > 0), top))
    return _joined(*found[0]), _joined(*found[1])


def _runs_of(labels: npt.NDArray[np.integer], keep: npt.NDArray[np.bool_], top: int) -> _Runs:
    """Collect the maximal runs of one label among the kept pixels of each row."""
    same = keep[:, 1:] & keep[:, :-1] & (labels[:, 1:] == labels[:, :-1])
    opens, closes = keep.copy(), keep
    opens[:, 1:] &= ~same
    closes[:, :-1] &= ~same
    line, start = np.nonzero(opens)
    end = np.nonzero(closes)[1] + 1
    label = labels[line, start]
    return _Runs(*(values.astype(np.int32) for values in (label, line + top, start, end)))


def _joined(*pieces: _Runs) -> _Runs:
    return _Runs(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def _reversed(runs: _Runs) -> _Runs:
    return runs._replace(start=runs.end, end=runs.start)


def _rings(across: _Runs, down: _Runs, shape: tuple[int, int]) -> tuple[IntArray, IntArray, IntArray]:
    """Chain runs into simple rings; give ring number, corner (x, y) and label, ring by ring in walking order."""
    height, width = shape
    n_across = len(across.label)

    def corner(runs: _Runs, x: IntArray, y: IntArray) -> IntArray:
        return (runs.label.astype(np.int64) * (height + 1) + y) * (width + 1) + x

    # At a corner where two pixels of a region touch diagonally, sorting by heading makes every chain turn right,
    # round its own pixel; so a chain never leaves its 4-connected piece.
    heading_west, heading_north = across.start > across.end, down.start > down.end
    ends, starts = (
        corner(across, across.end, across.line) * 2 + heading_west,
        corner(down, down.line, down.start) * 2 + heading_north,
    )
    follower = np.empty(n_across + len(down.label), np.int64)
    tied = [_match(follower, ends, starts, (0, n_across))]
    ends, starts = (
        corner(down, down.line, down.end) * 2 + heading_north,
        corner(across, across.start, across.line) * 2 + ~heading_west,
    )
    tied.append(_match(follower, ends, starts, (n_across, 0)))
    del ends, starts
    _untie(follower, np.concatenate(tied))
    order, ring = _walk(follower)
    x, y = np.concatenate([across.start, down.line]), np.concatenate([across.line, down.start])
    return ring, np.column_stack([x[order], y[order]]), np.concatenate([across.label, down.label])[order]


def _match(follower: IntArray, ends: IntArray, starts: IntArray, offset: tuple[int, int]) -> IntArray:
    """Let each run be followed by the one that starts where it ends; give the pairs that share a corner."""
    leaving, arriving = np.argsort(starts, kind="stable"), np.argsort(ends, kind="stable")
    follower[arriving + offset[0]] = leaving + offset[1]
    corners = ends[arriving] >> 1
    twice = np.flatnonzero(corners[1:] == corners[:-1])
    return np.column_stack([arriving[twice], arriving[twice + 1]]) + offset[0]


def _untie(follower: IntArray, tied: IntArray) -> None:
    """Part a chain that passes a corner twice into two rings there, so that every ring is simple."""
    _, member = _components(follower)
    twice = tied[member[tied[:, 0]] == member[tied[:, 1]]]
    follower[twice] = follower[twice[:, ::-1]]


def _components(follower: IntArray) -> tuple[int, IntArray]:
    graph = sparse.csr_array(
        (np.ones(len(follower), np.int8), follower, np.arange(len(follower) + 1)), shape=(len(follower),) * 2
    )
    return csgraph.connected_components(graph, directed=False)


def _walk(follower: IntArray) -> tuple[IntArray, IntArray]:
    """Order runs by ring and by place in it: pointer jumping, so the number of rounds is logarithmic."""
    count, member = _components(follower)
    first = np.full(count, len(follower), np.int64)
    np.minimum.at(first, member, np.arange(len(follower)))
    ahead = follower.copy()
    ahead[first] = first
    to_go = np.ones(len(follower), np.int32)
    to_go[first] = 0
    while (ahead != first[member]).any():
        to_go += to_go[ahead]
        ahead = ahead[ahead]
    to_go[first] = np.iinfo(np.int32).max
    order = np.lexsort((-to_go, member))
    return order, member[order]


def _assemble(
    ring: IntArray, corners: IntArray, label: IntArray, scale: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.object_]:
    """Build one polygon a label from its rings."""
    begin = np.flatnonzero(np.diff(ring, prepend=-1))
    following = np.roll(corners, -1, axis=0)
    following[np.append(begin[1:], len(corners)) - 1] = corners[begin]
    # The area by Green's theorem: x dy along the ring.
    hole = np.add.reduceat(corners[:, 0] * (following[:, 1].astype(np.int64) - corners[:, 1]), begin) < 0
    owner = label[begin].astype(np.int64) - 1
    several = np.bincount(owner[~hole], minlength=count) > 1
    chosen = (corners[:, 0] == following[:, 0]) & several[label - 1]
    ends = _row_ends(corners[chosen], following[chosen, 1], label[chosen], ring[chosen])
    del following, chosen
    pieces, piece = _pieces(owner, several, ends)
    order = np.lexsort((hole, piece))
    rings = np.asarray(shapely.linearrings(corners * scale, indices=ring))
    polygons = shapely.polygons(rings[order], indices=piece[order])
    owner_of = np.empty(pieces, np.int64)
    owner_of[piece] = owner
    order = np.argsort(owner_of, kind="stable")
    outlines = np.full(count, shapely.Polygon(), object)
    shapely.multipolygons(polygons[order], indices=owner_of[order], out=outlines)
    single = np.bincount(owner_of, minlength=count) == 1
    outlines[single] = shapely.get_geometry(outlines[single], 0)
    return outlines


def _row_ends(corners: IntArray, next_y: IntArray, label: IntArray, ring: IntArray) -> tuple[IntArray, IntArray]:
    """Give the rings at the left and the right end of each row of pixels that lies between upright runs."""
    x, y = corners.astype(np.int64).T
    length = np.abs(next_y - y).astype(np.int64)
    before = np.cumsum(length) - length
    row = np.arange(int(length.sum())) + np.repeat(np.minimum(y, next_y).astype(np.int64) - before, length)
    left = np.repeat(next_y < y, length)  # a run that points up has its region to the right
    x, label, ring = (np.repeat(values, length) for values in (x, label, ring))
    order = np.lexsort((x, row, label))
    ring, left = ring[order], left[order]
    return ring[left], ring[~left]


def _pieces(owner: IntArray, several: npt.NDArray[np.bool_], ends: tuple[IntArray, IntArray]) -> tuple[int, IntArray]:
    """Give each ring its 4-connected piece: all rings of a label with one shell, else those that rows join."""
    order = np.argsort(owner, kind="stable")
    alike = (owner[order[1:]] == owner[order[:-1]]) & ~several[owner[order[1:]]]
    first, second = (np.concatenate(pair) for pair in zip(ends, (order[:-1][alike], order[1:][alike]), strict=True))
    graph = sparse.coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(owner),) * 2)
    return csgraph.connected_components(graph, directed=False)
