"""Lay the grid of tiles over a slide."""

from __future__ import annotations

from pathopan.geometry import Grid
from pathopan.slide import SlideInfo


def make_grid(info: SlideInfo, *, mpp: float, step: int, halo: int, offset: tuple[int, int] = (0, 0)) -> Grid:
    """Lay a grid over the scanned bounds of a slide.

    Parameters
    ----------
    info : SlideInfo
        Size and mpp of the slide.
    mpp : float
        Micrometres per grid pixel.
    step, halo : int
        Side of a write window, and the margin read around it, in grid pixels.
    offset : (int, int)
        How far the first tile starts left of and above the slide; 0 <= offset < step.

    Returns
    -------
    Grid
        Its plane covers the slide; the last column and row of pixels may reach over the border.

    Raises
    ------
    ValueError
        If a size is not positive or the offset not below the step.
    """
    return Grid(mpp=mpp, step=step, halo=halo, size=info.size_px(mpp), scale_l0=info.scale_l0(mpp), offset=offset)
