"""Instances to shape maps (encode, for training) and shape maps to instances (decode, for prediction): an inverse pair.

A nucleus is a centre (a peak of a heat map), a foreground, and at each foreground pixel the offset to the centre of the
nucleus that the pixel belongs to (after Cheng et al., Panoptic-DeepLab, CVPR 2020). Points teach the centre, and the
foreground and offsets right around it; outlines teach all three. Decoding is a few array operations, whatever the
number of nuclei.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

FloatMap = npt.NDArray[np.float32]
LabelMap = npt.NDArray[np.int32]

OFFSET_PX = 16.0
"""Offsets are learned in units of this many grid pixels."""

CENTRE_SIGMA_PX = 2.0
"""Width of a centre's Gaussian: 1 um at 0.5 um/px."""

POINT_RADIUS_PX = 3.0
"""A nucleus known by a point only surely covers this much around it: 1.5 um at 0.5 um/px."""

FAR_RADIUS_PX = 18.0
"""No nucleus reaches this far from its point: beyond it from every point there is no nucleus."""


class ShapeTargets(NamedTuple):
    """What the shape head shall say, and where that is known."""

    centre: FloatMap  # (Y, X) in 0..1
    foreground: FloatMap  # (Y, X) 0 or 1
    foreground_known: npt.NDArray[np.bool_]  # (Y, X)
    offset: FloatMap  # (2, Y, X) xy, in OFFSET_PX
    offset_known: npt.NDArray[np.bool_]  # (Y, X)
    nucleus: npt.NDArray[np.int64]  # (Y, X) 1-based row of the nucleus that surely covers the pixel; 0 none


def encode(centres_xy: npt.NDArray[np.float64], instances: LabelMap | None, *, shape: tuple[int, int]) -> ShapeTargets:
    """Turn nuclei into shape maps.

    Parameters
    ----------
    centres_xy : (N, 2) float
        Centres in pixels, corners at integers; those up to ``FAR_RADIUS_PX`` outside the maps count too. With
        outlines, row ``i`` belongs to instance ``i + 1``.
    instances : (Y, X) int32 or None
        Outlines with ids 1..N, or ``None`` where there are only points.
    shape : (int, int)
        Rows and columns of the maps.
    """
    around = math.ceil(FAR_RADIUS_PX)  # a nucleus whose centre lies just outside is as real as one inside
    wide = (shape[0] + 2 * around, shape[1] + 2 * around)
    distance, nearest = (
        found[around : around + shape[0], around : around + shape[1]]
        for found in _nearest_centre(centres_xy + around, wide)
    )
    centre = np.exp(-(distance**2) / (2 * CENTRE_SIGMA_PX**2), dtype=np.float32)
    if instances is not None:
        owner = instances.astype(np.int64)
        foreground = (owner > 0).astype(np.float32)
        known = np.ones(shape, dtype=bool)
    else:
        owner = np.where(distance <= POINT_RADIUS_PX, nearest, 0)
        foreground = (owner > 0).astype(np.float32)
        known = (owner > 0) | (distance > FAR_RADIUS_PX)
    return ShapeTargets(centre, foreground, known, _offsets(owner, centres_xy), owner > 0, owner)


