import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import grids

from pathopan.geometry import Grid
from pathopan.slide import ArraySlide
from pathopan.tables import TILES
from pathopan.tiler import TissueMask, make_grid, select_tiles, tissue_fractions

GRID = Grid(mpp=1.0, step=4, halo=1, size=(10, 6), scale_l0=(2.0, 2.0))


def mask_at(*cells, shape=(6, 10)):
    mask = np.zeros(shape, bool)
    for row, column in cells:
        mask[row, column] = True
    return mask


def test_tiles_that_touch_tissue_are_listed_in_order():
    table = select_tiles(GRID, TissueMask(mask_at((0, 0), (5, 9)), 1.0))
    expected = pd.DataFrame({"tile_index": [0, 5], "x_px": [0, 8], "y_px": [0, 4], "tissue_fraction": [1 / 16, 1 / 4]})
    pd.testing.assert_frame_equal(table, expected)


def test_a_fraction_must_be_exceeded():
    tissue = TissueMask(mask_at((0, 0), (5, 9)), 1.0)
    assert select_tiles(GRID, tissue, min_tissue_fraction=1 / 16)["tile_index"].tolist() == [5]


def test_no_tissue_gives_an_empty_table_that_passes_its_schema():
    table = select_tiles(GRID, TissueMask(np.zeros((6, 10), bool), 1.0, reason="blank"))
    assert len(TILES.check(table)) == 0


def test_a_grid_without_tiles_gives_an_empty_table():
    empty = Grid(mpp=1.0, step=4, halo=1, size=(0, 0), scale_l0=(1.0, 1.0))
    assert len(select_tiles(empty, TissueMask(np.zeros((0, 0), bool), 8.0))) == 0


def test_tissue_outside_the_slide_does_not_count():
    table = select_tiles(GRID, TissueMask(np.ones((9, 13), bool), 1.0))
    assert table["tissue_fraction"].tolist() == [1.0] * 6


@given(grids(mpp=1.0), st.data())
def test_fractions_equal_a_slow_count(grid, data):
    """Oracle: repeat every mask pixel as grid pixels and count them, window by window."""
    ratio = data.draw(st.sampled_from([1, 2, 3, 8]))
    shape = (-(-grid.size[1] // ratio), -(-grid.size[0] // ratio))
    mask = data.draw(hnp.arrays(bool, shape))
    fine = np.kron(mask, np.ones((ratio, ratio), bool))[: grid.size[1], : grid.size[0]]
    fast = tissue_fractions(grid, TissueMask(mask, float(ratio)))
    slow = [fine[tile.write.intersect(grid.plane).slices].mean() for tile in grid]
    np.testing.assert_allclose(fast.ravel(), slow, atol=1e-12)


@given(grids())
def test_all_tissue_selects_every_tile_and_each_row_is_its_tile(grid):
    size = [int(np.ceil(side * grid.mpp / 2.0)) for side in grid.size]
    table = select_tiles(grid, TissueMask(np.ones((size[1], size[0]), bool), 2.0))
    assert table["tile_index"].tolist() == list(range(len(grid)))
    for row in table.itertuples():
        write = grid.tile(row.tile_index).write
        assert (write.x, write.y) == (row.x_px, row.y_px)


@pytest.mark.parametrize(
    ("size", "mpp_slide", "mpp", "expected"),
    [
        ((1000, 500), 0.5, 0.5, (1000, 500)),
        ((1000, 500), 0.25, 0.5, (500, 250)),
        ((1001, 501), 0.25, 0.5, (501, 251)),
        ((2220, 2967), 0.499, 0.5, (2216, 2962)),
    ],
)
def test_a_grid_covers_the_slide(size, mpp_slide, mpp, expected):
    info = ArraySlide(np.zeros((*size[::-1], 3), np.uint8), mpp=mpp_slide, slide_id="a").info
    grid = make_grid(info, mpp=mpp, step=100, halo=10, offset=(3, 5))
    assert grid.size == expected
    assert grid.scale_l0 == pytest.approx((mpp / mpp_slide,) * 2)
    assert (grid.step, grid.halo, grid.offset) == (100, 10, (3, 5))


def test_an_impossible_grid_is_refused():
    info = ArraySlide(np.zeros((9, 9, 3), np.uint8), mpp=0.5, slide_id="a").info
    with pytest.raises(ValueError, match="impossible grid"):
        make_grid(info, mpp=0.5, step=0, halo=0)
