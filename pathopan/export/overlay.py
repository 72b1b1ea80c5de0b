"""Pictures of results: region colors and nucleus outlines on the slide, and where TILs are dense. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from pathopan.classes import Color
from pathopan.errors import ShapeMismatch

Rgb = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float64]

HEAT_STOPS: Sequence[Color] = (
    (0, 34, 78),
    (53, 69, 108),
    (102, 105, 112),
    (148, 142, 119),
    (200, 184, 102),
    (254, 232, 56),
)
"""Cividis (Nuñez, Anderton & Renslow, PLoS ONE 2018): even steps, also to color-blind eyes."""

_SHADES = 64
"""Colors from one of ``HEAT_STOPS`` to the next: neighbours differ by at most one of 256."""

_SUBPIXEL_BITS = 4


def blend_regions(
    picture: Rgb, regions: npt.NDArray[np.uint8], *, colors: Mapping[int, Color], opacity: float = 0.4
) -> Rgb:
    """Lay the colors of region classes over a picture.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        RGB.
    regions : (Y, X) uint8
        Class ids on the same pixels; an id without a color stays as the picture is.
    colors : mapping of int to RGB
        Color of each class to show.
    opacity : float
        0 shows the picture alone, 1 the colors alone.

    Raises
    ------
    ShapeMismatch
        If the two differ in size.

    Examples
    --------
    >>> grey = np.full((1, 2, 3), 100, np.uint8)
    >>> blend_regions(grey, np.array([[0, 1]], np.uint8), colors={1: (200, 0, 0)}, opacity=0.5).tolist()
    [[[100, 100, 100], [150, 50, 50]]]
    """
    if picture.shape[:2] != regions.shape:
        msg = f"picture {picture.shape[:2]} and regions {regions.shape} must have the same rows and columns"
        raise ShapeMismatch(msg)
    weight = color_table(dict.fromkeys(colors, 1), default=0)[regions].astype(np.float32)[..., None] * opacity
    painted = color_table(colors, default=(0, 0, 0))[regions]
    return np.round(picture * (1 - weight) + painted * weight).astype(np.uint8)


def color_table(entries: Mapping[int, object], *, default: object) -> npt.NDArray[np.uint8]:
    """List a value for each of the 256 ids a region map can hold."""
    return np.array([entries.get(key, default) for key in range(256)], dtype=np.uint8)


def draw_outlines(
    picture: Rgb,
    nuclei: pd.DataFrame,
    *,
    colors: Mapping[int, Color],
    origin_l0: tuple[float, float] = (0.0, 0.0),
    scale_l0: tuple[float, float] = (1.0, 1.0),
    thickness: int = 1,
) -> Rgb:
    """Draw each nucleus's outline in the color of its class.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        RGB; it is not changed.
    nuclei : DataFrame
        ``class_id`` and ``geometry`` (polygons in level-0 pixels).
    colors : mapping of int to RGB
        Color of each class to show.
    origin_l0 : (float, float)
        x and y of the picture's corner in level-0 pixels.
    scale_l0 : (float, float)
        Level-0 pixels per pixel of the picture, along x and y.
    thickness : int
        Of the line, in pixels of the picture.

    Returns
    -------
    (Y, X, 3) uint8
    """
    drawn = np.ascontiguousarray(picture).copy()
    shapes = np.asarray(nuclei["geometry"], dtype=object)
    classes = nuclei["class_id"].to_numpy()
    for key, color in colors.items():
        rings = shapely.get_exterior_ring(shapely.get_parts(shapes[classes == key]))
        points = (shapely.get_coordinates(rings) - origin_l0) / scale_l0 - 0.5
        fixed = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
        ends = np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(rings))])
        lines = [fixed[start:end, None] for start, end in pairwise(ends)]
        cv2.polylines(drawn, lines, True, color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    return drawn


_BINS_PER_SIGMA = 6.0
"""A Gaussian is smooth over its sixth: counts are binned by that, which makes wide ones hundreds of times cheaper."""


def density_map(points_px: FloatMap, tissue: npt.NDArray[np.bool_], *, mpp: float, sigma_um: float = 100.0) -> FloatMap:
    """Smooth points into a density on tissue: a picture to look at, not a score.

    Parameters
    ----------
    points_px : (N, 2) float
        x and y in pixels of the map.
    tissue : (Y, X) bool
        Where points may lie.
    mpp : float
        Micrometres per pixel.
    sigma_um : float
        Width of the Gaussian.

    Returns
    -------
    (Y, X) float
        Points per mm2; NaN off the tissue. Smoothed counts are divided by the smoothed tissue area, so a border does
        not look empty.
    """
    sigma = max(sigma_um / mpp, 0.5)
    bin_px = max(1, int(sigma / _BINS_PER_SIGMA))
    shape = [-(-size // bin_px) for size in tissue.shape]
    counts = np.zeros(shape, np.float64)
    columns, rows = np.floor(np.asarray(points_px, np.float64).reshape(-1, 2)).astype(np.int64).T
    inside = (rows >= 0) & (columns >= 0) & (rows < tissue.shape[0]) & (columns < tissue.shape[1])
    np.add.at(counts, (rows[inside] // bin_px, columns[inside] // bin_px), 1.0)
    padded = np.pad(tissue, [(0, n * bin_px - size) for n, size in zip(shape, tissue.shape, strict=True)])
    area = padded.reshape(shape[0], bin_px, shape[1], bin_px).sum(axis=(1, 3), dtype=np.float64)
    smooth, filled = (
        cv2.GaussianBlur(values, (0, 0), sigma / bin_px, borderType=cv2.BORDER_CONSTANT) for values in (counts, area)
    )
    coarse = np.divide(smooth, filled, out=np.zeros(shape), where=filled > 0)
    wide = cv2.resize(coarse, (padded.shape[1], padded.shape[0]), interpolation=cv2.INTER_LINEAR)
    wide *= 1 / (mpp / 1000.0) ** 2
    return np.where(tissue, wide[: tissue.shape[0], : tissue.shape[1]], np.nan)


def heat_colors(values: npt.ArrayLike, *, top: float) -> Rgb:
    """Color numbers from 0 to ``top`` with Cividis; larger ones get the last color, NaN the first."""
    share = np.nan_to_num(np.asarray(values, np.float32) / np.float32(top)) if top > 0 else np.zeros(np.shape(values))
    colors = _heat_table()
    return colors[np.rint(np.clip(share, 0, 1) * (len(colors) - 1)).astype(np.int16)]


@cache
def _heat_table() -> Rgb:
    """Give the colors of evenly spaced values, ``HEAT_STOPS`` among them; to look one up is cheaper than to mix it."""
    stops = np.arange(len(HEAT_STOPS))
    place = np.linspace(0, stops[-1], _SHADES * int(stops[-1]) + 1)
    channels = [np.interp(place, stops, [color[channel] for color in HEAT_STOPS]) for channel in range(3)]
    table = np.round(np.stack(channels, axis=-1)).astype(np.uint8)
    table.setflags(write=False)
    return table
