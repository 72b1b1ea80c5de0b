import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure
from strategies import instance_maps, label_maps

from pathopan.contours import nucleus_polygons, paint, paint_nuclei, region_polygons

SQUARE = np.array([[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 3]])


def test_outlines_cross_the_middles_of_pixel_borders_and_have_the_area_of_the_pixels():
    ids, polygons = nucleus_polygons(SQUARE)
    assert ids.tolist() == [3, 7]
    assert [p.area for p in polygons] == pytest.approx([1, 4])
    assert [p.centroid.coords[0] for p in polygons] == [pytest.approx((3.5, 3.5)), pytest.approx((2, 2))]


def test_outlines_lie_in_the_frame_of_the_map_s_origin():
    here, there = (nucleus_polygons(SQUARE, origin=origin)[1] for origin in ((0.0, 0.0), (100.0, -7.5)))
    for one, other in zip(here, there, strict=True):
        moved = shapely.get_coordinates(one) + np.array([100.0, -7.5])
        np.testing.assert_array_equal(moved, shapely.get_coordinates(other))


def test_no_objects_give_no_outlines():
    ids, polygons = nucleus_polygons(np.zeros((3, 3), int))
    assert (len(ids), len(polygons)) == (0, 0)


def test_a_nucleus_keeps_its_largest_piece_and_no_hole():
    labels = np.zeros((9, 9), int)
    labels[1:6, 1:6] = 1
    labels[3, 3] = 0
    labels[8, 8] = 1
    _, (outline,) = nucleus_polygons(labels, tolerance=0)
    assert outline.bounds == pytest.approx((1, 1, 6, 6), abs=0.03)
    assert outline.area == pytest.approx(25)
    assert not outline.interiors


def test_the_largest_piece_is_the_one_with_most_pixels():
    """A fine line has the longer outline, and a compact piece the larger area."""
    labels = np.zeros((14, 20), int)
    labels[1, 1:19] = 1
    labels[4:10, 4:10] = 1
    _, (outline,) = nucleus_polygons(labels, tolerance=0)
    assert outline.bounds == pytest.approx((4, 4, 10, 10), abs=0.03)


def test_pieces_that_touch_at_a_corner_are_two_and_an_outline_never_touches_itself():
    labels = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 1], [0, 0, 1, 1]])
    _, (outline,) = nucleus_polygons(labels, tolerance=0)
    assert outline.is_valid
    assert outline.area == pytest.approx(7)


def test_fine_lines_and_single_pixels_have_their_area():
    labels = np.zeros((9, 12), int)
    labels[1, 1:9] = 1
    labels[3:8, 2] = 2
    labels[5, 10] = 3
    _, polygons = nucleus_polygons(labels, tolerance=0)
    assert [p.area for p in polygons] == pytest.approx([8, 5, 1])


@given(st.floats(5, 18), st.floats(0, 1), st.floats(0, 1))
def test_round_nuclei_keep_their_area_and_place(radius, x, y):
    rows, columns = np.mgrid[:40, :40] + 0.5
    disc = np.hypot(columns - 20 - x, rows - 20 - y) < radius
    _, (outline,) = nucleus_polygons(disc.astype(int))
    assert outline.area == pytest.approx(disc.sum())
    assert np.hypot(outline.centroid.x - columns[disc].mean(), outline.centroid.y - rows[disc].mean()) < 0.15


def coverage(*discs):
    """The share of each of 40 x 40 pixels that lies in a disc (x, y, radius), as a fine grid of points tells it."""
    rows, columns = (np.mgrid[:400, :400] + 0.5) / 10
    inside = np.any([np.hypot(columns - x, rows - y) < radius for x, y, radius in discs], axis=0)
    return inside.reshape(40, 10, 40, 10).mean(axis=(1, 3), dtype=np.float32)


@given(st.floats(3, 14), st.floats(0, 1), st.floats(0, 1))
def test_outlines_run_between_pixels_where_the_foreground_passes_the_level(radius, x, y):
    share = coverage((20 + x, 20 + y, radius))
    _, (outline,) = nucleus_polygons((share > 0.5).astype(int), foreground=share, tolerance=0)
    reach = np.hypot(*(shapely.get_coordinates(outline) - [20 + x, 20 + y]).T)
    assert np.abs(reach - radius).max() < 0.2  # along pixels alone up to 0.54
    assert np.sqrt(outline.area / np.pi) == pytest.approx(radius, abs=0.08)  # by counted pixels up to 0.31 off


def test_a_higher_level_gives_a_smaller_outline():
    slope = np.clip(np.hypot(*(np.mgrid[:40, :40] - 19.5)) / 10, 0, 1).astype(np.float32)
    radii = [
        np.sqrt(nucleus_polygons((1 - slope > level).astype(int), foreground=1 - slope, level=level)[1][0].area / np.pi)
        for level in (0.3, 0.5, 0.7)
    ]
    assert radii == pytest.approx([7, 5, 3], abs=0.15)


