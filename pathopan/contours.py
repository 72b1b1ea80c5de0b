"""Label maps to polygons and back. Pure; coordinates are pixels with corners at integers (``x`` right, ``y`` down)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio import features

LabelMap = npt.NDArray[np.integer]
FloatArray = npt.NDArray[np.float64]

_FEWEST = 5  # coordinates of a closed line that bounds an area whatever its shape: four corners
_CLOSEST = 0.05  # pixels; outlines keep clear of pixel centres, where two of them could touch
_OUTWARD = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])  # x and y from a pixel across its top, right, bottom, left side


def nucleus_polygons(
    labels: LabelMap,
    *,
    foreground: npt.NDArray[np.float32] | None = None,
    level: float = 0.5,
    tolerance: float = 0.25,
    origin: tuple[float, float] = (0.0, 0.0),
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Trace each small object as one simple polygon: its largest piece, without holes.

    Parameters
    ----------
    labels : (Y, X) int
        Instance map; 0 is background.
    foreground : (Y, X) float32, optional
        Probability that a pixel is of any object: outlines then run where it passes ``level``, between pixels.
    level : float
        What objects have more of.
    tolerance : float
        Vertices that deviate less than this many pixels are dropped.
    origin : (float, float)
        x and y of the map's corner in the polygons' frame.

    Returns
    -------
    ids : (N,) int
        Labels that exist, ascending.
    polygons : (N,) shapely.Polygon
        Valid, non-empty outlines. Without ``foreground`` their area is the number of pixels that the piece has and
        encloses.

    Notes
    -----
    An outline crosses each pixel border around a piece (pixels joined by their sides) once, so that it never touches
    itself: between the two pixels' centres where the probability, taken to change linearly, passes the level (marching
    squares, Lorensen & Cline 1987), or halfway where it does not. Then it is thinned (Douglas & Peucker 1973) and
    stretched about its centroid to the area it had, and to half a pixel more, which is cut off at its corners.

    Examples
    --------
    >>> ids, polygons = nucleus_polygons(np.array([[0, 0, 0, 0], [0, 5, 5, 0], [0, 5, 5, 0]]))
    >>> ids.tolist(), round(polygons[0].area, 9)
    ([5], 4.0)
    """
    rings = _largest_rings(*_traced(labels, foreground, level))
    if not len(rings.ids):
        return np.empty(0, np.int64), np.empty(0, object)
    thin = _thinned(rings, tolerance)
    polygons = _polygons(*thin, rings.areas, origin)
    bad = np.flatnonzero(~shapely.is_valid(polygons) | (shapely.area(polygons) <= 0))
    if len(bad):
        polygons[bad] = _polygons(rings.points, rings.counts, rings.areas, origin)[bad]
    return rings.ids, polygons


class _Rings(NamedTuple):
    """Closed rings, one after the other."""

    points: FloatArray  # (P, 2) xy; the first of a ring is not repeated at its end
    counts: npt.NDArray[np.int64]  # points of each ring
    ids: npt.NDArray[np.int64]  # label that each ring goes around
    areas: FloatArray  # in pixels


