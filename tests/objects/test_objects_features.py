"""Shapes of nuclei against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import affinity

from pathopan.objects import features
from pathopan.objects.features import morphology, pixels_of, values_at


def ellipse(a: float, b: float, angle: float = 0.0, at=(0.0, 0.0)) -> shapely.Polygon:
    turn = np.linspace(0, 2 * np.pi, 721)[:-1]
    shape = shapely.Polygon(np.column_stack([a * np.cos(turn), b * np.sin(turn)]))
    return affinity.translate(affinity.rotate(shape, angle), *at)


@given(st.floats(1, 20), st.floats(0.2, 1.0), st.floats(0, 180), st.floats(0, 2e5))
def test_an_ellipse_has_its_eccentricity_anywhere_on_the_slide(a, ratio, angle, at):
    row = morphology(np.array([ellipse(a, a * ratio, angle, (at, 1e5 - at))]), um_per_px=(0.25, 0.25)).iloc[0]
    assert row["area_um2"] == pytest.approx(np.pi * a * a * ratio / 16, rel=1e-3)
    assert row["eccentricity"] == pytest.approx(np.sqrt(1 - ratio**2), abs=2e-3)
    assert row["solidity"] == pytest.approx(1.0)


def test_pixels_may_be_oblong():
    row = morphology(np.array([shapely.box(0, 0, 4, 8)]), um_per_px=(0.5, 0.25)).iloc[0]
    assert row.tolist() == pytest.approx([4.0, 8.0, 0.0, 1.0])


def test_a_dent_lowers_solidity_whichever_way_the_outline_runs():
    dented = shapely.Polygon([(0, 0), (4, 0), (4, 4), (2, 2), (0, 4)])
    table = morphology(np.array([dented, shapely.reverse(dented)]), um_per_px=(1, 1))
    assert table["solidity"].tolist() == [0.75, 0.75]
    assert table["eccentricity"][0] == pytest.approx(table["eccentricity"][1])


def test_no_area_has_no_shape():
    row = morphology(np.array([shapely.Polygon()]), um_per_px=(1, 1)).iloc[0]
    assert row["area_um2"] == 0
    assert np.isnan(row["eccentricity"])
    assert np.isnan(row["solidity"])


def test_no_nuclei_give_an_empty_table():
    assert morphology(np.empty(0, object), um_per_px=(1, 1)).shape == (0, 4)


def test_portions_change_nothing(monkeypatch):
    shapes = np.array([ellipse(3 + i, 2, 10 * i, (i, i)) for i in range(7)])
    whole = morphology(shapes, um_per_px=(0.5, 0.5))
    monkeypatch.setattr(features, "NUCLEI_AT_ONCE", 2)
    assert morphology(shapes, um_per_px=(0.5, 0.5)).equals(whole)


def test_points_are_looked_up_in_the_pixel_that_holds_them():
    values = np.array([[10, 11], [12, 13]], np.uint8)
    found = pixels_of(np.array([0, 3.99, 2, -0.01, 4]), np.array([0, 1.99, 2, 0, 0.0]), mpp=2.0, shape=(2, 2))
    assert values_at(values, found, outside=0).tolist() == [10, 11, 13, 0, 0]