def test_nuclei_that_touch_share_the_middle_of_their_border():
    share = coverage((14, 20, 7.3), (25, 20, 7.3))
    labels = np.where(share > 0.5, np.where(np.arange(40) < 20, 1, 2), 0)
    _, polygons = nucleus_polygons(labels, foreground=share, tolerance=0)
    left, right = (shapely.get_coordinates(p) for p in polygons)
    assert left[:, 0].max() == pytest.approx(20, abs=0.05)
    assert right[:, 0].min() == pytest.approx(20, abs=0.05)
    assert shapely.area(shapely.intersection(*polygons)) < 0.5


@given(label_maps(), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.25, 1.0]))
def test_outlines_are_valid_whatever_the_foreground_says(labels, seed, tolerance):
    share = np.random.default_rng(seed).random(labels.shape, np.float32)
    ids, polygons = nucleus_polygons(labels, foreground=share, tolerance=tolerance)
    assert set(ids) == set(np.unique(labels)) - {0}
    assert all(p.geom_type == "Polygon" and p.is_valid and p.area > 0 for p in polygons)


@given(label_maps(), st.integers(0, 2**32 - 1))
def test_outlines_keep_clear_of_pixels_that_are_just_at_the_level(labels, seed):
    """In half the bits, many probabilities are the level itself: four outlines would meet in the pixel's centre."""
    sure = np.random.default_rng(seed).choice(np.float32([1, np.nextafter(np.float32(0.5), 1)]), labels.shape)
    share = np.where(labels > 0, sure, np.float32(0.5))
    ids, polygons = nucleus_polygons(labels, foreground=share, tolerance=0)
    assert set(ids) == set(np.unique(labels)) - {0}
    assert all(p.is_valid and p.area > 0 for p in polygons)


@given(label_maps())
def test_nucleus_outlines_are_valid_polygons_for_any_shape(labels):
    ids, polygons = nucleus_polygons(labels)
    assert set(ids) == set(np.unique(labels)) - {0}
    assert all(p.geom_type == "Polygon" and p.is_valid and p.area > 0 for p in polygons)


@given(label_maps())
def test_an_outline_has_the_area_of_its_largest_piece_with_its_holes_filled(labels):
    ids, polygons = nucleus_polygons(labels, tolerance=0)
    for label, polygon in zip(ids, polygons, strict=True):
        pieces, count = ndimage.label(labels == label)
        filled = [ndimage.binary_fill_holes(pieces == piece, np.ones((3, 3))).sum() for piece in range(1, count + 1)]
        assert polygon.area == pytest.approx(max(filled))


@given(instance_maps())
def test_round_nuclei_come_back_nearly_as_they_were(labels):
    ids, polygons = nucleus_polygons(labels)
    shapes = {shape.label: shape for shape in measure.regionprops(labels)}
    for label, polygon in zip(ids, polygons, strict=True):
        # What others left of a disc may be a crescent, of which a smooth outline keeps less.
        if shapes[label].area >= 20 and shapes[label].solidity > 0.9 and shapes[label].axis_minor_length >= 4:
            again = paint([(polygon, 1)], shape=labels.shape)
            assert (again[labels == label] == 1).mean() > 0.6


@given(label_maps())
def test_region_polygons_and_back_is_the_identity(labels):
    polygons = region_polygons(labels)
    assert all(p.is_valid for p in polygons.values())
    np.testing.assert_array_equal(paint(((p, i) for i, p in polygons.items()), shape=labels.shape), labels)


@given(label_maps())
def test_region_areas_are_pixel_counts(labels):
    for label, polygon in region_polygons(labels).items():
        assert polygon.area == (labels == label).sum()


def test_regions_keep_their_holes():
    labels = np.ones((5, 5), int)
    labels[2, 2] = 0
    assert region_polygons(labels)[1].area == 24


def test_earlier_polygons_win_where_two_overlap():
    two = [(shapely.box(0, 0, 2, 1), 1), (shapely.box(1, 0, 3, 1), 2)]
    assert paint(two, shape=(1, 4)).tolist() == [[1, 1, 2, 0]]


def test_painting_in_another_frame():
    assert paint([(shapely.box(10, 20, 11, 21), 4)], shape=(2, 2), origin=(9, 20)).tolist() == [[0, 4], [0, 0]]


def test_painting_nothing_gives_zeros():
    assert paint([], shape=(2, 3)).tolist() == [[0, 0, 0], [0, 0, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(0, 30))
def test_many_nuclei_are_painted_at_once_as_one_by_one(seed, count):
    rng = np.random.default_rng(seed)
    shapes = np.array([shapely.Point(*rng.uniform(-4, 44, 2)).buffer(r) for r in rng.uniform(1, 9, count)], object)
    found = paint_nuclei(shapes, np.arange(1, count + 1), shape=(32, 40), origin=(1.0, -2.0))
    slow = paint(zip(shapes, range(1, count + 1), strict=True), shape=(32, 40), origin=(1.0, -2.0))
    np.testing.assert_array_equal(found, slow)
