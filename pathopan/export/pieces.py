"""Pieces of tissue: which of them a nucleus lies on, so that a large slide can be opened piece by piece. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

MAX_PIECES = 24
"""A slide has no more of them: a smaller piece goes with the nearest larger one."""


@dataclass(frozen=True)
class Pieces:
    """The piece of every place of a slide, tissue or not: that of the nearest tissue."""

    numbers: npt.NDArray[np.uint8]  # (Y, X), 1 upwards from the largest piece
    mpp: float  # um per pixel
    areas_mm2: tuple[float, ...]  # tissue of each piece

    def find(self, x_um: npt.ArrayLike, y_um: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Tell which pieces points lie on.

        Parameters
        ----------
        x_um, y_um : (N,) float
            Micrometres from the slide's corner; outside the map the nearest pixel counts.

        Returns
        -------
        (N,) uint8
        """
        rows, columns = (np.asarray(values, np.float64) / self.mpp for values in (y_um, x_um))
        height, width = self.numbers.shape
        found = self.numbers[
            np.clip(rows.astype(np.int64), 0, height - 1), np.clip(columns.astype(np.int64), 0, width - 1)
        ]
        return np.asarray(found, np.uint8)


def find_pieces(tissue: npt.NDArray[np.bool_], *, mpp: float) -> Pieces:
    """Find the connected pieces of tissue and number them by their area, the largest first.

    Parameters
    ----------
    tissue : (Y, X) bool
        Where there is tissue; pieces that touch at a corner are one.
    mpp : float
        Micrometres per pixel.

    Examples
    --------
    >>> pieces = find_pieces(np.array([[1, 0, 0, 1], [0, 0, 0, 1]], bool), mpp=10.0)
    >>> pieces.numbers[0].tolist(), pieces.find([5, 39], [0, 19]).tolist()
    ([2, 2, 1, 1], [2, 1])
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(tissue.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        return Pieces(np.ones(tissue.shape, np.uint8), mpp, ())
    order = np.argsort(-areas, kind="stable")[:MAX_PIECES]
    numbers = np.zeros(len(areas) + 1, np.uint8)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    kept = numbers[labels]
    # OpenCV gives each component of zeros a label of its own, and every other pixel that of the nearest one
    _, nearest = cv2.distanceTransformWithLabels(
        (kept == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_CCOMP
    )
    number_of = np.zeros(int(nearest.max()) + 1, np.uint8)
    number_of[nearest[kept > 0]] = kept[kept > 0]
    px_mm2 = (mpp / 1000) ** 2
    return Pieces(number_of[nearest], mpp, tuple(float(areas[i]) * px_mm2 for i in order))