def _nearest_centre(
    centres_xy: npt.NDArray[np.float64], shape: tuple[int, int]
) -> tuple[FloatMap, npt.NDArray[np.int64]]:
    """Give each pixel's distance to the nearest centre, and that centre's 1-based row."""
    inside = (
        (centres_xy[:, 0] >= 0)
        & (centres_xy[:, 0] < shape[1])
        & (centres_xy[:, 1] >= 0)
        & (centres_xy[:, 1] < shape[0])
    )
    rows = np.flatnonzero(inside)
    if len(rows) == 0:
        return np.full(shape, 1e6, np.float32), np.zeros(shape, np.int64)
    background = np.ones(shape, dtype=np.uint8)
    x, y = centres_xy[rows].astype(int).T
    background[y, x] = 0
    distance, label = cv2.distanceTransformWithLabels(background, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    row_of_label = np.zeros(int(label.max()) + 1, dtype=np.int64)
    row_of_label[label[y, x]] = rows + 1
    return distance, row_of_label[label]


def _offsets(owner: npt.NDArray[np.int64], centres_xy: npt.NDArray[np.float64]) -> FloatMap:
    table = np.vstack([np.zeros((1, 2)), centres_xy.reshape(-1, 2)]).astype(np.float32)
    height, width = owner.shape
    to_x = table[owner, 0] - (np.arange(width, dtype=np.float32) + 0.5)[None, :]
    to_y = table[owner, 1] - (np.arange(height, dtype=np.float32) + 0.5)[:, None]
    offset = np.stack([to_x, to_y]) / np.float32(OFFSET_PX)
    return np.where(owner > 0, offset, np.float32(0))


@dataclass(frozen=True)
class DecodeRules:
    """Thresholds of decoding; lengths in grid pixels. They belong to the network and travel in its bundle."""

    min_centre: float = 0.30  # a peak below this is no nucleus
    min_foreground: float = 0.50  # a pixel below this is no nucleus
    peak_radius_px: int = 4  # two peaks closer than this are one nucleus
    max_reach_px: float = 6.0  # a pixel whose offset points farther than this from every centre belongs to none
    min_area_px: int = 16  # smaller objects are dropped (4 um2 at 0.5 um/px)
    class_temperature: float = 1.0  # class probabilities p of a nucleus become softmax(log p / this)
    prob_slope: float = 1.0  # the height h of a peak becomes the probability sigmoid(slope x logit(h) + intercept)
    prob_intercept: float = 0.0


class Decoded(NamedTuple):
    """Nuclei as lists of pixels: what is not nucleus, most of a tile, costs nothing."""

    pixels: npt.NDArray[np.int64]  # (P,) flat indices into the map, ascending
    owner: LabelMap  # (P,) 1-based nucleus that each of these pixels belongs to
    prob: FloatMap  # (N + 1,) height of each nucleus's peak; entry 0 is 0

    def labels(self, shape: tuple[int, int]) -> LabelMap:
        """Give the (Y, X) instance map; 0 is background."""
        found = np.zeros(shape[0] * shape[1], np.int32)
        found[self.pixels] = self.owner
        return found.reshape(shape)


def decode(
    centre: FloatMap, foreground: FloatMap, offset: FloatMap, *, rules: DecodeRules | None = None
) -> tuple[LabelMap, FloatMap]:
    """Turn shape maps into instances.

    Parameters
    ----------
    centre, foreground : (Y, X) float32
        Probabilities.
    offset : (2, Y, X) float32
        xy offsets in ``OFFSET_PX``.
    rules : DecodeRules, optional
        Thresholds.

    Returns
    -------
    instances : (Y, X) int32
        Ids 1..N in row-major order of the peaks; 0 is background.
    prob : (N + 1,) float32
        Height of each instance's peak; entry 0 is 0.
    """
    found = decode_pixels(centre, foreground, offset, rules=rules)
    return found.labels((centre.shape[0], centre.shape[1])), found.prob


def decode_pixels(
    centre: FloatMap, foreground: FloatMap, offset: FloatMap, *, rules: DecodeRules | None = None
) -> Decoded:
    """Turn shape maps into instances, given as lists of pixels; otherwise like :func:`decode`."""
    rules = rules or DecodeRules()
    peaks_xy, heights = find_peaks(centre, min_height=rules.min_centre, radius_px=rules.peak_radius_px)
    pixels, owner = _point_at(peaks_xy, foreground, offset, rules=rules)
    areas = np.bincount(owner, minlength=len(peaks_xy) + 1)
    keep = np.flatnonzero(areas[1:] >= rules.min_area_px) + 1
    lookup = np.zeros(len(peaks_xy) + 1, np.int32)
    lookup[keep] = np.arange(1, len(keep) + 1)
    owner = lookup[owner]
    owned = np.flatnonzero(owner)
    prob = np.concatenate([np.zeros(1, np.float32), heights[keep - 1].astype(np.float32)])
    return Decoded(pixels[owned], owner[owned], prob)


def assign_pixels(
    centres_xy: npt.NDArray[np.float64], foreground: FloatMap, offset: FloatMap, *, rules: DecodeRules
) -> LabelMap:
    """Give each foreground pixel to the centre that its offset points at.

    Parameters
    ----------
    centres_xy : (N, 2) float
        Centres in pixels, corners at integers.
    foreground : (Y, X) float32
        Probability.
    offset : (2, Y, X) float32
        xy offsets in ``OFFSET_PX``.
    rules : DecodeRules
        Thresholds.

    Returns
    -------
    (Y, X) int32
        Row of the centre plus 1; 0 is background.
    """
    rows, columns = foreground.shape
    indices = np.clip(np.floor(centres_xy), 0, [columns - 1, rows - 1])
    pixels, owner = _point_at(indices, foreground, offset, rules=rules)
    return Decoded(pixels, owner, np.empty(0, np.float32)).labels((rows, columns))


def _point_at(
    peaks_xy: npt.NDArray[np.float64], foreground: FloatMap, offset: FloatMap, *, rules: DecodeRules
) -> tuple[npt.NDArray[np.int64], LabelMap]:
    """Give the foreground pixels, flat and ascending, and the 1-based peak that each points at; 0 is none."""
    rows, columns = foreground.shape
    near, margin = _reach(peaks_xy, (rows, columns), rules.max_reach_px)
    pixels = np.flatnonzero(foreground > rules.min_foreground) if len(peaks_xy) else np.empty(0, np.int64)
    row, column = np.divmod(pixels.astype(np.int32), np.int32(columns))
    step_x, step_y = (plane.ravel().take(pixels) * np.float32(OFFSET_PX) + np.float32(0.5) for plane in offset)
    x = np.clip(np.floor(column + step_x), 0, columns - 1).astype(np.int32)
    y = np.clip(np.floor(row + step_y), 0, rows - 1).astype(np.int32)
    return pixels, near[(y + margin) * np.int32(columns + 2 * margin) + (x + margin)]


def _reach(peaks_xy: npt.NDArray[np.float64], shape: tuple[int, int], reach_px: float) -> tuple[LabelMap, int]:
    """Say for each pixel which peak is nearest (1-based; 0: none within reach), in a flat map with a margin."""
    margin = math.ceil(reach_px)
    width = shape[1] + 2 * margin
    near = np.zeros((shape[0] + 2 * margin) * width, np.int32)
    at = (peaks_xy[:, 1].astype(np.int64) + margin) * width + peaks_xy[:, 0].astype(np.int64) + margin
    ids = np.arange(1, len(at) + 1, dtype=np.int32)
    for dx, dy in _disc(reach_px)[::-1]:  # the nearest is written last
        near[at + (dy * width + dx)] = ids
    return near, margin


@cache
def _disc(radius: float) -> tuple[tuple[int, int], ...]:
    """List the (dx, dy) within a radius, nearest first; equally far ones in a fixed order."""
    reach = math.ceil(radius)
    inside = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= radius
    return _nearest_first(inside)


@cache
def _ellipse(radius_px: int) -> tuple[tuple[int, int], ...]:
    """List the (dx, dy) of OpenCV's round structuring element, nearest first."""
    size = 2 * radius_px + 1
    return _nearest_first(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)) > 0)


