import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan.viewer.plane import TILE, Plane

SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(SIZES, st.floats(0.1, 1.0))
def test_tiles_cover_each_level_once_and_levels_are_halves(size, mpp):
    plane = Plane(mpp, size)
    for level in range(plane.levels):
        factor = 2 ** (plane.levels - 1 - level)
        width, height = (n // factor for n in plane.padded)
        assert (width * factor, height * factor) == plane.padded
        seen = np.zeros((height, width), np.uint8)
        for row in range(-(-height // TILE)):
            for column in range(-(-width // TILE)):
                window, level_mpp = plane.tile(level, column=column, row=row)
                seen[window.slices] += 1
                assert level_mpp == pytest.approx(mpp * factor)
        assert (seen == 1).all()


@given(SIZES)
def test_the_coarsest_level_is_one_tile_and_the_margin_is_thin(size):
    plane = Plane(0.5, size)
    window, _ = plane.tile(0, column=0, row=0)
    assert max(window.width, window.height) <= TILE
    for padded, true in zip(plane.padded, size, strict=True):
        assert 0 <= padded - true < 2 ** (plane.levels - 1)


@pytest.mark.parametrize(("level", "column", "row"), [(-1, 0, 0), (9, 0, 0), (2, 4, 0), (2, 0, -1)])
def test_there_are_no_other_tiles(level, column, row):
    with pytest.raises(IndexError):
        Plane(0.5, (2000, 600)).tile(level, column=column, row=row)
