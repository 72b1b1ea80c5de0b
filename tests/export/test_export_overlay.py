import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from pathopan.errors import ShapeMismatch
from pathopan.export.overlay import HEAT_STOPS, blend_regions, density_map, draw_outlines, heat_colors

GREY = np.full((8, 8, 3), 100, np.uint8)
SQUARE = gpd.GeoDataFrame({"class_id": [2]}, geometry=[shapely.box(20, 20, 60, 60)])


def test_an_opacity_of_0_or_1_shows_one_of_the_two():
    regions = np.array([[0, 1, 2]], np.uint8)
    picture = np.full((1, 3, 3), 100, np.uint8)
    assert (blend_regions(picture, regions, colors={1: (9, 9, 9)}, opacity=0) == picture).all()
    assert blend_regions(picture, regions, colors={1: (9, 8, 7)}, opacity=1)[0].tolist() == [
        [100, 100, 100],
        [9, 8, 7],
        [100, 100, 100],
    ]


def test_sizes_must_agree():
    with pytest.raises(ShapeMismatch, match=r"picture \(8, 8\) and regions \(2, 2\)"):
        blend_regions(GREY, np.zeros((2, 2), np.uint8), colors={})


def test_outlines_run_along_the_border_and_leave_the_picture_alone():
    grey = np.full((20, 20, 3), 100, np.uint8)
    drawn = draw_outlines(grey, SQUARE, colors={2: (255, 0, 0), 3: (0, 0, 255)}, scale_l0=(4, 4))
    changed = (drawn != grey).any(axis=2)
    assert changed[5:15, 4:6].any(axis=1).all()
    assert not changed[7:13, 7:13].any()
    assert not changed[:, 17:].any()
    assert (grey == 100).all()


def test_a_window_moves_the_outlines():
    whole = draw_outlines(GREY, SQUARE, colors={2: (255, 0, 0)}, scale_l0=(10, 10))
    moved = draw_outlines(GREY, SQUARE, colors={2: (255, 0, 0)}, origin_l0=(10, 10), scale_l0=(10, 10))
    assert np.array_equal(whole[1:, 1:], moved[:-1, :-1])


def test_no_nuclei_draw_nothing():
    assert (draw_outlines(GREY, SQUARE.iloc[:0], colors={2: (255, 0, 0)}) == GREY).all()


@given(st.integers(1, 400), st.floats(1, 20))
def test_an_even_spread_has_its_own_density_up_to_the_border(per_mm2_count, mpp):
    side = 40
    tissue = np.ones((side, side), bool)
    y, x = np.mgrid[0:side, 0:side]
    points = np.repeat(np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1), per_mm2_count % 3 + 1, axis=0)
    expected = (per_mm2_count % 3 + 1) / (mpp / 1000) ** 2
    assert density_map(points, tissue, mpp=mpp, sigma_um=mpp * 3) == pytest.approx(np.full((side, side), expected))


def test_density_is_empty_off_the_tissue_and_ignores_points_outside():
    tissue = np.zeros((4, 4), bool)
    tissue[:2] = True
    density = density_map(np.array([[99.0, 0.0], [-1.0, 0.0]]), tissue, mpp=8.0)
    assert np.isnan(density[2:]).all()
    assert (density[:2] == 0).all()
    assert np.isnan(density_map(np.empty((0, 2)), np.zeros((2, 2), bool), mpp=8.0)).all()


def test_heat_runs_from_the_first_color_to_the_last():
    colors = heat_colors(np.array([np.nan, 0.0, 5.0, 99.0]), top=5.0)
    assert [tuple(color) for color in colors.tolist()] == [HEAT_STOPS[0], HEAT_STOPS[0], HEAT_STOPS[-1], HEAT_STOPS[-1]]
    assert heat_colors(np.array([1.0]), top=0.0).tolist() == [list(HEAT_STOPS[0])]
