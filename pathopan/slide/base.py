"""What every slide offers: its description and its pixels at an mpp."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from pathopan.errors import ConfigError, MissingMpp, UnreadableSlide, UpsamplingRefused
from pathopan.geometry import Window

RgbImage = npt.NDArray[np.uint8]
"""(Y, X, 3) uint8, red green blue."""

PLAUSIBLE_MPP = (0.1, 1.2)
"""Bright-field scanners give 0.1 (x100 oil) to 1 um/px (x10); values outside are told, not refused."""

MAX_UPSAMPLING = 1.5
"""A slide may be this much coarser than the network's mpp; beyond, nuclei are not resolved and no analysis is done."""

POSSIBLE_MPP = (0.005, 200.0)
"""A header with any other value was damaged, or means something else: such a slide does not say its mpp."""

MAX_CHUNK_PIXELS = 100_000_000
"""Of a stored tile or strip: 0.3 GB decoded."""

_MAX_SIDE_RATIO = 1.05  # pixels less square than this are told
_MAX_OVERRIDE_RATIO = 1.05  # the same for an mpp given by hand that differs from the file's
_ROUNDING = 1e-6  # of a pixel, so that 1000.0000001 pixels are 1000
_BLOCK_PIXELS = 16_000_000  # of the level read at once for an overview: 64 MB as RGBA


@dataclass(frozen=True)
class SlideInfo:
    """What is known of a slide before its pixels are read.

    Parameters
    ----------
    slide_id : str
        Name of the slide in every output.
    path : Path
        The file it came from.
    size_l0 : (int, int)
        Width and height of the scanned bounds, level-0 pixels.
    mpp_l0 : (float, float)
        Micrometres per level-0 pixel along x and y.
    downsamples : tuple of float
        Of the stored levels, finest first; the first is 1.
    bounds_l0 : (int, int, int, int)
        Corner and size of the scanned bounds in the file's own frame. The corner is (0, 0) of every output.
    vendor : str
        Format, as OpenSlide names it where it reads the file.
    warnings : tuple of str
        What a person should look at, such as an implausible mpp.
    """

    slide_id: str
    path: Path
    size_l0: tuple[int, int]
    mpp_l0: tuple[float, float]
    downsamples: tuple[float, ...]
    bounds_l0: tuple[int, int, int, int]
    vendor: str
    warnings: tuple[str, ...] = ()

    def scale_l0(self, mpp: float) -> tuple[float, float]:
        """Level-0 pixels per pixel at an mpp, along x and y."""
        return mpp / self.mpp_l0[0], mpp / self.mpp_l0[1]

    def size_px(self, mpp: float) -> tuple[int, int]:
        """Width and height in pixels at an mpp; the last column and row may reach over the border."""
        width, height = (
            math.ceil(size / scale - _ROUNDING) for size, scale in zip(self.size_l0, self.scale_l0(mpp), strict=True)
        )
        return width, height


