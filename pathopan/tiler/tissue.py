"""Where there is tissue: found by its color on an overview, or drawn by a person.

Hematoxylin and eosin both absorb green most, ink, dirt and glass do not. So tissue is told by how much more green a
pixel absorbs than red and blue, measured against the glass of the same slide: pale tissue stays, grey dust and edges of
coverslips go, and so do black, blue and green ink. Red ink absorbs blue as well as green, which eosin does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import filters

from pathopan.slide import RgbImage, Slide, read_overview

BoolMask = npt.NDArray[np.bool_]
FloatImage = npt.NDArray[np.float32]

_GLASS_DEFAULT = (245.0, 245.0, 245.0)  # where a picture shows no glass
_GLASS_MIN = 200  # glass is this bright in all channels at least
_GLASS_TINT = 28  # and its channels differ by no more
_GLASS_PINK = 12  # and green is no darker than red and blue by more: beyond, it is pale tissue
_PADDING_MIN = 254  # whiter than scanned glass: filled in by a scanner or a reader
_GLASS_SHARE = 0.005  # of the pixels that must look like glass before it is measured

_SURE_RANGE = (0.02, 0.03)  # stain strength; the picture's own threshold (Otsu) is kept in this range
_OTSU_MAX = 0.3  # stronger stain tells no more
_LIKELY = 0.6  # of that threshold: enough where it is connected to sure tissue

_INK_OD = 0.15  # paler pixels are not judged as ink
_INK_RED_RATIO = 1.2  # red over green OD: hematoxylin has 0.93 (Ruifrok & Johnston 2001), blue and green ink over 1.4
_BLACK_OD = 0.45  # black ink absorbs all colors this much
_BLACK_EVENNESS = 0.8  # and no color by much less than another
_RED_INK = (0.2, 0.85, 0.25)  # least green OD; least blue over green OD (eosin 0.11, blood 0.7); most red over green OD

_DARK = 60  # a pixel below this in all channels is dark
_DARK_SHARE = 0.5  # fluorescence: more than this is dark ...
_LIT = 120  # light passes stained tissue: red or blue are this bright
_LIT_SHARE = 0.05  # ... and less than this of the picture is such tissue, or glass

_INK_UM2 = 20_000.0  # a smaller spot is pigment or dirt, and no reason to cut a hole
_INK_SHARE = 0.002  # of the picture, to be named as the reason
_INK_REMARK = 0.01  # of the tissue, to be told

_SMOOTH_UM = 8.0
_SPECK_UM2 = 2_000.0  # dropped before gaps are bridged, so that dust does not join up
_CLOSE_UM = 32.0  # gaps up to twice this, such as between fat cells, are bridged
_HOLE_UM2 = 100_000.0  # lumens and tears below this belong to the tissue
_RIM_UM = 16.0  # added around, since edges are pale
_MAX_FLOOR_SHARE = 0.25  # of the picture: a piece this large is no speck in a small picture


@dataclass(frozen=True)
class TissueMask:
    """Where there is tissue.

    Parameters
    ----------
    mask : (Y, X) bool
        Pixel (row, column) covers micrometres [column * mpp, (column + 1) * mpp) from the slide's corner.
    mpp : float
        Micrometres per mask pixel.
    reason : str
        Why there is no tissue; empty where there is some.
    warnings : tuple of str
        What a person should look at.
    glass_level : float
        Mean of red, green and blue of the slide's bare glass.
    """

    mask: BoolMask
    mpp: float
    reason: str = ""
    warnings: tuple[str, ...] = ()
    glass_level: float = sum(_GLASS_DEFAULT) / 3

    @property
    def area_mm2(self) -> float:
        """Area of the tissue."""
        return float(self.mask.sum()) * self.mpp**2 / 1e6


def find_tissue(slide: Slide, *, mpp: float = 8.0, min_tissue_um2: float = 20_000.0) -> TissueMask:
    """Find the tissue of an H&E slide.

    Parameters
    ----------
    slide : Slide
        Open.
    mpp : float
        Micrometres per pixel of the overview that is looked at.
    min_tissue_um2 : float
        Smaller pieces are dust. A picture that is smaller itself may be all tissue.

    Returns
    -------
    TissueMask
        Empty, with a reason, for blank glass and for slides that are not bright-field H&E.

    Raises
    ------
    UnreadableSlide
        If the slide is damaged.
    """
    picture = read_overview(slide, mpp)
    if picture.size == 0:
        return TissueMask(np.zeros(picture.shape[:2], bool), mpp, reason="the slide has no pixels")
    glass = glass_color(picture)
    od = optical_density(picture, glass)
    strength = stain_strength(od)
    if _is_fluorescence(picture, strength):
        reason = "the background is dark: this looks like fluorescence, and only bright-field H&E is analysed"
        return TissueMask(np.zeros(strength.shape, bool), mpp, reason=reason)
    inked = _dilate(find_ink(od), 1)
    ink = _drop_small(inked, _INK_UM2 / mpp**2)
    smooth = cv2.GaussianBlur(np.where(inked, 0, strength).astype(np.float32), (0, 0), max(0.5, _SMOOTH_UM / mpp))
    sure = _threshold(smooth)
    seeds = filters.apply_hysteresis_threshold(smooth, _LIKELY * sure, sure)
    floor = min(min_tissue_um2, _MAX_FLOOR_SHARE * strength.size * mpp**2)
    mask = _tidy(seeds, mpp, floor) & ~ink
    if mask.any():
        return TissueMask(mask, mpp, warnings=_remarks(ink, mask), glass_level=sum(glass) / 3)
    reason = "only ink was found" if ink.mean() > _INK_SHARE else "nothing on the glass is stained"
    return TissueMask(mask, mpp, reason=reason)


def glass_color(picture: RgbImage) -> tuple[float, float, float]:
    """Measure the color of bare glass: the most frequent of the bright, almost colorless ones.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        Overview of a slide.

    Returns
    -------
    (float, float, float)
        Red, green, blue; a usual value where the picture shows no glass.
    """
    darkest, brightest = picture.min(axis=2), picture.max(axis=2)
    pink = (picture[..., 0].astype(np.float32) + picture[..., 2]) / 2 - picture[..., 1]
    like_glass = (darkest >= _GLASS_MIN) & (darkest < _PADDING_MIN)
    like_glass &= (brightest - darkest <= _GLASS_TINT) & (pink <= _GLASS_PINK)
    if like_glass.mean() < _GLASS_SHARE:
        return _GLASS_DEFAULT
    colors = picture[like_glass]
    green = np.bincount(colors[:, 1], minlength=256).astype(float)
    mode = int(np.argmax(ndimage.gaussian_filter1d(green, 2.0)))
    red, green_, blue = np.median(colors[np.abs(colors[:, 1].astype(int) - mode) <= 2], axis=0)
    return float(red), float(green_), float(blue)


def optical_density(picture: RgbImage, glass: tuple[float, float, float]) -> FloatImage:
    """Give (Y, X, 3) optical density against glass; 0 where a pixel is brighter than the glass."""
    ratio = (picture.astype(np.float32) + 1) / (np.asarray(glass, np.float32) + 1)
    return np.maximum(-np.log10(ratio), 0)


def stain_strength(od: FloatImage) -> FloatImage:
    """Tell how much more green than red and blue a pixel absorbs: 0 for glass and all greys, optical density."""
    return np.maximum(od[..., 1] - (od[..., 0] + od[..., 2]) / 2, 0)


def find_ink(od: FloatImage) -> BoolMask:
    """Find pixels in the colors of marker pens: black, blue, green and red.

    Parameters
    ----------
    od : (Y, X, 3) float32
        Optical density.
    """
    red, green, blue = np.moveaxis(od, -1, 0)
    highest, lowest = od.max(axis=2), od.min(axis=2)
    cold = (red > _INK_RED_RATIO * green) & (highest > _INK_OD)
    black = (lowest > _BLACK_OD) & (lowest > _BLACK_EVENNESS * highest)
    least_green, least_blue, most_red = _RED_INK
    warm = (green > least_green) & (blue > least_blue * green) & (red < most_red * green)
    return cold | black | warm


def _is_fluorescence(picture: RgbImage, strength: FloatImage) -> bool:
    brightest = picture.max(axis=2)
    lit = brightest >= _LIT
    stained = lit & (picture[..., 2] > _LIT / 2) & (strength > _SURE_RANGE[0])
    bright = picture.min(axis=2) >= _GLASS_MIN
    return bool((brightest < _DARK).mean() > _DARK_SHARE and max(stained.mean(), bright.mean()) < _LIT_SHARE)


def _threshold(strength: FloatImage) -> float:
    """Take Otsu's threshold where it is credible: on slides all of tissue, or all of glass, it is not."""
    low, high = _SURE_RANGE
    return float(np.clip(filters.threshold_otsu(np.minimum(strength, _OTSU_MAX)), low, high))


def _tidy(mask: BoolMask, mpp: float, floor_um2: float) -> BoolMask:
    """Drop specks, bridge fat cells, fill lumens and add the pale rim."""
    kept = _drop_small(mask, _SPECK_UM2 / mpp**2)
    radius = round(_CLOSE_UM / mpp)
    closed = np.pad(kept, radius)
    closed = ~_dilate(~_dilate(closed, radius), radius)
    closed = closed[radius : closed.shape[0] - radius, radius : closed.shape[1] - radius] | kept
    filled = ~_drop_small(~closed, _HOLE_UM2 / mpp**2)
    return _dilate(_drop_small(filled, floor_um2 / mpp**2), round(_RIM_UM / mpp))


def _dilate(mask: BoolMask, radius: int) -> BoolMask:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def _drop_small(mask: BoolMask, pixels: float) -> BoolMask:
    """Keep the connected pieces of at least so many pixels."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= max(1.0, pixels))[labels]


def _remarks(ink: BoolMask, mask: BoolMask) -> tuple[str, ...]:
    share = float((ink & _dilate(mask, 3)).sum()) / float(mask.sum())
    return (f"ink covers or touches {share:.0%} of the tissue; it is left out",) if share > _INK_REMARK else ()
