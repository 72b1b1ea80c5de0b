"""Stain densities from RGB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

STAINS_RGB = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], dtype=np.float32)
"""Optical density of hematoxylin, eosin and a residual in R, G, B (Ruifrok & Johnston, Anal Quant Cytol Histol 23:291,
2001)."""

HED_FROM_RGB = np.linalg.inv(STAINS_RGB).astype(np.float32)


def optical_density(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Turn (..., 3) uint8 RGB into optical density, base e; white is 0."""
    return -np.log((rgb.astype(np.float32) + 1) / np.float32(256))


_HEMATOXYLIN = optical_density(np.arange(256, dtype=np.uint8))[:, None] * HED_FROM_RGB[None, :, 0]
"""(256, 3): what each value of red, green and blue adds to the hematoxylin density."""


def hematoxylin_density(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Give the hematoxylin optical density of (..., 3) uint8 RGB, (...) float32."""
    red, green, blue = _HEMATOXYLIN.T
    return red[rgb[..., 0]] + green[rgb[..., 1]] + blue[rgb[..., 2]]