class Slide(Protocol):
    """An open slide. Not to be shared between threads: each reader opens its own."""

    @property
    def info(self) -> SlideInfo:
        """What is known of the slide."""
        ...

    def read(self, window: Window, mpp: float) -> RgbImage:
        """Read pixels at an mpp.

        Parameters
        ----------
        window : Window
            In pixels at that mpp: pixel i covers level-0 pixels [i * scale, (i + 1) * scale), scale = mpp / mpp_l0.
        mpp : float
            Micrometres per pixel, honoured exactly and along each axis.

        Returns
        -------
        (height, width, 3) uint8
            White outside the slide and where nothing was scanned.

        Raises
        ------
        UnreadableSlide
            If the file is damaged there.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        ...


def check_chunk(path: Path, pixels: int) -> None:
    """Refuse a file that stores so much in one piece that reading a pixel takes gigabytes.

    Raises
    ------
    UnreadableSlide
        If one tile or strip has more than ``MAX_CHUNK_PIXELS`` pixels.
    """
    if pixels > MAX_CHUNK_PIXELS:
        msg = (
            f"{path}: one tile or strip of it holds {pixels:,} pixels, which have to be decoded at once; convert it to "
            "a tiled pyramidal TIFF, such as with `vips tiffsave --tile --pyramid`"
        )
        raise UnreadableSlide(msg)


def settle_mpp(
    path: Path, found: tuple[float, float] | None, given: float | None
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Decide a slide's mpp from what its file says and what the user says; the user wins.

    Parameters
    ----------
    path : Path
        For messages.
    found : (float, float), optional
        Micrometres per level-0 pixel according to the file.
    given : float, optional
        The same according to the user, for both axes.

    Returns
    -------
    mpp : (float, float)
        Along x and y.
    warnings : tuple of str
        What is odd about it.

    Raises
    ------
    MissingMpp
        If neither is there: an mpp is never guessed, and never derived from a magnification.
    ConfigError
        If the user's value is not a positive number.
    """
    if given is not None and not (math.isfinite(given) and given > 0):
        msg = f"{path.name}: the mpp given is {given}; it must be a positive number of micrometres per pixel"
        raise ConfigError(msg)
    if found is not None and not all(POSSIBLE_MPP[0] <= value <= POSSIBLE_MPP[1] for value in found):  # nor is NaN
        found = None
    mpp = (given, given) if given is not None else found
    if mpp is None:
        msg = (
            f"{path.name} does not say how many micrometres a pixel spans (mpp). Pass it, such as --slide-mpp 0.25, "
            "or fill the manifest column mpp; the scanner's documentation has the value"
        )
        raise MissingMpp(msg)
    warnings = []
    if given is not None and found is not None and not _alike(given, sum(found) / 2, _MAX_OVERRIDE_RATIO):
        warnings.append(f"mpp {given:g} was given and is used, but the file says {found[0]:.4g} x {found[1]:.4g} um/px")
    if not all(PLAUSIBLE_MPP[0] <= value <= PLAUSIBLE_MPP[1] for value in mpp):
        warnings.append(
            f"mpp {mpp[0]:.4g} x {mpp[1]:.4g} um/px is outside {PLAUSIBLE_MPP[0]}..{PLAUSIBLE_MPP[1]}, "
            "where microscope scans lie; check it"
        )
    if not _alike(*mpp, _MAX_SIDE_RATIO):
        warnings.append(f"pixels are not square: {mpp[0]:.4g} x {mpp[1]:.4g} um")
    return mpp, tuple(warnings)


def _alike(first: float, second: float, ratio: float) -> bool:
    return max(first, second) <= ratio * min(first, second)


def check_mpp(info: SlideInfo, mpp: float) -> None:
    """Refuse a slide whose pixels are too coarse for an mpp.

    Raises
    ------
    UpsamplingRefused
        If its mpp is more than ``MAX_UPSAMPLING`` times the one asked for.
    """
    coarsest = max(info.mpp_l0)
    if coarsest > MAX_UPSAMPLING * mpp:
        msg = (
            f"{info.path.name} was scanned at {coarsest:.4g} um/px and the network needs {mpp:.4g} um/px or finer "
            f"(at most {MAX_UPSAMPLING:g} times coarser): nuclei are not resolved, and the slide cannot be analysed"
        )
        raise UpsamplingRefused(msg)


def read_overview(slide: Slide, mpp: float) -> RgbImage:
    """Read a whole slide at a coarse mpp, in blocks, so that slides without coarse levels fit in memory.

    Parameters
    ----------
    slide : Slide
        Open.
    mpp : float
        Micrometres per pixel.

    Returns
    -------
    (Y, X, 3) uint8
        Of size ``slide.info.size_px(mpp)``.

    Raises
    ------
    UnreadableSlide
        If the file is damaged.
    """
    info = slide.info
    width, height = info.size_px(mpp)
    scale = max(info.scale_l0(mpp))
    finest = scale / max(d for d in info.downsamples if d <= max(1.0, scale))
    side = max(64, int(math.sqrt(_BLOCK_PIXELS) / finest))
    picture = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, side):
        for x in range(0, width, side):
            block = Window(x, y, side, side).intersect(Window(0, 0, width, height))
            picture[block.slices] = slide.read(block, mpp)
    return picture
