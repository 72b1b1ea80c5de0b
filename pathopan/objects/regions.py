"""Regions: small islands join what surrounds them, the rest become rows with an outline.

A region is a connected component (8 neighbours) of one class on the whole slide, never of a tile. The work is done on
a graph of components, so the slide is labelled once, strip by strip, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph
from skimage import measure

from pathopan.classes import UNANALYSED, Taxonomy
from pathopan.errors import ShapeMismatch, UnknownLabel
from pathopan.objects.outlines import region_outlines

ClassMap = npt.NDArray[np.uint8]
IdMap = npt.NDArray[np.int32] | npt.NDArray[np.int16]
LabelMap = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]
_Row = npt.NDArray[Any]

MIN_HOLE_UM2 = 250.0
"""Glass, and tissue that is in no denominator, joins what is around it only below this: a hole of 18 um across."""

STRIP_ROWS = 512
"""Rows handled at once: bounds temporary memory, changes no result."""

_NEIGHBORS = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of the eight neighbours, as row and column steps; the other half is seen from the other pixel."""


@dataclass(frozen=True)
class RegionMap:
    """Regions as raster."""

    ids: IdMap  # 1 upwards in row-major order of first pixels; 0 not analysed; -c background of class c
    class_ids: IntArray  # (N,) class of each region
    n_pixels: IntArray  # (N,) its size

    def classes(self) -> ClassMap:
        """Give the (Y, X) classes after small islands have joined what surrounds them."""
        class_of = np.concatenate([np.arange(255, -1, -1), self.class_ids]).astype(np.uint8)
        classes = np.empty(self.ids.shape, np.uint8)
        for rows in strips(len(classes), STRIP_ROWS):
            classes[rows] = class_of[self.ids[rows].astype(np.int32) + 255]
        return classes


@dataclass(frozen=True)
class _Contacts:
    """Pairs of components that touch, at least one of them small, and how many pixel pairs do."""

    first: IntArray
    second: IntArray
    weight: IntArray


def find_regions(classes: ClassMap, *, taxonomy: Taxonomy, mpp: float, min_region_um2: float = 2_500.0) -> RegionMap:
    """Let small islands join the class around them, and number what remains.

    Parameters
    ----------
    classes : (Y, X) uint8
        Region class of every pixel; 0 is not analysed.
    taxonomy : Taxonomy
        What the classes mean.
    mpp : float
        Micrometres per pixel.
    min_region_um2 : float
        Smaller components join the class with which they share most of their border (tie: the lower class id).
        Those with only small neighbours wait for these to decide. Background and classes with the role ``other`` join
        below `MIN_HOLE_UM2` only, for no denominator shall hold them. Two things never join anything: classes with
        the role ``excluded``, for which guidelines know no minimum size, and components that nothing analysed touches.

    Returns
    -------
    RegionMap
        Independent of the order in which components are visited.

    Raises
    ------
    ShapeMismatch
        If the map is not two-dimensional.
    UnknownLabel
        If the map holds a value that is no class of the taxonomy.

    Examples
    --------
    >>> from pathopan.classes import BREAST
    >>> classes = np.full((5, 5), 2, np.uint8)
    >>> classes[2, 2] = 1
    >>> find_regions(classes, taxonomy=BREAST, mpp=2.0).classes().max()
    np.uint8(2)
    """
    _check_classes(classes, taxonomy)
    labels, owner, n_pixels = _label(classes)
    is_hole = np.isin(owner, taxonomy.region_ids("background", "other"))
    least_um2 = np.where(is_hole, min(MIN_HOLE_UM2, min_region_um2), min_region_um2)
    contacts = _contacts(labels, n_pixels * mpp**2 < min_region_um2)
    protected = np.isin(owner, (UNANALYSED, *taxonomy.region_ids("excluded")))
    small = (n_pixels * mpp**2 < least_um2) & ~protected
    owner = _join_islands(owner, small, contacts)
    ids = _number(owner, contacts, np.isin(owner, (UNANALYSED, *taxonomy.region_ids("background"))))
    is_region = ids > 0
    count = int(ids.max(initial=0))
    class_ids, sizes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    class_ids[ids[is_region] - 1] = owner[is_region]
    np.add.at(sizes, ids[is_region] - 1, n_pixels[is_region])
    return RegionMap(_renumbered(labels, ids), class_ids, sizes)