def _nearest_first(inside: npt.NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    rows, columns = np.nonzero(inside)
    dy, dx = rows - inside.shape[0] // 2, columns - inside.shape[1] // 2
    order = np.lexsort((dx, dy, dx * dx + dy * dy))
    return tuple(zip(dx[order].tolist(), dy[order].tolist(), strict=True))


def find_peaks(heat: FloatMap, *, min_height: float, radius_px: int) -> tuple[npt.NDArray[np.float64], FloatMap]:
    """Find local maxima, one per neighbourhood.

    Returns
    -------
    peaks_xy : (N, 2) float
        Pixel indices (x, y) in row-major order.
    heights : (N,) float32
    """
    wide = cv2.copyMakeBorder(
        cv2.GaussianBlur(heat, (0, 0), 0.8), *(radius_px,) * 4, borderType=cv2.BORDER_CONSTANT, value=-1.0
    )
    smooth, width = wide.ravel(), wide.shape[1]
    row, column = np.divmod(np.flatnonzero(heat >= min_height), heat.shape[1])
    top = (row + radius_px) * width + column + radius_px
    level = smooth[top]
    for dx, dy in _ellipse(radius_px)[1:]:  # near ones first: they leave few to ask farther out
        kept = level >= smooth[top + (dy * width + dx)]
        top, level = top[kept], level[kept]
    peaks = _plateau_centres(top, width) - radius_px
    return peaks, heat[peaks[:, 1].astype(int), peaks[:, 0].astype(int)]


def _plateau_centres(top: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.float64]:
    """Join maxima that touch, at corners too, and give the middle pixel (x, y) of each, row by row."""
    links = []
    for step in (1, width - 1, width, width + 1):
        at = np.minimum(np.searchsorted(top, top + step), max(0, len(top) - 1))
        here = np.flatnonzero(top[at] == top + step)
        links.append(np.stack([here, at[here]]))
    left, right = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(top), len(top)))
    count, piece = connected_components(graph, directed=False)
    size = np.bincount(piece, minlength=count)
    row, column = np.divmod(top, width)
    x, y = (np.floor(np.bincount(piece, axis, minlength=count) / size + 0.5) for axis in (column, row))
    return np.column_stack([x, y])[np.lexsort((x, y))]
