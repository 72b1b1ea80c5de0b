"""Outlines of regions: exact, valid, and the same as the slow way."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pathopan.contours import region_polygons
from pathopan.objects import outlines
from pathopan.objects.outlines import region_outlines

maps = hnp.arrays(np.int32, st.tuples(st.integers(1, 11), st.integers(1, 11)), elements=st.integers(-1, 3))


@given(maps)
@example(np.array([[1, 0], [0, 1]], np.int32))  # one region, two pieces
@example(np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]], np.int32))  # a hole that touches the outside at a corner
@example(np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], np.int32))
@example(np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 0], [1, 1, 1, 0]], np.int32))
def test_outlines_equal_those_traced_one_by_one(ids):
    found, slow = region_outlines(ids), region_polygons(np.maximum(ids, 0))
    assert len(found) == max(int(ids.max()), 0)
    for label, outline in enumerate(found, start=1):
        assert outline.is_valid
        assert outline.area == (ids == label).sum()
        assert outline.equals(slow.get(label, shapely.Polygon()))


@given(maps)
def test_a_pixel_centre_is_in_the_outline_of_its_region_alone(ids):
    for label, outline in enumerate(region_outlines(ids), start=1):
        y, x = np.mgrid[: ids.shape[0], : ids.shape[1]] + 0.5
        np.testing.assert_array_equal(shapely.contains_xy(outline, x, y), ids == label)


@given(maps, st.integers(1, 4))
def test_the_number_of_lines_at_once_changes_nothing(ids, lines):
    whole = region_outlines(ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines, "LINES", lines)
        assert all(a.equals_exact(b) for a, b in zip(whole, region_outlines(ids), strict=True))


def test_nothing_has_no_outline():
    assert len(region_outlines(np.zeros((3, 3), np.int32))) == 0
    assert len(region_outlines(np.zeros((0, 0), np.int32))) == 0


def test_a_ring_of_tumor_has_a_hole():
    ids = np.ones((5, 5), np.int32)
    ids[1:4, 1:4] = 2
    ring = region_outlines(ids)[0]
    assert (ring.area, len(ring.interiors), ring.geom_type) == (16, 1, "Polygon")
