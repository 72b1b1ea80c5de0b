"""Shape of nuclei in micrometres, and the place that holds each centroid. Vectorised over all nuclei of a slide."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

FloatArray = npt.NDArray[np.float64]

NUCLEI_AT_ONCE = 50_000
"""Outlines whose vertices are held in memory together; changes no result."""


def morphology(outlines: npt.NDArray[np.object_], *, um_per_px: tuple[float, float]) -> pd.DataFrame:
    """Measure outlines.

    Parameters
    ----------
    outlines : (N,) shapely.Polygon
        Outlines in pixels.
    um_per_px : (float, float)
        Micrometres per pixel along x and y.

    Returns
    -------
    DataFrame
        ``area_um2, perimeter_um, eccentricity, solidity``, one row an outline. Eccentricity and solidity are empty for
        an outline without area.

    Notes
    -----
    Second moments of a polygon by Green's theorem (Steger, "On the calculation of moments of polygons", 1996);
    eccentricity is that of the ellipse with the same second moments, as in scikit-image's ``regionprops``.

    Examples
    --------
    >>> morphology(np.array([shapely.box(0, 0, 4, 4)]), um_per_px=(0.5, 0.5)).iloc[0].tolist()
    [4.0, 8.0, 0.0, 1.0]
    """
    scale = np.asarray(um_per_px)
    names = ["area_um2", "perimeter_um", "eccentricity", "solidity"]
    measured = np.empty((len(outlines), len(names)))
    for first in range(0, len(outlines), NUCLEI_AT_ONCE):
        part = slice(first, first + NUCLEI_AT_ONCE)
        shapes = shapely.transform(outlines[part], lambda points: points * scale)
        area = shapely.area(shapes)
        with np.errstate(divide="ignore", invalid="ignore"):
            solidity = np.where(area > 0, area / shapely.area(shapely.convex_hull(shapes)), np.nan)
        measured[part] = np.column_stack([area, shapely.length(shapes), _eccentricity(shapes), solidity])
    return pd.DataFrame(measured, columns=names)


def _eccentricity(shapes: npt.NDArray[np.object_]) -> FloatArray:
    """Compute the eccentricity of each shell from its central second moments."""
    shells = shapely.get_exterior_ring(shapes)
    points, owner = shapely.get_coordinates(shells, return_index=True)
    # Moments about a vertex of the outline itself keep digits that moments about the slide's corner would lose.
    anchor = np.zeros((len(shapes), 2))
    anchor[owner[::-1]] = points[::-1]
    points = points - anchor[owner]
    here, there = points[:-1], points[1:]
    cross = (here[:, 0] * there[:, 1] - there[:, 0] * here[:, 1]) * (owner[:-1] == owner[1:])
    x, y, x1, y1 = here[:, 0], here[:, 1], there[:, 0], there[:, 1]
    terms = (
        cross / 2,
        cross * (x + x1) / 6,
        cross * (y + y1) / 6,
        cross * (x * x + x * x1 + x1 * x1) / 12,
        cross * (y * y + y * y1 + y1 * y1) / 12,
        cross * (x * y1 + 2 * x * y + 2 * x1 * y1 + x1 * y) / 24,
    )
    area, sx, sy, sxx, syy, sxy = (np.bincount(owner[:-1], weights=term, minlength=len(shapes)) for term in terms)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = sx / area, sy / area
        xx, yy, xy = sxx / area - mean_x**2, syy / area - mean_y**2, sxy / area - mean_x * mean_y
        spread = np.sqrt((xx - yy) ** 2 + 4 * xy**2)
        squared = 2 * spread / (xx + yy + spread)
    # A circle may come out as 1e-16 below zero or so.
    return np.where(area != 0, np.sqrt(np.clip(squared, 0.0, 1.0)), np.nan)


def pixels_of(x_um: FloatArray, y_um: FloatArray, *, mpp: float, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Find the pixel of a map that holds each point: the rule by which QuPath counts a nucleus, its centroid.

    Parameters
    ----------
    x_um, y_um : (N,) float
        Points in micrometres from the slide's corner.
    mpp : float
        Micrometres per pixel of the map.
    shape : (int, int)
        Rows and columns of the map.

    Returns
    -------
    (N,) int
        Index into the flattened map; -1 for points outside.

    Examples
    --------
    >>> pixels_of(np.array([3.0, 9.0]), np.array([2.5, 0.0]), mpp=2.0, shape=(3, 4)).tolist()
    [5, -1]
    """
    column, row = (np.floor(np.asarray(v, np.float64) / mpp).astype(np.int64) for v in (x_um, y_um))
    inside = (column >= 0) & (row >= 0) & (column < shape[1]) & (row < shape[0])
    return np.where(inside, row * shape[1] + column, -1)


def values_at(values: npt.NDArray[np.generic], pixels: npt.NDArray[np.int64], *, outside: int) -> npt.NDArray[Any]:
    """Look a map up at pixels from `pixels_of`; points outside get a value of their own.

    Examples
    --------
    >>> values_at(np.array([[1, 2], [3, 4]]), np.array([3, -1]), outside=0).tolist()
    [4, 0]
    """
    found = np.full(len(pixels), outside, values.dtype)
    inside = pixels >= 0
    found[inside] = values.reshape(-1)[pixels[inside]]
    return found
