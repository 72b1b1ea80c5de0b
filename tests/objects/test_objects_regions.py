"""Islands join what surrounds them; regions are connected components of the whole slide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from phantoms import GLASS, RICH, STROMA, TILS, TUMOR
from scipy import ndimage

from pathopan.classes import BREAST
from pathopan.errors import ShapeMismatch, UnknownLabel
from pathopan.objects import find_regions, regions, regions_table

maps = hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 5))
NEIGHBORS = np.ones((3, 3))


def joined(classes, min_pixels, taxonomy=BREAST):
    return find_regions(np.array(classes, np.uint8), taxonomy=taxonomy, mpp=1.0, min_region_um2=min_pixels)


def test_an_island_joins_what_surrounds_it():
    classes = np.full((5, 6), STROMA)
    classes[2, 2:4] = TUMOR
    assert (joined(classes, 3).classes() == STROMA).all()
    assert (joined(classes, 2).classes() == classes).all()


def test_an_island_joins_the_class_that_most_of_its_border_touches():
    left = [[1, 1, 2, 2], [1, 3, 2, 2], [1, 1, 2, 2], [1, 1, 2, 2]]
    assert joined(left, 2).classes()[1, 1] == TUMOR


def test_a_tie_goes_to_the_lower_class_id():
    assert joined([[2, 2, 3, 1, 1]], 2).classes().tolist() == [[2, 2, 1, 1, 1]]


def test_an_island_in_an_island_waits_for_it():
    classes = np.full((9, 9), STROMA)
    classes[3:6, 3:6], classes[4, 4] = TUMOR, TILS
    assert (joined(classes, 10).classes() == STROMA).all()
    assert joined(classes, 8).classes()[4, 4] == TUMOR


def test_joining_merges_regions_of_one_class():
    found = joined([[2, 2, 1, 2, 2]], 2)
    assert found.ids.tolist() == [[1, 1, 1, 1, 1]]
    assert found.n_pixels.tolist() == [5]


def test_excluded_tissue_has_no_least_size():
    classes = np.full((5, 5), STROMA)
    classes[2, 2] = RICH.region("necrosis").id
    assert joined(classes, 20, RICH).classes()[2, 2] == RICH.region("necrosis").id


@pytest.mark.parametrize(("side", "left"), [(44.0, 44.0**2), (12.0, 0.0)])
@pytest.mark.parametrize("kind", ["background", "other"])
def test_holes_are_in_no_denominator_unless_they_are_specks(side, left, kind):
    classes, wide = np.full((60, 60), STROMA), round(side / 2)
    classes[10 : 10 + wide, 10 : 10 + wide] = BREAST.region_ids(kind)[0]
    kept = find_regions(classes, taxonomy=BREAST, mpp=2.0).classes() == BREAST.region_ids(kind)[0]
    assert kept.sum() * 4.0 == left


def test_nothing_joins_what_was_not_analysed():
    assert joined([[0, 0, 0], [0, 1, 0], [0, 0, 0]], 5).classes().tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert joined([[2, 2, 2], [2, 0, 2], [2, 2, 2]], 5).classes()[1, 1] == 0


def test_corners_connect_and_ids_follow_the_first_pixel():
    found = joined([[2, 1, 2], [1, 2, 5], [2, 5, 1]], 0)
    assert found.ids.tolist() == [[1, 2, 1], [2, 1, -5], [1, -5, 3]]
    assert found.class_ids.tolist() == [STROMA, TUMOR, TUMOR]


@given(maps)
def test_regions_are_the_components_of_each_class_in_row_major_order(classes):
    found = joined(classes, 0)
    np.testing.assert_array_equal(found.classes(), classes)
    expected, firsts = np.zeros(classes.shape, int), []
    for kind in range(1, GLASS):
        labels, count = ndimage.label(classes == kind, structure=NEIGHBORS)
        firsts += [(int(np.flatnonzero(labels == i)[0]), kind, labels == i) for i in range(1, count + 1)]
    for number, (_, _, mask) in enumerate(sorted(firsts, key=lambda item: item[0]), start=1):
        expected[mask] = number
    np.testing.assert_array_equal(np.maximum(found.ids, 0), expected)
    assert found.n_pixels.tolist() == np.bincount(expected.ravel(), minlength=len(firsts) + 1)[1:].tolist()


@given(maps, st.integers(1, 9))
def test_what_remains_is_large_or_alone(classes, least):
    found = joined(classes, least)
    after = found.classes()
    np.testing.assert_array_equal(after == 0, classes == 0)
    for kind in range(1, GLASS + 1):
        labels, count = ndimage.label(after == kind, structure=NEIGHBORS)
        for piece in range(1, count + 1):
            around = after[ndimage.binary_dilation(labels == piece, structure=NEIGHBORS) & (labels != piece)]
            assert (labels == piece).sum() >= least or not (around > 0).any() or _all_small(classes, least)


def _all_small(classes, least) -> bool:
    """Where an analysed area has no large component at all, nothing can decide, and everything stays."""
    _, count = ndimage.label(classes > 0, structure=NEIGHBORS)
    sizes = np.concatenate(
        [
            [0],
            *(np.bincount(ndimage.label(classes == kind, structure=NEIGHBORS)[0].ravel())[1:] for kind in range(1, 6)),
        ]
    )
    return count > 1 or sizes.max() < least


@given(maps, st.integers(0, 9), st.integers(1, 4))
def test_strips_change_nothing(classes, least, rows):
    whole = joined(classes, least)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regions, "STRIP_ROWS", rows)
        cut = joined(classes, least)
        np.testing.assert_array_equal(cut.ids, whole.ids)
        np.testing.assert_array_equal(cut.classes(), whole.classes())


@given(maps, st.integers(0, 9), st.integers(0, 3))
def test_turning_the_slide_turns_the_regions(classes, least, turns):
    turned = joined(np.rot90(classes, turns), least)
    np.testing.assert_array_equal(turned.classes(), np.rot90(joined(classes, least).classes(), turns))


def test_the_table_states_area_and_border():
    classes = np.full((6, 8), STROMA, np.uint8)
    classes[2:4, 3:5] = TUMOR
    table = regions_table(joined(classes, 0), taxonomy=BREAST, mpp=2.0, scale_l0=(8.0, 4.0))
    assert table["class"].tolist() == ["stroma", "tumor"]
    assert table["area_mm2"].tolist() == pytest.approx([44 * 4e-6, 4 * 4e-6])
    assert table["touches_border"].tolist() == [True, False]
    assert table.geometry.bounds.loc[1].tolist() == [24, 8, 40, 16]
    assert len(table.geometry[0].interiors) == 1


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0)])
def test_an_empty_map_has_no_regions(shape):
    found = joined(np.zeros(shape), 5)
    assert found.ids.shape == shape
    assert len(regions_table(found, taxonomy=BREAST, mpp=2.0, scale_l0=(4.0, 4.0))) == 0


def test_a_map_must_be_flat_and_known():
    with pytest.raises(ShapeMismatch, match=r"two-dimensional \(Y, X\); its shape is \(1, 2, 3\)"):
        find_regions(np.zeros((1, 2, 3), np.uint8), taxonomy=BREAST, mpp=1.0)
    with pytest.raises(UnknownLabel, match=r"values \[9\], which taxonomy 'breast-5-4' does not know"):
        joined([[9]], 0)


def test_many_regions_keep_their_ids():
    classes = np.full((400, 400), GLASS, np.uint8)
    classes[::2, ::2] = TUMOR
    found = joined(classes, 0)
    assert found.ids.max() == 200 * 200  # more than 16 bits hold
    np.testing.assert_array_equal(found.classes(), classes)
