import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pathopan.datasets.sample import nuclei_of
from pathopan.network.targets import (
    FAR_RADIUS_PX,
    OFFSET_PX,
    POINT_RADIUS_PX,
    DecodeRules,
    ShapeTargets,
    decode,
    encode,
    find_peaks,
)

SIDE = 96


def points(*xy):
    return np.array(xy, dtype=np.float64).reshape(-1, 2)


def encoded(labels: np.ndarray) -> ShapeTargets:
    return encode(nuclei_of(labels)[["x_px", "y_px"]].to_numpy(), labels, shape=labels.shape)


def decoded(target: ShapeTargets, **rules: float) -> tuple[np.ndarray, np.ndarray]:
    return decode(target.centre, target.foreground, target.offset, rules=DecodeRules(**rules))


def ellipse(x: float, y: float, a: float, b: float, angle: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = -(columns - x) * np.sin(angle) + (rows - y) * np.cos(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


@st.composite
def ellipse_maps(draw: st.DrawFn, *, gap: int) -> np.ndarray:
    """One ellipse in each of the chosen cells of a lattice; a gap of 0 lets neighbours touch."""
    cell = 24
    labels = np.zeros((SIDE, SIDE), np.int32)
    cells = draw(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12))
    for index, (column, row) in enumerate(sorted(cells), start=1):
        a, b = draw(st.floats(4, 12 - gap)), draw(st.floats(4, 12 - gap))
        inside = ellipse((column + 0.5) * cell, (row + 0.5) * cell, a, b, draw(st.sampled_from([0, np.pi / 2])))
        labels[inside & (labels == 0)] = index
    return labels


@given(ellipse_maps(gap=2))
def test_nuclei_that_lie_apart_come_back_pixel_by_pixel(labels):
    found, prob = decoded(encoded(labels))
    assert same_objects(found, labels)
    assert (prob[1:] > 0.8).all()


@given(ellipse_maps(gap=0))
def test_nuclei_that_touch_come_back_pixel_by_pixel(labels):
    assert same_objects(decoded(encoded(labels))[0], labels)


def same_objects(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = np.unique(np.stack([first.ravel(), second.ravel()]), axis=1)
    return len(pairs.T) == len(set(pairs[0])) == len(set(pairs[1])) and (first > 0).tolist() == (second > 0).tolist()


@given(st.floats(3, 6), st.floats(3, 6), st.floats(0, np.pi), st.floats(0.9, 1.2))
def test_two_slanted_nuclei_that_touch_stay_two(a, b, angle, distance):
    step = 2 * distance * np.array([np.cos(angle), np.sin(angle)]) * max(a, b)
    labels = np.zeros((SIDE, SIDE), np.int32)
    for index in (1, 2):
        labels[ellipse(*(40 + step * (index - 1)), a, b, angle) & (labels == 0)] = index
    found, _ = decoded(encoded(labels))
    assert found.max() == 2
    for index in (1, 2):
        inside = found[labels == index]
        assert np.bincount(inside).max() > 0.9 * inside.size


@given(ellipse_maps(gap=2), st.randoms(use_true_random=False))
def test_renaming_the_nuclei_changes_nothing(labels, random):
    names = list(range(1, int(labels.max()) + 1))
    random.shuffle(names)
    renamed = np.array([0, *names], np.int32)[labels]
    first, second = encoded(labels), encoded(renamed)
    for name in ("centre", "foreground", "foreground_known", "offset", "offset_known"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(decoded(first)[0], decoded(second)[0])


@given(st.integers(0, 2**32 - 1))
def test_decoding_noise_is_deterministic_and_numbers_without_gaps(seed):
    rng = np.random.default_rng(seed)
    maps = rng.random((2, 64, 64), np.float32), rng.normal(0, 0.5, (2, 64, 64)).astype(np.float32)
    first, prob = decode(maps[0][0], maps[0][1], maps[1])
    second, again = decode(maps[0][0].copy(), maps[0][1].copy(), maps[1].copy())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(prob, again)
    assert set(np.unique(first)) - {0} == set(range(1, len(prob)))
    assert (np.bincount(first.ravel())[1:] >= DecodeRules().min_area_px).all()


def test_ids_follow_the_rows_of_the_peaks():
    labels = np.zeros((SIDE, SIDE), np.int32)
    for index, (x, y) in enumerate([(20, 60), (60, 20), (20, 20)], start=1):
        labels[ellipse(x, y, 6, 6, 0)] = index
    found, _ = decoded(encoded(labels))
    assert [found[20, 20], found[20, 60], found[60, 20]] == [1, 2, 3]


def test_empty_maps_have_no_nuclei():
    target = encode(points(), None, shape=(8, 8))
    assert not target.centre.any()
    assert not target.foreground.any()
    assert target.foreground_known.all(), "far from every point there is surely none"
    assert not target.offset_known.any()
    found, prob = decoded(target)
    assert not found.any()
    assert prob.tolist() == [0]


def test_a_map_without_outlines_is_known_to_be_empty():
    target = encode(points(), np.zeros((8, 8), np.int32), shape=(8, 8))
    assert target.foreground_known.all()
    assert not target.foreground.any()


def test_a_point_teaches_its_surroundings_and_what_is_far_only():
    target = encode(points((40.5, 30.5)), None, shape=(SIDE, SIDE))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(columns - 40, rows - 30)
    assert target.foreground[distance < POINT_RADIUS_PX - 0.5].all()
    assert not target.foreground[distance > POINT_RADIUS_PX + 0.5].any()
    between = (distance > POINT_RADIUS_PX + 0.5) & (distance < FAR_RADIUS_PX - 0.5)
    assert not target.foreground_known[between].any(), "nobody said how far the nucleus reaches"
    assert target.foreground_known[distance > FAR_RADIUS_PX + 0.5].all()
    np.testing.assert_array_equal(target.offset_known, target.foreground > 0)
    np.testing.assert_array_equal(target.nucleus, target.foreground)
    assert target.centre[30, 40] == target.centre.max() == 1


def test_offsets_lead_from_a_pixel_to_the_centre():
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = 1
    target = encode(points((4.5, 4.5)), labels, shape=(9, 9))
    assert (target.offset[:, 4, 4] * OFFSET_PX).tolist() == [0, 0]
    assert (target.offset[:, 2, 6] * OFFSET_PX).tolist() == [-2, 2], "x, then y"
    assert not target.offset[:, 0, 0].any()


def test_a_centre_outside_the_map_still_owns_its_pixels():
    labels = np.zeros((12, 12), np.int32)
    labels[:, :3] = 1
    target = encode(points((-2.0, 6.0)), labels, shape=(12, 12))
    assert target.offset_known[:, :3].all()
    assert target.offset[0, 5, 0] * OFFSET_PX == pytest.approx(-2.5)


def test_small_things_are_dropped_and_the_rest_renumbered():
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[10:13, 10:13] = 1
    labels[ellipse(50, 50, 8, 8, 0)] = 2
    found, prob = decoded(encoded(labels), min_area_px=16)
    assert set(np.unique(found)) == {0, 1}
    assert found[50, 50] == 1
    assert len(prob) == 2


def test_pixels_that_point_nowhere_belong_to_nobody():
    labels = np.zeros((SIDE, SIDE), np.int32)
    labels[ellipse(30, 30, 8, 8, 0)] = 1
    target = encoded(labels)
    target.foreground[60:80, 60:80] = 1
    found, _ = decoded(target)
    assert not found[60:80, 60:80].any()


def test_two_peaks_within_the_radius_are_one():
    heat = np.zeros((20, 20), np.float32)
    heat[10, 8], heat[10, 11] = 0.9, 0.8
    peaks, heights = find_peaks(heat, min_height=0.3, radius_px=4)
    assert peaks.tolist() == [[8, 10]]
    assert heights == pytest.approx([0.9])


def test_peaks_beyond_the_radius_are_two_and_low_ones_none():
    heat = np.zeros((20, 20), np.float32)
    heat[10, 4], heat[10, 14], heat[2, 2] = 0.9, 0.8, 0.2
    peaks, _ = find_peaks(heat, min_height=0.3, radius_px=4)
    assert peaks.tolist() == [[4, 10], [14, 10]]


def test_a_nucleus_just_outside_is_seen_inside():
    """Its heat reaches in, and around a point just outside nobody knows where the background begins."""
    found = encode(np.array([[-1.0, 8.0]]), None, shape=(16, 40))
    assert found.centre[8, 0] > 0.5
    assert not found.foreground_known[8, 10]
    assert found.foreground_known[8, 30]
