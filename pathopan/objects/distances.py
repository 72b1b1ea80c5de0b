"""Exact Euclidean distances over a whole slide, strip by strip.

A strip is computed with a halo as wide as the distances that must be right. Where a distance beyond the halo is wanted
too, the one found is an upper bound, so a halo of that width is enough. Strips bound memory and change no result.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

MaskOf = Callable[[slice], npt.NDArray[np.bool_]]
"""Gives the wanted rows of a mask, so that a whole-slide mask need not exist."""

DISTANCE_ROWS = 2048
"""Rows of a strip."""

_NOWHERE = np.empty(0, np.int64)


def distance_px(
    target: MaskOf, rows: slice, n_rows: int, *, limit: float, exact_at: npt.NDArray[np.int64] = _NOWHERE
) -> npt.NDArray[np.float32]:
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
    exact_at : (N,) int
        Indices into the flattened strip where the distance must be exact however long it is.

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
    while True:
        top, bottom = max(0, rows.start - halo), min(n_rows, rows.stop + halo)
        found = _distance(target(slice(top, bottom)))[rows.start - top : rows.stop - top]
        farthest = float(found.reshape(-1)[exact_at].max(initial=0.0))
        if farthest <= halo or (top, bottom) == (0, n_rows):
            return found
        halo = math.ceil(farthest) + 1 if math.isfinite(farthest) else max(halo, DISTANCE_ROWS) * 2


def _distance(target: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    if not target.any():
        return np.full(target.shape, np.inf, np.float32)
    found: npt.NDArray[np.float32] = cv2.distanceTransform((~target).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return found
