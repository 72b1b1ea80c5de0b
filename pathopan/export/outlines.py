"""Make polygons that every viewer accepts: few vertices, one decimal, valid, and not empty on QuPath's grid. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, product
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

Shapes = npt.NDArray[np.object_]
Mask = npt.NDArray[np.bool_]

PRECISION_PX = 0.01
"""Grid to which QuPath 0.6 and later reduce every geometry with JTS; an invalid one ends the import."""

DECIMALS = 1
"""Of a written coordinate: a tenth of a level-0 pixel is 0.025 to 0.05 um."""

_STEPS = np.array(sorted(product(np.arange(-3, 4) / 10, repeat=2), key=lambda step: (round(np.hypot(*step), 6), step)))
"""Steps of up to 0.3 px along each axis, the shortest first."""

_SURE_THICKNESS_PX = 0.05
_FIRST_TOLERANCE_PX = 0.25
_TOLERANCE_GROWTH = 1.7
_POLYGON, _MULTIPOLYGON = 3, 6


def survives_qupath(shapes: Shapes) -> Mask:
    """Tell which polygons QuPath 0.6 and later import: valid, and not empty on a 0.01 px grid.

    Parameters
    ----------
    shapes : (N,) shapely geometries
        ``None`` and empty ones do not survive.

    Notes
    -----
    ``shapely.set_precision`` is the GEOS twin of QuPath's JTS call and costs 46 us a polygon. It is spared where it
    cannot fail: every point of a valid polygon lies within its inradius r of the outline, so its area is at most that
    of a tube around the outline, about 2 r times its length. Rounding moves an edge by at most 0.0071 px, so a polygon
    whose area is 0.05 px times its length keeps a point inside.
    """
    valid = shapely.is_valid(shapes) & ~shapely.is_empty(shapes) & ~shapely.is_missing(shapes)
    thin = valid & ~(shapely.area(shapes) >= _SURE_THICKNESS_PX * shapely.length(shapes))
    valid[thin] = ~shapely.is_empty(shapely.set_precision(shapes[thin], PRECISION_PX))
    return valid


def all_plain_and_sound(geometries: Sequence[Any]) -> bool:
    """Tell at once whether all GeoJSON geometries are polygons of one ring, closed, finite, and fit for QuPath.

    Parameters
    ----------
    geometries : sequence
        As read from JSON: anything at all.

    Returns
    -------
    bool
        False says only that each has to be looked at by itself.
    """
    try:
        rings = [g["coordinates"][0] for g in geometries if g["type"] == "Polygon" and len(g["coordinates"]) == 1]
        points = list(chain.from_iterable(rings))
        numbers = list(chain.from_iterable(points))
        pairs = set(map(len, points)) == {2} and set(map(type, numbers)) <= {int, float}
        ends = all(len(ring) >= 4 and ring[0] == ring[-1] for ring in rings)
    except (KeyError, TypeError, IndexError):
        return False
    if len(rings) < len(geometries) or not pairs or not ends:
        return False
    flat = np.array(numbers, np.float64).reshape(-1, 2)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    return bool(
        np.isfinite(flat).all() and survives_qupath(shapely.polygons(shapely.linearrings(flat, indices=owner))).all()
    )


def safe_nuclei(shapes: Shapes, *, max_vertices: int) -> tuple[Shapes, Mask]:
    """Thin and round nucleus outlines, and repair those that this or the network made invalid.

    Parameters
    ----------
    shapes : (N,) shapely geometries
        Outlines in level-0 pixels; holes are filled, and of several pieces the largest is kept.
    max_vertices : int
        An outline gets at most this many.

    Returns
    -------
    safe : (N,) shapely.Polygon or None
        Valid polygons with one decimal; ``None`` where nothing can be saved.
    repaired : (N,) bool
        Which were invalid as given, or would have been as written.
    """
    present = ~shapely.is_missing(shapes)
    valid = shapely.is_valid(shapes)
    solid = _simple(shapes, valid)
    safe = _rounded(_thin(solid, max_vertices, keep_valid=False))
    broken = np.flatnonzero(~survives_qupath(safe))
    safe[broken] = _rounded(_thin(solid[broken], max_vertices, keep_valid=True))
    for index in broken[~survives_qupath(safe[broken])]:
        safe[index] = _mend(safe[index], max_vertices)
    repaired = present & ~valid
    repaired[broken] = True
    return safe, repaired & ~shapely.is_missing(safe)


def centred(safe: Shapes, shapes: Shapes) -> Shapes:
    """Move thinned outlines back onto the centroids of those that they were made from, by whole tenths of a pixel.

    QuPath counts a detection in the annotation that holds its centroid. A nucleus was given to the region that holds
    the centroid of its full outline, and losing vertices may move that over a border.

    Parameters
    ----------
    safe : (N,) shapely.Polygon or None
        From `safe_nuclei`.
    shapes : (N,) shapely geometries
        What they were made from.

    Returns
    -------
    (N,) shapely.Polygon or None
        With one decimal, as valid as before.
    """
    present = np.flatnonzero(~shapely.is_missing(safe))
    moved = safe.copy()
    if not len(present):
        return moved
    kept = safe[present]
    wanted, found = (_centroids(values) for values in (shapes[present], kept))
    shift = np.nan_to_num(np.round(wanted - found, DECIMALS))
    points = shapely.get_coordinates(kept) + np.repeat(shift, shapely.get_num_coordinates(kept), axis=0)
    moved[present] = shapely.set_coordinates(kept.copy(), np.round(points, DECIMALS))
    return moved


def held(safe: Shapes, owners: npt.NDArray[np.int64], regions: Mapping[int, shapely.Geometry]) -> Shapes:
    """Move outlines whose centroid lies just outside of their region, as written, into it: by a few tenths of a pixel.

    Parameters
    ----------
    safe : (N,) shapely.Polygon or None
        With one decimal.
    owners : (N,) int
        The region that each was counted in.
    regions : mapping of int to geometry
        Regions as they are written, prepared; outlines of others stay.

    Returns
    -------
    (N,) shapely.Polygon or None
    """
    moved, centroids = safe.copy(), np.asarray(shapely.centroid(safe), dtype=object)
    for number in np.unique(owners).tolist():
        if number not in regions:
            continue
        mine = np.flatnonzero((owners == number) & ~shapely.is_missing(centroids))
        for row in mine[~shapely.contains(regions[number], centroids[mine])]:
            moved[row] = _nudged(safe[row], centroids[row], regions[number])
    return moved


def _nudged(shape: shapely.Polygon, centroid: shapely.Point, region: shapely.Geometry) -> shapely.Polygon:
    """Move a shape by the least step that brings its centroid into a region; far ones stay."""
    tried = np.round(np.array([centroid.x, centroid.y]) + _STEPS, 6)  # what lies on the border is not inside
    inside = np.flatnonzero(shapely.contains_xy(region, tried[:, 0], tried[:, 1]))
    if not len(inside):
        return shape
    step = _STEPS[inside[0]]
    return shapely.transform(shape, lambda points: np.round(points + step, DECIMALS))


def _centroids(shapes: Shapes) -> npt.NDArray[np.float64]:
    centroids = shapely.centroid(shapes)
    return np.column_stack([shapely.get_x(centroids), shapely.get_y(centroids)])


def _simple(shapes: Shapes, valid: Mask) -> Shapes:
    """Reduce each geometry to one polygon without holes; what has no area becomes None."""
    solid = shapes.copy()
    odd = (shapely.get_type_id(shapes) != _POLYGON) | (shapely.get_num_interior_rings(shapes) > 0) | ~valid
    for index in np.flatnonzero(odd):
        solid[index] = _largest(shapes[index])
    return solid


def _largest(shape: shapely.Geometry | None) -> shapely.Polygon | None:
    """Keep the largest polygon of a shape, without holes."""
    if shape is None:
        return None
    valid = shape if shape.is_valid else shapely.make_valid(shape)
    parts = _polygons_of(valid)
    return shapely.Polygon(max(parts, key=lambda part: part.area).exterior) if parts else None


def _polygons_of(shape: shapely.Geometry) -> list[shapely.Polygon]:
    flat = shapely.get_parts(shapely.get_parts(shape))
    return [part for part in flat if part.geom_type == "Polygon" and part.area > 0]


def _thin(shapes: Shapes, max_vertices: int, *, keep_valid: bool) -> Shapes:
    """Drop the least important vertices until none has more than allowed: the tolerance grows where it must."""
    thin = shapes.copy()
    many = np.flatnonzero(shapely.get_num_coordinates(thin) > max_vertices + 1)
    tolerance = _FIRST_TOLERANCE_PX
    while len(many):
        thin[many] = shapely.simplify(shapes[many], tolerance, preserve_topology=keep_valid)
        many = many[shapely.get_num_coordinates(thin[many]) > max_vertices + 1]
        tolerance *= _TOLERANCE_GROWTH
    return thin


def _rounded(shapes: Shapes) -> Shapes:
    return np.asarray(shapely.transform(shapes, lambda points: np.round(points, DECIMALS)), dtype=object)


def _mend(shape: shapely.Polygon | None, max_vertices: int) -> shapely.Polygon | None:
    """Save an outline that rounding breaks: its largest valid piece, else its convex hull, else nothing."""
    candidates = _rounded(np.array([_largest(shape), shapely.convex_hull(shape)], dtype=object))
    fit = survives_qupath(candidates) & (shapely.get_type_id(candidates) == _POLYGON)
    fit &= shapely.get_num_coordinates(candidates) <= max_vertices + 1
    return next(iter(candidates[fit]), None)


def safe_regions(shapes: Shapes) -> tuple[Shapes, Mask]:
    """Round region outlines, and repair those that this or a person made invalid. All vertices and holes are kept.

    Parameters
    ----------
    shapes : (N,) shapely geometries
        Polygons and MultiPolygons in level-0 pixels.

    Returns
    -------
    safe : (N,) shapely.Polygon, shapely.MultiPolygon or None
        Valid, with one decimal; a MultiPolygon has two members or more; ``None`` where nothing can be saved.
    repaired : (N,) bool
        Which were invalid as given, or would have been as written.
    """
    given_invalid = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    whole = np.array([_areal(shape) for shape in shapes], dtype=object)
    safe = _rounded(whole)
    broken = ~survives_qupath(safe)
    for index in np.flatnonzero(broken & ~shapely.is_missing(whole)):
        snapped = _areal(shapely.set_precision(whole[index], 10.0**-DECIMALS))
        again = _rounded(np.array([snapped], dtype=object))
        safe[index] = again[0] if survives_qupath(again)[0] else None
    safe[shapely.is_missing(whole)] = None
    return safe, (broken | given_invalid) & ~shapely.is_missing(safe)


def _areal(shape: shapely.Geometry | None) -> shapely.Polygon | shapely.MultiPolygon | None:
    """Keep a shape's polygons, as one geometry; a single one is a Polygon."""
    if shape is None:
        return None
    parts = _polygons_of(shape if shape.is_valid else shapely.make_valid(shape))
    if len(parts) > 1:
        return shapely.MultiPolygon(parts)
    return parts[0] if parts else None
