"""Hypothesis strategies for the types that walk between rooms."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathopan.geometry import Grid, Window


@st.composite
def windows(draw: st.DrawFn, *, reach: int = 50, max_side: int = 40) -> Window:
    """Windows anywhere, also left of and above the origin."""
    x, y = draw(st.integers(-reach, reach)), draw(st.integers(-reach, reach))
    return Window(x, y, draw(st.integers(0, max_side)), draw(st.integers(0, max_side)))


@st.composite
def grids(draw: st.DrawFn, *, max_side: int = 70, mpp: float | None = None) -> Grid:
    """Small grids of any size, step, halo and offset, empty ones too."""
    step = draw(st.integers(1, 24))
    size = (draw(st.integers(0, max_side)), draw(st.integers(0, max_side)))
    offset = (draw(st.integers(0, step - 1)), draw(st.integers(0, step - 1)))
    scale = (draw(st.floats(0.5, 8.0)), draw(st.floats(0.5, 8.0)))
    chosen = mpp or draw(st.sampled_from([0.25, 0.5, 0.7, 1.0]))
    return Grid(mpp=chosen, step=step, halo=draw(st.integers(0, 12)), size=size, scale_l0=scale, offset=offset)


@st.composite
def label_maps(draw: st.DrawFn, *, max_side: int = 14, max_label: int = 4) -> np.ndarray:
    """(Y, X) int32 maps with values 0 to max_label, pixels chosen one by one: the worst shapes there are."""
    shape = (draw(st.integers(1, max_side)), draw(st.integers(1, max_side)))
    return draw(hnp.arrays(np.int32, shape, elements=st.integers(0, max_label)))


@st.composite
def instance_maps(draw: st.DrawFn, *, side: int = 48, max_count: int = 8) -> np.ndarray:
    """(Y, X) int32 maps of discs that do not overlap; later discs never cover earlier ones."""
    labels = np.zeros((side, side), np.int32)
    y, x = np.mgrid[:side, :side]
    for index in range(1, draw(st.integers(0, max_count)) + 1):
        center_x, center_y = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
        radius = draw(st.integers(2, 8))
        labels[((x - center_x) ** 2 + (y - center_y) ** 2 <= radius**2) & (labels == 0)] = index
    return labels
