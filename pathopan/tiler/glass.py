"""Bare glass and empty lumen at the network's own resolution, where the tissue mask is too coarse to cut them out."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

FINE_UM = 1.0
"""Gaussian over which brightness and texture are judged: fine, so that glass is found right up to the tissue."""

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


def find_glass(image: npt.NDArray[np.uint8], *, mpp: float, glass_level: float = 255.0) -> npt.NDArray[np.bool_]:
    """Find bare glass and empty lumen: bright, without texture, and wider than a gap between fibers.

    Parameters
    ----------
    image : (Y, X, 3) uint8
        RGB.
    mpp : float
        Micrometres per pixel.
    glass_level : float
        Mean RGB of the slide's bare glass, where it is known.

    Returns
    -------
    (Y, X) bool
    """
    gray = (image[..., 0].astype(np.float32) + image[..., 1] + image[..., 2]) / np.float32(3)
    sigma, radius = FINE_UM / mpp, max(1, round(RADIUS_UM / mpp))
    level = cv2.GaussianBlur(gray, (0, 0), sigma)
    variance = cv2.GaussianBlur(gray * gray, (0, 0), sigma) - level * level
    flat = (level > min(LEVEL, glass_level - BELOW_GLASS)) & (variance < TEXTURE**2)
    if not flat.any():
        return flat
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.morphologyEx(flat.astype(np.uint8), cv2.MORPH_OPEN, disc).astype(bool)
