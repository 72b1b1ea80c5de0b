"""Exact Euclidean distances over a whole slide, in bounded memory.

Up to a limit, such as the width of a band, they are a map, made strip by strip: a strip is computed with a halo as wide
as the limit, so no seam cuts a band. Beyond it they are wanted at nuclei only, and come from a search tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from scipy import spatial

MaskOf = Callable[[slice], npt.NDArray[np.bool_]]
"""Gives the wanted rows of a mask, so that a whole-slide mask need not exist."""

DISTANCE_ROWS = 1024
"""Rows of a strip: bounds temporary memory, changes no result."""


def distance_px(target: MaskOf, rows: slice, n_rows: int, *, limit: float) -> npt.NDArray[np.float32]:
    """Measure from each pixel of some rows to the nearest target pixel, between centres.

    Parameters
    ----------
    target : rows -> (y, X) bool
        The pixels to which distances run.
    rows : slice
        The rows wanted.
    n_rows : int
        Rows of the whole map.
    limit : float
        Distances up to this many pixels are exact; longer ones are only known to be longer.

    Returns
    -------
    (y, X) float32
        Pixels; infinite where no target was found.

    Notes
    -----
    Felzenszwalb & Huttenlocher, "Distance Transforms of Sampled Functions", 2012, as OpenCV implements it.

    Examples
    --------
    >>> mask = np.array([[True, False, False]])
    >>> distance_px(lambda rows: mask[rows], slice(0, 1), 1, limit=9).tolist()
    [[0.0, 1.0, 2.0]]
    """
    halo = math.ceil(limit)
    top, bottom = max(0, rows.start - halo), min(n_rows, rows.stop + halo)
    mask = target(slice(top, bottom))
    if not mask.any():
        return np.full((rows.stop - rows.start, mask.shape[1]), np.inf, np.float32)
    found: npt.NDArray[np.float32] = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return found[rows.start - top : rows.stop - top]


def nearest_px(
    target: MaskOf, n_rows: int, *, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Measure from some pixels outside the target to its nearest pixel, however far.

    Parameters
    ----------
    target : rows -> (y, X) bool
        The pixels to which distances run.
    n_rows : int
        Rows of the whole map.
    rows, columns : (N,) int
        The pixels to measure from; none is a target.

    Returns
    -------
    (N,) float
        Pixels, between centres; infinite without any target.

    Examples
    --------
    >>> mask = np.array([[True, False, False]])
    >>> nearest_px(lambda rows: mask[rows], 1, rows=np.array([0]), columns=np.array([2])).tolist()
    [2.0]
    """
    borders = [np.empty((0, 2), np.int32)]
    for top in range(0, n_rows, DISTANCE_ROWS) if len(rows) else ():
        first, stop = max(0, top - 1), min(n_rows, top + DISTANCE_ROWS)
        mask = target(slice(first, min(n_rows, stop + 1)))
        # Only a pixel with a neighbour outside can be nearest; rows beyond the map are no neighbours, but do no harm.
        inner = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).view(bool)
        found = np.argwhere((mask & ~inner)[top - first : stop - first]).astype(np.int32)
        borders.append(found + np.array([top, 0], np.int32))
    border = np.concatenate(borders)
    if not len(border):
        return np.full(len(rows), np.inf)
    tree = spatial.cKDTree(border, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(np.column_stack([rows, columns]))[0], np.float64)
