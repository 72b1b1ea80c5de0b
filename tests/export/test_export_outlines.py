import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from pathopan.export.outlines import centred, held, safe_nuclei, safe_regions, survives_qupath

BOW_TIE = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
SQUARE = shapely.box(0.04, 0, 10.06, 10)


def shapes(*polygons):
    return np.array(polygons, dtype=object)


def rings(draw_scale):
    coordinate = st.floats(-1, 1, allow_nan=False)
    return st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=30).map(
        lambda points: shapely.Polygon(np.array(points) * draw_scale + 1000.0)
    )


def test_survivors_are_what_the_slow_check_says():
    sliver = shapely.Polygon([(0, 0), (10, 0.003), (20, 0), (10, 0.001)])
    tiny = shapely.Polygon([(0, 0), (0.004, 0), (0, 0.004)])
    found = survives_qupath(shapes(SQUARE, BOW_TIE, sliver, tiny, None, shapely.Polygon()))
    assert found.tolist() == [True, False, False, False, False, False]


@settings(max_examples=150, deadline=None)
@given(st.one_of(rings(0.05), rings(1.0), rings(30.0)))
def test_the_short_cut_agrees_with_set_precision(polygon):
    slow = polygon.is_valid and not polygon.is_empty and not shapely.set_precision(polygon, 0.01).is_empty
    assert survives_qupath(shapes(polygon))[0] == slow


@settings(max_examples=150, deadline=None)
@given(st.one_of(rings(0.1), rings(3.0), rings(30.0)), st.sampled_from([4, 8, 16]))
def test_any_outline_becomes_one_that_qupath_accepts_or_none(polygon, max_vertices):
    (safe,), _ = safe_nuclei(shapes(polygon), max_vertices=max_vertices)
    if safe is None:
        return
    assert safe.is_valid
    assert not shapely.set_precision(safe, 0.01).is_empty
    points = shapely.get_coordinates(safe)
    assert len(points) <= max_vertices + 1
    assert np.array_equal(points, np.round(points, 1))


def test_a_good_outline_is_only_rounded():
    safe, repaired = safe_nuclei(shapes(SQUARE), max_vertices=16)
    assert safe[0].equals(shapely.box(0, 0, 10.1, 10))
    assert repaired.tolist() == [False]


def test_thinning_keeps_the_shape():
    circle = shapely.Point(100, 100).buffer(20, quad_segs=32)
    (thin,), _ = safe_nuclei(shapes(circle), max_vertices=16)
    assert len(thin.exterior.coords) <= 17
    assert thin.intersection(circle).area / thin.union(circle).area > 0.93


def test_broken_outlines_are_repaired_and_hopeless_ones_dropped():
    two = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 9, 9)])
    holed = shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 4, 4))
    line = shapely.LineString([(0, 0), (1, 1)])
    safe, repaired = safe_nuclei(shapes(BOW_TIE, two, holed, line, None), max_vertices=16)
    assert [None if s is None else s.area for s in safe] == [25.0, 16.0, 81.0, None, None]
    assert repaired.tolist() == [True, False, False, False, False]


def test_regions_keep_holes_and_members():
    ring = shapely.box(0, 0, 9, 9).difference(shapely.box(3, 3, 4, 4))
    pair = shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(5, 5, 9, 9)])
    single = shapely.MultiPolygon([shapely.box(0, 0, 2, 2)])
    safe, repaired = safe_regions(shapes(ring, pair, single, BOW_TIE, None))
    assert [getattr(s, "geom_type", None) for s in safe] == ["Polygon", "MultiPolygon", "Polygon", "MultiPolygon", None]
    assert [getattr(s, "area", None) for s in safe] == pytest.approx([80, 20, 4, 50, None])
    assert repaired.tolist() == [False, False, False, True, False]


def test_a_region_that_rounding_breaks_is_snapped():
    comb = shapely.Polygon([(0, 0), (10, 0), (10, 5), (5.02, 5), (5.02, 0.02), (4.98, 0.02), (4.98, 5), (0, 5)])
    (safe,), (repaired,) = safe_regions(shapes(comb))
    assert safe.is_valid
    assert safe.area == pytest.approx(comb.area, rel=0.02)
    assert repaired


def test_thinned_outlines_keep_their_centroids_to_a_tenth_of_a_pixel():
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    rings = [np.column_stack([np.cos(angle), np.sin(angle)]) * rng.uniform(8, 16, (40, 1)) + 100 for _ in range(50)]
    given = shapes(*map(shapely.Polygon, rings), None)
    safe, _ = safe_nuclei(given, max_vertices=8)
    moved = centred(safe, given)
    away = [a.centroid.distance(b.centroid) for a, b in zip(moved[:-1], given[:-1], strict=True)]
    assert max(away) < 0.08 < max(a.centroid.distance(b.centroid) for a, b in zip(safe[:-1], given[:-1], strict=True))
    assert moved[-1] is None
    assert survives_qupath(moved[:-1]).all()


def test_an_outline_just_outside_its_region_is_moved_in_and_others_stay():
    regions = {1: shapely.box(0, 0, 10, 10)}
    given = shapes(*(shapely.box(x - 2, 3, x + 2, 7) for x in (10.0, 10.2, 5.0, 12.0)), None)
    moved = held(given, np.array([1, 1, 1, 1, 1]), regions)
    assert [shape.centroid.x for shape in moved[:-1]] == pytest.approx([9.9, 9.9, 5, 12])
    assert held(given, np.array([7] * 5), regions)[0] is given[0]
