"""Label maps to polygons and back. Pure; coordinates are pixels with corners at integers (``x`` right, ``y`` down)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio import features
from scipy import ndimage

LabelMap = npt.NDArray[np.integer]


def nucleus_polygons(
    labels: LabelMap, *, tolerance: float = 0.4
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Trace each small object as one simple polygon: its largest piece, without holes.

    Parameters
    ----------
    labels : (Y, X) int
        Instance map; 0 is background.
    tolerance : float
        Vertices that deviate less than this many pixels are dropped.

    Returns
    -------
    ids : (N,) int
        Labels that exist, ascending.
    polygons : (N,) shapely.Polygon
        Valid, non-empty outlines. A pixel's outline is half a pixel outside its centre.

    Examples
    --------
    >>> ids, polygons = nucleus_polygons(np.array([[0, 0, 0, 0], [0, 5, 5, 0], [0, 5, 5, 0]]))
    >>> ids.tolist(), polygons[0].area
    ([5], 4.0)
    """
    ids, rings = [], []
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32, copy=False)), start=1):
        if box is None:
            continue
        mask = (labels[box] == label).astype(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        ring = max(found, key=_pixels_within)[:, 0, :] + np.array([box[1].start, box[0].start])
        ids.append(label)
        rings.append(ring.astype(np.float64) + 0.5)
    if not rings:
        return np.empty(0, np.int64), np.empty(0, object)
    return np.array(ids), _outlines_from_centres(rings, tolerance)


def _pixels_within(ring: npt.NDArray[np.integer]) -> float:
    """Count the pixels that a ring through pixel centres runs along or encloses, less one (Pick's theorem)."""
    return cv2.contourArea(ring) + len(ring) / 2


def _outlines_from_centres(rings: Sequence[npt.NDArray[np.float64]], tolerance: float) -> npt.NDArray[np.object_]:
    """Widen rings through pixel centres by half a pixel, so that they run along pixel borders, and thin them."""
    closed = [ring if len(ring) == 1 else np.concatenate([ring, ring[:1]]) for ring in rings]
    lines = np.array(
        [shapely.Point(ring[0]) if len(ring) == 1 else shapely.LineString(ring) for ring in closed], dtype=object
    )
    wide = shapely.buffer(lines, 0.5, join_style="mitre", cap_style="square", mitre_limit=2.0)
    fine = [i for i, ring in enumerate(rings) if len(ring) > 1 and cv2.contourArea(ring.astype(np.float32)) == 0]
    wide[fine] = shapely.buffer(lines[fine], 0.5)  # a line that turns back on itself has no mitred corner
    solid = np.array([_largest(shape) for shape in wide], dtype=object)
    thin = shapely.simplify(solid, tolerance, preserve_topology=True)
    return np.where(shapely.is_valid(thin) & (shapely.area(thin) > 0), thin, solid)


def _largest(shape: shapely.Geometry) -> shapely.Polygon:
    """Keep a shape's largest polygon, without holes, and valid."""
    filled = [shapely.Polygon(part.exterior) for part in shapely.get_parts(shape)]
    sound = shapely.get_parts(shapely.make_valid(filled, method="structure"))
    return max(shapely.get_parts(sound), key=lambda part: part.area)


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