def strips(n_rows: int, height: int) -> Iterator[slice]:
    """Yield slices that cover the rows from top to bottom.

    Examples
    --------
    >>> list(strips(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(top, min(top + height, n_rows)) for top in range(0, n_rows, height))


def regions_table(
    regions: RegionMap, *, taxonomy: Taxonomy, mpp: float, scale_l0: tuple[float, float]
) -> gpd.GeoDataFrame:
    """Turn regions into rows with an outline along pixel borders.

    Parameters
    ----------
    regions : RegionMap
        From `find_regions`.
    taxonomy : Taxonomy
        What the classes mean.
    mpp : float
        Micrometres per pixel of the map.
    scale_l0 : (float, float)
        Level-0 pixels per pixel of the map, along x and y.

    Returns
    -------
    GeoDataFrame
        ``region_id, class, class_id, area_mm2, touches_border, geometry``; valid polygons with holes whose area is
        exactly the region's pixels, so that a point is in the outline if its pixel is in the region.
    """
    region_ids = np.arange(1, len(regions.class_ids) + 1)
    outlines = region_outlines(regions.ids, scale=scale_l0)
    borders = (regions.ids[0], regions.ids[-1], regions.ids[:, 0], regions.ids[:, -1]) if regions.ids.size else ([0],)
    frame = pd.DataFrame(
        {
            "region_id": region_ids,
            "class": pd.array([taxonomy.region(c).name for c in regions.class_ids.tolist()], dtype="str"),
            "class_id": regions.class_ids,
            "area_mm2": regions.n_pixels * (mpp / 1000) ** 2,
            "touches_border": np.isin(region_ids, np.concatenate(borders)),
        }
    )
    return gpd.GeoDataFrame(frame, geometry=outlines, crs=None)


def _check_classes(classes: ClassMap, taxonomy: Taxonomy) -> None:
    if classes.ndim != 2:
        msg = f"the region map must be two-dimensional (Y, X); its shape is {classes.shape}"
        raise ShapeMismatch(msg)
    found = np.flatnonzero(np.bincount(classes.ravel(), minlength=256)) if classes.size < 2**20 else _values(classes)
    unknown = set(found.tolist()) - {UNANALYSED, *(c.id for c in taxonomy.regions)}
    if unknown:
        msg = f"the region map holds the values {sorted(unknown)}, which taxonomy {taxonomy.name!r} does not know"
        raise UnknownLabel(msg)


def _values(classes: ClassMap) -> IntArray:
    counts = np.zeros(256, np.int64)
    for rows in strips(len(classes), STRIP_ROWS):
        counts += np.bincount(classes[rows].ravel(), minlength=256)
    return np.flatnonzero(counts)


def _label(classes: ClassMap) -> tuple[LabelMap, IntArray, IntArray]:
    """Label components of equal class in row-major order of first pixels; give class and size of each."""
    labels = np.zeros(classes.shape, np.int32)
    owners, seams, total = [np.zeros(1, np.int64)], [], 0
    for rows in strips(len(classes), STRIP_ROWS):
        # scikit-image numbers components in raster order of their first pixels, which the region ids rely on.
        piece, count = measure.label(classes[rows], connectivity=2, background=UNANALYSED, return_num=True)
        owner = np.zeros(count + 1, np.int64)
        owner[piece] = classes[rows]
        owners.append(owner[1:])
        labels[rows] = np.where(piece > 0, piece + total, 0)
        seams.append(_seam(classes, labels, rows.start))
        total += count
    owner = np.concatenate(owners)
    first, second = (np.concatenate([seam[side] for seam in seams] or [np.empty(0, np.int64)]) for side in (0, 1))
    leader = _leaders(total + 1, first, second)
    dense, compact = np.unique(leader, return_inverse=True)
    sizes = np.zeros(len(dense), np.int64)
    for rows in strips(len(classes), STRIP_ROWS):
        labels[rows] = compact[labels[rows]]
        sizes += np.bincount(labels[rows].ravel(), minlength=len(dense))
    return labels, owner[dense], sizes


def _renumbered(labels: LabelMap, ids: npt.NDArray[np.int32]) -> IdMap:
    """Replace labels by ids, in the labels' own memory; where 16 bits are enough for ids, give half of it back."""
    if ids.max(initial=0) > np.iinfo(np.int16).max or labels.size == 0:
        for rows in strips(len(labels), STRIP_ROWS):
            labels[rows] = ids[labels[rows]]
        return labels
    flat, shape = labels.reshape(-1), labels.shape
    halves, short = flat.view(np.int16), ids.astype(np.int16)
    for part in strips(len(flat), STRIP_ROWS * shape[1]):
        halves[part] = short[flat[part]]  # writes run behind the reads: an id takes half of a label's room
    count = len(flat)
    del flat, halves  # nothing else may look at the buffer when it shrinks
    labels.resize((count + 1) // 2, refcheck=False)
    return labels.view(np.int16)[:count].reshape(shape)


def _seam(classes: ClassMap, labels: LabelMap, row: int) -> tuple[IntArray, IntArray]:
    """Pair the labels that are one component across the border above a row."""
    if row == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first, second = [], []
    for step in (-1, 0, 1):
        above, below = _shifted(classes[row - 1], classes[row], step)
        same = (above == below) & (above != UNANALYSED)
        left, right = _shifted(labels[row - 1], labels[row], step)
        first.append(left[same])
        second.append(right[same])
    return np.concatenate(first), np.concatenate(second)


def _shifted(above: _Row, below: _Row, step: int) -> tuple[_Row, _Row]:
    """Align two rows so that entry i of the first touches entry i + step of the second."""
    width = len(above)
    return above[max(0, -step) : width - max(0, step)], below[max(0, step) : width - max(0, -step)]


def _leaders(count: int, first: IntArray, second: IntArray) -> IntArray:
    """Give for each label the lowest label that it is joined to."""
    graph = sparse.coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    groups, member = csgraph.connected_components(graph, directed=False)
    lowest = np.full(groups, count, np.int64)
    np.minimum.at(lowest, member, np.arange(count))
    return lowest[member]


def _contacts(labels: LabelMap, small: npt.NDArray[np.bool_]) -> _Contacts:
    """Count the pixel pairs (8 neighbours) in which a small component touches another."""
    keys, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    count = len(small)
    if small[1:].any():
        for rows in strips(len(labels), STRIP_ROWS):
            found, times = np.unique(_touching(labels[rows.start : rows.stop + 1], small), return_counts=True)
            keys.append(found)
            weights.append(times)
    key, where = np.unique(np.concatenate(keys), return_inverse=True)
    weight = np.bincount(where, weights=np.concatenate(weights), minlength=len(key)).astype(np.int64)
    return _Contacts(key // count, key % count, weight)


def _touching(block: LabelMap, small: npt.NDArray[np.bool_]) -> IntArray:
    """Encode each pixel pair of a strip (its last row belongs to the next strip) as lower label * count + higher."""
    pairs, width = [np.empty(0, np.int64)], block.shape[1]
    for down, right in _NEIGHBORS:
        # Pairs within the last row are the next strip's, unless the strip is the map's last and has no extra row.
        last = len(block) - down if len(block) <= STRIP_ROWS else len(block) - 1
        a = block[:last, max(0, -right) : width - max(0, right)]
        b = block[down : down + last, max(0, right) : width - max(0, -right)]
        differ = (a != b) & (a > 0) & (b > 0)
        a, b = a[differ], b[differ]
        either = small[a] | small[b]
        low, high = np.minimum(a, b)[either].astype(np.int64), np.maximum(a, b)[either]
        pairs.append(low * len(small) + high)
    return np.concatenate(pairs)


def _join_islands(owner: IntArray, small: npt.NDArray[np.bool_], contacts: _Contacts) -> IntArray:
    """Give each small component the class that most of its border touches, in rounds from the outside in."""
    owner, settled = owner.copy(), ~small
    source = np.concatenate([contacts.first, contacts.second])
    target = np.concatenate([contacts.second, contacts.first])
    weight = np.concatenate([contacts.weight, contacts.weight])
    while True:
        ready = ~settled[source] & settled[target]
        if not ready.any():
            return owner
        ballots = pd.DataFrame({"source": source[ready], "owner": owner[target[ready]], "weight": weight[ready]})
        votes = ballots.groupby(["source", "owner"], as_index=False).agg({"weight": "sum"})
        order = votes.sort_values(["source", "weight", "owner"], ascending=[True, False, True], kind="stable")
        winners = order.drop_duplicates("source")
        owner[winners["source"].to_numpy()] = winners["owner"].to_numpy()
        settled[winners["source"].to_numpy()] = True


def _number(owner: IntArray, contacts: _Contacts, skip: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Join touching components of one class and number them; label order is row-major order of first pixels."""
    same = owner[contacts.first] == owner[contacts.second]
    leader = _leaders(len(owner), contacts.first[same], contacts.second[same])
    kept = np.unique(leader[~skip])
    ids = -owner.astype(np.int32)
    ids[~skip] = np.searchsorted(kept, leader[~skip]) + 1
    return ids
