"""Bare glass and empty lumen at the network's own resolution, where the tissue mask is too coarse to cut them out."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

FINE_UM = 1.0
"""Gaussian over which brightness and texture are judged: fine, so that glass is found right up to the tissue."""

CELL_UM = 1.0
"""Side of the squares that are glass or not."""

LEVEL = 225.0
"""Mean RGB above which flat pixels are glass, whatever the slide."""

BELOW_GLASS = 10.0
"""On a slide with darker glass, pixels down to this much below it are glass too."""

TEXTURE = 5.0
"""Standard deviation of the gray level that still counts as flat: pale fibrous tissue is bright and textured."""

RADIUS_UM = 4.0
"""Glass is at least this wide: gaps between fibers and pale cytoplasm are tissue."""

GLASS_REACH_UM = 16.0
"""What lies farther away changes no answer: the Gaussian ends at 4 sigma, and opening reaches twice RADIUS_UM."""


def find_glass(
    image: npt.NDArray[np.uint8], *, mpp: float, glass_level: float = 255.0, corner: tuple[int, int] = (0, 0)
) -> npt.NDArray[np.bool_]:
    """Find bare glass and empty lumen: bright, without texture, and wider than a gap between fibers.

    Pixels are judged in square cells of about ``CELL_UM``, on a lattice that does not move with the image.

    Parameters
    ----------
    image : (Y, X, 3) uint8
        RGB.
    mpp : float
        Micrometres per pixel.
    glass_level : float
        Mean RGB of the slide's bare glass, where it is known.
    corner : (int, int)
        x and y of the image's corner: cells begin at multiples of their side.

    Returns
    -------
    (Y, X) bool
    """
    cell = max(1, round(CELL_UM / mpp))
    (left, right), (top, bottom) = (
        (start % cell, -(start + size) % cell) for start, size in zip(corner, image.shape[1::-1], strict=True)
    )
    if left or right or top or bottom:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_REPLICATE)
    level, variance = _moments(image, cell, FINE_UM / mpp)
    flat = (level > min(LEVEL, glass_level - BELOW_GLASS)) & (variance < TEXTURE**2)
    if flat.any():
        radius = max(1, round(RADIUS_UM / (mpp * cell)))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        flat = cv2.morphologyEx(flat.view(np.uint8), cv2.MORPH_OPEN, disc).view(bool)
    height, width = image.shape[:2]
    return flat.repeat(cell, axis=1).repeat(cell, axis=0)[top : height - bottom, left : width - right]


def _moments(
    image: npt.NDArray[np.uint8], cell: int, sigma: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Give mean and variance of gray about each cell, under a Gaussian of sigma pixels, of which the cell is a part."""
    red, green, blue = cv2.split(image)
    gray = cv2.add(red, green, dtype=cv2.CV_32F)
    gray = cv2.add(gray, blue, dtype=cv2.CV_32F) * np.float32(1 / 3)
    rest = math.sqrt(max(0.01, sigma**2 - (cell**2 - 1) / 12)) / cell
    shape = (gray.shape[1] // cell, gray.shape[0] // cell)
    level, square = (
        cv2.GaussianBlur(cv2.resize(plane, shape, interpolation=cv2.INTER_AREA), (0, 0), rest)
        for plane in (gray, gray * gray)
    )
    return level, square - level * level
