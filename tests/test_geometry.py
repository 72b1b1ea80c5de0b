import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import grids, windows

from pathopan.geometry import Grid, Window, l0_from_px, px_from_l0, resize_labels, um_from_px


def small_grid(**changes):
    return Grid(**{"mpp": 0.5, "step": 4, "halo": 1, "size": (10, 6), "scale_l0": (2.0, 2.0), **changes})


def test_a_window_knows_its_far_corner_and_slices():
    window = Window(2, 3, 4, 5)
    assert (window.x1, window.y1) == (6, 8)
    assert np.zeros((10, 10))[window.slices].shape == (5, 4)


def test_intersection_of_strangers_is_empty():
    apart = Window(0, 0, 2, 2).intersect(Window(5, 5, 2, 2))
    assert (apart.width, apart.height) == (0, 0)


@given(windows(), windows())
def test_intersection_holds_exactly_the_common_pixels(first, second):
    def pixels(window):
        return {(x, y) for x in range(window.x, window.x1) for y in range(window.y, window.y1)}

    assert pixels(first.intersect(second)) == pixels(first) & pixels(second)


@given(windows(), windows())
def test_relative_to_moves_the_origin_and_keeps_the_size(first, second):
    moved = first.relative_to(second)
    assert (moved.x + second.x, moved.y + second.y) == (first.x, first.y)
    assert (moved.width, moved.height) == (first.width, first.height)


@given(windows(), st.integers(0, 9))
def test_growing_and_shrinking_cancel(window, margin):
    assert window.grow(margin).grow(-margin) == window


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="cannot be -1 x 2 pixels"):
        Window(0, 0, -1, 2)


@given(grids())
def test_write_windows_cover_every_pixel_exactly_once(grid):
    counts = np.zeros((grid.size[1], grid.size[0]), int)
    for tile in grid:
        counts[tile.write.intersect(grid.plane).slices] += 1
    assert (counts == 1).all()


@given(grids())
def test_read_windows_are_write_windows_grown_and_constant_in_size(grid):
    side = grid.step + 2 * grid.halo
    for tile in grid:
        assert tile.read == tile.write.grow(grid.halo)
        assert (tile.read.width, tile.read.height) == (side, side)


@given(grids())
def test_every_tile_touches_the_plane_and_knows_its_index(grid):
    for index, tile in enumerate(grid):
        inside = tile.write.intersect(grid.plane)
        assert tile.index == index
        assert inside.width * inside.height > 0


def test_tiles_run_row_by_row():
    assert [(t.write.x, t.write.y) for t in small_grid()] == [(0, 0), (4, 0), (8, 0), (0, 4), (4, 4), (8, 4)]


def test_an_offset_shifts_the_first_tile_out_of_the_plane():
    assert small_grid(offset=(3, 0)).tile(0).write == Window(-3, 0, 4, 4)


def test_a_slide_without_pixels_has_no_tiles():
    assert len(small_grid(size=(0, 5))) == 0


@pytest.mark.parametrize("index", [-1, 6])
def test_there_is_no_tile_beyond_the_grid(index):
    with pytest.raises(IndexError, match="of a grid with 6 tiles"):
        small_grid().tile(index)


@pytest.mark.parametrize("changes", [{"mpp": 0}, {"step": 0}, {"halo": -1}, {"size": (-1, 2)}])
def test_impossible_grids_are_refused(changes):
    with pytest.raises(ValueError, match="impossible grid"):
        small_grid(**changes)


def test_offsets_stay_below_the_step():
    with pytest.raises(ValueError, match=r"grid offset \(4, 0\) must lie in"):
        small_grid(offset=(4, 0))


@given(grids(), st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=5))
def test_frames_convert_there_and_back(grid, points):
    np.testing.assert_allclose(px_from_l0(l0_from_px(points, grid), grid), points, atol=1e-6)


def test_frames_on_a_grid_with_oblong_pixels():
    grid = small_grid(scale_l0=(2.0, 4.0))
    assert l0_from_px([(1, 1)], grid).tolist() == [[2.0, 4.0]]
    assert um_from_px([(2, 4)], grid).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
@pytest.mark.parametrize("factor", [0.52, 0.43, 1.7, 2])
def test_labels_stay_where_they_are_when_they_are_resampled(dtype, factor: float) -> None:
    rows, columns = np.mgrid[:200, :200] + 0.5
    labels = np.where(np.hypot(rows - 90, columns - 120) < 40, 200, 0).astype(dtype)
    side = round(200 * factor)
    resized = resize_labels(labels, (side, side))
    assert resized.dtype == dtype
    assert set(np.unique(resized)) == {0, 200}
    middle = (np.argwhere(resized).mean(axis=0) + 0.5) * 200 / side
    np.testing.assert_allclose(middle, [90, 120], atol=0.2)