def _traced(
    labels: LabelMap, foreground: npt.NDArray[np.float32] | None, level: float
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Walk around every piece of every label at once, the piece on the right hand.

    Returns
    -------
    points : (P, 2) float
        xy of where pixel borders are crossed, ring after ring.
    counts, ids : (R,) int
        Points of each ring, and its label. Rings around holes run the other way round.
    """
    wide = np.pad(labels.astype(np.int32, copy=False), 1)
    edges = _Edges.around(wide)
    n = len(edges.pixel)
    order = np.empty(n, np.int64)
    counts, ids, done, visited = [], [], 0, np.zeros(n, bool)
    left = np.arange(n)
    while len(left):
        _, first = np.unique(edges.label[left], return_index=True)
        rank, ring, lengths = _walk(edges.following, left[first], n)
        walked = np.flatnonzero(ring >= 0)
        order[done + (np.cumsum(lengths) - lengths)[ring[walked]] + rank[walked]] = walked
        counts.append(lengths)
        ids.append(edges.label[left[first]])
        done += len(walked)
        visited[walked] = True
        left = left[~visited[left]]
    flat = [np.concatenate([np.empty(0, np.int64), *part]) for part in (counts, ids)]
    reach = edges.reach(foreground, level, wide.shape[1])
    return edges.points(order[:done], reach, wide.shape[1]), flat[0], flat[1].astype(np.int64)


def _walk(
    following: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Follow rings from their starts, all in step; give each edge's rank, its ring (-1: not met), and ring lengths."""
    rank, ring = np.zeros(n, np.int64), np.full(n, -1, np.int64)
    lengths, now, which, step = np.zeros(len(starts), np.int64), starts, np.arange(len(starts)), 0
    while len(now):
        rank[now], ring[now] = step, which
        now, step = following[now], step + 1
        back = now == starts[which]
        if back.any():
            lengths[which[back]] = step
            now, which = now[~back], which[~back]
    return rank, ring, lengths


@dataclass(frozen=True)
class _Edges:
    """Borders between a labelled pixel and one of another label, directed with the pixel on the right."""

    pixel: npt.NDArray[np.int64]  # flat index in the padded map
    side: npt.NDArray[np.int64]  # 0 top, heading east; 1 right, south; 2 bottom, west; 3 left, north
    label: npt.NDArray[np.int32]
    following: npt.NDArray[np.int64]  # index of the next edge of the ring

    @classmethod
    def around(cls, wide: npt.NDArray[np.int32]) -> _Edges:
        """Find the edges of a map with a border of zeros, and link them."""
        flat, width = wide.ravel(), wide.shape[1]
        ahead = np.array([1, width, -1, -width])  # per side; what lies outward of a side is ahead of the side before
        pixels = np.flatnonzero(flat != 0)
        label = flat[pixels]
        present = np.stack([flat[pixels + ahead[side - 1]] != label for side in range(4)])
        rim = np.flatnonzero(present.any(axis=0))
        pixels, label, present = pixels[rim], label[rim], present[:, rim]
        number = np.cumsum(present.ravel()).reshape(present.shape) - 1
        place = np.empty(len(flat), np.int32)  # read at rim pixels only
        place[pixels] = np.arange(len(pixels))
        side, row = np.divmod(np.flatnonzero(present), len(pixels))
        pixel, own = pixels[row], label[row]
        front = pixel + ahead[side]
        front_left = front + ahead[side - 1]
        blocked, straight = flat[front] != own, flat[front_left] != own
        after = np.where(blocked, pixel, np.where(straight, front, front_left))
        turn = np.where(blocked, 1, np.where(straight, 0, -1))
        return cls(pixel, side, own, number[(side + turn) % 4, place[after]])

    def reach(self, foreground: npt.NDArray[np.float32] | None, level: float, width: int) -> FloatArray:
        """Say how far outward of its pixel's centre each edge is crossed: 0.5 in the middle between two pixels."""
        reach = np.full(len(self.pixel), 0.5)
        if foreground is None:
            return reach
        flat = np.pad(foreground, 1, mode="edge").ravel()
        inside, outside = flat[self.pixel], flat[self.pixel + (_OUTWARD @ [1, width])[self.side]]
        passed = np.flatnonzero((inside > level) & (outside <= level))
        high, low = inside[passed], outside[passed]
        reach[passed] = np.clip((high - level) / (high - low), _CLOSEST, 1 - _CLOSEST)
        return reach

    def points(self, order: npt.NDArray[np.int64], reach: FloatArray, width: int) -> FloatArray:
        """Give xy of where edges are crossed in the frame of the map without its border."""
        row, column = np.divmod(self.pixel[order], width)
        return np.column_stack([column, row]) - 0.5 + _OUTWARD[self.side[order]] * reach[order, None]


def _largest_rings(points: FloatArray, counts: npt.NDArray[np.int64], ids: npt.NDArray[np.int64]) -> _Rings:
    """Keep, for each label, the ring that encloses most; cut corners make it half a pixel smaller than it should be."""
    ends = np.cumsum(counts)
    starts = ends - counts
    area, _ = _moments(points, counts)
    order = np.lexsort((starts, -area, ids))
    best = order[np.unique(ids[order], return_index=True)[1]]
    where = np.repeat(starts[best] - (np.cumsum(counts[best]) - counts[best]), counts[best])
    return _Rings(points[where + np.arange(len(where))], counts[best], ids[best], area[best] + 0.5)


def _moments(points: FloatArray, counts: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Signed area and centroid of rings by the shoelace formula, about each ring's first point."""
    starts = np.cumsum(counts) - counts
    owner = np.repeat(np.arange(len(counts)), counts)
    here = points - points[starts][owner]
    following = np.arange(1, len(points) + 1)
    following[starts + counts - 1] = starts
    there = here[following]
    cross = here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]
    total = np.bincount(owner, cross, len(counts))
    with np.errstate(divide="ignore", invalid="ignore"):
        sums = [np.bincount(owner, cross * (here[:, i] + there[:, i]), len(counts)) / (3 * total) for i in (0, 1)]
    return total / 2, np.column_stack(sums) + points[starts]


def _thinned(rings: _Rings, tolerance: float) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Drop vertices that hardly deviate; a ring of which too little is left stays as it was."""
    if tolerance <= 0:
        return rings.points, rings.counts
    starts = np.cumsum(rings.counts) - rings.counts
    owner = np.repeat(np.arange(len(rings.counts)), rings.counts + 1)
    closed = np.insert(np.arange(len(rings.points)), starts + rings.counts, starts)
    lines = shapely.simplify(
        shapely.linestrings(rings.points[closed], indices=owner), tolerance, preserve_topology=False
    )
    few = np.flatnonzero(shapely.get_num_coordinates(lines) < _FEWEST)
    for ring in few:
        lines[ring] = shapely.linestrings(rings.points[closed[owner == ring]])
    points, owner = shapely.get_coordinates(lines, return_index=True)
    last = np.append(owner[1:] != owner[:-1], True)
    return points[~last], np.bincount(owner[~last], minlength=len(rings.counts))


def _polygons(
    points: FloatArray, counts: npt.NDArray[np.int64], areas: FloatArray, origin: tuple[float, float]
) -> npt.NDArray[np.object_]:
    """Build polygons of rings, each stretched about its centroid to an area, in the frame of a map at an origin."""
    owner = np.repeat(np.arange(len(counts)), counts)
    area, centroid = _moments(points, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.sqrt(areas / area)
    factor, centroid = (np.where(np.isfinite(v), v, d) for v, d in ((factor, 1.0), (centroid, 0.0)))
    stretched = (points - centroid[owner]) * factor[owner, None] + centroid[owner]
    return shapely.polygons(shapely.linearrings(stretched + np.asarray(origin), indices=owner))


def region_polygons(labels: LabelMap) -> dict[int, shapely.Polygon | shapely.MultiPolygon]:
    """Trace each region along its pixel borders, with holes; pieces that touch at a corner stay one region.

    Parameters
    ----------
    labels : (Y, X) int
        Region ids; 0 is nothing.

    Returns
    -------
    dict of int to polygon
        Valid outlines whose area is exactly the region's number of pixels.
    """
    pieces: dict[int, list[shapely.Polygon]] = {}
    source = labels.astype(np.int32, copy=False)
    for shape, value in features.shapes(source, mask=source > 0, connectivity=4):
        rings = shape["coordinates"]
        pieces.setdefault(int(value), []).append(shapely.Polygon(rings[0], rings[1:]))
    return {
        label: parts[0]
        if len(parts) == 1 and parts[0].is_valid
        else shapely.union_all([shapely.make_valid(p) for p in parts])
        for label, parts in sorted(pieces.items())
    }


def paint(
    polygons: Iterable[tuple[shapely.Geometry, int]],
    *,
    shape: tuple[int, int],
    origin: tuple[float, float] = (0.0, 0.0),
) -> npt.NDArray[np.int32]:
    """Rasterise polygons: a pixel takes the value of the first polygon that holds its centre.

    Parameters
    ----------
    polygons : iterable of (polygon, int)
        Earlier ones win where two overlap.
    shape : (int, int)
        Rows and columns of the result.
    origin : (float, float)
        x and y of the result's corner in the polygons' frame.

    Returns
    -------
    (Y, X) int32
        0 where no polygon is.
    """
    latest_first = list(polygons)[::-1]
    if not latest_first or min(shape) == 0:
        return np.zeros(shape, np.int32)
    transform = Affine.translation(*origin)
    return features.rasterize(latest_first, out_shape=shape, transform=transform, fill=0, dtype="int32")


def polygon_from_geojson(geometry: Mapping[str, Any]) -> shapely.Polygon | shapely.MultiPolygon:
    """Build a Polygon or MultiPolygon of GeoJSON from whole arrays: a million vertices in a second.

    Parameters
    ----------
    geometry : mapping
        Its ``type`` and ``coordinates``; a third coordinate is dropped.

    Raises
    ------
    ValueError, TypeError, IndexError, KeyError, ShapelyError
        If the coordinates are not those of such a geometry.

    Examples
    --------
    >>> polygon_from_geojson({"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 2], [0, 0]]]}).area
    4.0
    """
    coordinates = geometry["coordinates"]
    if geometry["type"] == "MultiPolygon":
        return shapely.MultiPolygon([_polygon(rings) for rings in coordinates])
    return _polygon(coordinates)


def _polygon(rings: Sequence[Any]) -> shapely.Polygon:
    if len(rings) == 0:
        return shapely.Polygon()
    lines = [shapely.linearrings(np.asarray(ring, dtype=np.float64)[:, :2]) for ring in rings]
    return shapely.polygons(lines[0], holes=lines[1:] or None)


def paint_nuclei(
    polygons: npt.NDArray[np.object_],
    ids: npt.NDArray[np.integer],
    *,
    shape: tuple[int, int],
    origin: tuple[float, float] = (0.0, 0.0),
) -> npt.NDArray[np.uint32]:
    """Rasterise many small polygons at once, by the rule of :func:`paint`: the first that holds a pixel's centre.

    Parameters
    ----------
    polygons : (N,) shapely.Polygon
        Earlier ones win where two overlap.
    ids : (N,) int
        Their values.
    shape : (int, int)
        Rows and columns of the result.
    origin : (float, float)
        x and y of the result's corner in the polygons' frame.

    Returns
    -------
    (Y, X) uint32
        0 where no polygon is.

    Examples
    --------
    >>> paint_nuclei(np.array([shapely.box(1, 0, 3, 1)]), np.array([7]), shape=(1, 4)).tolist()
    [[0, 7, 7, 0]]
    """
    height, width = shape
    owner, row, x = _crossings(polygons, height, origin)
    order = np.lexsort((x, owner * height + row))
    owner, row, x = owner[order[::2]], row[order[::2]], x[order]
    first, stop = (np.clip(np.ceil(ends - 0.5), 0, width).astype(np.int64) for ends in (x[::2], x[1::2]))
    length = np.maximum(stop - first, 0)
    at = np.repeat(row * width + first - (np.cumsum(length) - length), length) + np.arange(length.sum())
    canvas = np.zeros(height * width, np.uint32)
    canvas[at[::-1]] = np.repeat(ids[owner].astype(np.uint32), length)[::-1]  # what is written last stays
    return canvas.reshape(shape)


def _crossings(
    polygons: npt.NDArray[np.object_], height: int, origin: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """Find where outlines cross the middles of pixel rows: polygon, row, and x of each crossing."""
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    points = points - np.asarray(origin)
    closed = np.flatnonzero(ring[1:] == ring[:-1])
    (x0, y0), (x1, y1) = points[closed].T, points[closed + 1].T
    first, stop = (np.clip(np.ceil(end(y0, y1) - 0.5), 0, height).astype(np.int64) for end in (np.minimum, np.maximum))
    count = stop - first
    line = np.repeat(np.arange(len(closed)), count)
    row = first[line] + np.arange(len(line)) - (np.cumsum(count) - count)[line]
    slope = (x1 - x0)[line] / (y1 - y0)[line]
    return polygon[ring[closed]][line], row, x0[line] + (row + 0.5 - y0[line]) * slope
