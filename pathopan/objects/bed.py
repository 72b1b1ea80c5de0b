"""The tumor bed: the area that the invasive border encloses."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio import features
from scipy import ndimage
from skimage import measure

BED_MPP = 8.0
"""um/px at which the bed is drawn: its border is an opening of half a millimetre, far coarser than this."""

Mask = npt.NDArray[np.bool_]


def find_bed(
    tumor: Mask, *, mpp: float, closing_um: float = 500.0, min_piece_mm2: float = 0.005, concavity: float = 0.07
) -> shapely.Geometry:
    """Enclose the tumor.

    Parameters
    ----------
    tumor : (Y, X) bool
        Invasive tumor.
    mpp : float
        Micrometres per pixel.
    closing_um : float
        Diameter of the disc that closes, then opens, the tumor. What the opening would remove altogether on a slide
        (a biopsy thinner than the disc) is kept closed only.
    min_piece_mm2 : float
        Smaller pieces of what is left after that have no bed. Nests are joined first, however small each is.
    concavity : float
        How tightly a hull follows each closed piece: 0 concave, 1 convex.

    Returns
    -------
    shapely geometry
        Polygons in pixels of the map, without holes; empty without tumor.

    Notes
    -----
    The recipe of TIGER's baseline (tiger.grand-challenge.org; Rijthoven et al. 2026): close and open by 500 um, drop
    pieces below 0.005 mm2, hull. One hull a piece, so that separate foci stay separate beds, and shapely's concave
    hull in place of an alpha shape. TIGER's second disc of 1,000 um for tissue-rich slides is a setting here.

    Examples
    --------
    >>> nest = np.zeros((100, 100), bool)
    >>> nest[20:80, 20:80] = True
    >>> round(find_bed(nest, mpp=10.0).area / 3600, 2)  # the disc rounds the corners
    0.82
    """
    factor = max(1, round(BED_MPP / mpp))
    coarse_mpp = mpp * factor
    coarse = _coarsened(tumor, factor)
    del tumor  # a caller that gives its only reference gets the memory back
    if not coarse.any():
        return shapely.Polygon()
    radius = closing_um / 2 / coarse_mpp
    margin = math.ceil(radius) + 1
    closed = _eroded(_dilated(np.pad(coarse, margin), radius), radius)
    opened = _dilated(_eroded(closed, radius), radius)
    drawn = _without_specks(opened if opened.any() else closed, min_piece_mm2 * 1e6 / coarse_mpp**2)
    pieces, count = ndimage.label(drawn)
    hulls = [_hull(pieces == piece, concavity) for piece in range(1, count + 1)]
    return shapely.transform(shapely.union_all(hulls), lambda points: (points - margin) * factor)


def paint_rows(geometry: shapely.Geometry, rows: slice, width: int) -> Mask:
    """Mark, in some rows of a map, the pixels whose centre lies in a geometry (in pixels, corners at integers)."""
    parts = [part for part in shapely.get_parts(geometry) if not part.is_empty and part.area > 0]
    shape = (rows.stop - rows.start, width)
    if not parts or min(shape) == 0:
        return np.zeros(shape, bool)
    moved = Affine.translation(0, rows.start)
    return features.rasterize(parts, out_shape=shape, transform=moved, dtype="uint8").view(bool)


def _coarsened(mask: Mask, factor: int) -> Mask:
    """Keep the coarse pixels of which at least half is set."""
    if factor == 1:
        return mask
    height, width = (math.ceil(n / factor) * factor for n in mask.shape)
    coarse = np.zeros((height // factor, width // factor), np.int32)
    columns = np.arange(0, mask.shape[1], factor)
    for row in range(0, mask.shape[0], factor):
        lines = mask[row : row + factor].sum(axis=0, dtype=np.int32)
        coarse[row // factor] = np.add.reduceat(lines, columns)
    return coarse * 2 >= factor * factor


def _without_specks(mask: Mask, min_pixels: float) -> Mask:
    labels, _ = ndimage.label(mask)
    keep = np.bincount(labels.ravel(), minlength=1) >= min_pixels
    keep[0] = False
    return keep[labels]


def _dilated(mask: Mask, radius: float) -> Mask:
    if not mask.any():
        return mask
    return cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= radius


def _eroded(mask: Mask, radius: float) -> Mask:
    return ~_dilated(~mask, radius)


def _hull(piece: Mask, concavity: float) -> shapely.Geometry:
    """Wrap one piece (4 neighbours, so that it has one outer border): its concave hull and itself, holes filled."""
    # Iso-lines at one half run through the middles of pixel sides: dense, and unbiased where pixel corners are not.
    rings = measure.find_contours(np.pad(piece, 1).astype(np.float32), 0.5)
    outer = max(rings, key=lambda ring: shapely.Polygon(ring).area)[:, ::-1] - 0.5  # a hole's rim may be longer
    shape = shapely.make_valid(shapely.Polygon(outer))
    hull = shapely.concave_hull(shapely.MultiPoint(outer), ratio=concavity)
    # Only bays: a hull cuts every pixel corner of a round border too, which would put a rim of stroma into the bed.
    bays = shapely.intersection(shapely.buffer(shapely.buffer(shapely.difference(hull, shape), -1.0), 1.0), hull)
    wrapped = shapely.union(bays, shape)
    solid = [shapely.Polygon(part.exterior) for part in shapely.get_parts(wrapped) if part.geom_type == "Polygon"]
    return shapely.union_all(solid)
